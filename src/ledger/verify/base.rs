//! Where the books of a verification begin: with the first entry, or with a snapshot that stands in for segments that are gone; and
//! what can be checked of entries that are here and before that snapshot.
//!
//! Of those, the state before is not known, so no balance can be. But the nonces of each account must follow each other and lead to the one
//! that the snapshot has, and the chain must lead to the snapshot's place.
use super::replay::seeds;
use super::snapshots::{is_gone, Bad};
use crate::domain::{Entry, LogId, Seq};
use crate::ledger::books::Books;
use crate::ledger::mark::Mark;
use crate::ledger::scan::{End, Scan, SeenBatch, Start};
use crate::ledger::snapshot::{snapshot_name, snapshots, Snapshot, SnapshotFault};
use crate::ledger::storage::{segment_number, Storage, StorageFile};
use crate::ledger::LedgerError;
use ahash::RandomState;
use std::collections::HashMap;

/// The books before the first entry that is entered into them.
pub(super) struct Base<F> {
    pub books: Books,
    /// Whose books they are, if not all segments are here.
    pub snapshot: Option<Snapshot<F>>,
    /// Older snapshots that are damaged.
    pub damaged: Vec<Bad>,
}

impl<F: StorageFile> Base<F> {
    /// The oldest good snapshot, if there is one and the log does not begin with its first segment any more.
    pub fn oldest_if_needed<S: Storage<File = F>>(
        storage: &S,
        names: &[String],
        mark: Option<Mark>,
    ) -> Result<Self, LedgerError> {
        let mut base = Self { books: Books::new(seeds()), snapshot: None, damaged: Vec::new() };
        let first = names.iter().filter_map(|name| segment_number(name)).min();
        let Some(first) = first.filter(|first| *first > 1) else { return Ok(base) };
        let scan = Scan { storage, segments: first..=first, mark, start: None, sync: false, patient: true };
        let log_id = scan.beginning()?.log_id;
        for seq in snapshots(names).into_iter().rev() {
            match open(storage, seq, log_id) {
                Ok(Some((snapshot, books))) => {
                    (base.books, base.snapshot) = (books, Some(snapshot));
                    return Ok(base);
                }
                Ok(None) => {}
                // A server has replaced it meanwhile, and has a newer one.
                Err(_) if is_gone(storage, seq) => {}
                Err(fault) => base.damaged.push(Bad::rotten(fault)),
            }
        }
        // Without one, nothing stands in for what is gone.
        if base.damaged.is_empty() {
            return Ok(base);
        }
        Err(Bad::fault(&base.damaged, true))
    }

    /// What is known before the first segment that is here.
    pub fn beginning<S: Storage<File = F>>(&self, scan: &Scan<'_, S>) -> Result<End, LedgerError> {
        let mut end = match &self.snapshot {
            Some(_) => scan.beginning()?,
            None => return Ok(scan.at_first()),
        };
        let start = self.snapshot.as_ref().map(Snapshot::start).expect("just seen");
        if end.head > start.seq {
            let what =
                format!("the entries {} to {} are missing: the oldest segment begins after them", start.seq.0 + 1, end.head.0);
            return Err(LedgerError::Incomplete { place: scan.storage.place(""), what });
        }
        if end.head == start.seq {
            if end.root != start.root {
                let what = "the segment does not continue the chain of the snapshot before it".into();
                let place = scan.storage.place(&crate::ledger::storage::segment_name(*scan.segments.start()));
                return Err(LedgerError::Incomplete { place, what });
            }
            end.epoch = start.epoch;
        }
        Ok(end)
    }
}

/// A snapshot, and the books as it has them.
type WithBooks<F> = (Snapshot<F>, Books);

/// A snapshot of this log and the books as it has them; it is read as a whole.
fn open<S: Storage>(storage: &S, seq: Seq, log_id: LogId) -> Result<Option<WithBooks<S::File>>, SnapshotFault> {
    let snapshot = Snapshot::open(storage, &snapshot_name(seq))?;
    if (snapshot.head().log_id, snapshot.head().seq) != (log_id, seq) {
        return Ok(None);
    }
    let books = books_of(&snapshot)?;
    Ok(Some((snapshot, books)))
}

/// The books as a snapshot has them, which is read as a whole.
pub(super) fn books_of<F: StorageFile>(snapshot: &Snapshot<F>) -> Result<Books, SnapshotFault> {
    let mut books = Books::new(seeds());
    for sums in &snapshot.front().assets {
        books.begin_asset(&sums.asset, sums.issued, sums.burned);
    }
    snapshot.for_each_account(&mut |state| {
        books.begin_account(state);
        Ok(())
    })?;
    snapshot.for_each_key(&mut |_| ())?;
    snapshot.for_each_budget(&mut |token, spent| {
        books.begin_budget(token, spent);
        Ok(())
    })?;
    Ok(books)
}

/// The entries that are here and in the snapshot with which the books begin.
pub(super) struct Before {
    snapshot: Option<(Start, String)>,
    /// The newest nonce of each account that they debit.
    nonces: HashMap<Box<str>, u64, RandomState>,
}

impl Before {
    /// Before nothing, or before a snapshot, with its file.
    pub fn new(snapshot: Option<(Start, String)>) -> Self {
        let [a, b, c, d] = seeds();
        Self { snapshot, nonces: HashMap::with_hasher(RandomState::with_seeds(a, b, c, d)) }
    }

    /// Whether this entry is one of them.
    pub fn has(&self, seq: Seq) -> bool {
        self.snapshot.as_ref().is_some_and(|(start, _)| seq <= start.seq)
    }

    /// Takes neighbours, and returns the number of the entry after them; or the entry that breaks a rule.
    pub fn apply<'a>(&mut self, group: &[Entry<'a>], first: Seq) -> Result<Seq, (Seq, Entry<'a>, String)> {
        let mut seq = first;
        for entry in group {
            if let (Some(from), Some(nonce)) = (entry.from(), entry.nonce()) {
                let last = self.nonces.get_mut(from.as_str());
                if let Some(last) = last.as_deref().filter(|last| last.checked_add(1) != Some(nonce.0)) {
                    return Err((seq, *entry, format!("{from} debits with nonce {} after {last}", nonce.0)));
                }
                match last {
                    Some(last) => *last = nonce.0,
                    None => drop(self.nonces.insert(from.as_str().into(), nonce.0)),
                }
            }
            seq = Seq(seq.0 + 1);
        }
        Ok(seq)
    }

    /// At the end of a batch: if the snapshot was taken in it, that must be here, and it must have the nonces to which the entries led.
    pub fn arrive(&mut self, batch: &SeenBatch<'_>, books: &Books) -> Result<(), LedgerError> {
        let Some((start, file)) = &self.snapshot else { return Ok(()) };
        if !(batch.header.first_seq..=batch.header.last_seq()).contains(&start.seq) {
            return Ok(());
        }
        if (start.seq, start.root) != (batch.header.last_seq(), batch.root) {
            let what = format!("the log has no batch that ends with entry {} and its chain hash", start.seq.0);
            return Err(Bad::fault(&[Bad::contradicted(file, what)], true));
        }
        for (account, nonce) in std::mem::take(&mut self.nonces) {
            let known = books.account(&account).map_or(0, |books| books.last_nonce.0);
            if known != nonce {
                let what = format!("it has {account} at nonce {known}, and the entries up to there have brought it to {nonce}");
                return Err(Bad::fault(&[Bad::contradicted(file, what)], true));
            }
        }
        Ok(())
    }
}
