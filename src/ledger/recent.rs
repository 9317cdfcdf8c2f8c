//! The batches that were looked into last: verified, taken apart and kept, so that questions about neighbours read nothing.
//!
//! Durable batches never change, so what is kept is never stale. Repeats and receipts are asked for in bursts, of entries that were
//! committed together.
use super::reader::visit;
use super::scan::SeenBatch;
use super::LedgerError;
use crate::domain::{Found, Root, Seq};
use std::collections::VecDeque;
use std::ops::ControlFlow;

/// Most batches that are kept.
const RECENT_BATCHES_MAX: usize = 32;
/// Most bytes of entries that are kept, unless the newest batch alone has more.
const RECENT_BYTES_MAX: usize = 4 << 20;

/// A batch whose hashes were right when it was read.
struct Batch {
    first: Seq,
    root: Root,
    /// The entries, one after the other.
    bytes: Vec<u8>,
    /// Where each entry ends in them.
    ends: Vec<usize>,
}

impl Batch {
    fn find(&self, seq: Seq) -> Option<Found> {
        let index = usize::try_from(seq.0.checked_sub(self.first.0)?).ok()?;
        let end = *self.ends.get(index)?;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        Some(Found { entry: self.bytes[start..end].into(), seq, root: self.root })
    }
}

/// What is kept, the oldest first.
#[derive(Default)]
pub(super) struct Recent {
    batches: VecDeque<Batch>,
    bytes: usize,
}

impl Recent {
    /// The entry, if its batch is kept.
    pub fn find(&self, seq: Seq) -> Option<Found> {
        self.batches.iter().rev().find_map(|batch| batch.find(seq))
    }

    /// Keeps a batch and lets the oldest go for it. Fails if an entry of it cannot be read.
    pub fn keep(&mut self, seen: &SeenBatch<'_>) -> Result<(), LedgerError> {
        let mut batch = Batch { first: seen.header.first_seq, root: seen.root, bytes: Vec::new(), ends: Vec::new() };
        let _ = visit(seen, |_, entry| {
            batch.bytes.extend_from_slice(entry.bytes());
            batch.ends.push(batch.bytes.len());
            ControlFlow::Continue(())
        })?;
        self.bytes += batch.bytes.len();
        self.batches.push_back(batch);
        while self.batches.len() > RECENT_BATCHES_MAX || (self.bytes > RECENT_BYTES_MAX && self.batches.len() > 1) {
            self.bytes -= self.batches.pop_front().map_or(0, |oldest| oldest.bytes.len());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(first: u64, entries: usize, entry_bytes: usize) -> Batch {
        let ends = (1..=entries).map(|count| count * entry_bytes).collect();
        Batch { first: Seq(first), root: [first as u8; 32], bytes: vec![first as u8; entries * entry_bytes], ends }
    }

    #[test]
    fn an_entry_is_found_in_its_batch_and_nowhere_else() {
        let recent = Recent { batches: [batch(10, 3, 5), batch(40, 1, 7)].into(), bytes: 22 };
        let found = |seq| recent.find(Seq(seq)).map(|found| (found.entry.len(), found.root[0]));
        assert_eq!([9, 10, 12, 13, 39, 40, 41].map(found), [None, Some((5, 10)), Some((5, 10)), None, None, Some((7, 40)), None]);
    }
}
