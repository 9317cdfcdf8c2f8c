//! How each kind of line is written at a place of the stream, which then goes on by it.
//!
//! The members of each kind and their order are the format: `docs/OBSERVABILITY.md` describes them. No line has a token, a secret, a memo, or a
//! text of an error message; a client's own words are its correlation id and its idempotency key, which have alphabets without control
//! characters.
use super::chain::{Chain, Totals};
use super::event::Event;
use super::line::Pen;
use crate::domain::{Entry, LogId, Seq, TokenId, TxId, UnixMs};
use crate::telemetry::feed::{Asked, DropCounts, Holder, Refused, DROP_REASONS};

/// Why a file was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It is the first one of the stream.
    Nothing,
    /// The one before was full.
    Full,
    /// A new day began, in UTC.
    Day,
    /// Something in the one before is not what was written.
    Damage,
}

impl After {
    fn as_str(self) -> &'static str {
        match self {
            After::Nothing => "nothing",
            After::Full => "full",
            After::Day => "day",
            After::Damage => "damage",
        }
    }
}

impl Chain {
    fn line(&mut self, out: &mut Vec<u8>, ts: UnixMs, kind: &'static str, members: impl FnOnce(&mut Pen<'_>)) {
        let mut pen = Pen::begin(out, self.n + 1, ts.0, kind);
        members(&mut pen);
        self.head = pen.seal(&self.head);
        self.n += 1;
        self.at_checkpoint = false;
    }

    pub(super) fn write_begin(&mut self, out: &mut Vec<u8>, now: UnixMs, log: LogId, after: After) {
        let (file, prev, through, sums) = (self.file + 1, self.head, self.through, self.totals);
        self.line(out, now, "begin", |pen| {
            pen.number("file", u64::from(file));
            pen.hex("prev", &prev);
            pen.hex("log", &log.0);
            pen.number("through", through.0);
            totals(pen, &sums);
            pen.plain("after", after.as_str());
        });
        (self.file, self.log) = (file, Some(log));
    }

    /// The next entry of the ledger.
    pub(super) fn write_accepted(&mut self, out: &mut Vec<u8>, log: LogId, seq: Seq, entry: &Entry<'_>, subject: Option<&str>) {
        debug_assert_eq!(seq.0, self.through.0 + 1);
        let txid = TxId::new(log, seq, entry).text();
        self.line(out, entry.ts(), "op", |pen| {
            pen.plain("outcome", "accepted");
            pen.number("seq", seq.0);
            pen.plain("txid", std::str::from_utf8(&txid).expect("the alphabet is ASCII"));
            operation(pen, entry);
            holder(pen, Some(entry.token()), subject, entry.corr());
        });
        self.through = seq;
        self.totals.accepted += 1;
    }

    pub(super) fn write_refused(&mut self, out: &mut Vec<u8>, refused: &Refused, subject: Option<&str>) {
        let entry = match &refused.asked {
            Asked::Entry(bytes) => Some(Entry::parse_own(bytes).0),
            Asked::Unread { .. } => None,
        };
        let (ts, corr) = match (&refused.asked, &entry) {
            (Asked::Unread { ts, corr, .. }, _) => (*ts, &**corr),
            (Asked::Entry(_), entry) => entry.map(|entry| (entry.ts(), entry.corr())).expect("parsed just now"),
        };
        let token = entry.map(|entry| entry.token()).or_else(|| refused.holder.as_ref().map(|(token, _)| *token));
        self.line(out, ts, "op", |pen| {
            pen.plain("outcome", if refused.unknown { "unknown" } else { "refused" });
            pen.plain("code", refused.code.as_str());
            pen.number("status", u64::from(refused.status));
            pen.plain("reason", refused.reason.map_or("other", |reason| reason.as_str()));
            pen.number("policy_version", refused.policy_version);
            match (&entry, &refused.asked) {
                (Some(entry), _) => operation(pen, entry),
                (None, Asked::Unread { op, .. }) => pen.plain("op", op.as_str()),
                (None, Asked::Entry(_)) => unreachable!("an entry was parsed above"),
            }
            holder(pen, token, subject, corr);
        });
        self.totals.refused += 1;
    }

    pub(super) fn write_token(&mut self, out: &mut Vec<u8>, now: UnixMs, holder: &Holder) {
        self.line(out, now, "token", |pen| {
            pen.hex("token_id", &holder.token.0);
            pen.text("subject", &holder.subject);
            pen.text("key_id", &holder.key_id);
        });
    }

    /// What has been dropped since a moment; nothing must not be told.
    pub(super) fn write_dropped(&mut self, out: &mut Vec<u8>, now: UnixMs, since: UnixMs, counts: &DropCounts) {
        let count: u64 = counts.iter().sum();
        debug_assert!(count > 0);
        let by: Vec<String> = DROP_REASONS
            .iter()
            .zip(counts)
            .filter(|(_, count)| **count > 0)
            .map(|(reason, count)| format!("\"{reason}\":{count}"))
            .collect();
        self.line(out, now, "dropped", |pen| {
            pen.number("since", since.0);
            pen.number("count", count);
            pen.raw("by", &format!("{{{}}}", by.join(",")));
        });
        self.totals.dropped = self.totals.dropped.saturating_add(count);
    }

    /// The ledger has no entry between the last one here and this one any more: an archive has them.
    pub(super) fn write_gap(&mut self, out: &mut Vec<u8>, now: UnixMs, to: Seq) {
        self.write_stretch(out, now, "gap", Seq(self.through.0 + 1), to, "archived");
    }

    /// The ledger ends at this entry: what the stream has behind it was taken back with a restore.
    pub(super) fn write_rewind(&mut self, out: &mut Vec<u8>, now: UnixMs, to: Seq) {
        self.write_stretch(out, now, "rewind", self.through, to, "restored");
    }

    fn write_stretch(&mut self, out: &mut Vec<u8>, now: UnixMs, kind: &'static str, from: Seq, to: Seq, why: &'static str) {
        self.line(out, now, kind, |pen| {
            pen.number("from_seq", from.0);
            pen.number("to_seq", to.0);
            pen.plain("why", why);
        });
        self.through = to;
    }

    pub(super) fn write_event(&mut self, out: &mut Vec<u8>, now: UnixMs, event: &Event) {
        self.line(out, now, "event", |pen| {
            pen.plain("event", event.kind.as_str());
            pen.raw("ok", if event.ok { "true" } else { "false" });
            for (name, value) in &event.members {
                pen.text(name, value);
            }
        });
    }

    /// What stands before is on the disk. `signature` is a JSON object, and none if the checkpoint could not be signed.
    pub(super) fn write_checkpoint(&mut self, out: &mut Vec<u8>, now: UnixMs, signature: Option<&str>) {
        let (head, through, sums) = (self.head, self.through, self.totals);
        self.line(out, now, "checkpoint", |pen| {
            pen.hex("head", &head);
            pen.number("through", through.0);
            totals(pen, &sums);
            pen.raw("signature", signature.unwrap_or("null"));
        });
        self.at_checkpoint = true;
    }
}

fn totals(pen: &mut Pen<'_>, sums: &Totals) {
    pen.number("accepted", sums.accepted);
    pen.number("refused", sums.refused);
    pen.number("dropped", sums.dropped);
}

fn operation(pen: &mut Pen<'_>, entry: &Entry<'_>) {
    pen.plain("op", entry.op().as_str());
    if let Some(from) = entry.from() {
        pen.plain("from", from.as_str());
    }
    if let Some(to) = entry.to() {
        pen.plain("to", to.as_str());
    }
    pen.plain("asset", entry.asset().as_str());
    pen.plain("amount_minor", itoa::Buffer::new().format(entry.amount().minor_units()));
    if let Some(nonce) = entry.nonce() {
        pen.number("nonce", nonce.0);
    }
    pen.plain("idem", entry.key().as_str());
}

fn holder(pen: &mut Pen<'_>, token: Option<TokenId>, subject: Option<&str>, corr: &str) {
    match token {
        Some(token) => pen.hex("token_id", &token.0),
        None => pen.raw("token_id", "null"),
    }
    pen.text_or_null("subject", subject);
    pen.text("corr_id", corr);
}
