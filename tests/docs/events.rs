//! Lines of the log have names: whoever looks for one finds it by its event, however the message is worded.
use super::{files, none, read};

/// A source without its modules of tests, line by line where it was.
fn product(text: &str) -> String {
    let (mut product, mut before, mut inside) = (String::new(), "", false);
    for line in text.lines() {
        inside |= before == "#[cfg(test)]" && line.contains("mod ") && line.ends_with('{');
        product.push_str(if inside { "" } else { line });
        product.push('\n');
        inside &= line != "}";
        before = line;
    }
    product
}

/// The calls that log above `debug`: line, macro, and what is given to it.
fn calls(product: &str) -> Vec<(usize, &'static str, &str)> {
    let mut found = Vec::new();
    for level in ["info!", "warn!", "error!"] {
        for (at, _) in product.match_indices(level) {
            let is_whole = !product[..at].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_');
            let given = product[at + level.len()..].trim_start().strip_prefix(['(', '{', '[']);
            if let (true, Some(given)) = (is_whole, given) {
                found.push((product[..at].matches('\n').count() + 1, level, given.trim_start()));
            }
        }
    }
    found
}

fn has_event(given: &str) -> bool {
    let name = given.strip_prefix("event = \"").and_then(|rest| rest.split('"').next());
    name.is_some_and(|name| !name.is_empty() && name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_'))
}

#[test]
fn every_line_of_the_log_begins_with_its_event() {
    let (mut seen, mut wrong) = (0, Vec::new());
    for path in files("src", &["rs"]).into_iter().filter(|path| !path.ends_with("tests.rs")) {
        for (line, level, given) in calls(&product(&read(&path))) {
            seen += 1;
            if !has_event(given) {
                wrong.push(format!("{path}:{line}: the first field of {level} is no `event = \"snake_case\"`"));
            }
        }
    }
    none(&wrong);
    assert!(seen > 130, "only {seen} calls were found");
    let text = "mod a;\n#[cfg(test)]\nmod b;\n#[cfg(test)]\nmod tests {\n    fn c() {\n        info!(\"c\");\n    }\n}\n\
                fn d() {\n    tracing::warn!(\n        %error, event = \"d\");\n    error!(event = \"e\", \"e\");\n    no_info!(e);\n}\n";
    let code = product(text);
    let found: Vec<_> = calls(&code).into_iter().map(|(line, level, given)| (line, level, has_event(given))).collect();
    assert_eq!(found, [(11, "warn!", false), (13, "error!", true)]);
    assert!(!["event = \"Lost\")", "event = \"\")", "event = name)", "\"lost\")"].into_iter().any(has_event));
}
