//! Detached minisign signatures: who may put a plugin into the directory. Data in, a verdict out; whoever calls reads the files.
//!
//! A signature says that a file was made by the owner of a key. It does not say when: an old file with its old signature is as good as a
//! new one, so a file that is older than what runs is refused too ([`Release::replaces`]).

#[cfg(test)]
#[allow(unreachable_pub, reason = "the scenarios in tests/ use it too")]
mod signer;

use std::fmt;

use minisign_verify::{Error, PublicKey, Signature};
use thiserror::Error as Thiserror;

/// The largest signature file: four lines.
pub const MAX_SIGNATURE_BYTES: u64 = 4 * 1024;
/// What a plugin's file has appended for the file of its signature.
pub const EXTENSION: &str = "minisig";

/// A public key, as `minisign.pub` has it in its second line.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key(String);

impl Key {
    /// Reads a key: 56 letters that begin with `RW`.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        PublicKey::from_base64(text).map(|_| Self(text.to_owned())).map_err(|_| SignatureError::NoKey)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Key({})", self.0)
    }
}

/// Why a signature is not accepted. The text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, Thiserror)]
pub enum SignatureError {
    /// Not a public key.
    #[error("not a public key of minisign: copy the second line of minisign.pub, 56 letters that begin with RW")]
    NoKey,
    /// There is no signature file.
    #[error("not signed, and require_signature asks for it: put {0}.wasm.minisig beside it (`minisign -Sm {0}.wasm` makes it)")]
    Missing(String),
    /// There is one, and it is none.
    #[error("{0}.wasm.minisig is not a signature of minisign: copy it again from where the file was signed")]
    Malformed(String),
    /// Made without hashing first, as versions of minisign before 0.8 did.
    #[error("signed in the form of minisign before 0.8: sign it again with a newer one (or with `-H`)")]
    Legacy,
    /// Made with another key.
    #[error(
        "signed with a key that is not among the {0} of require_signature: sign it with one of them, or add its public key if you trust its owner"
    )]
    UnknownKey(usize),
    /// One of the two was changed.
    #[error(
        "the signature does not fit the file: one of them was changed after signing, or belongs to another build; copy both again"
    )]
    Mismatch,
    /// Another plugin under this name.
    #[error(
        "calls itself {new}, and what runs under this name calls itself {running}: a signed file was put in the place of another"
    )]
    OtherPlugin {
        /// The new file.
        new: String,
        /// What runs.
        running: String,
    },
    /// An older build.
    #[error(
        "{new} is older than the {running} that runs: whoever may write here could bring back what was repaired since; to go back on purpose use `weir plugin rollback`, or release it again under a higher version"
    )]
    Older {
        /// The new file's release.
        new: String,
        /// What runs.
        running: String,
    },
}

/// What an accepted signature says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signed {
    /// Whose it is; none when no signature was asked for.
    pub key: Option<Key>,
    /// When it was made, in Unix seconds, if its trusted comment says so. minisign writes that by itself.
    pub at: Option<u64>,
}

/// Verifies the signature of the file `NAME.wasm` with any of the keys. Nothing in the signature is believed before that.
///
/// # Errors
/// Why not, and the remedy.
pub fn verify(name: &str, bytes: &[u8], signature: Option<&str>, keys: &[Key]) -> Result<Signed, SignatureError> {
    let text = signature.ok_or_else(|| SignatureError::Missing(name.to_owned()))?;
    let signature = Signature::decode(text).map_err(|_| SignatureError::Malformed(name.to_owned()))?;
    let mut refused = SignatureError::UnknownKey(keys.len());
    for key in keys {
        let Ok(public) = PublicKey::from_base64(&key.0) else { continue };
        match public.verify(bytes, &signature, false) {
            Ok(()) => return Ok(Signed { key: Some(key.clone()), at: timestamp(signature.trusted_comment()) }),
            Err(Error::UnexpectedKeyId) => {}
            Err(Error::UnexpectedAlgorithm) => refused = SignatureError::Legacy,
            Err(_) => refused = SignatureError::Mismatch,
        }
    }
    Err(refused)
}

/// `timestamp:1795450573` among the words of a trusted comment.
fn timestamp(comment: &str) -> Option<u64> {
    comment.split_ascii_whitespace().find_map(|word| word.strip_prefix("timestamp:")?.parse().ok())
}

