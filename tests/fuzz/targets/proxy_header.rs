#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_fuzz::pieces::pieces;
use weir_fuzz::wire::{Wire, run};
use weir_fuzz::{proxy_protocol, seeds};

fuzz_target!(init: seeds::write(seeds::proxy_headers()), |input: &[u8]| {
    let Some((bytes, pieces)) = pieces(input) else { return };
    let read = |pieces: &[&[u8]]| {
        let mut wire = Wire::new(pieces);
        let answer = run(proxy_protocol::read(&mut wire));
        (answer, bytes.len() - wire.left())
    };
    let (answer, length) = read(&[bytes]);
    assert_eq!((answer.clone(), length), read(&pieces));
    let Ok(address) = answer else { return };
    // The header alone says the same, and no part of it does.
    assert_eq!(read(&[&bytes[..length]]).0, Ok(address));
    assert!(run(proxy_protocol::read(&mut Wire::new(&[&bytes[..length - 1]]))).is_err());
    if bytes.starts_with(b"PROXY ") {
        assert!(length <= 107 && bytes[..length].ends_with(b"\r\n"));
    } else {
        assert_eq!(length, 16 + usize::from(u16::from_be_bytes([bytes[14], bytes[15]])));
    }
});
