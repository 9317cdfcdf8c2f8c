//! The writes of the API, and how the less frequent of them look as requests and as receipts.
//!
//! Transfers are the bulk of every load and have templates of their own in `requests`; the others are formatted when they are sent.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::rng::Random;

/// What a write does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Moves value.
    #[default]
    Transfer,
    /// Creates value on an account. It has no nonce; only its key protects it.
    Issue,
    /// Destroys value.
    Burn,
    /// Moves value into the held part of another account.
    Hold,
    /// Pays held value.
    Capture,
    /// Gives held value back to an account that placed some.
    Release,
}

impl Op {
    /// Those that are not transfers.
    pub const OTHERS: [Op; 5] = [Op::Issue, Op::Burn, Op::Hold, Op::Capture, Op::Release];

    /// One of those.
    pub fn draw_other(random: &mut Random) -> Op {
        Op::OTHERS[random.below(Op::OTHERS.len() as u64) as usize]
    }

    /// As receipts and paths name it.
    pub fn name(self) -> &'static str {
        match self {
            Op::Transfer => "transfer",
            Op::Issue => "issue",
            Op::Burn => "burn",
            Op::Hold => "hold",
            Op::Capture => "capture",
            Op::Release => "release",
        }
    }

    /// Whether it takes held value.
    pub fn takes_held(self) -> bool {
        matches!(self, Op::Capture | Op::Release)
    }

    fn has_from(self) -> bool {
        self != Op::Issue
    }

    fn has_to(self) -> bool {
        self != Op::Burn
    }
}

/// How often each was acknowledged.
pub type ByOperation = BTreeMap<Op, u64>;

/// What a request says, in words.
pub struct Wording<'a> {
    /// What it does.
    pub op: Op,
    /// The debited account.
    pub from: &'a str,
    /// The credited account.
    pub to: &'a str,
    /// The asset.
    pub asset: &'a str,
    /// Minor units.
    pub amount_minor: u128,
    /// The debited account's nonce.
    pub nonce: u64,
}

impl Wording<'_> {
    /// The body of the request.
    pub fn body(&self) -> String {
        let nonce = if self.op.has_from() { format!(r#","nonce":{}"#, self.nonce) } else { String::new() };
        format!(r#"{{{}"asset":"{}","amount_minor":"{}"{nonce}}}"#, self.parties(), self.asset, self.amount_minor)
    }

    /// What follows the transaction id in its receipt, up to the time.
    pub fn receipt(&self, key: &str) -> String {
        let nonce = if self.op.has_from() { format!(r#","nonce":{}"#, self.nonce) } else { String::new() };
        format!(
            r#"","op":"{}",{}"asset":"{}","amount_minor":"{}"{nonce},"idem":"{key}","ts":"#,
            self.op.name(),
            self.parties(),
            self.asset,
            self.amount_minor
        )
    }

    fn parties(&self) -> String {
        let from = if self.op.has_from() { format!(r#""from":"{}","#, self.from) } else { String::new() };
        let to = if self.op.has_to() { format!(r#""to":"{}","#, self.to) } else { String::new() };
        from + &to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_has_the_fields_that_the_api_gives_it() {
        let word = |op| Wording { op, from: "a", to: "b", asset: "roc", amount_minor: 5, nonce: 7 };
        assert_eq!(word(Op::Issue).body(), r#"{"to":"b","asset":"roc","amount_minor":"5"}"#);
        assert_eq!(word(Op::Burn).body(), r#"{"from":"a","asset":"roc","amount_minor":"5","nonce":7}"#);
        let both = r#"{"from":"a","to":"b","asset":"roc","amount_minor":"5","nonce":7}"#;
        for op in [Op::Transfer, Op::Hold, Op::Capture, Op::Release] {
            assert_eq!(word(op).body(), both);
            let receipt = word(op).receipt("k");
            let expected = r#","from":"a","to":"b","asset":"roc","amount_minor":"5","nonce":7,"idem":"k","ts":"#;
            assert_eq!(receipt, format!(r#"","op":"{}"{expected}"#, op.name()));
        }
        assert_eq!(word(Op::Issue).receipt("k"), r#"","op":"issue","to":"b","asset":"roc","amount_minor":"5","idem":"k","ts":"#);
    }
}
