use super::*;

/// Sent by `openssl s_client -servername Gateway.Example.com -alpn h2,http/1.1`, OpenSSL 3.0.19.
const OPENSSL: &str = "\
    16030101520100014e0303879aa8334960a331b8bb9a42be743141c0924e242726c8d8bec1e9d7f094eb97203957c056e25f363de201a7ee3904dfc6\
    a414807feaeecd5eee87e7e78dcd3fe0003e130213031301c02cc030009fcca9cca8ccaac02bc02f009ec024c028006bc023c0270067c00ac0140039\
    c009c0130033009d009c003d003c0035002f00ff010000c7000000180016000013476174657761792e4578616d706c652e636f6d000b000403000102\
    000a00160014001d0017001e0019001801000101010201030104002300000010000e000c02683208687474702f312e310016000000170000000d002a\
    0028040305030603080708080809080a080b080408050806040105010601030303010302040205020602002b0009080304030303020301002d000201\
    01003300260024001d002070a577fb20fa0349f23baa315a18698852987252823d99bc997b38d9d197da73";

const FULL_WINDOWS: &str = "c028 c027 c014 c013 009f 009e 0039 0033 009d 009c 003d 003c 0035 002f c02c c02b c024 c023 c00a c009 006a \
                            0040 0038 0032 000a 0013";
const WINDOWS_7: &str = "c028 c027 c014 c013 009f 009e 009d 009c 003d 003c 0035 002f c02c c02b c024 c023 c00a c009 006a 0040 0038 0032 \
                         000a 0013";
const WINDOWS_7_TLS10: &str = "c014 c013 0035 002f c00a c009 0038 0032 000a 0013 0005 0004";

/// The offer of a client, to be written as the hello it would send.
#[derive(Clone)]
struct Offer {
    version: u16,
    suites: Vec<u16>,
    extensions: Vec<(u16, Vec<u8>)>,
}

impl Offer {
    fn new(version: u16, suites: &str) -> Self {
        Self { version, suites: numbers(suites), extensions: Vec::new() }
    }

    fn with(mut self, kind: u16, data: Vec<u8>) -> Self {
        self.extensions.push((kind, data));
        self
    }

    fn without(mut self, kind: u16) -> Self {
        self.extensions.retain(|(other, _)| *other != kind);
        self
    }

    fn empty(self, kinds: &str) -> Self {
        numbers(kinds).into_iter().fold(self, |offer, kind| offer.with(kind, Vec::new()))
    }

    fn name(self, name: &str) -> Self {
        let mut entry = vec![0];
        entry.extend(sized(2, name.as_bytes()));
        self.with(SERVER_NAME, sized(2, &entry))
    }

    fn groups(self, groups: &str) -> Self {
        self.with(SUPPORTED_GROUPS, sized(2, &wire(&numbers(groups))))
    }

    fn schemes(self, schemes: &str) -> Self {
        self.with(SIGNATURE_ALGORITHMS, sized(2, &wire(&numbers(schemes))))
    }

    fn versions(self, versions: &str) -> Self {
        self.with(SUPPORTED_VERSIONS, sized(1, &wire(&numbers(versions))))
    }

    fn points(self, formats: &[u8]) -> Self {
        self.with(EC_POINT_FORMATS, sized(1, formats))
    }

    fn alpn(self, names: &[&[u8]]) -> Self {
        let list: Vec<u8> = names.iter().flat_map(|name| sized(1, name)).collect();
        self.with(ALPN, sized(2, &list))
    }

    fn message(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend([7; 32]);
        body.push(0);
        body.extend(sized(2, &wire(&self.suites)));
        body.extend([1, 0]);
        let extensions: Vec<u8> =
            self.extensions.iter().flat_map(|(kind, data)| [kind.to_be_bytes().to_vec(), sized(2, data)].concat()).collect();
        if !extensions.is_empty() {
            body.extend(sized(2, &extensions));
        }
        [vec![CLIENT_HELLO], sized(3, &body)].concat()
    }

    fn hello(&self) -> ClientHello {
        whole(&records(&self.message(), MAX_RECORD))
    }

