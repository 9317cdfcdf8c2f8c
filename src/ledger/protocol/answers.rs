//! Pages of an account's entries and answers out of the history, as bodies of frames. Pure.
//!
//! Lists are as long as their bodies; nothing is kept for a number that the bytes behind it do not bear out.
use super::{Fields, Malformed};
use crate::domain::{Consistency, Digest, Found, HistoryAnswer, HistoryRoot, Inclusion, LogId, Page, Path, Seq, Unproven};

const NO_ENTRY: u8 = 0;
const PROOF: u8 = 1;
const ROOT: u8 = 2;
const CONSISTENCY: u8 = 3;

const PROVEN: u8 = 0;
const BEHIND: u8 = 1;
const NO_SUCH_SIZE: u8 = 2;
const NOT_REACHED: u8 = 3;
const WRONG_ORDER: u8 = 4;
const ARCHIVED: u8 = 5;

/// Appends a page: where it goes on, 0 if it does not, and its entries.
pub(super) fn encode_page(page: &Page, out: &mut Vec<u8>) {
    out.extend_from_slice(&page.before.map_or(0, |before| before.0).to_le_bytes());
    page.entries.iter().for_each(|found| encode_found(found, out));
}

/// Reads what [`encode_page`] has written.
pub(super) fn decode_page(mut fields: Fields<'_>) -> Result<Page, Malformed> {
    let before = Some(Seq(fields.u64()?)).filter(|before| *before > Seq(0));
    let mut entries = Vec::new();
    while !fields.rest.is_empty() {
        entries.push(decode_found(&mut fields)?);
    }
    Ok(Page { entries, before })
}

