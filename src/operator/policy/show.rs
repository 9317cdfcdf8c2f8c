//! `ronctl policy show`: the policy in force.
use super::InForce;
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use crate::operator::output::rfc3339;
use serde_json::{json, Value};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl policy show
  ronctl --json policy show | jq .policy > policy.json

The server is asked on its admin socket, so this is what binds requests now, whatever stands in the file meanwhile. The member `policy` of
the JSON is a whole policy file.")]
pub struct Show {}

impl Show {
    /// Asks the server and shows it.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let config = context.config()?;
        let told = InForce::ask(context, &config)?;
        if context.output.json {
            context.output.value(&json!({"file": told.file, "loaded": rfc3339(told.loaded_ms), "policy": told.policy}))?;
            return Ok(Exit::Done);
        }
        let mut rows = vec![
            ("version".to_owned(), told.version().to_string()),
            ("file".to_owned(), told.file.clone()),
            ("read".to_owned(), rfc3339(told.loaded_ms).unwrap_or_else(|| "unknown".to_owned())),
        ];
        for (name, value) in told.policy.as_object().into_iter().flatten().filter(|(name, _)| *name != "version") {
            rules(name, value, &mut rows);
        }
        let rows: Vec<(&str, String)> = rows.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        context.output.line(&context.output.fields(&rows))?;
        Ok(Exit::Done)
    }
}

/// A row for each rule: lists in one, quotas and ceilings by themselves. What is empty limits nothing and is left out, but for an asset.
fn rules(path: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) if members.get("rate").is_some() => {
            rows.push((path.to_owned(), format!("{} per second, {} at once", members["rate"], members["burst"])));
        }
        Value::Object(members) => {
            let before = rows.len();
            members.iter().for_each(|(name, value)| rules(&format!("{path}.{name}"), value, rows));
            if rows.len() == before && path.starts_with("assets.") && path.matches('.').count() == 1 {
                rows.push((path.to_owned(), "listed, without ceilings".to_owned()));
            }
        }
        Value::Array(items) if items.is_empty() => {}
        Value::Array(items) => {
            rows.push((path.to_owned(), items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")));
        }
        other => rows.push((path.to_owned(), other.as_str().map_or_else(|| other.to_string(), str::to_owned))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_its_row_and_what_limits_nothing_has_none() {
        let policy = json!({"assets": {"roc": {"amount_max": {"burn": "5"}, "daily_max": {}}, "ron": {"amount_max": {}, "daily_max": {}}},
            "quotas": {"account": {"rate": 5, "burst": 9}}, "frozen": ["a", "b*"], "denied": {"accounts": [], "subjects": ["eve"]}});
        let mut rows = Vec::new();
        policy.as_object().unwrap().iter().for_each(|(name, value)| rules(name, value, &mut rows));
        let rows: Vec<_> = rows.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            rows,
            [
                "assets.roc.amount_max.burn=5",
                "assets.ron=listed, without ceilings",
                "denied.subjects=eve",
                "frozen=a, b*",
                "quotas.account=5 per second, 9 at once"
            ]
        );
    }
}
