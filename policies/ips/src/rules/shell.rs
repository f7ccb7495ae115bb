//! Telling commands and template expressions from text.

use std::ops::Range;

use super::reader::{Reader, holds, places};
use crate::bytes::{find, is_word};

/// A command behind `;`, `|` or `&`.
pub(super) fn separated(text: &[u8]) -> Option<Range<usize>> {
    const MARKS: &[u8] = b";|&";
    let last_of_run = |at: &usize| !text.get(at + 1).is_some_and(|next| MARKS.contains(next));
    places(text, MARKS).filter(last_of_run).find_map(|start| {
        let mut reader = Reader::new(text, start + 1);
        reader.skip(b" \n({@");
        let spaced_ampersand =
            text.get(start..start + 2) == Some(b"& ") && text.get(..start).is_some_and(|before| !before.ends_with(b"&"));
        let standing = if spaced_ampersand { Standing::Sentence } else { Standing::Syntax };
        command(reader, standing).map(|end| start..end)
    })
}

/// A command in backticks or `$( )`.
pub(super) fn substituted(text: &[u8]) -> Option<Range<usize>> {
    places(text, b"`$").find_map(|start| {
        let mut reader = Reader::new(text, start);
        if !reader.eat(b"`") && !reader.eat(b"$(") {
            return None;
        }
        reader.skip(b" \n(");
        command(reader, Standing::Substitution).map(|end| start..end)
    })
}

/// A command behind a line break.
pub(super) fn on_new_line(text: &[u8]) -> Option<Range<usize>> {
    places(text, b"\n").find_map(|start| command(Reader::new(text, start + 1), Standing::Syntax).map(|end| start..end))
}

/// What stands around a word that may be a command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Behind an `&` with a space, as in a sentence.
    Sentence,
    /// Behind a separator.
    Syntax,
    /// Inside a substitution, where any command counts.
    Substitution,
}

fn command(mut reader: Reader<'_>, standing: Standing) -> Option<usize> {
    let start = reader.at;
    let mut name = [0; 16];
    let length = command_name(&mut reader, &mut name)?;
    let name = name.get(..length)?;
    let next = reader.peek();
    let ends_word = next.is_none_or(|byte| !is_word(byte) && !matches!(byte, b'=' | b'-' | b':' | b'.' | b'@'));
    let by_path = find(reader.text.get(start..reader.at).unwrap_or_default(), b"bin/", 0).is_some();
    if COMMANDS.contains(&name) || (by_path && AMBIGUOUS.contains(&name)) {
        return ends_word.then_some(reader.at);
    }
    if !AMBIGUOUS.contains(&name) || !ends_word {
        return None;
    }
    let end = reader.at;
    let spaced = reader.skip_space();
    let closed = reader.peek().is_none_or(|byte| matches!(byte, b';' | b'|' | b'&' | b'`' | b')' | b'#' | b'>'));
    let alone = closed && standing != Standing::Sentence && ALONE.contains(&name);
    let numeric =
        matches!(name, b"sleep" | b"ping" | b"kill" | b"timeout") && reader.peek().is_some_and(|byte| byte.is_ascii_digit());
    let argument = (spaced && matches!(reader.peek(), Some(b'-' | b'/' | b'<' | b'$' | b'~' | b'%' | b'\\')))
        || matches!(next, Some(b'<' | b'$'));
    let dotted = spaced && matches!(reader.rest(), [b'.', b'.' | b'/', ..] | [b'*', ..]);
    (alone || (spaced && numeric) || argument || dotted || (standing == Standing::Substitution && closed)).then_some(end)
}

/// The name of a command without its directory, `.exe`, and the quotes, carets and backslashes that shells ignore.
fn command_name(reader: &mut Reader<'_>, name: &mut [u8; 16]) -> Option<usize> {
    let mut length = 0;
    while let Some(byte) = reader.peek() {
        match byte {
            b'\'' | b'"' | b'^' | b'\\' => {}
            b'/' => length = 0,
            b'.' if reader.rest().starts_with(b".exe") => {
                reader.at += 4;
                break;
            }
            _ if is_word(byte) => {
                *name.get_mut(length)? = byte;
                length += 1;
            }
            _ => break,
        }
        reader.at += 1;
    }
    (length > 0).then_some(length)
}

