//! Directory traversal and reading of local files.

use std::ops::Range;

use super::Category::PathTraversal as Path;
use super::Severity::{Critical, Warning};
use super::reader::Reader;
use super::{Matcher, Rule, Targets, rule};
use crate::bytes::Classes;

/// A dot segment in the path that is hidden by encoding.
pub const HIDDEN_TRAVERSAL: &str = "lfi-2";

const NAMES_TOO: Targets = Targets::PARAMETERS.union(Targets::PATH).union(Targets::FILES);

/// The rules of this category.
pub(super) const RULES: &[Rule] = &[
    rule(
        "lfi-1",
        Path,
        Critical,
        NAMES_TOO,
        Matcher::Around { literals: DOTS, confirm: climbs_twice },
        "Two directories up: ../../",
    ),
    rule(
        HIDDEN_TRAVERSAL,
        Path,
        Critical,
        Targets::PATH,
        Matcher::Message,
        "A dot segment hidden by encoding: ..%2f, %2e%2e/, ..%c0%af",
    ),
    rule(
        "lfi-3",
        Path,
        Warning,
        Targets::PARAMETERS,
        Matcher::Around { literals: DOTS, confirm: climbs_once },
        "One directory up: ../",
    ),
    rule("lfi-4", Path, Critical, NAMES_TOO, Matcher::Any(UNIX_FILES), "Files of a Unix system"),
    rule("lfi-5", Path, Critical, NAMES_TOO, Matcher::Any(WINDOWS_FILES), "Files of a Windows system"),
    rule("lfi-6", Path, Critical, NAMES_TOO, Matcher::Any(SECRETS), "Configuration and secrets of a web application"),
    rule("lfi-7", Path, Critical, NAMES_TOO, Matcher::Any(WRAPPERS), "A URL scheme that reads local data: file:///, php://"),
    rule("lfi-8", Path, Critical, Targets::PATH, Matcher::Any(REPOSITORIES), "A version control or editor directory"),
    rule("lfi-9", Path, Critical, Targets::PATH, Matcher::Any(&["/..;/", "/..;"]), "A dot segment with a path parameter: /..;/"),
    rule(
        "lfi-10",
        Path,
        Warning,
        Targets::QUERY.union(Targets::COOKIE),
        Matcher::Check { needs: Classes::BACKSLASH, find: share },
        "A Windows share: \\\\host\\share",
    ),
];

const UNIX_FILES: &[&str] = &[
    "/etc/passwd",
    "/etc/shadow",
    "/etc/group",
    "/etc/hosts",
    "/etc/issue",
    "/etc/crontab",
    "/etc/ssh/*",
    "/etc/nginx/*",
    "/etc/apache2/*",
    "/etc/mysql/*",
    "/proc/self/*",
    "/proc/version",
    "/proc/cmdline",
    "/var/log/*",
    "/root/.*",
    "/.bash_history",
    "/.ssh/*",
    "/var/run/secrets/*",
];

const WINDOWS_FILES: &[&str] = &[
    "/windows/win.ini",
    "\\windows\\win.ini",
    "/winnt/*",
    "\\winnt\\*",
    "boot.ini",
    "/system32/*",
    "\\system32\\*",
    "\\repair\\sam",
    "/config/sam",
    "\\inetpub\\*",
    "/inetpub/*",
    "ntuser.dat",
    "unattend.xml",
    "sysprep.inf",
];

const SECRETS: &[&str] = &[
    "web.config",
    "machine.config",
    "applicationhost.config",
    "administration.config",
    "global.asax",
    "appsettings.json",
    "connectionstrings.config",
    "/.env*",
    "/.htaccess",
    "/.htpasswd",
    "/.aws/*",
    "/.docker/*",
    "/.kube/*",
    "/.npmrc",
    "id_rsa",
    "/wp-config.*",
    "/web-inf/*",
    "/app_data/*",
    "/app_code/*",
];

const WRAPPERS: &[&str] = &[
    "file:///*",
    "file://localhost*",
    "php://*",
    "phar://*",
    "expect://*",
    "zip://*",
    "compress.zlib://*",
    "glob://*",
    "data://*",
    "jar:http*",
    "netdoc:*",
];

const REPOSITORIES: &[&str] =
    &["/.git/*", "/.git", "/.svn/*", "/.hg/*", "/.bzr/*", "/.idea/*", "/.vscode/*", "/.ds_store", "/cvs/root"];

const DOTS: &[&str] = &[".."];

fn climbs_twice(text: &[u8], dots: Range<usize>) -> Option<Range<usize>> {
    let mut reader = Reader::new(text, dots.start);
    (up(&mut reader) && up(&mut reader)).then_some(dots.start..reader.at)
}

fn climbs_once(text: &[u8], dots: Range<usize>) -> Option<Range<usize>> {
    let mut reader = Reader::new(text, dots.start);
    let before = dots.start.checked_sub(1).and_then(|at| text.get(at)).copied();
    let begins = before.is_none_or(|before| !matches!(before, b'.' | b'0'..=b'9' | b'a'..=b'z'));
    (begins && up(&mut reader)).then_some(dots.start..reader.at)
}

/// `../`, `..\`, and the doubled forms that survive one removal of `../`.
fn up(reader: &mut Reader<'_>) -> bool {
    reader.eat(b"..") && {
        reader.skip(b".");
        reader.skip(b"/\\")
    }
}

fn share(text: &[u8]) -> Option<Range<usize>> {
    let rest = text.strip_prefix(b"\\\\")?;
    let host = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'@')).count();
    (host > 0 && rest.get(host) == Some(&b'\\')).then_some(0..host + 3)
}
