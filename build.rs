//! Tells the library which revision it was built from; a tree without git is `unknown` and never a failed build.
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=SVC_WALLET_REVISION");
    let given = std::env::var("SVC_WALLET_REVISION").ok().filter(|given| is_revision(given));
    let revision = given.or_else(revision).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=SVC_WALLET_REVISION={revision}");
}

/// The checked-out revision, if these sources are the top of a git work tree and not a copy inside another one.
fn revision() -> Option<String> {
    let sources = std::env::var("CARGO_MANIFEST_DIR").ok()?;
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != Path::new(&sources).canonicalize().ok()? {
        return None;
    }
    // The log of HEAD changes with each commit and each checkout, HEAD itself only with the latter. A path that does
    // not exist would make every build run this again.
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file])?;
        if Path::new(&path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"]).filter(|text| is_revision(text))
}

fn is_revision(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte))
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
