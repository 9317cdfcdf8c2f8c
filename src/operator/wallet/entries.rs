//! `ronctl wallet entries`: the entries of an account, newest first, a line for each.
use super::{ask, refusal, remark, rfc3339, Authority};
use crate::domain::limits::PAGE_ENTRIES_MAX;
use crate::operator::client::{percent_encoded, Reply};
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use crate::operator::output::{printable, Style};
use serde_json::Value;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl wallet entries --account alice
  ronctl wallet entries --account alice --limit 200
  ronctl --json wallet entries --account escrow:order-7 --all

Newest first. A plus is value that came, a minus value that went; amounts are in minor units. With --json each page comes as the
server sent it, one a line, with the receipts as they were first sent.")]
pub struct Entries {
    /// Account to ask for
    #[arg(long)]
    pub account: String,
    /// Show at most so many entries
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: u64,
    /// Show all entries, back to the first one
    #[arg(long, conflicts_with = "limit")]
    pub all: bool,
    /// Go on where an earlier answer ended
    #[arg(long)]
    pub cursor: Option<String>,
    #[command(flatten)]
    authority: Authority,
}

impl Entries {
    /// Asks page by page and prints.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let mut left = if self.all { u64::MAX } else { self.limit };
        let mut cursor = self.cursor.clone();
        let mut shown = 0;
        loop {
            let mut target =
                format!("/v1/accounts/{}/entries?limit={}", percent_encoded(&self.account), left.min(PAGE_ENTRIES_MAX as u64));
            if let Some(cursor) = &cursor {
                target.push_str(&format!("&cursor={}", percent_encoded(cursor)));
            }
            let reply = ask(context, &self.authority, &target, Some(&self.account))?;
            let page = reply.json();
            let entries = page["entries"].as_array().map(Vec::as_slice).unwrap_or_default();
            if !self.print(context, &reply, entries)? {
                return Ok(Exit::No);
            }
            shown += entries.len();
            left = left.saturating_sub(entries.len() as u64);
            cursor = page["next_cursor"].as_str().map(str::to_owned);
            match &cursor {
                Some(next) if left == 0 => {
                    let next = printable(next);
                    remark(
                        &context.output,
                        &format!("There may be older entries: --all shows them, --cursor {next} goes on here."),
                    )?;
                    return Ok(Exit::Done);
                }
                Some(_) => {}
                None => break,
            }
        }
        if shown == 0 {
            remark(&context.output, "No entry of this account is there, or none that the token covers.")?;
        }
        Ok(Exit::Done)
    }

    /// Prints one page; false if the server says no and that was printed as it came.
    fn print(&self, context: &Context, reply: &Reply, entries: &[Value]) -> Result<bool, Failure> {
        let output = &context.output;
        if output.json {
            output.line(printable(&String::from_utf8_lossy(&reply.body)).trim_end())?;
            return Ok(reply.status == 200);
        }
        if reply.status != 200 {
            return Err(refusal(reply));
        }
        for entry in entries {
            let line = line(entry, &self.account);
            output.line(&format!(
                "{}  {}  {}",
                output.paint(Style::Faint, &line[0]),
                line[1],
                output.paint(Style::Faint, &line[2])
            ))?;
        }
        Ok(true)
    }
}

/// When, what happened to this account, and under which names.
fn line(entry: &Value, account: &str) -> [String; 3] {
    let text = |name: &str| printable(entry[name].as_str().unwrap_or_default());
    let when = entry["ts"].as_u64().and_then(rfc3339).unwrap_or_default();
    let (sign, other) = if text("from") == account { ('-', ("to", text("to"))) } else { ('+', ("from", text("from"))) };
    let other = if other.1.is_empty() { String::new() } else { format!("{} {}", other.0, other.1) };
    let nonce = entry["nonce"].as_u64().map(|nonce| format!("nonce {nonce}  ")).unwrap_or_default();
    let change = format!("{sign}{}", text("amount_minor"));
    let what = format!("{:<8}  {change:>16} {:<6}  {other:<24}", text("op"), text("asset"));
    [format!("{when:<24}"), what, format!("{nonce}key {}  {}", text("idem"), text("txid"))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_told_from_the_side_of_its_account() {
        let spend = serde_json::json!({"txid": "tx_1", "op": "transfer", "from": "a", "to": "b", "asset": "roc",
            "amount_minor": "250", "nonce": 3, "idem": "k", "ts": 1_500});
        let told =
            |entry: &Value, account| line(entry, account).map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
        assert_eq!(told(&spend, "a"), ["1970-01-01T00:00:01.5Z", "transfer -250 roc to b", "nonce 3 key k tx_1"]);
        assert_eq!(told(&spend, "b")[1], "transfer +250 roc from a");
        let issue = serde_json::json!({"txid": "tx_2", "op": "issue", "to": "a", "asset": "roc", "amount_minor": "9",
            "idem": "i", "ts": 0});
        assert_eq!(told(&issue, "a"), ["1970-01-01T00:00:00Z", "issue +9 roc", "key i tx_2"]);
    }
}
