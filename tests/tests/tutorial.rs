//! `docs/write-a-policy.md`, word by word: its commands are run, its files are written, and what it says it prints is printed.

use std::path::Path;

use weir_tests::{Author, LONG, Reply, Upstream, eventually, wasm};

/// A fenced block: what its first line says, its line, and its text.
struct Block<'a> {
    kind: &'a str,
    line: usize,
    text: String,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut open: Option<Block<'_>> = None;
    for (line, text) in page.lines().enumerate() {
        match (text.strip_prefix("```"), &mut open) {
            (Some(""), Some(_)) => blocks.extend(open.take()),
            (Some(kind), None) => open = Some(Block { kind, line: line + 1, text: String::new() }),
            (None, Some(block)) => {
                block.text.push_str(text);
                block.text.push('\n');
            }
            (None, None) => assert!(!text.starts_with("    "), "line {}: an indented block would not be run", line + 1),
            (Some(_), Some(_)) => panic!("line {}: a block within a block", line + 1),
        }
    }
    assert!(open.is_none(), "a block that does not end");
    blocks
}

/// Whether the lines of a pattern, in which `…` stands for anything, are among the lines of a text in their order.
fn matches(pattern: &str, text: &str) -> bool {
    let mut lines = text.lines();
    pattern.lines().all(|wanted| lines.any(|line| like(wanted, line)))
}

fn like(pattern: &str, line: &str) -> bool {
    let pieces: Vec<&str> = pattern.split('…').collect();
    let Some((first, rest)) = pieces.split_first() else { return false };
    let Some((last, between)) = rest.split_last() else { return *first == line };
    let Some(mut left) = line.strip_prefix(first) else { return false };
    for piece in between {
        let Some((_, behind)) = left.split_once(piece) else { return false };
        left = behind;
    }
    left.ends_with(last)
}

#[test]
fn the_tutorial_does_what_it_says() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/write-a-policy.md")).unwrap();
    let origin = Upstream::scripted(|request| match request.target() {
        "/login" => Reply::with("401 Unauthorized", &[], "wrong password"),
        _ => Reply::text("the application"),
    });
    let mut author = Author::new().port(8080).port(8081).replace("http://127.0.0.1:3000", &origin.url());
    let mut printed = String::new();
    let mut again = None;
    let all = blocks(&page);
    assert!(all.len() > 20, "{} blocks", all.len());
    for Block { kind, line, text } in all {
        let place = format!("docs/write-a-policy.md:{line}");
        match kind.split_once(' ') {
            None if kind == "sh" => {
                printed = author.ok(&text);
                again = None;
            }
            Some(("sh", "background")) => author.start(text.trim_end()),
            Some(("sh", "until")) => again = Some(text),
            Some(("text", "output")) => match &again {
                Some(command) => {
                    eventually(LONG, &format!("{place}: {command}"), || matches(&text, &author.ok(command)));
                }
                None => assert!(matches(&text, &printed), "{place}: expected\n{text}\nfound\n{printed}"),
            },
            Some(("text", "log")) => {
                eventually(LONG, &format!("{place}: {text}"), || matches(&text, &author.heard().0));
            }
            Some(("rust", "function")) => compiles(&mut author, &text),
            Some(("toml", "policy")) => checks(&mut author, &text),
            Some((_, file)) if file.starts_with("file=") => author.write(file.trim_start_matches("file="), &text),
            _ => panic!("{place}: nobody knows what to do with a block of {kind:?}"),
        }
        // A project that is new: its gateway gets ports and an application of its own, and it builds where all tests build.
        if author.here().join("Cargo.toml").exists() && !author.here().join("target").exists() {
            author.share_build();
            author.adapt("weir.toml");
        }
    }
}

/// A function of a policy, beside the last project of the page.
fn compiles(author: &mut Author, function: &str) {
    let head = "#![allow(dead_code)]\nuse weir_sdk::http;\nfn main() {}\n";
    author.write("../login-guard/examples/function.rs", &format!("{head}{function}"));
    author.ok("(cd ../login-guard && cargo check --example function)");
}

/// A policy that may ask two upstreams, in the configuration of the page's last gateway.
fn checks(author: &mut Author, policy: &str) {
    let upstream = |name: &str| format!("[upstream.{name}]\nservers = [{{ url = \"http://127.0.0.1:3000\" }}]\n");
    let before = std::fs::read_to_string(author.here().join("weir.toml")).unwrap();
    author.write("checked.toml", &format!("{before}\n{}{}{policy}", upstream("directory"), upstream("auth")));
    std::fs::copy(wasm::guest("call-out"), author.here().join("plugins/gate.wasm")).unwrap();
    author.ok("weir check --config checked.toml");
}

#[test]
fn patterns_stand_for_what_they_say() {
    for (pattern, text, expected) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("a…", "ab", true),
        ("…b", "ab", true),
        ("a…c…e", "abcde", true),
        ("a…e…c", "abcde", false),
        ("a\nc", "a\nb\nc", true),
        ("c\na", "a\nb\nc", false),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern:?} and {text:?}");
    }
}
