//! The queries of `Deployment.aspx`.

/// What a query asks the deployment page for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// An installer, with exactly one well-formed `InstallerToken`.
    Token,
    /// An installer, by the keys that old servers took without a token.
    Legacy,
    /// Anything else: a scan for the page itself, or an attack on it.
    Probe,
}

/// Keys of an installer query without a token; one of the first two says which installer.
const LEGACY_KEYS: [&str; 5] = ["installtype", "linux", "probe", "msilocations", "id"];

/// Digits of an installer token.
const TOKEN_LENGTH: usize = 32;

impl Form {
    /// Reads a query. Letters, digits, `_`, `-` and `.` are all that installers send, so nothing needs decoding and a value
    /// in any other alphabet is a probe. Keys are compared without case, as the server does.
    pub(crate) fn of(query: &[u8]) -> Self {
        let (mut token, mut legacy, mut installer) = (false, 0_u8, false);
        let mut foreign = false;
        for pair in query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let (key, value) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
            if !key.iter().chain(value).all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')) {
                return Self::Probe;
            }
            if key.eq_ignore_ascii_case(b"installertoken") {
                if token || value.len() != TOKEN_LENGTH || !value.iter().all(u8::is_ascii_hexdigit) {
                    return Self::Probe;
                }
                token = true;
                continue;
            }
            match LEGACY_KEYS.iter().position(|known| key.eq_ignore_ascii_case(known.as_bytes())) {
                Some(at) if legacy & (1 << at) != 0 || value.is_empty() => return Self::Probe,
                Some(at) => {
                    legacy |= 1 << at;
                    installer |= at < 2;
                }
                None => foreign = true,
            }
        }
        if token {
            Self::Token
        } else if installer && !foreign {
            Self::Legacy
        } else {
            Self::Probe
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_told_apart() {
        const TOKEN: &str = "0123456789abcdef0123456789ABCDEF";
        for (query, form) in [
            (format!("InstallerToken={TOKEN}"), Form::Token),
            (format!("installertoken={TOKEN}&InstallType=mac"), Form::Token),
            (format!("&InstallerToken={TOKEN}&source=portal-2.1"), Form::Token),
            ("Probe=1&installType=msi&MSILocations=1".to_owned(), Form::Legacy),
            ("LINUX=4&ID=146".to_owned(), Form::Legacy),
            ("installType=mac&ID=146".to_owned(), Form::Legacy),
            (String::new(), Form::Probe),
            ("InstallerToken=".to_owned(), Form::Probe),
            ("InstallerToken=x' or 1=1".to_owned(), Form::Probe),
            ("InstallerToken=x%27+or+1=1".to_owned(), Form::Probe),
            (format!("InstallerToken={TOKEN}0"), Form::Probe),
            (format!("InstallerToken={}", &TOKEN[1..]), Form::Probe),
            (format!("InstallerToken=g{}", &TOKEN[1..]), Form::Probe),
            (format!("InstallerToken={TOKEN}&InstallerToken={TOKEN}"), Form::Probe),
            (format!("InstallerToken={TOKEN}&%49nstallerToken=x"), Form::Probe),
            (format!("InstallerToken={TOKEN}&x=<script>"), Form::Probe),
            (format!("InstallerToken={TOKEN}=1"), Form::Probe),
            ("Probe=1".to_owned(), Form::Probe),
            ("ID=146".to_owned(), Form::Probe),
            ("installType=msi&installType=mac".to_owned(), Form::Probe),
            ("installType=msi&x=1".to_owned(), Form::Probe),
            ("installType".to_owned(), Form::Probe),
        ] {
            assert_eq!(Form::of(query.as_bytes()), form, "{query}");
        }
    }
}