/// A signed build, as far as builds are put in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The name it gives itself; empty when it is not known.
    pub name: String,
    /// The version it gives itself: semantic versions are compared, other texts are not.
    pub version: String,
    /// When it was signed.
    pub signed: Option<u64>,
}

impl Release {
    /// Whether it may take the place of `running`. The version decides, since it is part of what was signed; of two builds of one version,
    /// or of versions that cannot be compared, the time of the signature.
    ///
    /// # Errors
    /// It is another plugin, or older.
    pub fn replaces(&self, running: &Self) -> Result<(), SignatureError> {
        // Of a build that was taken before signatures were asked for only the version is known.
        if self.name != running.name && !running.name.is_empty() {
            return Err(SignatureError::OtherPlugin { new: self.name.clone(), running: running.name.clone() });
        }
        let version = |release: &Self| semver::Version::parse(&release.version).ok();
        let by_version = version(self).zip(version(running)).map(|(new, old)| new.cmp_precedence(&old));
        let by_time = || self.signed.zip(running.signed).map(|(new, old)| new.cmp(&old));
        let order = by_version.filter(|order| order.is_ne()).or_else(by_time);
        if order.is_some_and(std::cmp::Ordering::is_lt) {
            let shown = |release: &Self| match release.signed {
                Some(at) if release.version == self.version && release.version == running.version => {
                    format!("build of {} signed at {at}", release.version)
                }
                _ => release.version.clone(),
            };
            return Err(SignatureError::Older { new: shown(self), running: shown(running) });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::signer::Signer;
    use super::*;

    const FILE: &[u8] = b"\0asm as far as this matters";

    fn pair() -> (Signer, Key) {
        let signer = Signer::new();
        let key = Key::parse(&signer.key()).unwrap();
        (signer, key)
    }

    fn sign(signer: &Signer, bytes: &[u8], comment: &str) -> String {
        signer.sign(bytes, comment)
    }

    #[test]
    fn what_minisign_itself_has_signed_is_accepted() {
        // The example of its manual, made by the program.
        let key = Key::parse("RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3").unwrap();
        let signature = "untrusted comment: signature from minisign secret key\n\
            RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\n\
            trusted comment: timestamp:1633700835\tfile:test\tprehashed\n\
            wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==\n";
        let signed = verify("test", b"test", Some(signature), std::slice::from_ref(&key));
        assert_eq!(signed, Ok(Signed { key: Some(key.clone()), at: Some(1_633_700_835) }));
        assert_eq!(verify("test", b"Test", Some(signature), &[key]), Err(SignatureError::Mismatch));
    }

    #[test]
    fn a_signature_of_any_of_the_keys_is_accepted() {
        let ((one, first), (two, second)) = (pair(), pair());
        let keys = [first, second];
        for pair in [&one, &two] {
            let signature = sign(pair, FILE, "timestamp:1795450573\tfile:ips.wasm\thashed");
            assert_eq!(verify("ips", FILE, Some(&signature), &keys).ok().map(|signed| signed.at), Some(Some(1_795_450_573)));
        }
        let signature = sign(&one, FILE, "by hand");
        assert_eq!(verify("ips", FILE, Some(&signature), &keys).ok().map(|signed| signed.at), Some(None));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_remedy() {
        let ((pair_one, key), (stranger, _)) = (pair(), pair());
        let keys = [key];
        let good = sign(&pair_one, FILE, "timestamp:1");
        let check = |signature: Option<&str>, bytes: &[u8], want: SignatureError| {
            assert_eq!(verify("ips", bytes, signature, &keys), Err(want), "{signature:?}");
        };
        check(None, FILE, SignatureError::Missing("ips".to_owned()));
        for garbage in ["", "garbage", "untrusted comment: x\nRWQ=\ntrusted comment: y\nAAAA\n"] {
            check(Some(garbage), FILE, SignatureError::Malformed("ips".to_owned()));
        }
        check(Some(&sign(&stranger, FILE, "timestamp:1")), FILE, SignatureError::UnknownKey(1));
        check(Some(&sign(&pair_one, b"another file", "timestamp:1")), FILE, SignatureError::Mismatch);
        check(Some(&good), b"", SignatureError::Mismatch);
        assert_eq!(verify("ips", FILE, Some(&good), &[]), Err(SignatureError::UnknownKey(0)), "no key trusts nobody");
        for text in ["", "RW", "not a key", "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO"] {
            assert_eq!(Key::parse(text), Err(SignatureError::NoKey), "{text}");
        }
    }

    /// Pain 27: a plugin that was tampered with is loaded.
    #[test]
    fn nothing_that_was_tampered_with_is_accepted() {
        let (pair, key) = pair();
        let keys = [key];
        let signature = sign(&pair, FILE, "timestamp:1795450573\tfile:ips.wasm");
        for place in 0..FILE.len() {
            for bit in 0..8 {
                let mut bytes = FILE.to_vec();
                bytes[place] ^= 1 << bit;
                assert_eq!(
                    verify("ips", &bytes, Some(&signature), &keys),
                    Err(SignatureError::Mismatch),
                    "bit {bit} of byte {place}"
                );
            }
            assert!(verify("ips", &FILE[..place], Some(&signature), &keys).is_err(), "cut at {place}");
        }
        assert!(verify("ips", &[FILE, b"\0"].concat(), Some(&signature), &keys).is_err(), "with a byte more");

        // The signature itself: the untrusted comment may say anything, nothing else may change.
        let (untrusted, rest) = signature.split_once('\n').unwrap();
        assert!(verify("ips", FILE, Some(&format!("untrusted comment: anything\n{rest}")), &keys).is_ok());
        for (place, letter) in signature.char_indices().skip(untrusted.len() + 1) {
            for other in ['A', 'b', '1', '9'].into_iter().filter(|other| *other != letter && !letter.is_whitespace()) {
                let mut changed = signature.clone();
                changed.replace_range(place..=place, &other.to_string());
                let accepted = verify("ips", FILE, Some(&changed), &keys);
                assert!(accepted.is_err(), "{letter} at {place} became {other}: {accepted:?}");
            }
        }
        let later = signature.replace("timestamp:1795450573", "timestamp:1895450573");
        assert_eq!(verify("ips", FILE, Some(&later), &keys), Err(SignatureError::Mismatch), "the trusted comment is signed too");
        let lines: Vec<&str> = signature.lines().collect();
        for missing in 0..lines.len() {
            let kept = lines.iter().enumerate().filter(|(line, _)| *line != missing).map(|(_, line)| *line);
            let kept: Vec<&str> = kept.collect();
            assert!(verify("ips", FILE, Some(&kept.join("\n")), &keys).is_err(), "without line {missing}");
        }
    }

    #[test]
    fn only_what_is_not_older_replaces_what_runs() {
        let release =
            |version: &str, signed: Option<u64>| Release { name: "ips".to_owned(), version: version.to_owned(), signed };
        let cases = [
            ("0.2.0", None, "0.1.0", None, true),
            ("0.1.0", None, "0.1.0", None, true),
            ("0.1.0", None, "0.2.0", None, false),
            ("0.10.0", None, "0.9.0", None, true),
            ("1.0.0-rc.1", None, "1.0.0", None, false),
            ("1.0.0", None, "1.0.0-rc.1", None, true),
            // The version decides, whatever the times are.
            ("0.1.0", Some(9), "0.2.0", Some(1), false),
            ("0.2.0", Some(1), "0.1.0", Some(9), true),
            // Of one version the later signature.
            ("0.1.0", Some(1), "0.1.0", Some(2), false),
            ("0.1.0", Some(2), "0.1.0", Some(1), true),
            ("0.1.0", None, "0.1.0", Some(1), true),
            ("0.1.0+a", Some(1), "0.1.0+b", Some(2), false),
            // Versions that are none.
            ("tuesday", Some(1), "monday", Some(2), false),
            ("tuesday", None, "monday", None, true),
        ];
        for (new, signed, running, before, want) in cases {
            let replaced = release(new, signed).replaces(&release(running, before));
            assert_eq!(replaced.is_ok(), want, "{new} {signed:?} over {running} {before:?}: {replaced:?}");
        }
        let other = Release { name: "geoip".to_owned(), ..release("9.0.0", None) };
        let replaced = other.replaces(&release("0.1.0", None));
        assert!(matches!(replaced, Err(SignatureError::OtherPlugin { .. })), "{replaced:?}");
    }
}
