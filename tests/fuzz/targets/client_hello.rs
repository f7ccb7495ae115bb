#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_fuzz::client_hello::{MAX_HELLO, Parsed, parse};
use weir_fuzz::seeds;

fuzz_target!(init: seeds::write(seeds::hellos()), |bytes: &[u8]| {
    let parsed = parse(bytes);
    match &parsed {
        Parsed::Incomplete(needed) => {
            assert!(*needed > bytes.len() && *needed < 2 * MAX_HELLO, "{needed}");
        }
        Parsed::NotTls | Parsed::Malformed(_) => {}
        Parsed::Hello(hello) => {
            // Text for people and fingerprints take whatever was offered.
            assert_eq!(hello.ja4().split('_').count(), 3);
            for (rsa, ecdsa) in [(true, false), (false, true), (true, true)] {
                let _ = hello.explain(rsa, ecdsa);
            }
            assert!(hello.sni.as_ref().is_none_or(|name| !name.is_empty() && name.is_ascii() && !name.contains(['/', '@', ' ', ':'])));
            // What follows a hello is not looked at.
            assert_eq!(parse(&[bytes, b"\x16\x03\x01\xff\xff"].concat()), parsed);
        }
    }
    // Every part of it is a beginning, and none is whole before the whole is.
    let mut needed = 0;
    for length in (0..bytes.len()).step_by(1 + bytes.len() / 64) {
        match parse(&bytes[..length]) {
            Parsed::Incomplete(more) => assert!(more >= needed && more > length),
            early => {
                assert_eq!(early, parsed, "at {length}");
                break;
            }
        }
        needed = length;
    }
});
