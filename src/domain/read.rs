//! The reads of the wallet, by the names that policies, metrics and logs have for them.

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names are those of the wire contract.
pub enum Read {
    Balance,
    Seq,
    Tx,
    Proof,
    LedgerRoot,
    Consistency,
    Entries,
    Totals,
}

impl Read {
    /// All of them, in the order in which they are numbered.
    pub const ALL: [Read; 8] =
        [Read::Balance, Read::Seq, Read::Tx, Read::Proof, Read::LedgerRoot, Read::Consistency, Read::Entries, Read::Totals];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Read::Balance => "balance",
            Read::Seq => "seq",
            Read::Tx => "tx",
            Read::Proof => "proof",
            Read::LedgerRoot => "ledger_root",
            Read::Consistency => "consistency",
            Read::Entries => "entries",
            Read::Totals => "totals",
        }
    }
}
