//! A place where a file says something else than this version does, and all of them together.
use serde::Serialize;

/// One difference between what is written down and what this version does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The file that says otherwise.
    pub file: String,
    /// Where in it: a JSON pointer (RFC 6901).
    pub pointer: String,
    /// What the file says.
    pub expected: String,
    /// What this version does.
    pub found: String,
    /// What to do about it.
    pub next: &'static str,
}

/// What to do where a document is behind the code, or the code behind the document.
pub const SHAPE: &str =
    "deploy the version that this file was written for, or take the file of this version to whoever builds against it";
/// What to do where a file cannot be understood.
pub const FORM: &str = "correct the file there; its form is told in tests/vectors/README.md";

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: expected {}; found {}; {}", self.file, self.pointer, self.expected, self.found, self.next)
    }
}

/// All differences of one file or of several, and how much was looked at.
#[derive(Debug, Default, PartialEq)]
pub struct Report {
    /// The differences, in the order in which they were met; each place once.
    pub differences: Vec<Difference>,
    /// Schemas that were held against the code.
    pub schemas: usize,
    /// Values that were shown to a schema and to the code.
    pub values: usize,
    /// Vectors that were recomputed.
    pub vectors: usize,
}

impl Report {
    /// Notes a difference, unless the same is noted of this place already.
    pub fn add(&mut self, file: &str, pointer: &str, expected: impl Into<String>, found: impl Into<String>, next: &'static str) {
        let (expected, found) = (expected.into(), found.into());
        // A schema is used in many places.
        if !self.differences.iter().any(|known| known.file == file && known.pointer == pointer && known.expected == expected) {
            self.differences.push(Difference { file: file.into(), pointer: pointer.into(), expected, found, next });
        }
    }
    /// Notes a value that is judged otherwise than at this place, unless one is known already: an example is enough.
    pub fn example(&mut self, file: &str, pointer: &str, expected: String, found: &str, next: &'static str) {
        if !self.differences.iter().any(|known| known.file == file && known.pointer == pointer && known.found == found) {
            self.add(file, pointer, expected, found, next);
        }
    }
}
