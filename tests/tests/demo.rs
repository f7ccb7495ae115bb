//! `weir demo --check`: the six cases behave, with the policies that the binary carries.

use weir_tests::setup::run;

#[test]
fn the_demo_checks_itself() {
    let checked = run(&["demo", "--check"]);
    assert_eq!(checked.code, Some(0), "{}", checked.text());
    assert!(
        checked.stdout.lines().filter(|line| !line.trim().is_empty()).count() >= 6,
        "a table of six cases: {}",
        checked.text()
    );
}

#[test]
fn the_binary_unpacks_its_policies() {
    let scratch = weir_tests::Scratch::new();
    let target = scratch.path().join("unpacked");
    let done = run(&["plugins", "unpack", &target.display().to_string()]);
    assert_eq!(done.code, Some(0), "{}", done.text());
    for name in ["geoip", "ips", "agent-acl", "sso-cors"] {
        let bytes = std::fs::read(target.join(format!("{name}.wasm"))).unwrap();
        assert!(bytes.starts_with(b"\0asm") && bytes.len() > 10_000, "{name}");
    }
}
