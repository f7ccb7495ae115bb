//! What `#[policy]` says when it is used in another way than it is meant: each snippet is compiled as a plugin of its own.

use weir_tests::Author;

/// What stands before each snippet, in one line.
const HEAD: &str = "#![allow(dead_code)] use weir_sdk::prelude::*; pub struct P; fn main() {}\n";

/// The parts of a policy that are the same in most snippets.
const CONFIG: &str = "type Config = NoConfig; fn configure(_: NoConfig) -> Result<Self, String> { Ok(Self) }";

/// Name, snippet, the line that is blamed (the head is line 1), and the error.
const SNIPPETS: [(&str, &str, u32, &str); 12] = [
    ("on_a_struct", "#[policy]\nstruct Q;", 3, "#[policy] goes on `impl Policy for YourType { .. }`"),
    ("on_another_impl", "#[policy]\nimpl P { }", 3, "#[policy] goes on `impl Policy for YourType { .. }`"),
    ("on_another_trait", "#[policy]\nimpl Default for P { fn default() -> Self { Self } }", 3, "#[policy] goes on `impl Policy"),
    (
        "generic",
        "pub struct G<T>(T);\n#[policy]\nimpl<T: 'static> Policy for G<T> { CONFIG }",
        4,
        "a plugin exports one concrete policy: remove the generic parameters",
    ),
    (
        "no_config",
        "#[policy]\nimpl Policy for P { fn configure(_: NoConfig) -> Result<Self, String> { Ok(Self) } }",
        3,
        "say what the configuration is: `type Config = YourConfig;`, or `type Config = NoConfig;` for none",
    ),
    (
        "no_configure",
        "#[policy]\nimpl Policy for P { type Config = NoConfig; }",
        3,
        "not all trait items implemented, missing: `configure`",
    ),
    (
        "two_policies",
        "#[policy]\nimpl Policy for P { CONFIG }\nmod other { use super::*; pub struct Q;\n#[policy]\nimpl Policy for Q { CONFIG } }",
        5,
        "the name `a_plugin_exports_one_policy` is defined multiple times",
    ),
    (
        "no_window",
        "#[policy]\nimpl Policy for P { CONFIG\nfn request_body(&self, _: Request<'_>, _: &[u8], _: bool) -> Verdict { Verdict::Next } }",
        3,
        "the request_body phase needs a window: #[policy(request_body = 65536)]",
    ),
    (
        "a_window_that_is_none",
        "#[policy(request_body = \"all\")]\nimpl Policy for P { CONFIG }",
        2,
        "request_body is a number of bytes",
    ),
    (
        "no_such_capability",
        "#[policy(capabilities(\"files\"))]\nimpl Policy for P { CONFIG }",
        2,
        "no such capability; there are log",
    ),
    (
        "no_such_argument",
        "#[policy(shema = \"a.json\")]\nimpl Policy for P { CONFIG }",
        2,
        "unknown argument; there are name, schema",
    ),
    ("no_such_schema", "#[policy(schema = \"none.json\")]\nimpl Policy for P { CONFIG }", 2, "couldn't read `"),
];

#[test]
fn every_misuse_of_the_attribute_is_explained_where_it_is() {
    let mut author = Author::new();
    author.ok("weir plugin new misuse && cd misuse");
    author.share_build();
    for (name, snippet, ..) in SNIPPETS {
        author.write(&format!("examples/{name}.rs"), &format!("{HEAD}{}\n", snippet.replace("CONFIG", CONFIG)));
    }
    // One that is right: the others fail for what is wrong with them.
    author.write("examples/right.rs", &format!("{HEAD}#[policy]\nimpl Policy for P {{ {CONFIG} }}\n"));
    let checked = author.run("cargo check --examples --keep-going --message-format=short");
    let said = checked.text();
    assert!(checked.code != Some(0), "{said}");
    for (name, _, line, message) in SNIPPETS {
        let place = format!("examples/{name}.rs:{line}:");
        let blamed = said.lines().any(|said| said.starts_with(&place) && said.contains("error") && said.contains(message));
        assert!(blamed, "{place} {message}\n{said}");
    }
    assert!(!said.contains("examples/right.rs"), "{said}");
}