/// How long a template expression is looked at, in bytes.
const TEMPLATE_MAX: usize = 64;

/// A template expression that computes or reaches for objects.
pub(super) fn template(text: &[u8]) -> Option<Range<usize>> {
    let openings: [(&[u8], &[u8]); 6] =
        [(b"{{", b"}}"), (b"${", b"}"), (b"#{", b"}"), (b"<%=", b"%>"), (b"{%", b"%}"), (b"*{", b"}")];
    places(text, b"{$#<*").find_map(|start| {
        let rest = text.get(start..)?;
        let (open, close) = openings.iter().find(|(open, _)| rest.starts_with(open))?;
        let inner = rest.get(open.len()..)?;
        if inner.first() == Some(&b'{') {
            return None;
        }
        let length = find(inner.get(..TEMPLATE_MAX).unwrap_or(inner), close, 0)?;
        let inner = inner.get(..length)?;
        (is_arithmetic(inner) || reaches_out(inner)).then(|| start..start + open.len() + length + close.len())
    })
}

/// `7*7`: what a template engine is probed with.
fn is_arithmetic(inner: &[u8]) -> bool {
    let digits = inner.iter().filter(|byte| byte.is_ascii_digit()).count();
    let operators = inner.iter().filter(|byte| matches!(byte, b'*' | b'+' | b'-' | b'/')).count();
    let others = inner.iter().filter(|byte| !matches!(byte, b' ' | b'\'' | b'"' | b'(' | b')')).count();
    digits >= 2 && operators >= 1 && digits + operators == others
}

fn reaches_out(inner: &[u8]) -> bool {
    let words: [&[u8]; 8] = [b"constructor", b"config", b"self.", b"request.", b"class", b"import", b"runtime", b"system("];
    words.iter().any(|word| inner.trim_ascii_start().starts_with(word)) || holds(inner, b"__")
}

/// Names that mean nothing but the command.
const COMMANDS: &[&[u8]] = &[
    b"whoami",
    b"ifconfig",
    b"ipconfig",
    b"nslookup",
    b"wget",
    b"curl",
    b"netstat",
    b"netcat",
    b"ncat",
    b"powershell",
    b"pwsh",
    b"cmd",
    b"bash",
    b"zsh",
    b"ksh",
    b"uname",
    b"systeminfo",
    b"tasklist",
    b"certutil",
    b"bitsadmin",
    b"mshta",
    b"regsvr32",
    b"rundll32",
    b"wmic",
    b"base64",
    b"xxd",
    b"chmod",
    b"chown",
    b"mkfifo",
    b"telnet",
    b"tftp",
    b"traceroute",
    b"tracert",
    b"lynx",
    b"crontab",
    b"nohup",
    b"printenv",
    b"vssadmin",
    b"busybox",
];

/// Names that are words too: they need an argument, or to stand alone.
const AMBIGUOUS: &[&[u8]] = &[
    b"cat",
    b"ls",
    b"id",
    b"ping",
    b"echo",
    b"dir",
    b"type",
    b"find",
    b"net",
    b"sleep",
    b"sh",
    b"ps",
    b"head",
    b"tail",
    b"rm",
    b"cp",
    b"mv",
    b"nc",
    b"env",
    b"dig",
    b"touch",
    b"kill",
    b"su",
    b"sudo",
    b"pwd",
    b"hostname",
    b"ver",
    b"python",
    b"python3",
    b"perl",
    b"ruby",
    b"php",
    b"node",
    b"tar",
    b"awk",
    b"sed",
    b"xargs",
    b"copy",
    b"del",
    b"start",
    b"reg",
    b"set",
    b"timeout",
    b"exec",
    b"source",
];

/// Of those, the ones that do something useful alone.
const ALONE: &[&[u8]] = &[b"id", b"ls", b"dir", b"ps", b"pwd", b"env", b"ver", b"hostname", b"sh"];
