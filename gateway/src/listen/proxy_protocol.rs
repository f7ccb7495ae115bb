//! The PROXY protocol, versions 1 and 2, read byte for byte so that nothing behind it is consumed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest header of version 1.
const MAX_V1: usize = 107;
/// The longest header of version 2 that is read: addresses and a few extensions.
const MAX_V2: usize = 2048;
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Reads a header. Answers the client's address, or `None` when the proxy speaks for itself (LOCAL, UNKNOWN).
///
/// # Errors
/// What is wrong with the header: it is required, never guessed.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<IpAddr>, String> {
    let mut start = [0u8; 12];
    stream.read_exact(&mut start).await.map_err(|error| format!("header: {error}"))?;
    if start == SIGNATURE { read_v2(stream).await } else { read_v1(stream, start).await }
}

async fn read_v1(stream: &mut (impl AsyncRead + Unpin), start: [u8; 12]) -> Result<Option<IpAddr>, String> {
    if !start.starts_with(b"PROXY ") {
        return Err("no PROXY header".to_owned());
    }
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() >= MAX_V1 {
            return Err("version 1: line too long".to_owned());
        }
        line.push(stream.read_u8().await.map_err(|error| format!("version 1: {error}"))?);
    }
    let text = std::str::from_utf8(&line).map_err(|_| "version 1: not ASCII".to_owned())?;
    let fields: Vec<&str> = text.strip_suffix("\r\n").unwrap_or(text).split(' ').collect();
    match fields.as_slice() {
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", family @ ("TCP4" | "TCP6"), source, destination, source_port, destination_port] => {
            let address = |text: &str| text.parse::<IpAddr>().ok().filter(|ip| ip.is_ipv4() == (*family == "TCP4"));
            let client = address(source).ok_or("version 1: bad source address")?;
            address(destination).ok_or("version 1: bad destination address")?;
            let ports = [source_port, destination_port].iter().all(|port| is_port(port));
            if ports { Ok(Some(client.to_canonical())) } else { Err("version 1: bad port".to_owned()) }
        }
        _ => Err("version 1: bad fields".to_owned()),
    }
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

async fn read_v2(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<IpAddr>, String> {
    let wrong = |error: std::io::Error| format!("version 2: {error}");
    let version_command = stream.read_u8().await.map_err(wrong)?;
    let family = stream.read_u8().await.map_err(wrong)?;
    let length = usize::from(stream.read_u16().await.map_err(wrong)?);
    if length > MAX_V2 {
        return Err(format!("version 2: {length} bytes of addresses"));
    }
    let mut rest = vec![0u8; length];
    stream.read_exact(&mut rest).await.map_err(wrong)?;
    match (version_command, family >> 4) {
        (0x20, _) | (0x21, 0) => Ok(None),
        (0x21, 1) => {
            let bytes: [u8; 4] =
                rest.get(..4).filter(|_| length >= 12).and_then(|bytes| bytes.try_into().ok()).ok_or("version 2: short")?;
            Ok(Some(Ipv4Addr::from(bytes).into()))
        }
        (0x21, 2) => {
            let bytes: [u8; 16] =
                rest.get(..16).filter(|_| length >= 36).and_then(|bytes| bytes.try_into().ok()).ok_or("version 2: short")?;
            Ok(Some(Ipv6Addr::from(bytes).to_canonical()))
        }
        (0x21, 3) => Ok(None),
        _ => Err("version 2: bad version or family".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], want: Result<Option<&str>, &str>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut input = bytes;
        let got = runtime.block_on(read(&mut input));
        match want {
            Ok(address) => {
                assert_eq!(got, Ok(address.map(|text| text.parse().unwrap())), "{bytes:?}");
                assert_eq!(input, b"GET", "nothing behind the header is consumed");
            }
            Err(text) => assert!(got.as_ref().is_err_and(|error| error.contains(text)), "{got:?} for {bytes:?}"),
        }
    }

    #[test]
    fn both_versions_are_read() {
        check(b"PROXY TCP4 203.0.113.9 192.0.2.1 5 443\r\nGET", Ok(Some("203.0.113.9")));
        check(b"PROXY TCP6 2001:db8::1 2001:db8::2 5 443\r\nGET", Ok(Some("2001:db8::1")));
        check(b"PROXY UNKNOWN\r\nGET", Ok(None));
        check(b"PROXY TCP4 x y 5 443\r\nGET", Err("bad source"));
        check(b"PROXY TCP4 2001:db8::1 192.0.2.1 5 443\r\nGET", Err("bad source"));
        check(b"PROXY TCP6 2001:db8::1 192.0.2.1 5 443\r\nGET", Err("bad destination"));
        check(b"PROXY TCP4 203.0.113.9 192.0.2.1 5 65536\r\nGET", Err("bad port"));
        check(b"PROXY TCP4 203.0.113.9 192.0.2.1 +5 443\r\nGET", Err("bad port"));
        check(b"PROXY TCP4 203.0.113.9 192.0.2.1 5 443 \r\nGET", Err("bad fields"));
        check(b"GET / HTTP/1.1\r\n\r\n", Err("no PROXY header"));
        check(&[b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat(), Err("too long"));
        let v2 = |rest: &[u8]| [SIGNATURE.as_slice(), rest, b"GET"].concat();
        check(&v2(&[0x21, 0x11, 0, 12, 203, 0, 113, 9, 192, 0, 2, 1, 0, 5, 1, 187]), Ok(Some("203.0.113.9")));
        check(&v2(&[0x20, 0, 0, 0]), Ok(None));
        check(&v2(&[0x21, 0x11, 0, 4, 203, 0, 113, 9]), Err("short"));
        check(&v2(&[0x31, 0x11, 0, 0]), Err("bad version"));
        check(&v2(&[0x21, 0x11, 0xff, 0xff]), Err("bytes of addresses"));
    }
}
