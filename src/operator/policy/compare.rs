//! What differs between two policies, rule by rule.
use serde_json::{json, Value};

/// One rule that another policy would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where it stands, such as `assets.roc.amount_max.transfer`.
    pub path: String,
    /// What is there now; null if nothing is.
    pub before: Value,
    /// What would be there; null if nothing would.
    pub after: Value,
}

impl Change {
    /// As programs read it.
    pub fn json(&self) -> Value {
        json!({"path": self.path, "before": self.before, "after": self.after})
    }

    /// As people read it.
    pub fn line(&self) -> String {
        match (&self.before, &self.after) {
            (Value::Null, after) => format!("+ {}: {}", self.path, plain(after)),
            (before, Value::Null) => format!("- {}: {}", self.path, plain(before)),
            (before, after) => format!("~ {}: {} -> {}", self.path, plain(before), plain(after)),
        }
    }
}

/// The changes from one policy to another, both in their plainest spelling, in the order of their paths.
pub fn changes(before: &Value, after: &Value) -> Vec<Change> {
    let mut found = Vec::new();
    compare("", before, after, &mut found);
    found
}

fn compare(path: &str, before: &Value, after: &Value, found: &mut Vec<Change>) {
    let within = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match (before, after) {
        (before, after) if before == after => {}
        (Value::Object(old), Value::Object(new)) => {
            let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                let side = |of: &serde_json::Map<String, Value>| of.get(name).cloned().unwrap_or(Value::Null);
                compare(&within(name), &side(old), &side(new), found);
            }
        }
        // A rule with several members that is new or gone is told member by member, but for a whole asset.
        (Value::Null, Value::Object(new)) if !new.is_empty() && !is_asset(path) => compare(path, &json!({}), after, found),
        (Value::Object(old), Value::Null) if !old.is_empty() && !is_asset(path) => compare(path, before, &json!({}), found),
        // Lists are sets: what is in one and not in the other.
        (Value::Array(old), Value::Array(new)) => {
            let gone = old.iter().filter(|one| !new.contains(one));
            let come = new.iter().filter(|one| !old.contains(one));
            let change = |before: Value, after: Value| Change { path: path.to_owned(), before, after };
            found.extend(gone.map(|one| change(one.clone(), Value::Null)));
            found.extend(come.map(|one| change(Value::Null, one.clone())));
        }
        (before, after) => found.push(Change { path: path.to_owned(), before: before.clone(), after: after.clone() }),
    }
}

fn is_asset(path: &str) -> bool {
    path.strip_prefix("assets.").is_some_and(|name| !name.contains('.'))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_that_differs_is_told_once_and_nothing_else() {
        let before = json!({"version": 1, "operations": ["burn", "issue"], "assets": {"roc": {"amount_max": {"burn": "5"}}, "ron": {}},
            "quotas": {}, "frozen": ["a", "b"]});
        let after = json!({"version": 2, "operations": ["issue"], "assets": {"roc": {"amount_max": {"burn": "6", "issue": "1"}}},
            "quotas": {"account": {"rate": 5, "burst": 9}}, "frozen": ["b", "c"]});
        let lines: Vec<_> = changes(&before, &after).iter().map(Change::line).collect();
        assert_eq!(
            lines,
            [
                "~ assets.roc.amount_max.burn: 5 -> 6",
                "+ assets.roc.amount_max.issue: 1",
                "- assets.ron: {}",
                "- frozen: a",
                "+ frozen: c",
                "- operations: burn",
                "+ quotas.account.burst: 9",
                "+ quotas.account.rate: 5",
                "~ version: 1 -> 2",
            ]
        );
        assert_eq!(changes(&before, &before), []);
        let limited = json!({"assets": {"ron": {"amount_max": {"burn": "5"}, "daily_max": {}}}});
        let gone: Vec<_> = changes(&limited, &json!({"assets": {}})).iter().map(Change::line).collect();
        assert_eq!(gone, [r#"- assets.ron: {"amount_max":{"burn":"5"},"daily_max":{}}"#]);
        let back = changes(&after, &before);
        assert_eq!(back.len(), lines.len());
        assert_eq!(back[2].json(), json!({"path": "assets.ron", "before": null, "after": {}}));
    }
}