    fn ja4(&self) -> String {
        self.hello().ja4()
    }
}

fn numbers(text: &str) -> Vec<u16> {
    text.split_whitespace().map(|number| u16::from_str_radix(number, 16).unwrap()).collect()
}

fn wire(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

fn sized(width: usize, data: &[u8]) -> Vec<u8> {
    [&data.len().to_be_bytes()[8 - width..], data].concat()
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| [vec![HANDSHAKE, 3, 1], sized(2, part)].concat()).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[track_caller]
fn whole(bytes: &[u8]) -> ClientHello {
    match parse(bytes) {
        Parsed::Hello(hello) => hello,
        other => panic!("{other:?}"),
    }
}

fn windows_7() -> Offer {
    Offer::new(0x0303, WINDOWS_7)
        .with(0xff01, vec![0])
        .name("agent.example.com")
        .empty("0005 0017")
        .groups("0017 0018")
        .points(&[0])
        .schemes("0601 0603 0401 0501 0201 0403 0503 0203 0202")
}

fn windows_8(suites: &str, schemes: &str) -> Offer {
    Offer::new(0x0303, suites)
        .with(0xff01, vec![0])
        .name("agent.example.com")
        .empty("0005 0023 0017")
        .groups("0017 0018")
        .points(&[0])
        .schemes(schemes)
}

fn windows_7_tls10() -> Offer {
    Offer::new(0x0301, WINDOWS_7_TLS10)
        .with(0xff01, vec![0])
        .name("agent.example.com")
        .empty("0005")
        .groups("0017 0018")
        .points(&[0])
}

fn modern() -> Offer {
    Offer::new(0x0303, "1301 1302 1303")
        .name("agent.example.com")
        .groups("001d 0017")
        .schemes("0403 0804")
        .versions("0304 0303")
        .empty("0033")
}

#[test]
fn a_real_hello_is_read_in_full() {
    let hello = whole(&unhex(OPENSSL));
    assert_eq!((hello.legacy_version, hello.highest_version()), (0x0303, 0x0304));
    assert_eq!(hello.versions, [0x0304, 0x0303, 0x0302, 0x0301]);
    assert_eq!((hello.suites.len(), hello.suites[..3].to_vec()), (31, numbers("1302 1303 1301")));
    assert_eq!(hello.groups, numbers("001d 0017 001e 0019 0018 0100 0101 0102 0103 0104"));
    assert_eq!(hello.signature_algorithms[..3], [0x0403, 0x0503, 0x0603]);
    assert_eq!(hello.alpn, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    assert_eq!(hello.sni.as_deref(), Some("gateway.example.com"));
    assert_eq!(hello.extensions, numbers("0000 000b 000a 0023 0010 0016 0017 000d 002b 002d 0033"));
    assert_eq!((hello.null_compression, hello.uncompressed_points), (true, true));
    assert_eq!(hello.ja4(), "t13d3111h2_e8f1e7e78f70_1f22a2ca17c4");
    assert_eq!([(true, false), (false, true), (true, true)].map(|(rsa, ecdsa)| hello.explain(rsa, ecdsa)), [None; 3]);
}

#[test]
fn old_windows_has_its_known_fingerprints() {
    let schemes_10 = "0401 0501 0201 0403 0503 0203 0202 0601 0603";
    for (offer, fingerprint) in [
        (windows_7_tls10(), "t10d120500_d94e65cdb899_c35b4a14be45"),
        (windows_7(), "t12d240700_9295eb73ea51_71440d09e7ee"),
        (windows_8(FULL_WINDOWS, "0401 0501 0601 0201 0403 0503 0603 0203 0202"), "t12d260800_db6bc8f7861c_0570a03f4bb4"),
        // The same with the NPN and ALPN of the browser it was captured from.
        (
            windows_8(FULL_WINDOWS, "0401 0501 0601 0201 0403 0503 0603 0203 0202").empty("3374").alpn(&[b"spdy/3", b"http/1.1"]),
            "t12d2610s3_db6bc8f7861c_8fcf90c090cb",
        ),
    ] {
        assert_eq!(offer.ja4(), fingerprint);
    }
    let windows_10 = windows_8("c02c", schemes_10).ja4();
    assert_eq!(windows_10.rsplit('_').next(), Some("16bbda4055b2"));
}

/// Fingerprints published by others, of hellos that shuffle extensions and hold GREASE wherever it may be.
#[test]
fn fingerprints_agree_with_other_implementations() {
    let chrome = Offer::new(0x0303, "0a0a 1301 1302 1303 c02b c02f c02c c030 cca9 cca8 c013 c014 009c 009d 002f 0035")
        .empty("fafa 0017 001b 0023 0005 0012 0015 0033 002d 4469")
        .name("www.example.com")
        .with(0xff01, vec![0])
        .groups("2a2a 001d 0017 0018")
        .points(&[0])
        .alpn(&[b"h2", b"http/1.1"])
        .schemes("0403 0804 0401 0503 0805 0501 0806 0601")
        .versions("4a4a 0304 0303")
        .empty("7a7a");
    assert_eq!(chrome.ja4(), "t13d1516h2_8daaf6152771_e5627efa2ab1");
    let safari = Offer::new(
        0x0303,
        "3a3a 1301 1302 1303 c02c c02b cca9 c030 c02f cca8 c00a c009 c014 c013 009d 009c 0035 002f c008 c012 000a",
    )
    .empty("1a1a")
    .name("www.example.com")
    .empty("0017 ff01 0005 0012 0033 002d 001b 0015")
    .groups("6a6a 001d 0017 0018 0019")
    .points(&[0])
    .alpn(&[b"h2", b"http/1.1"])
    .schemes("0403 0804 0401 0503 0805 0805 0501 0806 0601 0201")
    .versions("baba 0304 0303 0302 0301")
    .empty("fafa");
    assert_eq!(safari.ja4(), "t13d2014h2_a09f3c656075_e42f34c56612");
    let java = Offer::new(
        0x0303,
        "1302 1301 1303 c02c c02b cca9 c030 cca8 c02f 009f ccaa 009e c024 c028 c023 c027 006b 0067 c00a c014 c009 c013 0039 0033 009d \
         009c 003d 003c 0035 002f 00ff",
    )
    .name("www.example.com")
    .empty("0005 0011 0017 0023 002d 0032 0033")
    .groups("001d 0017")
    .points(&[0])
    .schemes("0403 0503 0603 0807 0808 0804 0805 0806 0809 080a 080b 0401 0501 0601 0303 0301")
    .versions("0304 0303");
    assert_eq!(java.ja4(), "t13d311200_e8f1e7e78f70_6077d120928a");
}

#[test]
fn the_clear_part_of_a_fingerprint() {
    let start = |offer: Offer| offer.ja4().split('_').next().unwrap().to_owned();
    let suite = "c02b";
    for (offer, expected) in [
        (Offer::new(0x0300, suite), "ts3i010000"),
        (Offer::new(0x0302, suite), "t11i010000"),
        (Offer::new(0x0305, suite), "t00i010000"),
        (Offer::new(0x0303, suite).name("192.0.2.1"), "t12d010100"),
        (Offer::new(0x0303, suite).alpn(&[b"x"]), "t12i0101xx"),
        (Offer::new(0x0303, suite).alpn(&[b"\xab\xcd"]), "t12i0101ad"),
        (Offer::new(0x0303, suite).alpn(&[b"h\xcd"]), "t12i01016d"),
        (Offer::new(0x0303, suite).alpn(&[]), "t12i010100"),
        (Offer::new(0x0303, &"c02b ".repeat(120)), "t12i990000"),
    ] {
        assert_eq!(start(offer), expected);
    }
    assert_eq!(Offer::new(0x0303, "").ja4(), "t12i000000_000000000000_000000000000");
}

#[test]
fn names_that_can_be_routed_by() {
    for (name, expected) in [
        ("Agent.EXAMPLE.com", Some("agent.example.com")),
        ("agent.example.com.", Some("agent.example.com")),
        ("xn--caf-dma.example", Some("xn--caf-dma.example")),
        ("a_b", Some("a_b")),
        ("192.0.2.1", None),
        ("2001:db8::1", None),
        ("", None),
        (".", None),
        ("a..b", None),
        ("-a.example", None),
        ("a b", None),
        ("caf\u{e9}.example", None),
        ("a\0b", None),
    ] {
        assert_eq!(Offer::new(0x0303, "c02b").name(name).hello().sni.as_deref(), expected, "{name}");
    }
    assert_eq!(Offer::new(0x0303, "c02b").name(&"x".repeat(64)).hello().sni, None);
}

#[test]
fn refusals_are_explained() {
    let says = |offer: &Offer, rsa, ecdsa, words: &str| {
        let text = offer.hello().explain(rsa, ecdsa).unwrap_or_else(|| panic!("no refusal about {words}"));
        assert!(text.contains(words), "{text}");
    };
    let accepted = |offer: &Offer, rsa, ecdsa| assert_eq!(offer.hello().explain(rsa, ecdsa), None);

    says(&windows_7_tls10(), true, true, "SchUseStrongCrypto");
    says(&modern().without(SUPPORTED_VERSIONS).versions("0302"), true, true, "TLS 1.2 is not offered");
    for offer in [windows_7(), windows_8(FULL_WINDOWS, "0401 0403")] {
        says(&offer, true, false, "needs an ECDSA certificate");
        accepted(&offer, false, true);
        accepted(&offer, true, true);
    }
    let rsa_only = Offer::new(0x0303, "c02f").groups("0017").schemes("0401 0403");
    says(&rsa_only, false, true, "needs an RSA certificate");
    accepted(&rsa_only, true, false);
    says(&Offer { suites: numbers("c028 c014 009d 002f"), ..windows_7() }, true, true, "SSL Cipher Suite Order");
    says(&windows_7().without(SUPPORTED_GROUPS).groups("0019"), true, true, "curve policy");
    says(&windows_7().without(SIGNATURE_ALGORITHMS), true, true, "no signature algorithms");
    says(&windows_7().without(SIGNATURE_ALGORITHMS).schemes("0201 0203"), true, true, "signature algorithm fits");
    says(&windows_7().without(EC_POINT_FORMATS).points(&[1]), true, true, "uncompressed curve points");

    accepted(&modern(), true, false);
    accepted(&modern(), false, true);
    accepted(&modern().without(SUPPORTED_GROUPS).groups("11ec"), false, true);
    says(&modern().without(SIGNATURE_ALGORITHMS).schemes("0804"), false, true, "signature algorithm fits");
    says(&modern().without(KEY_SHARE), true, true, "key share");
    says(&modern().without(SUPPORTED_GROUPS).groups("0019"), true, true, "curve policy");
    says(&Offer { suites: numbers("c02b"), ..modern() }, true, true, "suite policy");

    let mut compressed = modern().hello();
    compressed.null_compression = false;
    assert!(compressed.explain(true, true).unwrap().contains("compressed"));
}

#[test]
fn a_hello_may_span_records() {
    let message = windows_7().message();
    let expected = windows_7().hello();
    for size in [1 + message.len() / MAX_RECORDS, 40, message.len() - 1] {
        let mut bytes = records(&message, size);
        assert_eq!(whole(&bytes), expected);
        bytes.extend_from_slice(b"\x14\x03\x03 what follows is not looked at");
        assert_eq!(whole(&bytes), expected);
    }
    assert_eq!(parse(&records(&message, 1)), Parsed::Malformed("hello spread over too many records"));
    let mut interrupted = records(&message, 40);
    interrupted[45] = 23;
    assert_eq!(parse(&interrupted), Parsed::Malformed("hello interrupted by another record"));
}

#[test]
fn every_prefix_asks_for_more_and_comes_nearer() {
    let message = windows_7().message();
    for size in [40, MAX_RECORD] {
        let bytes = records(&message, size);
        for length in 0..bytes.len() {
            let Parsed::Incomplete(needed) = parse(&bytes[..length]) else { panic!("{:?}", parse(&bytes[..length])) };
            assert!(length < needed && needed <= bytes.len(), "{length} {needed} {}", bytes.len());
        }
        assert_eq!(whole(&bytes), windows_7().hello());
    }
}

#[test]
fn what_is_no_hello() {
    let message = windows_7().message();
    let broken = |at: usize, value: u8| {
        let mut bytes = records(&message, MAX_RECORD);
        bytes[at] = value;
        bytes
    };
    let large = [vec![CLIENT_HELLO], sized(3, &vec![0; MAX_HELLO + 1])].concat();
    for (bytes, expected) in [
        (b"GET / HTTP/1.1\r\n".to_vec(), Parsed::NotTls),
        (b"\x16\x02\x00\x00\x05".to_vec(), Parsed::NotTls),
        (b"\x15\x03\x01\x00\x02\x01\x00".to_vec(), Parsed::Malformed("the first record is no handshake")),
        (b"\x80\x2e\x01\x00\x02".to_vec(), Parsed::Malformed("SSL 2.0 hello")),
        (b"\x16\x03\x01\x00\x00".to_vec(), Parsed::Malformed("empty record")),
        (b"\x16\x03\x01\x40\x01".to_vec(), Parsed::Malformed("record too large")),
        (broken(5, 2), Parsed::Malformed("the first message is no ClientHello")),
        (records(&large, MAX_RECORD), Parsed::Malformed("hello too large")),
        (broken(43, 33), Parsed::Malformed("bad session id")),
        (broken(45, 47), Parsed::Malformed("bad cipher suites")),
    ] {
        assert_eq!(parse(&bytes), expected);
    }
}

#[test]
fn bad_extensions_are_malformed() {
    let offer = || Offer::new(0x0303, "c02b");
    let many = (0..=MAX_EXTENSIONS).fold(offer(), |offer, kind| offer.with(u16::try_from(0x5000 + kind).unwrap(), Vec::new()));
    for (offer, reason) in [
        (offer().empty("0017 0017"), "duplicate extension"),
        (many, "too many extensions"),
        (offer().with(SERVER_NAME, vec![0, 9]), "bad server_name"),
        (offer().with(SUPPORTED_GROUPS, vec![0, 1, 0]), "bad supported_groups"),
        (offer().with(SUPPORTED_GROUPS, vec![0, 2, 0, 23, 0]), "bad supported_groups"),
        (offer().with(SIGNATURE_ALGORITHMS, vec![]), "bad signature_algorithms"),
        (offer().with(EC_POINT_FORMATS, vec![2, 0]), "bad ec_point_formats"),
        (offer().with(ALPN, vec![0, 2, 5, b'h']), "bad alpn"),
        (offer().with(SUPPORTED_VERSIONS, vec![3, 3, 4, 3]), "bad supported_versions"),
    ] {
        assert_eq!(parse(&records(&offer.message(), MAX_RECORD)), Parsed::Malformed(reason));
    }
}

#[test]
fn no_change_of_a_byte_panics() {
    for bytes in [unhex(OPENSSL), records(&windows_7().message(), 50)] {
        for at in 0..bytes.len() {
            for flip in [0x01, 0x04, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] ^= flip;
                if let Parsed::Hello(hello) = parse(&changed) {
                    assert!(hello.ja4().len() >= 36);
                    let _ = (hello.explain(true, false), hello.explain(false, true), hello.highest_version());
                }
                for length in [at, at + 1, changed.len() - at] {
                    let _ = parse(&changed[..length]);
                }
            }
        }
    }
}

#[test]
fn noise_never_panics() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..20_000_usize {
        let mut bytes: Vec<u8> = Vec::with_capacity(128);
        while bytes.len() < round % 120 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend(state.to_le_bytes());
        }
        let body = [vec![CLIENT_HELLO], sized(3, &bytes)].concat();
        let _ = parse(&bytes);
        let _ = parse(&records(&body, MAX_RECORD));
    }
}
