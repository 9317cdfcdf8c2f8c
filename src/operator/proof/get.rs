//! `ronctl proof get`: a proof, byte for byte as the server sends it.
use super::keep;
use crate::domain::TxId;
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use crate::operator::wallet::{ask, Authority};
use std::path::PathBuf;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl proof get --tx tx_00000000000000000000000000 --out proof.json
  ronctl proof get --tx tx_00000000000000000000000000 --size 1200
  ronctl proof get --from 1200 --to 1350 --out consistency.json

With --tx the proof that a transaction is part of the history, under the current root or under that of --size batches. With --from
and --to the proof that the root of --to batches continues that of --from.")]
#[command(group(clap::ArgGroup::new("what").required(true).args(["tx", "from"])))]
pub struct Get {
    /// Transaction id, as a receipt names it
    #[arg(long, value_name = "TXID")]
    pub tx: Option<String>,
    /// Batches of the root under which the transaction is to be proven
    #[arg(long, value_name = "SIZE", requires = "tx")]
    pub size: Option<u64>,
    /// Batches of the earlier root
    #[arg(long, value_name = "SIZE", requires = "to", conflicts_with = "size")]
    pub from: Option<u64>,
    /// Batches of the later root
    #[arg(long, value_name = "SIZE", requires = "from")]
    pub to: Option<u64>,
    /// Write to a file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    authority: Authority,
}

impl Get {
    /// Asks and keeps the answer.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let reply = ask(context, &self.authority, &self.target()?, None)?;
        keep(&context.output, &reply, self.out.as_deref())
    }

    fn target(&self) -> Result<String, Failure> {
        if let (Some(from), Some(to)) = (self.from, self.to) {
            return Ok(format!("/v1/ledger/consistency?from={from}&to={to}"));
        }
        let given = self.tx.as_deref().unwrap_or_default();
        let txid = TxId::parse(given).ok_or_else(|| {
            let next = "copy the txid of a receipt: tx_ and 26 digits and capital letters";
            Failure::usage(format!("{given:?} is not a transaction id"), next)
        })?;
        let size = self.size.map_or_else(String::new, |size| format!("?size={size}"));
        Ok(format!("/v1/tx/{txid}/proof{size}"))
    }
}
