//! The blocks of commands of a page, and what its marks say of them.
use std::path::{Path, PathBuf};

/// What is done with a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// `<!-- run: NAME -->`: it is run under this name.
    Run(String),
    /// `<!-- elsewhere: TIER -->`: the tier runs it, because it needs root, another program or another machine.
    Elsewhere(String),
}

/// One block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// None, if nothing stands before it.
    pub mark: Option<Mark>,
    /// Its lines.
    pub commands: String,
    /// Where its first line stands, from 1.
    pub line: usize,
}

/// A file of the sources.
pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Every block of `sh` of this text, in its order.
pub fn blocks(text: &str) -> Vec<Block> {
    let (mut found, mut before): (Vec<Block>, &str) = (Vec::new(), "");
    let mut is_open = false;
    for (at, line) in text.lines().enumerate() {
        match (is_open, line) {
            // One that is indented, in a list, would be seen by nobody.
            (_, line) if line.trim_start().starts_with("```sh") && !line.starts_with("```sh") => {
                panic!("line {}: a block of commands is indented; put it behind the list", at + 1)
            }
            (false, "```sh") => {
                found.push(Block { mark: mark(before), commands: String::new(), line: at + 2 });
                is_open = true;
            }
            (true, "```") => is_open = false,
            (true, line) => {
                let block = found.last_mut().expect("a block is open");
                block.commands.push_str(line);
                block.commands.push('\n');
            }
            (false, _) => {}
        }
        before = line;
    }
    assert!(!is_open, "the last block has no end");
    let marks = text.lines().filter(|line| mark(line).is_some()).count();
    assert_eq!(
        marks,
        found.iter().filter(|block| block.mark.is_some()).count(),
        "a mark stands before something else than a block"
    );
    found
}

fn mark(line: &str) -> Option<Mark> {
    let mark = line.strip_prefix("<!-- ")?.strip_suffix(" -->")?;
    match mark.split_once(": ")? {
        ("run", name) => Some(Mark::Run(name.to_owned())),
        ("elsewhere", tier) => Some(Mark::Elsewhere(tier.to_owned())),
        _ => None,
    }
}

#[test]
fn marks_and_blocks_are_found_where_they_stand() {
    let text = "a\n<!-- run: b -->\n```sh\nc\nd\n```\n```text\n```\n```sh\ne\n```\n<!-- elsewhere: .ci/f -->\n```sh\ng\n```\n";
    let block = |mark, commands: &str, line| Block { mark, commands: commands.to_owned(), line };
    assert_eq!(
        blocks(text),
        [
            block(Some(Mark::Run("b".to_owned())), "c\nd\n", 4),
            block(None, "e\n", 10),
            block(Some(Mark::Elsewhere(".ci/f".to_owned())), "g\n", 14)
        ]
    );
    let lost = std::panic::catch_unwind(|| blocks("<!-- run: b -->\n\n```sh\nc\n```\n"));
    assert!(lost.is_err(), "a mark that has lost its block");
}
