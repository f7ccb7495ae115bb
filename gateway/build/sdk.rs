//! The SDK's sources for `weir plugin new`: manifests that stand alone, and a lock file of what the SDK depends on.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Directories of the SDK that hold a crate or the contract.
const SOURCES: [&str; 5] = ["src", "wit", "macros", "path", "cases"];

/// Writes `sdk.rs` with `FILES` (path, text) and `LOCK`.
pub(crate) fn carry(workspace: &Path, out: &Path) -> std::io::Result<()> {
    let sdk = workspace.join("sdk");
    let root = fs::read_to_string(workspace.join("Cargo.toml"))?;
    println!("cargo::rerun-if-changed={}", workspace.join("Cargo.toml").display());
    println!("cargo::rerun-if-changed={}", workspace.join("Cargo.lock").display());
    println!("cargo::rerun-if-changed={}", sdk.display());
    let mut files = vec![sdk.join("Cargo.toml")];
    for directory in SOURCES {
        list(&sdk.join(directory), &mut files)?;
    }
    files.sort();
    let mut text = "pub(super) const FILES: &[(&str, &str)] = &[\n".to_owned();
    for file in files {
        let path = file.strip_prefix(&sdk).map_err(std::io::Error::other)?;
        let content = fs::read_to_string(&file)?;
        let content = if path.ends_with("Cargo.toml") { alone(&content, &root, path) } else { content };
        writeln!(text, "({:?}, {content:?}),", path.display().to_string()).map_err(std::io::Error::other)?;
    }
    let lock = lock(&fs::read_to_string(workspace.join("Cargo.lock"))?);
    writeln!(text, "];\npub(super) const LOCK: &str = {lock:?};").map_err(std::io::Error::other)?;
    fs::write(out.join("sdk.rs"), text)
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in directory.read_dir()? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else if path.extension().is_some_and(|extension| ["rs", "toml", "wit"].iter().any(|own| *own == extension)) {
            files.push(path);
        }
    }
    Ok(())
}

/// A manifest whose `workspace = true` is replaced by what the workspace says.
fn alone(manifest: &str, root: &str, path: &Path) -> String {
    let values: BTreeMap<&str, &str> = root.lines().filter_map(|line| line.split_once(" = ")).collect();
    // Crates of the SDK lie beside each other: `sdk/path` is `path` from the SDK and `../path` from its other crates.
    let from_here = if path.components().count() > 1 { "{ path = \"../" } else { "{ path = \"" };
    let line = |line: &str| {
        let inherited = line.strip_suffix(".workspace = true").or_else(|| line.strip_suffix(" = { workspace = true }"));
        match inherited {
            Some(key) => {
                let value = values.get(key).unwrap_or_else(|| panic!("{key} is not in the workspace's Cargo.toml"));
                format!("{key} = {}\n", value.replace("{ path = \"sdk/", from_here))
            }
            None if line == "workspace = true" || line == "[lints]" => String::new(),
            None => format!("{line}\n"),
        }
    };
    manifest.lines().map(line).collect()
}

/// The part of a lock file that `weir-sdk` depends on.
fn lock(whole: &str) -> String {
    let blocks: Vec<&str> = whole.split("\n\n").filter(|block| block.starts_with("[[package]]")).collect();
    let of = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
        line.and_then(|line| line.strip_suffix('"')).unwrap_or_default().to_owned()
    };
    let mut wanted = vec!["weir-sdk".to_owned()];
    let mut taken: Vec<&str> = Vec::new();
    while let Some(name) = wanted.pop() {
        // `name` or, where there are several of a name, `name version`.
        let (name, version) = name.split_once(' ').map_or((name.as_str(), None), |(name, version)| (name, Some(version)));
        let fits = |block: &&&str| of(block, "name") == name && version.is_none_or(|version| of(block, "version") == version);
        let Some(block) = blocks.iter().find(fits).filter(|block| !taken.contains(block)) else { continue };
        taken.push(block);
        wanted.extend(block.lines().filter_map(|line| line.strip_prefix(" \"")?.strip_suffix("\",")).map(str::to_owned));
    }
    let mut kept: Vec<&str> = blocks.into_iter().filter(|block| taken.contains(block)).collect();
    kept.insert(0, whole.split("\n\n").next().unwrap_or_default());
    kept.join("\n\n").trim_end().to_owned() + "\n"
}
