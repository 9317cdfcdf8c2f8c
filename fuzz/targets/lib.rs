//! Finds the targets of the product for the binaries beside this file.

/// The target of this name.
///
/// # Panics
/// If there is none: the binary is named after something else.
pub fn target(name: &str) -> fn(&[u8]) {
    let found = svc_wallet::fuzzing::TARGETS.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("there is no target {name}")).run
}
