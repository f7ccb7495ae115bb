//! Puts the four policies and the SDK's sources into the binary, so that one file is a whole installation.

#[path = "build/sdk.rs"]
mod sdk;

use std::path::{Path, PathBuf};
use std::{env, fs};

const POLICIES: [&str; 4] = ["geoip", "ips", "agent-acl", "sso-cors"];

fn main() {
    println!("cargo::rerun-if-env-changed=WEIR_POLICIES");
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR").unwrap_or_default());
    let default = manifest.join("../target/policies");
    let directory = env::var("WEIR_POLICIES").map_or(default, PathBuf::from);
    let out = PathBuf::from(env::var("OUT_DIR").unwrap_or_default());
    for name in POLICIES {
        let from = directory.join(format!("{name}.wasm"));
        println!("cargo::rerun-if-changed={}", from.display());
        if let Err(error) = copy(&from, &out.join(format!("{name}.wasm"))) {
            println!(
                "cargo::error=the gateway carries the compiled policies: run `make policies` first ({}: {error})",
                from.display()
            );
        }
    }
    if let Err(error) = sdk::carry(&manifest.join(".."), &out) {
        println!("cargo::error=the gateway carries the SDK's sources: {error}");
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::copy(from, to).map(drop)
}
