//! RUNBOOK.md and README.md do what they say: every block of commands is run as it is printed, and what comes of it is looked at. A block
//! behind `<!-- run: NAME -->` of RUNBOOK.md is run here by a shell in a [place](place::Place) of its own; one behind
//! `<!-- elsewhere: TIER -->` by a tier, because it needs root, another program or another machine. There is no third kind.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.

#[path = "runbook/daemon.rs"]
mod daemon;
#[path = "runbook/embedded.rs"]
mod embedded;
#[path = "runbook/holders.rs"]
mod holders;
#[path = "runbook/page.rs"]
mod page;
#[path = "runbook/place.rs"]
mod place;
#[path = "runbook/serving.rs"]
mod serving;
mod support;

use page::{blocks, source, Block, Mark};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Fails unless all of this was said.
fn told(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{part:?} is missing in:\n{said}");
    }
}

fn text(path: &str) -> String {
    fs::read_to_string(source(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names that these sources hand to a place, one by one or in the list of a loop.
fn names_run(sources: &str) -> BTreeSet<String> {
    let quoted = |text: &str| text.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let single = ["block(\"", "block_ends(\"", "foreground(\""].into_iter().flat_map(|call| sources.split(call).skip(1));
    let mut names: BTreeSet<String> = single.map(|rest| rest.split('"').next().unwrap().to_owned()).collect();
    names.extend(sources.split("for name in [").skip(1).flat_map(|rest| quoted(rest.split(']').next().unwrap())));
    names
}

/// What is wrong with a block that is to be run elsewhere: each of its commands has to stand in one of the tiers, all its words in one line
/// wherever the programs are, unless the tier takes the block from the page, or is the command.
fn not_in(tiers: &str, block: &Block) -> Option<String> {
    let can_be_executed = |path: &str| fs::metadata(source(path)).is_ok_and(|file| file.permissions().mode() & 0o111 != 0);
    let mut texts = Vec::new();
    for tier in tiers.split(", ") {
        if !can_be_executed(tier) {
            return Some(format!("{tier} cannot be executed"));
        }
        texts.push(text(tier));
    }
    if texts.iter().any(|text| text.contains(&format!("<!-- elsewhere: {tiers} -->"))) {
        return None;
    }
    let lines = block.commands.lines().map(|line| line.split(" #").next().unwrap().trim()).filter(|line| !line.is_empty());
    let is_missing = |command: &&str| {
        let words = words(command);
        let has_all = |line: &str| words.iter().all(|word| line.contains(word));
        !can_be_executed(command) && !texts.iter().flat_map(|text| text.lines()).any(has_all)
    };
    let missing: Vec<&str> = lines.filter(is_missing).collect();
    (!missing.is_empty()).then(|| format!("{tiers} does not run {}", missing.join("; ")))
}

/// The words of a command that a tier has as well: the program by its name, whether it is run from where it was built or by `cargo run`.
fn words(command: &str) -> Vec<&str> {
    let built = command.split_once("loadtest -- ").map(|(_, arguments)| arguments);
    let words = built.unwrap_or(command).split_whitespace().map(|word| word.trim_start_matches("./target/release/"));
    built.map(|_| "loadtest").into_iter().chain(words).collect()
}

#[test]
fn every_command_is_run() {
    let known: BTreeSet<String> = ["daemon", "embedded", "holders", "serving"]
        .into_iter()
        .flat_map(|name| names_run(&text(&format!("tests/runbook/{name}.rs"))))
        .collect();
    let (mut wrong, mut runs) = (Vec::new(), BTreeSet::new());
    for page in ["RUNBOOK.md", "README.md"] {
        for block in blocks(&text(page)) {
            let at = format!("{page}:{}", block.line);
            match &block.mark {
                None => wrong.push(format!(
                    "{at}: nothing runs this block; put <!-- run: NAME --> before it and run it in tests/runbook/, or, if it needs root, \
                     another program or another machine, <!-- elsewhere: .ci/tier-NAME -->"
                )),
                Some(Mark::Elsewhere(tier)) => wrong.extend(not_in(tier, &block).map(|what| format!("{at}: {what}"))),
                // .ci/tier-docs runs those of README.md, and holds their names to its own.
                Some(Mark::Run(_)) if page == "README.md" => {}
                Some(Mark::Run(name)) if !runs.insert(name.clone()) => wrong.push(format!("{at}: another block is called {name}")),
                Some(Mark::Run(name)) if !known.contains(name) => {
                    wrong.push(format!("{at}: no test in tests/runbook/ has place.block(\"{name}\")"));
                }
                Some(Mark::Run(_)) => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(runs.len() > 50, "the blocks were not found");
}

#[test]
fn a_block_that_is_not_run_is_seen() {
    assert_eq!(
        names_run("a.block(\"b\"); c.foreground(\"d\", || e);\nfor name in [\"f\", \"g\"] { h.block(name) }"),
        ["b", "d", "f", "g"].map(str::to_owned).into()
    );
    let block = |commands: &str| Block { mark: None, commands: commands.to_owned(), line: 1 };
    assert_eq!(not_in(".ci/tier-load", &block("./target/release/loadtest crash\n")), None);
    assert!(not_in(".ci/tier-load", &block("./target/release/loadtest nothing\n")).is_some());
    assert_eq!(
        not_in(".ci/run, .ci/tier-load", &block("cargo run --release -p loadtest -- crash # long\n.ci/tier-docs\n")),
        None
    );
    assert!(not_in(".ci/tier-none", &block("")).is_some());
}
