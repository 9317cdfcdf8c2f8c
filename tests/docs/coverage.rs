//! Each line of the operators' runbook is proven by tests that exist and run, or by a tier.
use super::security::has_test;
use super::{anchors, none, read, root, rows, spans, split};
use std::os::unix::fs::PermissionsExt;

const PAGE: &str = "docs/COVERAGE.md";
/// The sections of the operators' runbook, and how many lines of each are on the page at the least: none goes away unseen.
const SECTIONS: [(&str, usize); 26] = [
    ("0. Purpose", 10),
    ("1. Overview", 19),
    ("1. Overview: defaults", 8),
    ("1. Overview: topology", 6),
    ("2. Startup", 15),
    ("2. Shutdown", 5),
    ("3. Health and readiness", 12),
    ("4. Failure modes", 41),
    ("5. Diagnostics", 11),
    ("6. Recovery 1: capabilities fail", 4),
    ("6. Recovery 2: the ledger is unavailable", 5),
    ("6. Recovery 3: counters drift", 5),
    ("6. Recovery 4: sequence mismatch", 4),
    ("6. Recovery 5: the policy is read again", 5),
    ("6. Recovery 6: amnesia hygiene", 5),
    ("7. Backup and restore", 8),
    ("8. Upgrades", 7),
    ("8. Upgrades: post-quantum keys", 4),
    ("9. Chaos", 10),
    ("10. Scaling", 11),
    ("11. Security operations", 10),
    ("12. References", 9),
    ("Perfection gates", 14),
    ("Appendix A: example configuration", 21),
    ("Appendix B: alert rules", 8),
    ("Shape", 7),
];
/// Lines about people and surroundings, which no test can see.
const STATEMENTS: [&str; 3] = ["pillar 12", "criticality", "blueprints"];

/// What is wrong with the tests of a line.
fn unproven(proven: &str) -> Vec<String> {
    let is_there = |test: &str| match test.split_once("::") {
        Some((file, name)) => has_test(file, name),
        None => {
            test.starts_with(".ci/tier-")
                && std::fs::metadata(root().join(test)).is_ok_and(|file| file.permissions().mode() & 0o111 != 0)
        }
    };
    let mut wrong: Vec<String> =
        spans(proven).into_iter().filter(|test| !is_there(test)).map(|test| format!("there is no test {test}")).collect();
    if spans(proven).is_empty() {
        wrong.push("no test is named".to_owned());
    }
    // What stands beside the tests is punctuation.
    if proven.split('`').step_by(2).any(|between| !matches!(between.trim(), "" | ",")) {
        wrong.push(format!("{proven} is more than tests"));
    }
    wrong
}

#[test]
fn every_line_names_tests_that_exist_and_run() {
    let (mut wrong, mut statements) = (Vec::new(), Vec::new());
    for row in rows(PAGE, "the runbook says") {
        let [line, place, proven] = &row[..] else { panic!("{row:?} is no row of three cells") };
        if place.is_empty() {
            wrong.push(format!("{line}: it is said nowhere where it is"));
        }
        if proven == "-" {
            statements.push(line.clone());
        } else {
            wrong.extend(unproven(proven).into_iter().map(|what| format!("{line}: {what}")));
        }
    }
    none(&wrong);
    assert_eq!(statements.len(), STATEMENTS.len(), "{statements:?}");
    for (statement, begins) in statements.iter().zip(STATEMENTS) {
        assert!(statement.starts_with(begins), "nothing proves: {statement}");
    }
    assert!(!unproven("`tests/docs/coverage.rs::every_line`").is_empty() && !unproven("`.ci/tier-none`").is_empty());
    assert!(
        !unproven("`tests/docs/coverage.rs::every_line_names_tests_that_exist_and_run` (in part)").is_empty()
            && !unproven("").is_empty()
    );
}

#[test]
fn every_section_of_the_runbook_is_there_with_all_its_lines() {
    let text = read(PAGE);
    let mut found: Vec<(String, usize)> = Vec::new();
    for line in split(&text).0 {
        match (line.strip_prefix("## "), found.last_mut()) {
            (Some(title), _) => found.push((title.to_owned(), 0)),
            (None, Some((_, lines))) if line.starts_with("| ") && !line.starts_with("| the runbook says") => *lines += 1,
            _ => {}
        }
    }
    let titles: Vec<&str> = found.iter().map(|(title, _)| title.as_str()).collect();
    assert_eq!(titles, SECTIONS.map(|(title, _)| title));
    for ((title, lines), (_, at_least)) in found.iter().zip(SECTIONS) {
        assert!(*lines >= at_least, "{title}: {lines} lines of {at_least}");
    }
    assert!(anchors(&text).len() > SECTIONS.len());
}
