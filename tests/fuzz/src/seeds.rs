//! Where a run starts: what is known to matter, written into the directory that `WEIR_SEEDS` names.

use std::path::Path;

use crate::table;

/// Cuts for [`pieces`](crate::pieces::pieces).
const CUTS: [u8; 4] = [63, 0, 6, 17];

/// Writes seeds, when there is a directory for them. For the `init` of a target.
///
/// # Panics
/// The directory cannot be written to.
pub fn write(seeds: impl IntoIterator<Item = Vec<u8>>) {
    let Some(directory) = std::env::var_os("WEIR_SEEDS") else { return };
    for (number, seed) in seeds.into_iter().enumerate() {
        std::fs::write(Path::new(&directory).join(format!("seed-{number}")), seed).expect("a directory for seeds");
    }
}

/// The cases of the smuggling table, those that are not too long.
#[must_use]
pub fn heads() -> Vec<Vec<u8>> {
    let cases = table::cases().into_iter().map(|case| case.bytes("a.example"));
    cases.filter(|bytes| bytes.len() < 1024).map(cut).collect()
}

/// The bodies of the chunked ones.
#[must_use]
pub fn bodies() -> Vec<Vec<u8>> {
    let body = |bytes: Vec<u8>| {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let chunked = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase().contains("\r\ntransfer-encoding: chunked");
        chunked.then(|| cut(bytes[end + 4..].to_vec()))
    };
    table::cases().into_iter().filter_map(|case| body(case.bytes("a.example"))).filter(|body| body.len() < 1024).collect()
}

/// Responses of every framing, and some that are none.
#[must_use]
pub fn responses() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 12] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nConnection: close, x\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nto the end",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n\x81\0",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nY : c\r\n\r\n",
    ];
    texts.into_iter().map(|bytes| cut(bytes.to_vec())).collect()
}

/// Requests in HTTP/2, with and without a body.
#[must_use]
pub fn frames() -> Vec<Vec<u8>> {
    let head = |method: &str, more: &[(&str, &str)]| {
        let usual = [(":method", method), (":scheme", "https"), (":authority", "a.example"), (":path", "/a?b")];
        let literal = |(name, value): &(&str, &str)| {
            [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
        };
        usual.iter().chain(more).flat_map(literal).collect::<Vec<u8>>()
    };
    let frame = |kind: u8, flags: u8, payload: &[u8]| {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    };
    let get = frame(1, 5, &head("GET", &[("cookie", "a=1"), ("te", "trailers"), ("x-y", "z")]));
    let post = head("POST", &[("content-length", "5"), ("host", "A.example:443"), ("expect", "100-continue")]);
    let post = [frame(1, 4, &post), frame(0, 1, b"hello")].concat();
    let split = head("PUT", &[("transfer_encoding", "chunked")]);
    let split = [frame(1, 0, &split[..9]), frame(9, 4, &split[9..]), frame(0, 0, b"x"), frame(3, 0, &[0, 0, 0, 8])].concat();
    // Indexed fields, a Huffman code and a new table entry.
    let indexed = frame(1, 5, b"\x82\x87\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff");
    [get, post, split, indexed].map(cut).to_vec()
}

/// Headers of both versions of the PROXY protocol.
#[must_use]
pub fn proxy_headers() -> Vec<Vec<u8>> {
    let version_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x09\xc0\0\x02\x01\0\x05\x01\xbbGET";
    let long: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x28\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\0\x05\x01\xbb\x04\0\x01\0";
    let texts: [&[u8]; 3] =
        [b"PROXY TCP4 203.0.113.9 192.0.2.1 5 443\r\nGET", b"PROXY TCP6 2001:db8::1 2001:db8::2 5 443\r\n", b"PROXY UNKNOWN\r\n"];
    texts.into_iter().chain([version_2, long]).map(|bytes| cut(bytes.to_vec())).collect()
}

/// A hello with what is read of one.
#[must_use]
pub fn hellos() -> Vec<Vec<u8>> {
    let long = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let short = |bytes: &[u8]| [&[bytes.len() as u8], bytes].concat();
    let extension = |kind: u16, data: &[u8]| [kind.to_be_bytes().as_slice(), &long(data)].concat();
    let extensions = [
        extension(0, &long(&[&[0], long(b"a.example").as_slice()].concat())),
        extension(10, &long(&[0, 29, 0, 23])),
        extension(11, &short(&[0])),
        extension(13, &long(&[4, 3, 8, 4])),
        extension(16, &long(&[short(b"h2"), short(b"http/1.1")].concat())),
        extension(43, &short(&[3, 4, 3, 3])),
        extension(0x0a0a, &[]),
    ]
    .concat();
    let body =
        [&[3, 3], [7; 32].as_slice(), &short(&[]), &long(&[0x13, 1, 0xc0, 0x2b]), &short(&[0]), &long(&extensions)].concat();
    let message = [&[1, 0], long(&body).as_slice()].concat();
    let record = |part: &[u8]| [&[22, 3, 1], long(part).as_slice()].concat();
    let (first, second) = message.split_at(message.len() / 2);
    vec![record(&message), [record(first), record(second)].concat()]
}

fn cut(bytes: Vec<u8>) -> Vec<u8> {
    [CUTS.as_slice(), &bytes].concat()
}
