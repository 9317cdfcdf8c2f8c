//! The state of one account as bytes in a snapshot. Pure.
//!
//! Invariants: equal states are equal bytes, and whatever parses is a state that is written as just these bytes. The file that
//! the records stand in is not known here. `docs/LEDGER.md` draws the record.
use crate::domain::{Account, AccountState, AssetValue, DayCount, Nonce, Payer, TokenId};

/// Length of a record without anything in it, in bytes.
const RECORD_HEAD_BYTES: usize = 24;
/// Longest record, in bytes: more payers than this are on no escrow account that a service could live with.
pub(super) const RECORD_BYTES_MAX: usize = 64 << 20;

/// Why bytes are not a record.
pub(super) type Malformed = &'static str;

/// Appends the record of an account.
pub(super) fn encode(state: &AccountState<'_>, out: &mut Vec<u8>) {
    let begin = out.len();
    let name = state.name.as_bytes();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(name.len() as u16).to_le_bytes());
    out.extend_from_slice(&count(state.values.len()).to_le_bytes());
    out.extend_from_slice(&(state.payers.len() as u32).to_le_bytes());
    out.extend_from_slice(&(state.day_counts.len() as u32).to_le_bytes());
    out.extend_from_slice(&state.last_nonce.0.to_le_bytes());
    out.extend_from_slice(name);
    for AssetValue { asset, free, held } in state.values {
        out.extend_from_slice(&asset.to_le_bytes());
        out.extend_from_slice(&[length(*free), length(*held)]);
        amount(*free, out);
        amount(*held, out);
    }
    for Payer { asset, account } in state.payers {
        out.extend_from_slice(&asset.to_le_bytes());
        out.extend_from_slice(&(account.as_bytes().len() as u16).to_le_bytes());
        out.extend_from_slice(account.as_bytes());
    }
    for DayCount { token, asset, day, spent } in state.day_counts {
        out.extend_from_slice(&token.0);
        out.extend_from_slice(&asset.to_le_bytes());
        out.extend_from_slice(&day.to_le_bytes());
        out.push(length(*spent));
        amount(*spent, out);
    }
    let total = out.len() - begin;
    assert!(total <= RECORD_BYTES_MAX, "an account's record of {total} bytes");
    out[begin..begin + 4].copy_from_slice(&(total as u32).to_le_bytes());
}

fn count(values: usize) -> u16 {
    u16::try_from(values).expect("there are fewer than 65,536 assets")
}

/// How many bytes a number needs.
fn length(number: u128) -> u8 {
    (16 - number.leading_zeros() / 8) as u8
}

fn amount(number: u128, out: &mut Vec<u8>) {
    out.extend_from_slice(&number.to_le_bytes()[..usize::from(length(number))]);
}

/// A record that was told apart from what follows it, without a look at more than its head.
pub(super) struct Divided<'a> {
    pub name: &'a [u8],
    pub record: &'a [u8],
    pub rest: &'a [u8],
}

/// Tells the first record apart from what follows it.
pub(super) fn divide(bytes: &[u8]) -> Result<Divided<'_>, Malformed> {
    let head = bytes.get(..RECORD_HEAD_BYTES).ok_or("a record is cut short")?;
    let total = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let name_end = RECORD_HEAD_BYTES + usize::from(u16::from_le_bytes([head[4], head[5]]));
    if total < name_end || total > bytes.len() {
        return Err("a record's length is wrong");
    }
    let (record, rest) = bytes.split_at(total);
    Ok(Divided { name: &record[RECORD_HEAD_BYTES..name_end], record, rest })
}

/// The names of the accounts whose records lie one behind the other in `bytes`, as far as these can be told apart.
pub(crate) fn names(bytes: &[u8]) -> impl Iterator<Item = Account<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let divided = divide(rest).ok()?;
        rest = divided.rest;
        Account::of_bytes(divided.name)
    })
}

/// Hands over the states whose records lie one behind the other in `bytes`, checked in every field. `assets` are known.
pub(crate) fn for_each_state(
    mut bytes: &[u8],
    assets: usize,
    each: &mut dyn FnMut(&AccountState<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let mut lists = Lists::default();
    while !bytes.is_empty() {
        let (state, rest) = parse(bytes, assets, &mut lists)?;
        each(&state)?;
        bytes = rest;
    }
    Ok(())
}

/// What the lists of a state point to. Kept for its memory.
#[derive(Default)]
pub(super) struct Lists<'a> {
    values: Vec<AssetValue>,
    payers: Vec<Payer<'a>>,
    day_counts: Vec<DayCount>,
}

