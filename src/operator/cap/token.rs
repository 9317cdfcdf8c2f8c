//! Reads a token that is not typed.
use std::fs::File;
use std::io::{stdin, Read};
use std::path::Path;

use crate::operator::exit::Failure;

/// Longest text that is read for a token, in bytes.
const INPUT_BYTES_MAX: u64 = 64 << 10;

/// The text of a file, or of standard input if it is called `-`.
pub fn read(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let (read, from) = if file == Path::new("-") {
        (stdin().take(INPUT_BYTES_MAX).read_to_string(&mut text), "standard input".to_owned())
    } else {
        let read = File::open(file).and_then(|file| file.take(INPUT_BYTES_MAX).read_to_string(&mut text));
        (read, file.display().to_string())
    };
    read.map_err(|fault| Failure::usage(format!("cannot read a token from {from}: {fault}"), ""))?;
    Ok(text)
}
