//! Names the build: the version, and in a release the commit that it was made from.
//!
//! What always holds: no name begins with `RINGWAY_`, since cargo hands them to what it runs, and the gateway would take
//! them for settings; without git, or outside of a checkout, there is a version without a commit; a packager's
//! `BUILD_COMMIT` wins. A debug build names none: it would be compiled anew at each commit.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=BUILD_COMMIT");
    let package = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let version = match std::env::var("PROFILE").as_deref() {
        Ok("release") => match std::env::var("BUILD_COMMIT").ok().or_else(commit) {
            Some(commit) => format!("{package} ({commit})"),
            None => package,
        },
        _ => format!("{package} (debug build)"),
    };
    println!("cargo:rustc-env=BUILD_VERSION={version}");
    // Without any of these lines cargo would look at every file of the package.
    println!("cargo:rerun-if-changed=src/commands/version.rs");
}

/// The commit, and whether it is all that went into the build.
fn commit() -> Option<String> {
    let manifest = std::env::var("CARGO_MANIFEST_DIR").ok()?;
    let here = Path::new(&manifest).canonicalize().ok()?;
    // Unpacked inside of somebody else's checkout, their commit would be none of ours.
    if Path::new(&git(&["rev-parse", "--show-toplevel"])?).canonicalize().ok()? != here {
        return None;
    }
    for name in ["HEAD", "index", "logs/HEAD"] {
        println!("cargo:rerun-if-changed={}", git(&["rev-parse", "--git-path", name])?);
    }
    println!("cargo:rerun-if-changed=src");
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    match git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty() {
        true => Some(commit),
        false => Some(format!("{commit}, changed")),
    }
}

/// What git says, if there is git and it has nothing against it.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