/// Reads the record at the start of `bytes`, checked in every field, and returns it with what follows. `assets` are known.
pub(super) fn parse<'a, 'l>(
    bytes: &'a [u8],
    assets: usize,
    lists: &'l mut Lists<'a>,
) -> Result<(AccountState<'l>, &'a [u8]), Malformed>
where
    'a: 'l,
{
    let Divided { name, record, rest: after } = divide(bytes)?;
    let name = Account::of_bytes(name).ok_or("a record's name is none")?;
    let counts = [u32::from(u16::from_le_bytes([record[6], record[7]])), word(record, 8), word(record, 12)];
    let last_nonce = Nonce(u64::from(word(record, 16)) | u64::from(word(record, 20)) << 32);
    let mut rest = Rest { bytes: &record[RECORD_HEAD_BYTES + name.as_bytes().len()..], assets };
    lists.values.clear();
    lists.payers.clear();
    lists.day_counts.clear();
    for _ in 0..counts[0] {
        let asset = rest.asset()?;
        let lengths = rest.take(2)?;
        let value = AssetValue { asset, free: rest.amount(lengths[0])?, held: rest.amount(lengths[1])? };
        let ascends = lists.values.last().map_or(true, |last| last.asset < asset);
        if !ascends || (value.free == 0 && value.held == 0) || value.free.checked_add(value.held).is_none() {
            return Err("a record's values are not in order");
        }
        lists.values.push(value);
    }
    for _ in 0..counts[1] {
        let asset = rest.asset()?;
        let length = rest.u16()?;
        let account = Account::of_bytes(rest.take(usize::from(length))?).ok_or("a payer's name is none")?;
        let payer = Payer { asset, account };
        if lists.payers.last().is_some_and(|last| *last >= payer) {
            return Err("a record's payers are not in order");
        }
        lists.payers.push(payer);
    }
    for _ in 0..counts[2] {
        let mut token = TokenId::default();
        token.0.copy_from_slice(rest.take(16)?);
        let asset = rest.asset()?;
        let mut day = [0; 8];
        day.copy_from_slice(rest.take(8)?);
        let length = rest.take(1)?[0];
        let counted = DayCount { token, asset, day: u64::from_le_bytes(day), spent: rest.amount(length)? };
        if lists.day_counts.last().is_some_and(|last| (last.token, last.asset) >= (token, asset)) {
            return Err("a record's day counts are not in order");
        }
        lists.day_counts.push(counted);
    }
    if !rest.bytes.is_empty() {
        return Err("a record has more in it than it says");
    }
    let Lists { values, payers, day_counts } = lists;
    Ok((AccountState { name, last_nonce, values, payers, day_counts }, after))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

struct Rest<'a> {
    bytes: &'a [u8],
    assets: usize,
}

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        if length > self.bytes.len() {
            return Err("a record has less in it than it says");
        }
        let (taken, rest) = self.bytes.split_at(length);
        self.bytes = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        let bytes = self.take(2)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    fn asset(&mut self) -> Result<u16, Malformed> {
        let asset = self.u16()?;
        (usize::from(asset) < self.assets).then_some(asset).ok_or("a record names an asset that the snapshot does not list")
    }

    fn amount(&mut self, length: u8) -> Result<u128, Malformed> {
        if length > 16 {
            return Err("an amount is longer than 128 bits");
        }
        let bytes = self.take(usize::from(length))?;
        if bytes.last() == Some(&0) {
            return Err("an amount is longer than it need be");
        }
        let mut number = [0; 16];
        number[..bytes.len()].copy_from_slice(bytes);
        Ok(u128::from_le_bytes(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Account<'_> {
        Account::new(name).unwrap()
    }

    /// A record with something in every list, and one with nothing.
    fn samples() -> Vec<u8> {
        let values = [AssetValue { asset: 0, free: u128::MAX - 1, held: 1 }, AssetValue { asset: 2, free: 0, held: 300 }];
        let payers = [Payer { asset: 2, account: named("alice") }, Payer { asset: 2, account: named("bob") }];
        let day_counts = [DayCount { token: TokenId([7; 16]), asset: 1, day: 20_000, spent: 70_000 }];
        let mut bytes = Vec::new();
        let name = named("escrow:1");
        encode(
            &AccountState { name, last_nonce: Nonce(9), values: &values, payers: &payers, day_counts: &day_counts },
            &mut bytes,
        );
        encode(&AccountState { name: named("z"), last_nonce: Nonce(0), values: &[], payers: &[], day_counts: &[] }, &mut bytes);
        bytes
    }

    fn parse_all(mut bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
        let (mut lists, mut again) = (Lists::default(), Vec::new());
        while !bytes.is_empty() {
            let (state, rest) = parse(bytes, 3, &mut lists)?;
            encode(&state, &mut again);
            bytes = rest;
        }
        Ok(again)
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else_passes_for_it() {
        let bytes = samples();
        assert_eq!(parse_all(&bytes).unwrap(), bytes);
        assert_eq!(divide(&bytes).unwrap().name, b"escrow:1");
        for end in 1..bytes.len() {
            // Cut anywhere but between the two records, it is refused.
            let cut = parse_all(&bytes[..end]);
            assert!(cut.is_err() || bytes.len() - end == RECORD_HEAD_BYTES + 1, "cut after {end}");
        }
        for at in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[at / 8] ^= 1 << (at % 8);
            // A flipped bit gives another state, or none, but never a second spelling of one.
            if let Ok(again) = parse_all(&bad) {
                assert_eq!(again, bad, "bit {at}");
            }
        }
    }

    #[test]
    fn lists_out_of_order_and_unknown_assets_are_refused() {
        let values = [AssetValue { asset: 1, free: 1, held: 0 }, AssetValue { asset: 1, free: 2, held: 0 }];
        let payers = [Payer { asset: 1, account: named("b") }, Payer { asset: 1, account: named("a") }];
        let counted = DayCount { token: TokenId([7; 16]), asset: 1, day: 2, spent: 3 };
        let empty = AccountState { name: named("n"), last_nonce: Nonce(1), values: &[], payers: &[], day_counts: &[] };
        let cases = [
            (AccountState { values: &values, ..empty }, "values"),
            (AccountState { values: &[AssetValue { asset: 1, free: 0, held: 0 }], ..empty }, "values"),
            (AccountState { payers: &payers, ..empty }, "payers"),
            (AccountState { day_counts: &[counted, counted], ..empty }, "day counts"),
            (AccountState { values: &[AssetValue { asset: 3, free: 1, held: 0 }], ..empty }, "asset"),
        ];
        for (state, expected) in cases {
            let mut bytes = Vec::new();
            encode(&state, &mut bytes);
            let refused = parse_all(&bytes).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
        }
    }
}
