//! Why rustls refuses a hello, in words for the person who runs the device.

use super::{ClientHello, EC_POINT_FORMATS, KEY_SHARE, SIGNATURE_ALGORITHMS};

const TLS12: u16 = 0x0303;
const TLS13: u16 = 0x0304;

/// Numbers of what the default provider of rustls supports. A TLS 1.2 suite belongs to one kind of certificate key.
const TLS13_SUITES: [u16; 3] = [0x1301, 0x1302, 0x1303];
const ECDSA_SUITES: [u16; 3] = [0xc02b, 0xc02c, 0xcca9];
const RSA_SUITES: [u16; 3] = [0xc02f, 0xc030, 0xcca8];
const GROUPS: [u16; 3] = [0x001d, 0x0017, 0x0018];
const HYBRID_GROUP: u16 = 0x11ec;
const ECDSA_SCHEMES: [u16; 3] = [0x0403, 0x0503, 0x0603];
const PSS_SCHEMES: [u16; 3] = [0x0804, 0x0805, 0x0806];
const PKCS1_SCHEMES: [u16; 3] = [0x0401, 0x0501, 0x0601];

/// The cause, most telling first: a device that is too old in several ways gets the one that has to be mended first.
pub(super) fn refusal(hello: &ClientHello, have_rsa: bool, have_ecdsa: bool) -> Option<&'static str> {
    if hello.versions.contains(&TLS13) {
        return common(hello).or_else(|| refusal_13(hello, have_rsa, have_ecdsa));
    }
    let tls12 = if hello.versions.is_empty() { hello.legacy_version >= TLS12 } else { hello.versions.contains(&TLS12) };
    if !tls12 {
        return Some(
            "TLS 1.2 is not offered: set SchUseStrongCrypto and SystemDefaultTlsVersions for .NET, enable the TLS 1.2 client in \
             SCHANNEL on Windows 7 and 2008 R2, or allow legacy TLS for this site",
        );
    }
    common(hello).or_else(|| refusal_12(hello, have_rsa, have_ecdsa))
}

fn common(hello: &ClientHello) -> Option<&'static str> {
    if !hello.null_compression {
        return Some(
            "only compressed records are offered: no server accepts this hello, look for a broken TLS library on the device",
        );
    }
    if !hello.has(SIGNATURE_ALGORITHMS) {
        return Some(
            "no signature algorithms are offered, although the version is recent: a proxy or an old TLS library rewrites the hello",
        );
    }
    None
}

fn refusal_13(hello: &ClientHello, have_rsa: bool, have_ecdsa: bool) -> Option<&'static str> {
    if !offers(&hello.suites, &TLS13_SUITES) {
        return Some("TLS 1.3 is offered without any of its AES-GCM or ChaCha20 suites: a cipher suite policy on the device");
    }
    if !offers(&hello.groups, &GROUPS) && !hello.groups.contains(&HYBRID_GROUP) {
        return Some(NO_GROUP);
    }
    if !hello.has(KEY_SHARE) {
        return Some("TLS 1.3 is offered without a key share: a proxy or a broken TLS library rewrites the hello");
    }
    let schemes = &hello.signature_algorithms;
    let served = have_rsa && offers(schemes, &PSS_SCHEMES) || have_ecdsa && offers(schemes, &ECDSA_SCHEMES);
    if served { None } else { Some(NO_SCHEME) }
}

fn refusal_12(hello: &ClientHello, have_rsa: bool, have_ecdsa: bool) -> Option<&'static str> {
    let ecdsa = offers(&hello.suites, &ECDSA_SUITES);
    let rsa = offers(&hello.suites, &RSA_SUITES);
    match (ecdsa, rsa) {
        (false, false) => {
            return Some(
                "none of the offered cipher suites combines ECDHE with AES-GCM or ChaCha20: a custom SSL Cipher Suite Order policy or a \
                 hardening tool on the device, or an operating system before Windows 7",
            );
        }
        (true, false) if !have_ecdsa => {
            return Some(
                "this client (Windows 7 to 8.1, Server 2008 R2 to 2012 R2) needs an ECDSA certificate: add one to this site",
            );
        }
        (false, true) if !have_rsa => return Some("this client needs an RSA certificate: add one to this site"),
        _ => {}
    }
    if !offers(&hello.groups, &GROUPS) {
        return Some(NO_GROUP);
    }
    let schemes = &hello.signature_algorithms;
    let rsa_signs = offers(schemes, &PKCS1_SCHEMES) || offers(schemes, &PSS_SCHEMES);
    let served = have_rsa && rsa && rsa_signs || have_ecdsa && ecdsa && offers(schemes, &ECDSA_SCHEMES);
    if !served {
        return Some(NO_SCHEME);
    }
    if hello.has(EC_POINT_FORMATS) && !hello.uncompressed_points {
        return Some("uncompressed curve points are not offered: a broken TLS library on the device");
    }
    None
}

const NO_GROUP: &str = "none of X25519, P-256 and P-384 is offered: an ECC curve policy on the device";
const NO_SCHEME: &str = "no offered signature algorithm fits this site's certificates: add a certificate of the other kind (ECDSA or RSA), \
                         or lift the signature policy on the device";

fn offers(offered: &[u16], wanted: &[u16]) -> bool {
    offered.iter().any(|value| wanted.contains(value))
}
