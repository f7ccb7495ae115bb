//! `weir plugin new`: a project that compiles and passes its own tests as it is written.

use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path};
use std::process::ExitCode;

use crate::cli::{fail, print};

/// The SDK's sources with manifests that stand alone, and the versions of the crates it was tested with: path in `vendor/weir-sdk`, text.
mod sdk {
    include!(concat!(env!("OUT_DIR"), "/sdk.rs"));
}

/// Path in the project, and its text before [`fill`].
const TEMPLATE: [(&str, &str); 8] = [
    ("Cargo.toml", include_str!("template/Cargo.toml.in")),
    (".cargo/config.toml", include_str!("template/config.toml")),
    (".gitignore", include_str!("template/gitignore")),
    ("README.md", include_str!("template/README.md")),
    ("schema.json", include_str!("template/schema.json")),
    ("src/lib.rs", include_str!("template/lib.rs")),
    ("cases/cases.toml", include_str!("template/cases.toml")),
    ("weir.toml", include_str!("template/weir.toml")),
];

/// Longer names are hard to read in a log.
const LONGEST_NAME: usize = 48;

/// Names that mean something else to Rust or to Cargo.
const RESERVED: [&str; 12] =
    ["alloc", "build", "core", "deps", "examples", "proc-macro", "self", "std", "super", "test", "weir", "weir-sdk"];

/// Writes the project and prints the next commands.
pub(super) fn run(path: &Path, sdk: Option<&str>) -> ExitCode {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if let Err(error) = check_name(&name) {
        return fail(
            &format!("{name:?} is no name for a policy: {error}"),
            "lower-case letters, digits and single hyphens: block-agent",
        );
    }
    let dependency = match sdk.map(dependency).transpose() {
        Ok(dependency) => dependency,
        Err(error) => return fail(&error, "name a checkout's `sdk` directory, or a version such as 0.1"),
    };
    match write(path, &name, dependency.as_deref()) {
        Ok(()) => {
            print::out(&next(path, &name));
            ExitCode::SUCCESS
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            fail(&format!("{} exists already", path.display()), "choose another name, or remove it")
        }
        Err(error) => fail(&format!("cannot write to {}: {error}", path.display()), "name a place you may write to"),
    }
}

fn check_name(name: &str) -> Result<(), &'static str> {
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() {
        return Err("it is empty");
    }
    if name.len() > LONGEST_NAME {
        return Err("it is longer than 48 characters");
    }
    if !name.bytes().all(valid) || name.ends_with('-') || name.contains("--") {
        return Err("it holds something else than words of letters and digits");
    }
    if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        return Err("it does not begin with a letter");
    }
    if RESERVED.contains(&name) || is_keyword(name) {
        return Err("it means something else to Rust or to Cargo");
    }
    Ok(())
}

fn is_keyword(name: &str) -> bool {
    const KEYWORDS: &str = "as async await break const continue crate dyn else enum extern false fn for gen if impl in let loop match mod \
                            move mut pub ref return static struct trait true type unsafe use where while abstract become box do final \
                            macro override priv try typeof unsized virtual yield";
    KEYWORDS.split_ascii_whitespace().any(|keyword| keyword == name)
}

/// What `--sdk` names, as a dependency.
fn dependency(sdk: &str) -> Result<String, String> {
    let is_version = sdk.starts_with(|first: char| first.is_ascii_digit())
        && sdk
            .split('.')
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-+".contains(&byte)));
    if is_version && !Path::new(sdk).exists() {
        return Ok(format!("{sdk:?}"));
    }
    let path = Path::new(sdk).canonicalize().map_err(|error| format!("--sdk {sdk}: {error}"))?;
    if !path.join("macros/Cargo.toml").is_file() {
        return Err(format!("--sdk {sdk}: no SDK: macros/Cargo.toml is missing"));
    }
    Ok(format!("{{ path = {:?} }}", path.display().to_string()))
}

fn write(root: &Path, name: &str, dependency: Option<&str>) -> std::io::Result<()> {
    if let Some(parent) = root.parent().filter(|parent| parent.components().any(|part| matches!(part, Component::Normal(_)))) {
        // A file in the way is not the project that exists already.
        fs::create_dir_all(parent).map_err(|error| std::io::Error::other(error.to_string()))?;
    }
    // Refuses what exists, a file or a directory of somebody's work.
    fs::create_dir(root)?;
    let file = |path: &str, text: &str| {
        let path = root.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, text)
    };
    for (path, text) in TEMPLATE {
        file(path, &fill(text, name, dependency))?;
    }
    if dependency.is_none() {
        // The versions that this SDK was tested with; Cargo adds the project itself.
        file("Cargo.lock", sdk::LOCK)?;
        for (path, text) in sdk::FILES {
            file(&format!("vendor/weir-sdk/{path}"), text)?;
        }
    }
    Ok(())
}

fn fill(text: &str, name: &str, dependency: Option<&str>) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    };
    let text = text.replace("{{name}}", name).replace("{{file}}", &name.replace('-', "_"));
    let text = text.replace("{{Type}}", &name.split('-').map(capital).collect::<String>());
    text.replace("{{sdk}}", dependency.unwrap_or("{ path = \"vendor/weir-sdk\" }"))
}

fn next(path: &Path, name: &str) -> String {
    let (path, file) = (path.display(), name.replace('-', "_"));
    format!(
        "{path}: a policy that refuses clients by their User-Agent; README.md says what is where

    cd {path}
    cargo test
    cargo plugin
    weir plugin check target/wasm32-wasip2/release/{file}.wasm --cases cases
    weir run

and in another terminal, while it runs:

    curl -i -A sqlmap/1.8 http://127.0.0.1:8080/"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cargo_or_a_log_would_stumble_over_are_refused() {
        for good in ["block-agent", "a", "waf2", "a-1"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        let long = "a".repeat(LONGEST_NAME + 1);
        for bad in ["", "Block", "block_agent", "-a", "a-", "a--b", "2fast", "a.b", "ä", "fn", "self", "test", "weir-sdk", &long]
        {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn templates_leave_no_hole() {
        for (path, text) in TEMPLATE {
            let text = fill(text, "block-agent", None);
            assert!(!text.contains("{{") && !text.contains("}}"), "{path}: {text}");
        }
        assert!(fill("{{Type}} {{file}}", "block-bad-agent", None).contains("BlockBadAgent block_bad_agent"));
        assert_eq!(dependency("0.1").as_deref(), Ok("\"0.1\""));
    }

    #[test]
    fn the_sdk_that_is_carried_stands_alone() {
        let of = |path: &str| sdk::FILES.iter().find(|(own, _)| *own == path).map(|(_, text)| *text).unwrap();
        for path in ["Cargo.toml", "macros/Cargo.toml", "path/Cargo.toml", "cases/Cargo.toml"] {
            assert!(!of(path).contains("workspace"), "{path}:\n{}", of(path));
        }
        let newest = format!("wit/{}/policy.wit", weir_plugins::NEWEST);
        assert!(of(&newest).contains(&format!("package weir:policy@{};", weir_plugins::NEWEST)));
        assert!(sdk::LOCK.contains("name = \"wit-bindgen\"") && !sdk::LOCK.contains("name = \"wasmtime\""));
    }
}
