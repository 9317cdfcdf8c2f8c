//! What the audit has found and what accounts hold, as bodies of frames. Pure.
use super::{Fields, Malformed};
use crate::domain::limits::{ACCOUNT_BYTES_MAX, ASSET_BYTES_MAX};
use crate::domain::{Account, Asset, Nonce, Seq, UnixMs};
use crate::ledger::snapshot::AssetSums;
use crate::ledger::{Audit, Held, Scrubbed};

/// Appends what the auditor of the daemon has found; which accounts agree with a wallet is not known there.
pub(super) fn encode_audit(audit: &Audit, out: &mut Vec<u8>) {
    let broken = audit.broken.as_deref().map_or("", super::shortened);
    let Audit { through, snapshot, snapshot_newest, snapshot_ms, snapshots_taken, snapshots_failed, reads_failed, .. } = *audit;
    let Scrubbed { last_end, damaged } = audit.scrub;
    let snapshots = [snapshot.0, snapshot_newest.0, snapshot_ms, snapshots_taken, snapshots_failed];
    let numbers = [through.0].into_iter().chain(snapshots).chain([reads_failed, last_end.0]);
    for number in numbers.chain(damaged).chain([broken.len() as u64]) {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(broken.as_bytes());
    for AssetSums { asset, issued, burned, held } in &audit.sums {
        out.push(asset.len() as u8);
        out.extend_from_slice(asset.as_bytes());
        [issued, burned, held].iter().for_each(|sum| out.extend_from_slice(&sum.to_le_bytes()));
    }
}

/// Reads what [`encode_audit`] has written.
pub(super) fn decode_audit(mut fields: Fields<'_>) -> Result<Audit, Malformed> {
    let through = Seq(fields.u64()?);
    let (snapshot, snapshot_newest, snapshot_ms) = (Seq(fields.u64()?), UnixMs(fields.u64()?), fields.u64()?);
    let (snapshots_taken, snapshots_failed) = (fields.u64()?, fields.u64()?);
    let (reads_failed, last_end) = (fields.u64()?, UnixMs(fields.u64()?));
    let scrub = Scrubbed { last_end, damaged: [fields.u64()?, fields.u64()?, fields.u64()?] };
    let length = usize::try_from(fields.u64()?).unwrap_or(usize::MAX);
    let broken = text(fields.bytes(length)?)?;
    let broken = Some(broken.to_owned()).filter(|broken| !broken.is_empty());
    let mut sums = Vec::new();
    while !fields.rest.is_empty() {
        let asset = asset(&mut fields)?.to_owned();
        let (issued, burned, held) = (fields.u128()?, fields.u128()?, fields.u128()?);
        sums.push(AssetSums { asset, issued, burned, held });
    }
    let agreed = 0;
    let of_snapshots = Audit { snapshot, snapshot_newest, snapshot_ms, snapshots_taken, snapshots_failed, ..Audit::default() };
    Ok(Audit { through, sums, reads_failed, agreed, scrub, broken, ..of_snapshots })
}

/// Appends names of accounts.
pub(super) fn encode_accounts(accounts: &[Box<str>], out: &mut Vec<u8>) {
    for account in accounts {
        out.extend_from_slice(&(account.len() as u16).to_le_bytes());
        out.extend_from_slice(account.as_bytes());
    }
}

/// Reads what [`encode_accounts`] has written, but no more than `accounts_max` of them.
pub(super) fn decode_accounts(mut fields: Fields<'_>, accounts_max: usize) -> Result<Vec<Box<str>>, Malformed> {
    let mut accounts = Vec::new();
    while !fields.rest.is_empty() {
        if accounts.len() == accounts_max {
            return Err(Malformed(format!("more than {accounts_max} accounts are asked for together")));
        }
        let length = fields.u16()?;
        accounts.push(account(&mut fields, length)?.into());
    }
    Ok(accounts)
}

/// Appends accounts with what they hold.
pub(super) fn encode_holders(holders: &[(Box<str>, Held)], out: &mut Vec<u8>) {
    for (account, held) in holders {
        out.extend_from_slice(&(account.len() as u16).to_le_bytes());
        out.extend_from_slice(&(held.values.len() as u16).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&held.last_nonce.0.to_le_bytes());
        out.extend_from_slice(account.as_bytes());
        for (asset, free, held) in &held.values {
            out.push(asset.len() as u8);
            out.extend_from_slice(asset.as_bytes());
            out.extend_from_slice(&free.to_le_bytes());
            out.extend_from_slice(&held.to_le_bytes());
        }
    }
}

/// Reads what [`encode_holders`] has written.
pub(super) fn decode_holders(mut fields: Fields<'_>) -> Result<Vec<(Box<str>, Held)>, Malformed> {
    let mut holders = Vec::new();
    while !fields.rest.is_empty() {
        let (length, count) = (fields.u16()?, fields.u16()?);
        fields.zeros(4)?;
        let last_nonce = Nonce(fields.u64()?);
        let account = account(&mut fields, length)?.into();
        let mut values = Vec::new();
        for _ in 0..count {
            values.push((asset(&mut fields)?.into(), fields.u128()?, fields.u128()?));
        }
        holders.push((account, Held { last_nonce, values }));
    }
    Ok(holders)
}

fn account<'a>(fields: &mut Fields<'a>, length: u16) -> Result<&'a str, Malformed> {
    let name = text(fields.bytes(usize::from(length).min(ACCOUNT_BYTES_MAX + 1))?)?;
    Account::new(name).map(|_| name).ok_or_else(|| Malformed(format!("the name of an account with {length} bytes")))
}

fn asset<'a>(fields: &mut Fields<'a>) -> Result<&'a str, Malformed> {
    let [length] = fields.array()?;
    let name = text(fields.bytes(usize::from(length).min(ASSET_BYTES_MAX + 1))?)?;
    Asset::new(name).map(|_| name).ok_or_else(|| Malformed(format!("the name of an asset with {length} bytes")))
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed("a name that is not UTF-8".into()))
}
