//! Who signs the checkpoints of a stream, and whether the last one that is found at a start was signed so.
use super::chain::{Chain, Totals};
use super::line::Line;
use crate::domain::{bytes_of_hex, LogId, Seq, UnixMs};
use serde_json::{Map, Value};

/// Signs what is given to it at this moment, as a JSON object; `None` if that cannot be.
pub type Sign = dyn Fn(&[u8], UnixMs) -> Option<String> + Send;
/// Checks such a signature of what is given to it; the error says what is wrong with it.
pub type CheckOwn = dyn Fn(&[u8], &Map<String, Value>) -> Result<(), String> + Send;

/// Signs checkpoints, and knows its own signatures.
pub struct Signer {
    /// Signs a checkpoint.
    pub sign: Box<Sign>,
    /// Checks the signature of one.
    pub check: Box<CheckOwn>,
}

/// What a checkpoint says, for a look at its signature.
pub(super) struct Checkpoint {
    /// Its line.
    pub n: u64,
    /// Before it.
    chain: Chain,
    signature: Option<Map<String, Value>>,
}

impl Checkpoint {
    pub fn of(line: &Line<'_>) -> Option<Self> {
        let head = line.head.as_deref().and_then(bytes_of_hex)?;
        let totals = Totals { accepted: line.accepted?, refused: line.refused?, dropped: line.dropped? };
        let chain = Chain { n: line.n.checked_sub(1)?, head, through: Seq(line.through?), totals, ..Chain::BEGINNING };
        (&*line.kind == "checkpoint").then(|| Self { n: line.n, chain, signature: line.signature.clone() })
    }

    /// Why this is perhaps not a checkpoint of the stream of this ledger that the signer has signed, if that is so.
    pub fn distrusted(&self, signer: &Signer, log: LogId) -> Option<String> {
        match &self.signature {
            None => Some("it is not signed".to_owned()),
            Some(signature) => (signer.check)(&Chain { log: Some(log), ..self.chain.clone() }.signed()?, signature).err(),
        }
    }
}
