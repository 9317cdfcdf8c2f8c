//! `ronctl accounting show`: how often and for how much accounts were debited and credited.
use super::{counted, Counters};
use crate::accounting::Stretch;
use crate::domain::hex;
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use crate::operator::output::{grouped, Style};
use serde_json::json;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl accounting show
  ronctl accounting show --account alice --account bob
  ronctl --json accounting show --counters /var/lib/ron/accounting | jq '.flows[] | select(.op == \"burn\")'

The files of the counters are read, also beside a running server, so this is as new as the last flush: `ronctl accounting flush` makes one
now. Amounts are in minor units. An account that was never debited or credited is not there.")]
pub struct Show {
    #[command(flatten)]
    counters: Counters,
    /// Only this account; may be given more than once
    #[arg(long = "account", value_name = "ID")]
    accounts: Vec<String>,
}

impl Show {
    /// Reads the counters and shows them.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let directory = self.counters.path(context, None)?;
        let (Stretch { log, from, through }, flows) = counted(&directory)?;
        let wanted = |account: &String| self.accounts.is_empty() || self.accounts.contains(account);
        let shown = flows.iter().filter(|((account, ..), _)| wanted(account));
        if context.output.json {
            let flows: Vec<_> = shown
                .map(|((account, asset, op, side), (entries, amount))| {
                    json!({"account": account, "asset": asset, "op": op, "side": side, "entries": entries, "amount_minor": amount.to_string()})
                })
                .collect();
            context.output.value(
                &json!({"directory": directory.display().to_string(), "log": hex(&log.0), "from": from.0, "through": through.0, "flows": flows}),
            )?;
            return Ok(Exit::Done);
        }
        let rows: Vec<[String; 6]> = shown
            .map(|((account, asset, op, side), (entries, amount))| {
                let [account, asset, op, side] = [account.as_str(), asset, op, side].map(str::to_owned);
                [account, asset, op, side, grouped(u128::from(entries)), grouped(amount)]
            })
            .collect();
        let [from, through] = [from, through].map(|seq| grouped(u128::from(seq.0)));
        context.output.line(&format!("entries {from} to {through} of ledger {}", hex(&log.0)))?;
        table(context, &["account", "asset", "operation", "side", "entries", "minor units"], &rows)?;
        Ok(Exit::Done)
    }
}

/// A table whose last two columns are numbers.
pub(super) fn table<const N: usize>(context: &Context, names: &[&str; N], rows: &[[String; N]]) -> Result<(), Failure> {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).chain([names[column].len()]).max().unwrap_or(0);
    let widths: Vec<_> = (0..N).map(width).collect();
    let line = |cells: &[&str]| {
        let cells = cells.iter().enumerate().map(|(column, cell)| match column + 2 >= N {
            true => format!("{cell:>width$}", width = widths[column]),
            false => format!("{cell:<width$}", width = widths[column]),
        });
        cells.collect::<Vec<_>>().join("  ")
    };
    context.output.line(&context.output.paint(Style::Faint, &line(names)))?;
    for row in rows {
        context.output.line(&line(&row.each_ref().map(String::as_str)))?;
    }
    Ok(())
}
