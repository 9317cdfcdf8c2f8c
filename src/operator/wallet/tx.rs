//! `ronctl wallet tx`: the receipt of one transaction, as the ledger holds it.
use super::{answer, ask, Authority};
use crate::domain::TxId;
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl wallet tx tx_00000000000000000000000000
  ronctl --json wallet tx tx_00000000000000000000000000

With --json the receipt comes byte for byte as it was first sent, so that its receipt_hash can be checked.")]
pub struct Tx {
    /// Transaction id, as a receipt names it
    #[arg(value_name = "TXID")]
    pub txid: String,
    #[command(flatten)]
    authority: Authority,
}

impl Tx {
    /// Asks and prints.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let txid = TxId::parse(&self.txid).ok_or_else(|| {
            Failure::usage(
                format!("{:?} is not a transaction id", self.txid),
                "copy the txid of a receipt: tx_ and 26 digits and capital letters",
            )
        })?;
        let reply = ask(context, &self.authority, &format!("/v1/tx/{txid}"), None)?;
        answer(&context.output, &reply, &[])
    }
}
