//! The page about security held to the sources: each threat names tests that exist, each block of unsafe code is listed.
use super::{files, none, read, root, rows, set, spans};

#[test]
fn every_threat_names_tests_that_exist() {
    let threats = rows("docs/SECURITY.md", "threat");
    assert!(threats.len() > 30, "the threats were not found");
    let mut wrong = Vec::new();
    for row in &threats {
        let [threat, defence, proven] = &row[..] else { panic!("{row:?} is no row of three cells") };
        if proven == "-" {
            if !defence.starts_with("not defended") {
                wrong.push(format!("{threat}: nothing proves its defence"));
            }
            continue;
        }
        let tests = spans(proven);
        if tests.is_empty() {
            wrong.push(format!("{threat}: no test is named"));
        }
        for test in tests {
            let is_there = test.split_once("::").is_some_and(|(file, name)| has_test(file, name));
            if !is_there {
                wrong.push(format!("{threat}: there is no test {test}"));
            }
        }
    }
    none(&wrong);
    assert!(has_test("tests/docs/security.rs", "every_threat_names_tests_that_exist"));
    assert!(
        !has_test("tests/docs/security.rs", "every_threat")
            && !has_test("tests/docs/security.rs", "has_test")
            && !has_test("tests/none.rs", "a")
            && !has_test("tests/simulation/main.rs", "for_hours")
    );
}

/// Whether a file has a test of this name that is not ignored: a function under `#[test]`, or a target of the fuzzer that is run under test.
pub fn has_test(file: &str, name: &str) -> bool {
    let Ok(text) = std::fs::read_to_string(root().join(file)) else { return false };
    let declared = text.split("#[test]\n").skip(1).any(|rest| {
        let (attributes, function) = rest.split_once("fn ").unwrap_or((rest, ""));
        function.split(['(', '<']).next() == Some(name) && !attributes.contains("#[ignore")
    });
    let listed = || {
        text.split_once("\ntests! {")
            .is_some_and(|(_, rest)| rest.split('}').next().unwrap_or("").split_whitespace().any(|one| one == name))
    };
    declared || listed()
}

#[test]
fn every_block_of_unsafe_code_is_in_the_list() {
    let listed: Vec<String> = rows("docs/SECURITY.md", "block").iter().map(|row| spans(&row[0])[0].to_owned()).collect();
    let sources = ["src", "loadtest"].into_iter().flat_map(|directory| files(directory, &["rs"]));
    // Each block stands under the one attribute that allows it.
    let allows = |path: &String| read(path).matches("#[allow(unsafe_code)]").count();
    let found: Vec<String> = sources.flat_map(|path| std::iter::repeat(path.clone()).take(allows(&path))).collect();
    assert_eq!(set(found.clone()), set(listed.clone()));
    assert_eq!(found.len(), listed.len(), "a file has more blocks than the list");
}
