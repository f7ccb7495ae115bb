#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_fuzz::http::guard::chunks::Chunks;
use weir_fuzz::pieces::pieces;
use weir_fuzz::reference::{Chunked, chunked};
use weir_fuzz::seeds;

fn verdict(pieces: &[&[u8]]) -> (Option<usize>, bool) {
    let (mut chunks, mut read) = (Chunks::default(), 0);
    for piece in pieces {
        match chunks.read(piece) {
            Ok(here) => {
                assert!(here == piece.len() || chunks.is_done());
                read += here;
            }
            Err(_) => return (None, false),
        }
    }
    (Some(read), chunks.is_done())
}

fuzz_target!(init: seeds::write(seeds::bodies()), |input: &[u8]| {
    let Some((bytes, pieces)) = pieces(input) else { return };
    let own = verdict(&[bytes]);
    assert_eq!(own, verdict(&pieces));
    let other = match chunked(bytes) {
        Chunked::Whole(length, _) => (Some(length), true),
        Chunked::Partial => (Some(bytes.len()), false),
        Chunked::Bad => (None, false),
    };
    assert_eq!(own, other, "{}", bytes.escape_ascii());
});
