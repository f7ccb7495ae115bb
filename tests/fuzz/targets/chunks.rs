#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use weir_fuzz::http::guard::chunks::Chunks;
use weir_fuzz::pieces::pieces;
use weir_fuzz::reference::{Chunked, chunked};
use weir_fuzz::seeds;

/// How much belongs to the body, what it carries, and whether it is over.
fn verdict(pieces: &[&[u8]]) -> Option<(usize, Vec<u8>, bool)> {
    let (mut chunks, mut input, mut trailers) = (Chunks::default(), BytesMut::new(), Vec::new());
    let (mut came, mut data) = (0, Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        came += piece.len();
        while let Some(bytes) = chunks.next(&mut input, &mut trailers).ok()? {
            data.extend_from_slice(&bytes);
        }
        if chunks.is_done() {
            break;
        }
        assert!(input.is_empty(), "held without need");
    }
    Some((came - input.len(), data, chunks.is_done()))
}

fuzz_target!(init: seeds::write(seeds::bodies()), |input: &[u8]| {
    let Some((bytes, pieces)) = pieces(input) else { return };
    let own = verdict(&[bytes]);
    assert_eq!(own, verdict(&pieces));
    match (own, chunked(bytes)) {
        (Some((length, data, true)), Chunked::Whole(other, body)) => assert_eq!((length, data), (other, body)),
        (Some((length, _, false)), Chunked::Partial) => assert_eq!(length, bytes.len()),
        (None, Chunked::Bad) => {}
        (own, other) => panic!("{own:?} {other:?}: {}", bytes.escape_ascii()),
    }
});
