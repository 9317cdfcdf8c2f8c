//! One topology, checked: every slot has exactly one cell.
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::domain::limits::SLOTS;

/// Largest registry file, in bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// Longest name of a cell, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Most addresses of one cell.
pub const ADDRESSES_MAX: usize = 64;

/// One cell: a range of slots and where it is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// Its name, 1 to 64 bytes of `a-z 0-9 - _ .`.
    pub name: String,
    /// First and last slot, both included.
    pub slots: (u16, u16),
    /// Where it answers: `http://host:port` or `https://host:port`, the preferred one first.
    pub addresses: Vec<String>,
}

/// A checked topology.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    version: u64,
    cells: Vec<Cell>,
}

/// Why a registry file is not used.
#[derive(Debug)]
pub enum RegistryFault {
    /// The file cannot be read.
    Io {
        /// Which file.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
    /// The file is larger than any topology needs to be.
    TooLarge(PathBuf),
    /// The text is not the JSON that is expected.
    Syntax(serde_json::Error),
    /// The version is 0.
    Version,
    /// A cell is wrong in itself.
    Cell {
        /// Its name as it was given.
        name: String,
        /// What is wrong and what would be right.
        what: &'static str,
    },
    /// A slot belongs to no cell.
    Unowned(u16),
    /// A slot belongs to two cells.
    OwnedTwice {
        /// The slot.
        slot: u16,
        /// One of them.
        one: String,
        /// The other one.
        other: String,
    },
    /// The file is older than the topology in force.
    Older {
        /// The version in force.
        current: u64,
        /// The version in the file.
        found: u64,
    },
    /// The file says something else than the topology in force under the same version.
    SameVersion(u64),
}

impl std::fmt::Display for RegistryFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RegistryFault::Io { path, cause } => write!(f, "{}: cannot read the registry: {cause}", path.display()),
            RegistryFault::TooLarge(path) => write!(f, "{}: a registry has {FILE_BYTES_MAX} bytes at most", path.display()),
            RegistryFault::Syntax(cause) => {
                write!(f, "the registry is not of the form {{\"version\":1,\"cells\":[{{\"name\":..,\"slots\":[first,last],\"addresses\":[..]}}]}}: {cause}")
            }
            RegistryFault::Version => f.write_str("the registry has version 0; versions start at 1"),
            RegistryFault::Cell { name, what } => write!(f, "cell {name:?} of the registry: {what}"),
            RegistryFault::Unowned(slot) => {
                write!(f, "slot {slot} of the registry belongs to no cell; together the cells own 0 to {}", SLOTS - 1)
            }
            RegistryFault::OwnedTwice { slot, one, other } => {
                write!(f, "slot {slot} of the registry belongs to both {one:?} and {other:?}")
            }
            RegistryFault::Older { current, found } => {
                write!(f, "the registry has version {found}, but {current} is in force; raise the version to change it")
            }
            RegistryFault::SameVersion(version) => {
                write!(f, "the registry changed but still has version {version}; raise the version to change it")
            }
        }
    }
}

impl std::error::Error for RegistryFault {}

impl Registry {
    /// Reads and checks a registry file.
    pub fn load(path: &Path) -> Result<Self, RegistryFault> {
        let io_fault = |cause| RegistryFault::Io { path: path.to_owned(), cause };
        let mut text = Vec::new();
        let file = File::open(path).map_err(io_fault)?;
        let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(io_fault)?;
        if read as u64 > FILE_BYTES_MAX {
            return Err(RegistryFault::TooLarge(path.to_owned()));
        }
        Self::parse(&text)
    }

    /// Reads and checks the text of a registry.
    pub fn parse(text: &[u8]) -> Result<Self, RegistryFault> {
        let mut registry: Self = serde_json::from_slice(text).map_err(RegistryFault::Syntax)?;
        if registry.version == 0 {
            return Err(RegistryFault::Version);
        }
        for (index, cell) in registry.cells.iter().enumerate() {
            let repeated = registry.cells[..index].iter().any(|earlier| earlier.name == cell.name);
            let wrong = if repeated { Some("another cell has the same name") } else { fault_of(cell) };
            if let Some(what) = wrong {
                return Err(RegistryFault::Cell { name: cell.name.clone(), what });
            }
        }
        registry.cells.sort_by_key(|cell| cell.slots);
        let mut next_free = 0usize;
        let mut before: Option<&Cell> = None;
        for cell in &registry.cells {
            let (first, last) = (usize::from(cell.slots.0), usize::from(cell.slots.1));
            if let Some(before) = before.filter(|_| first < next_free) {
                return Err(RegistryFault::OwnedTwice { slot: cell.slots.0, one: before.name.clone(), other: cell.name.clone() });
            }
            if first > next_free {
                return Err(RegistryFault::Unowned(next_free as u16));
            }
            next_free = last + 1;
            before = Some(cell);
        }
        if next_free < SLOTS {
            return Err(RegistryFault::Unowned(next_free as u16));
        }
        Ok(registry)
    }

