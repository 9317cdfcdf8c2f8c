//! One line of the counters file: written in one piece, checked in one piece.
use std::fmt::Write as _;

use serde::{Deserialize, Deserializer};

use super::protocol::REQUEST_BYTES_MAX;
use super::sink::Stretch;
use super::sums::Sums;
use crate::domain::limits::{ACCOUNT_BYTES_MAX, ASSET_BYTES_MAX};
use crate::domain::{bytes_of_hex, hex, LogId, Seq};

/// The version of the form of a line.
pub const FORMAT: u8 = 1;
const CHECK_BYTES: usize = 16;
const CHECK_HEX: usize = 2 * CHECK_BYTES;
const BEFORE_CHECK: &str = ",\"check\":\"";
const AFTER_CHECK: &str = "\"}\n";
const ENDING_BYTES: usize = BEFORE_CHECK.len() + CHECK_HEX + AFTER_CHECK.len();
/// Longest delta: the names, quotes, commas and brackets, `transfer`, `credit`, and digits of 64 and 128 bits.
const DELTA_BYTES_MAX: usize = ACCOUNT_BYTES_MAX + ASSET_BYTES_MAX + 8 + 6 + 20 + 39 + 19;
/// What stands before the deltas, generously.
const OPENING_BYTES_MAX: usize = 256;
/// Most deltas of one line: enough for some hundred thousand busy accounts, because what does not fit costs one more round.
pub(super) const DELTAS_MAX: usize = 250_000;
/// Most deltas of a line that goes to a daemon.
pub(super) const DAEMON_DELTAS_MAX: usize = 20_000;
/// Longest line, in bytes.
pub(super) const LINE_BYTES_MAX: usize = 96 << 20;

const _: () = assert!(OPENING_BYTES_MAX + DAEMON_DELTAS_MAX * DELTA_BYTES_MAX + ENDING_BYTES <= REQUEST_BYTES_MAX);
const _: () = assert!(OPENING_BYTES_MAX + DELTAS_MAX * DELTA_BYTES_MAX + ENDING_BYTES <= LINE_BYTES_MAX);

/// One delta of a line, as it is read back.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Delta {
    /// The account.
    pub account: String,
    /// The asset.
    pub asset: String,
    /// Name of the operation.
    pub op: String,
    /// `debit` or `credit`.
    pub side: String,
    /// How many entries.
    pub count: u64,
    /// Their sum in minor units.
    #[serde(deserialize_with = "decimal")]
    pub amount: u128,
}

/// One line, as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The ledger that it was derived from.
    pub log: LogId,
    /// First entry that it counts.
    pub from: Seq,
    /// Last entry that it counts.
    pub through: Seq,
    /// What it counts.
    pub deltas: Vec<Delta>,
}

/// Why bytes are not a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFault {
    /// They do not end as a line does: torn.
    Torn,
    /// They are not what was written.
    Check,
    /// They are what was written, but not by this version.
    Format,
}

impl std::fmt::Display for LineFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            LineFault::Torn => "the line is cut short",
            LineFault::Check => "the line is not what was written: its check value is wrong",
            LineFault::Format => "the line has a format that this version does not know",
        })
    }
}

impl std::error::Error for LineFault {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    v: u8,
    log: String,
    from_seq: u64,
    through_seq: u64,
    deltas: Vec<Delta>,
    #[serde(rename = "check")]
    _check: String,
}

fn decimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

fn check_of(bytes: &[u8]) -> String {
    hex(&blake3::hash(bytes).as_bytes()[..CHECK_BYTES])
}

