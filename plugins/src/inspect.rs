//! What can be said of a plugin file before it is compiled and from its type.

use wasmtime::component::Component;

use crate::capability::{CAPABILITIES, of_interface};
use crate::contract::{NEWEST, SUPPORTED};
use crate::error::LoadError;

/// The contract's package name.
const PACKAGE: &str = "weir:policy/";

/// WASI interfaces that the host links with nothing behind them: no arguments, no environment, no directory, no input, and no socket can be
/// made (`pool.rs`). Runtimes of languages import them whether or not a program uses them.
const WASI: [&str; 6] = ["wasi:cli/", "wasi:clocks/", "wasi:io/", "wasi:random/", "wasi:filesystem/", "wasi:sockets/"];

/// Whether bytes end in the middle of a section: a file that is still being written.
#[must_use]
pub(crate) fn is_cut(bytes: &[u8]) -> bool {
    // What is no WebAssembly is judged, not waited for.
    if !b"\0asm".starts_with(bytes.get(..4).unwrap_or(bytes)) {
        return false;
    }
    let Some(mut rest) = bytes.get(8..) else { return true };
    while let Some((_, after_id)) = rest.split_first() {
        let Some((length, payload)) = leb128(after_id) else { return true };
        match payload.get(length..) {
            Some(next) => rest = next,
            None => return true,
        }
    }
    false
}

fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0usize;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index + 1..).unwrap_or_default()));
        }
    }
    None
}

/// The first eight bytes: magic, version and layer.
pub(crate) fn check_header(bytes: &[u8]) -> Result<(), LoadError> {
    match (bytes.get(..4), bytes.get(4..8)) {
        (Some(b"\0asm"), Some([_, _, 1, 0])) => Ok(()),
        (Some(b"\0asm"), _) => Err(LoadError::CoreModule),
        _ => Err(LoadError::NotWasm),
    }
}

/// Checks the component's imports and exports; answers the capabilities it imports.
pub(crate) fn check_type(component: &Component) -> Result<Vec<String>, LoadError> {
    let engine = component.engine();
    let ty = component.component_type();
    let imports: Vec<&str> = ty.imports(engine).map(|(name, _)| name).collect();
    let exports: Vec<&str> = ty.exports(engine).map(|(name, _)| name).collect();
    for name in imports.iter().chain(&exports) {
        check_version(name)?;
    }
    if !exports.iter().any(|name| name.starts_with("weir:policy/handler@")) {
        return Err(LoadError::NotAPolicy);
    }
    let mut capabilities: Vec<String> = Vec::new();
    for name in imports {
        match name.strip_prefix(PACKAGE).and_then(|rest| rest.split('@').next()).map(of_interface) {
            Some("types" | "current") => {}
            Some(capability) if CAPABILITIES.contains(&capability) => {
                if !capabilities.iter().any(|known| known == capability) {
                    capabilities.push(capability.to_owned());
                }
            }
            Some(_) => return Err(unknown(name)),
            None if WASI.iter().any(|prefix| name.starts_with(prefix)) => {}
            None => return Err(LoadError::Import(name.to_owned())),
        }
    }
    Ok(capabilities)
}

/// An interface that this host does not have: one of a later version of the contract, or none of any.
fn unknown(name: &str) -> LoadError {
    let version = name.rsplit_once('@').map_or("", |(_, version)| version);
    let patch = |version: &str| version.rsplit_once('.').and_then(|(_, patch)| patch.parse::<u32>().ok());
    if patch(version) > patch(NEWEST) {
        return LoadError::Contract { built: version.to_owned(), supported: NEWEST };
    }
    LoadError::Import(name.to_owned())
}

fn check_version(name: &str) -> Result<(), LoadError> {
    let Some(version) = name.strip_prefix(PACKAGE).and_then(|rest| rest.split_once('@')).map(|(_, version)| version) else {
        return Ok(());
    };
    let minor: String = version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
    if minor == SUPPORTED { Ok(()) } else { Err(LoadError::Contract { built: minor, supported: SUPPORTED }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_file_is_seen() {
        let whole = [b"\0asm\x0d\0\x01\0".as_slice(), &[0, 3, 1, b'a', 7], &[0, 2, 1, b'b']].concat();
        assert!(!is_cut(&whole));
        let boundaries = [8, 13, whole.len()];
        for end in 0..whole.len() {
            assert_eq!(is_cut(&whole[..end]), !boundaries.contains(&end), "cut after {end} bytes");
        }
        assert!(!is_cut(b"garbage!") && !is_cut(b"this is no WebAssembly at all"), "judged, not waited for");
    }

    #[test]
    fn headers_are_told_apart() {
        assert_eq!(check_header(b"\0asm\x0d\0\x01\0"), Ok(()));
        assert_eq!(check_header(b"\0asm\x01\0\0\0"), Err(LoadError::CoreModule));
        assert_eq!(check_header(b"MZ\x90\0\x03\0\0\0"), Err(LoadError::NotWasm));
        assert_eq!(check_header(b""), Err(LoadError::NotWasm));
    }

    #[test]
    fn other_contract_versions_are_named() {
        assert_eq!(check_version("weir:policy/handler@0.1.7"), Ok(()));
        let error = check_version("weir:policy/handler@0.3.0").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("weir:policy 0.3") && text.contains("supports 0.1"), "{text}");
        let later = unknown("weir:policy/telepathy@0.1.7").to_string();
        assert!(later.contains("weir:policy 0.1.7") && later.contains("supports 0.1.2"), "{later}");
        assert_eq!(unknown("weir:policy/telepathy@0.1.2"), LoadError::Import("weir:policy/telepathy@0.1.2".to_owned()));
    }
}