    /// The version, from 1.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The cells in the order of their slots.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// The cell that owns a slot.
    ///
    /// # Panics
    /// If there is no such slot: the caller's mistake.
    pub fn owner(&self, slot: u16) -> &Cell {
        assert!(usize::from(slot) < SLOTS, "slot {slot} does not exist");
        &self.cells[self.cells.partition_point(|cell| cell.slots.1 < slot)]
    }
}

fn fault_of(cell: &Cell) -> Option<&'static str> {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    let (first, last) = cell.slots;
    if cell.name.is_empty() || cell.name.len() > NAME_BYTES_MAX || !cell.name.bytes().all(letter) {
        Some("its name must be 1 to 64 of a-z 0-9 - _ .")
    } else if first > last || usize::from(last) >= SLOTS {
        Some("its slots must be [first, last] with first <= last <= 16383")
    } else if cell.addresses.is_empty() || cell.addresses.len() > ADDRESSES_MAX {
        Some("it must have 1 to 64 addresses")
    } else if !cell.addresses.iter().all(|address| is_address(address)) {
        Some("each address must be http://host:port or https://host:port")
    } else {
        None
    }
}

/// Accepts a scheme, a host and a port, and nothing behind them.
fn is_address(address: &str) -> bool {
    let authority = address.strip_prefix("http://").or_else(|| address.strip_prefix("https://"));
    let Some((host, port)) = authority.and_then(|authority| authority.rsplit_once(':')) else {
        return false;
    };
    let host_fits = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte)),
    };
    let port_fits = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    host_fits && port_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(name: &str, first: i32, last: i32) -> String {
        format!(r#"{{"name":"{name}","slots":[{first},{last}],"addresses":["http://a.example:8080","https://[::1]:1"]}}"#)
    }

    fn parse(cells: &[String]) -> Result<Registry, RegistryFault> {
        Registry::parse(format!(r#"{{"version":3,"cells":[{}]}}"#, cells.join(",")).as_bytes())
    }

    #[test]
    fn every_slot_finds_its_cell() {
        let registry = parse(&[cell("b", 100, 16_383), cell("a", 0, 99)]).unwrap();
        assert_eq!(registry.version(), 3);
        for (slot, name) in [(0, "a"), (99, "a"), (100, "b"), (16_383, "b")] {
            assert_eq!(registry.owner(slot).name, name, "{slot}");
        }
        assert_eq!(registry.cells().iter().map(|cell| cell.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn gaps_and_overlaps_are_named() {
        let cases = [
            (vec![], "slot 0 "),
            (vec![cell("a", 1, 16_383)], "slot 0 "),
            (vec![cell("a", 0, 16_382)], "slot 16383 "),
            (vec![cell("a", 0, 99), cell("b", 101, 16_383)], "slot 100 "),
            (vec![cell("a", 0, 100), cell("b", 100, 16_383)], "both \"a\" and \"b\""),
            (vec![cell("a", 0, 16_383), cell("b", 5, 6)], "both \"a\" and \"b\""),
        ];
        for (cells, expected) in cases {
            let fault = parse(&cells).unwrap_err().to_string();
            assert!(fault.contains(expected), "{fault}");
        }
    }

    #[test]
    fn bad_cells_and_bad_text_are_refused() {
        let good = cell("a", 0, 16_383);
        let broken = [
            good.replace("\"a\"", "\"A b\""),
            good.replace("\"a\"", "\"\""),
            good.replace("[0,16383]", "[0,16384]"),
            good.replace("[0,16383]", "[0,-1]"),
            good.replace("[0,16383]", "[9,8]"),
            good.replace("[0,16383]", "[0]"),
            good.replace("\"name\"", "\"extra\":1,\"name\""),
            good.replace("http://a.example:8080", "a.example:8080"),
            good.replace("http://a.example:8080", "http://a.example"),
            good.replace("http://a.example:8080", "http://a.example:0"),
            good.replace("http://a.example:8080", "http://a.example:+1"),
            good.replace("http://a.example:8080", "http://a.example:80/path"),
            good.replace("http://a.example:8080", "http://u@a.example:80"),
            r#"{"name":"a","slots":[0,16383],"addresses":[]}"#.to_owned(),
            r#"{"name":"a","slots":[0,16383]}"#.to_owned(),
        ];
        for cell in broken {
            assert!(parse(std::slice::from_ref(&cell)).is_err(), "{cell}");
        }
        assert!(matches!(parse(&[cell("a", 0, 5), cell("a", 6, 16_383)]), Err(RegistryFault::Cell { .. })));
        for text in ["", "{}", "[]", r#"{"version":0,"cells":[]}"#, r#"{"version":1}"#, r#"{"version":1,"cells":[]} x"#] {
            assert!(Registry::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(matches!(Registry::load(Path::new("/nowhere/registry.json")), Err(RegistryFault::Io { .. })));
    }

    #[test]
    fn a_huge_file_is_not_read() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("registry.json");
        std::fs::write(&path, vec![b' '; FILE_BYTES_MAX as usize + 1]).unwrap();
        assert!(matches!(Registry::load(&path), Err(RegistryFault::TooLarge(_))));
    }
}