fn encode_found(found: &Found, out: &mut Vec<u8>) {
    out.extend_from_slice(&found.seq.0.to_le_bytes());
    out.extend_from_slice(&found.root);
    out.extend_from_slice(&(found.entry.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&found.entry);
}

fn decode_found(fields: &mut Fields<'_>) -> Result<Found, Malformed> {
    let (seq, root, length) = (Seq(fields.u64()?), fields.array()?, fields.u32()?);
    fields.zeros(4)?;
    Ok(Found { seq, root, entry: fields.bytes(length as usize)?.into() })
}

/// Appends an answer.
pub(super) fn encode_answer(answer: &HistoryAnswer, out: &mut Vec<u8>) {
    let mut kind = |kind: u8| out.extend_from_slice(&[kind, 0, 0, 0, 0, 0, 0, 0]);
    match answer {
        HistoryAnswer::NoEntry => kind(NO_ENTRY),
        HistoryAnswer::Proof(found, place) => {
            kind(PROOF);
            encode_found(found, out);
            encode_outcome(place, out, encode_inclusion);
        }
        HistoryAnswer::Root(root) => {
            kind(ROOT);
            encode_outcome(root, out, encode_root);
        }
        HistoryAnswer::Consistency(continued) => {
            kind(CONSISTENCY);
            encode_outcome(continued, out, encode_consistency);
        }
    }
}

/// Reads what [`encode_answer`] has written.
pub(super) fn decode_answer(mut fields: Fields<'_>) -> Result<HistoryAnswer, Malformed> {
    let [kind] = fields.array()?;
    fields.zeros(7)?;
    let answer = match kind {
        NO_ENTRY => HistoryAnswer::NoEntry,
        PROOF => HistoryAnswer::Proof(decode_found(&mut fields)?, decode_outcome(&mut fields, decode_inclusion)?),
        ROOT => HistoryAnswer::Root(decode_outcome(&mut fields, decode_root)?),
        CONSISTENCY => HistoryAnswer::Consistency(decode_outcome(&mut fields, decode_consistency)?),
        _ => return Err(Malformed(format!("an answer of kind {kind} out of the history"))),
    };
    fields.end().map(|()| answer)
}

fn encode_outcome<T>(outcome: &Result<T, Unproven>, out: &mut Vec<u8>, encode: impl FnOnce(&T, &mut Vec<u8>)) {
    let (verdict, number) = match outcome {
        Ok(_) => (PROVEN, 0),
        Err(Unproven::Behind) => (BEHIND, 0),
        Err(Unproven::NoSuchSize { current }) => (NO_SUCH_SIZE, *current),
        Err(Unproven::NotReached { size_min }) => (NOT_REACHED, *size_min),
        Err(Unproven::WrongOrder) => (WRONG_ORDER, 0),
        Err(Unproven::Archived { size_min }) => (ARCHIVED, *size_min),
    };
    out.extend_from_slice(&[verdict, 0, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(&number.to_le_bytes());
    if let Ok(proven) = outcome {
        encode(proven, out);
    }
}

fn decode_outcome<T>(
    fields: &mut Fields<'_>,
    decode: impl FnOnce(&mut Fields<'_>) -> Result<T, Malformed>,
) -> Result<Result<T, Unproven>, Malformed> {
    let [verdict] = fields.array()?;
    fields.zeros(7)?;
    let number = fields.u64()?;
    match (verdict, number) {
        (PROVEN, 0) => decode(fields).map(Ok),
        (BEHIND, 0) => Ok(Err(Unproven::Behind)),
        (NO_SUCH_SIZE, current) => Ok(Err(Unproven::NoSuchSize { current })),
        (NOT_REACHED, size_min) => Ok(Err(Unproven::NotReached { size_min })),
        (WRONG_ORDER, 0) => Ok(Err(Unproven::WrongOrder)),
        (ARCHIVED, size_min) => Ok(Err(Unproven::Archived { size_min })),
        _ => Err(Malformed(format!("an answer with the verdict {verdict}, {number} out of the history"))),
    }
}

fn encode_root(root: &HistoryRoot, out: &mut Vec<u8>) {
    out.extend_from_slice(&root.size.to_le_bytes());
    out.extend_from_slice(&root.through.0.to_le_bytes());
    out.extend_from_slice(&root.hash);
}

fn decode_root(fields: &mut Fields<'_>) -> Result<HistoryRoot, Malformed> {
    Ok(HistoryRoot { size: fields.u64()?, through: Seq(fields.u64()?), hash: fields.array()? })
}

fn encode_hashes(hashes: &[Digest], out: &mut Vec<u8>) {
    out.extend_from_slice(&(hashes.len() as u64).to_le_bytes());
    out.extend_from_slice(hashes.as_flattened());
}

fn decode_hashes(fields: &mut Fields<'_>) -> Result<Vec<Digest>, Malformed> {
    let count = usize::try_from(fields.u64()?).unwrap_or(usize::MAX);
    let bytes = fields.bytes(count.saturating_mul(size_of::<Digest>()))?;
    Ok(bytes.chunks_exact(size_of::<Digest>()).map(|hash| super::array_at(hash, 0)).collect())
}

fn encode_path(path: &Path, out: &mut Vec<u8>) {
    encode_hashes(&path.siblings, out);
    encode_hashes(&path.peaks, out);
}

fn decode_path(fields: &mut Fields<'_>) -> Result<Path, Malformed> {
    Ok(Path { siblings: decode_hashes(fields)?, peaks: decode_hashes(fields)? })
}

fn encode_inclusion(inclusion: &Inclusion, out: &mut Vec<u8>) {
    for number in [inclusion.first_seq.0, inclusion.entries, inclusion.batch] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    encode_root(&inclusion.root, out);
    encode_path(&inclusion.in_batch, out);
    encode_path(&inclusion.in_history, out);
}

fn decode_inclusion(fields: &mut Fields<'_>) -> Result<Inclusion, Malformed> {
    let (first_seq, entries, batch) = (Seq(fields.u64()?), fields.u64()?, fields.u64()?);
    let root = decode_root(fields)?;
    Ok(Inclusion { first_seq, entries, in_batch: decode_path(fields)?, batch, in_history: decode_path(fields)?, root })
}

fn encode_consistency(continued: &Consistency, out: &mut Vec<u8>) {
    out.extend_from_slice(&continued.log_id.0);
    encode_root(&continued.from, out);
    encode_root(&continued.to, out);
    encode_hashes(&continued.peaks, out);
    encode_hashes(&continued.additions, out);
}

fn decode_consistency(fields: &mut Fields<'_>) -> Result<Consistency, Malformed> {
    let log_id = LogId(fields.array()?);
    let (from, to) = (decode_root(fields)?, decode_root(fields)?);
    Ok(Consistency { log_id, from, to, peaks: decode_hashes(fields)?, additions: decode_hashes(fields)? })
}
