//! Cases that are generated: each byte in each place where some server forgives it.

use super::table::Case;
use super::table::case;

/// Where a byte is put, for `@`; the verdict; and the bytes that are legal or mean something else there.
const PLACES: [(&str, &str, &[u8]); 22] = [
    ("{post}Transfer-Encoding@: chunked\\r\\n\\r\\n0\\r\\n\\r\\n", "R400 *", b":+-_0"),
    ("{post}Transfer-Encoding:@chunked\\r\\n\\r\\n0\\r\\n\\r\\n", "R400 *", b" \t"),
    ("{post}Transfer-Encoding: @ chunked\\r\\n\\r\\n0\\r\\n\\r\\n", "R400 *", b" \t"),
    ("{post}Transfer-Encoding: chunked@\\r\\n\\r\\n0\\r\\n\\r\\n", "R400 *", b" \t"),
    ("{post}@Transfer-Encoding: chunked\\r\\nContent-Length: 5\\r\\n\\r\\n0\\r\\n\\r\\n", "R400 *", b"+-_0"),
    // A line end with something in it.
    ("{post}X: y@\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n", "R400 *", b"\r"),
    ("{post}X: y\\r@Transfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n", "R400 *", b"\n"),
    ("{post}X: y\\r@\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n", "R400 *", b""),
    ("{post}Transfer-Encoding: chunked\\r@\\r\\n\\r\\n0\\r\\n\\r\\n", "R400 *", b"\n"),
    ("{post}Transfer-Encoding@\\r\\n: chunked\\r\\n\\r\\n0\\r\\n\\r\\n", "R400 *", b""),
    ("{post}Content-Length: 5\\r\\n@\\r\\nhello", "R400 *", b""),
    ("{post}Content-Length@: 5\\r\\n\\r\\nhello", "R400 *", b":+-_0"),
    ("{post}Content-Length:@5\\r\\n\\r\\nhello", "R400 *", b" \t0123456789"),
    ("{post}Content-Length: 5@\\r\\n\\r\\nhello", "R400 *", b" \t0123456789"),
    ("GET@/case HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n", "R400 *", b" "),
    ("@GET /case HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n", "R400 *", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    ("GET /case@HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n", "R400 *", b" "),
    ("GET /case HTTP/1.1@\\r\\nHost: {host}\\r\\n\\r\\n", "R400 *", b""),
    ("GET /case HTTP/1.1\\r\\nHost@: {host}\\r\\n\\r\\n", "R400 *", b":"),
    (
        "GET /case HTTP/1.1\\r\\nHost: {host}@b\\r\\n\\r\\n",
        "R400 *",
        b"-_.0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    ),
    ("{chunked}5@\\r\\nhello\\r\\n0\\r\\n\\r\\n", "X -", b"0123456789abcdefABCDEF;"),
    ("{chunked}@5\\r\\nhello\\r\\n0\\r\\n\\r\\n", "X -", b"0123456789abcdefABCDEF"),
];

/// Every byte that is worth it: the control bytes, those that separate something, and both ends of what is not ASCII.
const BYTES: &[u8] =
    b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\t\n\x0b\x0c\r\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\
    \x7f\x80\x85\xa0\xff \"(),/:;<=>?@[\\]{}+-_0";

/// The generated cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (place, verdict, legal) in PLACES {
        for byte in BYTES.iter().filter(|byte| !legal.contains(byte)) {
            let bytes = place.replace('@', &format!("\\x{byte:02x}"));
            cases.push(case("generated", &format!("M {verdict} {bytes}")));
        }
    }
    cases
}
