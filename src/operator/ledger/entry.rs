//! One entry of the ledger for people and for programs: every field under one name, in one order, everywhere.
//!
//! The names are those of the receipt where it has the field. Amounts are text, because 128 bits are more than most programs
//! read as a number. Does not know where the entry was read.
use serde::Serialize;

use crate::api::reply::receipt;
use crate::domain::{hex, Entry, LogId, Root, Seq, TxId};
use crate::operator::output::{grouped, printable, rfc3339};

/// An entry with its place.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    /// The log that it belongs to.
    pub log_id: LogId,
    /// Its number.
    pub seq: Seq,
    /// Chain hash after its batch.
    pub root: &'a Root,
    /// The entry itself.
    pub entry: Entry<'a>,
}

/// The fields of an entry as an export writes them, in the order of its columns.
#[derive(Debug, Serialize)]
pub struct Row<'a> {
    /// Number of the entry.
    pub seq: u64,
    /// Transaction id.
    pub txid: String,
    /// When the request was accepted, RFC 3339 with milliseconds.
    pub time: String,
    /// The operation.
    pub op: &'static str,
    /// The debited account; absent for issue.
    pub from: Option<&'a str>,
    /// The credited account; absent for burn.
    pub to: Option<&'a str>,
    /// The asset.
    pub asset: &'a str,
    /// How much of it, in minor units.
    pub amount_minor: String,
    /// Number of the debit; absent for an issue without a reference of its own.
    pub nonce: Option<u64>,
    /// Idempotency key.
    pub idem: &'a str,
    /// The client's own words, if any were given.
    pub memo: Option<&'a str>,
    /// Correlation id of the request.
    pub corr_id: &'a str,
    /// Id of the capability that allowed it, in hex.
    pub token_id: String,
    /// Whether it counts against a daily ceiling of that capability.
    pub ceiling: bool,
    /// Chain hash after the batch of the entry, in hex.
    pub ledger_root: String,
    /// Whether it counts against a budget of that capability.
    pub budget: bool,
    /// Whether it counts against what the policy lets its operation debit in a day.
    pub daily_max: bool,
}

impl<'a> Shown<'a> {
    /// The transaction id.
    pub fn txid(&self) -> TxId {
        TxId::new(self.log_id, self.seq, &self.entry)
    }

    /// The fields.
    pub fn row(&self) -> Row<'a> {
        let entry = &self.entry;
        let ts = entry.ts().0;
        Row {
            seq: self.seq.0,
            txid: self.txid().to_string(),
            time: rfc3339(ts).unwrap_or_else(|| format!("{ts} ms")),
            op: entry.op().as_str(),
            from: entry.from().map(|name| name.as_str()),
            to: entry.to().map(|name| name.as_str()),
            asset: entry.asset().as_str(),
            amount_minor: entry.amount().minor_units().to_string(),
            nonce: entry.nonce().map(|nonce| nonce.0),
            idem: entry.key().as_str(),
            memo: entry.memo(),
            corr_id: entry.corr(),
            token_id: hex(&entry.token().0),
            ceiling: entry.counts_against_ceiling(),
            ledger_root: hex(self.root),
            budget: entry.counts_against_budget(),
            daily_max: entry.counts_against_daily_max(),
        }
    }

    /// The receipt that the client got, byte for byte.
    pub fn receipt(&self) -> String {
        let mut bytes = Vec::new();
        receipt(&mut bytes, self.log_id, &self.entry, self.seq, self.root);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Names and values for people. What came from clients is made safe for a terminal.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let row = self.row();
        let mut rows = vec![("entry", grouped(u128::from(row.seq))), ("txid", row.txid), ("operation", row.op.to_owned())];
        rows.extend(row.from.map(|name| ("from", name.to_owned())));
        rows.extend(row.to.map(|name| ("to", name.to_owned())));
        rows.push(("asset", row.asset.to_owned()));
        rows.push(("amount", format!("{} minor units", grouped(self.entry.amount().minor_units()))));
        rows.extend(row.nonce.map(|nonce| ("nonce", grouped(u128::from(nonce)))));
        rows.push(("key", row.idem.to_owned()));
        rows.extend(row.memo.map(|memo| ("memo", printable(memo))));
        rows.push(("time", row.time));
        rows.push(("token id", row.token_id));
        let limits = [(row.ceiling, "the daily ceiling of its token"), (row.budget, "the budget of its token")];
        let limits = limits.into_iter().chain([(row.daily_max, "what the policy allows its operation in a day")]);
        rows.extend(limits.filter(|(counts, _)| *counts).map(|(_, what)| ("counts against", what.to_owned())));
        rows.push(("correlation id", printable(row.corr_id)));
        rows.push(("size", format!("{} bytes", self.entry.bytes().len())));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Account, Amount, Asset, Draft, Key, Nonce, Op, TokenId, UnixMs};

    fn encoded(op: Op, memo: Option<&str>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let draft = Draft {
            op,
            from: op.debits().then(|| Account::new("alice").unwrap()),
            to: op.credits().then(|| Account::new("bob").unwrap()),
            asset: Asset::new("roc").unwrap(),
            amount: Amount::new(u128::MAX).unwrap(),
            nonce: op.debits().then_some(Nonce(3)),
            key: Key::new("k").unwrap(),
            memo,
            corr: "c",
            token: TokenId([0xab; 16]),
            ceiling: true,
            budget: op.debits(),
            daily_max: op.debits(),
            ts: UnixMs(1_500),
        };
        draft.encode(&mut bytes);
        bytes
    }

    #[test]
    fn every_field_is_told_in_the_order_of_the_columns() {
        let bytes = encoded(Op::Transfer, Some("tea\x1b"));
        let shown = Shown { log_id: LogId([1; 16]), seq: Seq(7), root: &[2; 32], entry: Entry::parse(&bytes).unwrap().0 };
        let expected = format!(
            r#"{{"seq":7,"txid":"{}","time":"1970-01-01T00:00:01.5Z","op":"transfer","from":"alice","to":"bob","asset":"roc","amount_minor":"{}","nonce":3,"idem":"k","memo":"tea\u001b","corr_id":"c","token_id":"{}","ceiling":true,"ledger_root":"{}","budget":true,"daily_max":true}}"#,
            shown.txid(),
            u128::MAX,
            "ab".repeat(16),
            "02".repeat(32)
        );
        assert_eq!(serde_json::to_string(&shown.row()).unwrap(), expected);
        let fields = shown.fields();
        assert!(fields.contains(&("memo", "tea\u{fffd}".to_owned())), "{fields:?}");
        assert!(fields.contains(&("amount", format!("{} minor units", grouped(u128::MAX)))), "{fields:?}");
        assert!(shown.receipt().starts_with(&format!("{{\"txid\":\"{}\",\"op\":\"transfer\"", shown.txid())));
    }

    #[test]
    fn what_an_entry_does_not_have_is_absent() {
        let bytes = encoded(Op::Issue, None);
        let shown = Shown { log_id: LogId([1; 16]), seq: Seq(1), root: &[2; 32], entry: Entry::parse(&bytes).unwrap().0 };
        assert_eq!((shown.row().from, shown.row().nonce, shown.row().memo), (None, None, None));
        assert!(shown.fields().iter().all(|(name, _)| !["from", "nonce", "memo"].contains(name)));
    }
}