/// Writes the line for a stretch of the ledger into `out`, which is emptied first.
///
/// # Panics
/// If the stretch is empty or has more deltas than a line may have: the caller's mistake.
pub(super) fn write_line(out: &mut String, Stretch { log, from, through }: Stretch, sums: &Sums) {
    assert!(from <= through && sums.len() <= DELTAS_MAX);
    out.clear();
    let log = hex(&log.0);
    let infallible = "a text takes everything";
    write!(out, r#"{{"v":{FORMAT},"log":"{log}","from_seq":{},"through_seq":{},"deltas":["#, from.0, through.0)
        .expect(infallible);
    let mut first = true;
    sums.for_each(|label, sum| {
        let comma = if std::mem::take(&mut first) { "" } else { "," };
        let (op, side) = (label.op.as_str(), label.side.as_str());
        // No alphabet of these names has a character that JSON would escape.
        write!(out, r#"{comma}["{}","{}","{op}","{side}",{},"{}"]"#, label.account, label.asset, sum.count, sum.amount)
            .expect(infallible);
    });
    out.push(']');
    let check = check_of(out.as_bytes());
    out.push_str(BEFORE_CHECK);
    out.push_str(&check);
    out.push_str(AFTER_CHECK);
    assert!(out.len() <= LINE_BYTES_MAX);
}

impl Line {
    /// Which entries it counts.
    pub fn stretch(&self) -> Stretch {
        Stretch { log: self.log, from: self.from, through: self.through }
    }

    /// Reads a line with its line feed.
    pub fn parse(bytes: &[u8]) -> Result<Self, LineFault> {
        let checked = bytes.len().checked_sub(ENDING_BYTES).ok_or(LineFault::Torn)?;
        let (content, ending) = bytes.split_at(checked);
        let check = ending.strip_prefix(BEFORE_CHECK.as_bytes()).and_then(|rest| rest.strip_suffix(AFTER_CHECK.as_bytes()));
        if check.ok_or(LineFault::Torn)? != check_of(content).as_bytes() {
            return Err(LineFault::Check);
        }
        let raw: Raw = serde_json::from_slice(bytes).map_err(|_| LineFault::Format)?;
        let log = bytes_of_hex(&raw.log).map(LogId).ok_or(LineFault::Format)?;
        if raw.v != FORMAT || raw.from_seq == 0 || raw.from_seq > raw.through_seq {
            return Err(LineFault::Format);
        }
        Ok(Self { log, from: Seq(raw.from_seq), through: Seq(raw.through_seq), deltas: raw.deltas })
    }
}

#[cfg(test)]
mod tests {
    use super::super::counters::tests::entry;
    use super::*;
    use crate::domain::{Entry, Op};

    fn line(entries: &[Vec<u8>]) -> String {
        let mut sums = Sums::default();
        for bytes in entries {
            sums.add(&Entry::parse(bytes).unwrap().0);
        }
        let mut out = "what was there before".to_owned();
        write_line(&mut out, Stretch { log: LogId([0xab; 16]), from: Seq(5), through: Seq(9) }, &sums);
        out
    }

    #[test]
    fn a_line_is_read_back_as_it_was_meant() {
        let text =
            line(&[entry(Op::Transfer, "bob", "ann", 7), entry(Op::Issue, "", "ann", 5), entry(Op::Transfer, "bob", "ann", 1)]);
        assert!(text.contains(r#""deltas":[["bob","roc","transfer","debit",2,"8"],["ann","roc","transfer","credit",2,"8"],["ann","roc","issue","credit",1,"5"]]"#), "{text}");
        let line = Line::parse(text.as_bytes()).unwrap();
        assert_eq!((line.log, line.from, line.through, line.deltas.len()), (LogId([0xab; 16]), Seq(5), Seq(9), 3));
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["v"], 1);
    }

    #[test]
    fn a_sum_beyond_128_bits_goes_on_in_a_second_delta() {
        let text = line(&[entry(Op::Burn, "bob", "", u128::MAX), entry(Op::Burn, "bob", "", 3), entry(Op::Burn, "bob", "", 4)]);
        let amounts: Vec<_> =
            Line::parse(text.as_bytes()).unwrap().deltas.iter().map(|delta| (delta.count, delta.amount)).collect();
        assert_eq!(amounts, [(1, u128::MAX), (2, 7)]);
    }

    #[test]
    fn the_longest_delta_fits_its_bound() {
        let (long, other) = ("a".repeat(ACCOUNT_BYTES_MAX), "b".repeat(ACCOUNT_BYTES_MAX));
        let with_one = line(&[entry(Op::Transfer, &long, &other, u128::MAX)]).len();
        assert!(with_one <= OPENING_BYTES_MAX + 2 * DELTA_BYTES_MAX + ENDING_BYTES, "{with_one}");
    }

    #[test]
    fn no_cut_and_no_changed_byte_passes() {
        let good = line(&[entry(Op::Transfer, "bob", "ann", 7)]).into_bytes();
        for end in 0..good.len() {
            assert!(Line::parse(&good[..end]).is_err(), "{end}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(Line::parse(&bad).is_err(), "{at}");
        }
    }
}
