//! Topologies for tests.
use super::Registry;

/// The text of one with a single cell of this name.
pub(super) fn text(version: u64, name: &str) -> String {
    format!(r#"{{"version":{version},"cells":[{{"name":"{name}","slots":[0,16383],"addresses":["http://h:1"]}}]}}"#)
}

/// The same, as it is read.
pub(crate) fn topology(version: u64, name: &str) -> Registry {
    Registry::parse(text(version, name).as_bytes()).expect("a good topology")
}
