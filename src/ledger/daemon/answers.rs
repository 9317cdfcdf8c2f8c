//! What a connection that reads is told: answers to questions, all entries, keys, and snapshots in pieces.
use super::connection::{Connection, Over};
use crate::domain::{Root, Seq, UnixMs};
use crate::ledger::protocol::{Inquiry, Reply, HELD_VALUES_MAX};
use crate::ledger::snapshot::{snapshot_name, snapshots};
use crate::ledger::storage::{ReadFile, Storage};
use crate::ledger::LedgerError;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;

/// Entries that are sent together to a wallet that reads all of them, in bytes.
const ENTRIES_BYTES: usize = 256 << 10;

impl<S: Storage> Connection<S> {
    /// Answers one question.
    pub(super) fn answer(&mut self, id: u64, inquiry: Inquiry) {
        let answered = match inquiry {
            Inquiry::Entry(question) => self.site.reader.find(&question).map(|found| match found {
                Some(found) => {
                    self.line.session.reply(&Reply::Found { id, seq: found.seq, root: found.root, entry: &found.entry });
                }
                None => self.line.session.reply(&Reply::Nothing { id }),
            }),
            Inquiry::Page(question) => {
                self.site.reader.page(&question).map(|page| self.line.session.reply(&Reply::Page { id, page }))
            }
            Inquiry::History(question) => {
                let answer = self.site.reader.history(&question).map(Box::new);
                answer.map(|answer| self.line.session.reply(&Reply::History { id, answer }))
            }
            Inquiry::Audit => {
                match self.site.audit() {
                    Some(audit) => self.line.session.reply(&Reply::Audit { id, audit: Box::new(audit) }),
                    None => self.line.session.reply(&Reply::Nothing { id }),
                }
                Ok(())
            }
            Inquiry::Held(accounts) => {
                let held = self.site.held(accounts);
                let fits = |values: usize| values <= HELD_VALUES_MAX;
                match held.filter(|holders| fits(holders.iter().map(|(_, held)| held.values.len()).sum())) {
                    Some(holders) => self.line.session.reply(&Reply::Holders { id, holders }),
                    None => self.line.session.reply(&Reply::Nothing { id }),
                }
                Ok(())
            }
            Inquiry::Snapshots => {
                let storage = &self.site.reader.shared().storage;
                let names = storage.list().map_err(LedgerError::io(storage.place(""), "look for snapshots"));
                names.map(|names| self.line.session.reply(&Reply::Snapshots { id, snapshots: snapshots(&names) }))
            }
            Inquiry::Directory => {
                match self.site.reader.shared().storage.directory() {
                    Some(directory) => self.line.session.reply(&Reply::Directory { id, path: directory.as_os_str().as_bytes() }),
                    None => self.line.session.reply(&Reply::Nothing { id }),
                }
                Ok(())
            }
            Inquiry::Piece { snapshot, offset, length } => {
                let place = self.site.reader.shared().storage.place(&snapshot_name(snapshot));
                let read = self.piece(snapshot, offset, length).map_err(LedgerError::io(place, "read the snapshot"));
                read.map(|(size, bytes)| self.line.session.reply(&Reply::Piece { id, size, bytes: &bytes }))
            }
        };
        if let Err(error) = answered {
            self.unanswered(id, &error);
        }
    }

    fn unanswered(&mut self, id: u64, error: &LedgerError) {
        let archived_before = if let LedgerError::Archived { first, .. } = error { Some(*first) } else { None };
        if archived_before.is_none() {
            tracing::error!(event = "question_unanswered", %error, "a question about the ledger could not be answered");
        }
        self.line.session.reply(&Reply::Unanswered { id, archived_before, text: &error.to_string() });
    }

    /// A piece of a snapshot and the length of the whole. The file stays open, so that it is not removed between two pieces.
    fn piece(&mut self, snapshot: Seq, offset: u64, length: u32) -> io::Result<(u64, Vec<u8>)> {
        let file = match &self.snapshot {
            Some((seq, file)) if *seq == snapshot => file,
            _another_or_none => {
                let file = self.site.reader.shared().storage.open(&snapshot_name(snapshot))?;
                &self.snapshot.insert((snapshot, file)).1
            }
        };
        let size = file.size()?;
        let rest = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; rest.min(length as usize)];
        let read = file.read_at(&mut bytes, offset)?;
        bytes.truncate(read);
        Ok((size, bytes))
    }

    /// Sends all durable entries from this one on, those of one batch together.
    pub(super) fn read_all(&mut self, from: Seq) -> Result<(), Over> {
        let reader = self.site.reader.clone();
        let mut piece = Piece::default();
        let mut broken = None;
        let scanned = reader.scan(from, &mut |seq, root, entry| {
            if piece.count > 0 && (piece.root != *root || piece.bytes.len() + entry.bytes().len() > ENTRIES_BYTES) {
                if let Err(error) = self.send_piece(&mut piece) {
                    broken = Some(error);
                    return ControlFlow::Break(());
                }
            }
            if piece.count == 0 {
                (piece.first, piece.root) = (seq, *root);
            }
            piece.count += 1;
            piece.bytes.extend_from_slice(entry.bytes());
            ControlFlow::Continue(())
        });
        if let Some(error) = broken {
            return Err(error.into());
        }
        if piece.count > 0 {
            self.send_piece(&mut piece)?;
        }
        match scanned {
            Ok(next) => self.line.session.reply(&Reply::End { next }),
            Err(error) => self.unanswered(0, &error),
        }
        Ok(())
    }

    /// Sends the keys of the entries before this one that may still be in their time.
    pub(super) fn read_keys(&mut self, end: Seq, since: UnixMs) -> Result<(), Over> {
        let reader = self.site.reader.clone();
        let mut sent = Ok(());
        let read = reader.keys_before(end, since, &mut |keys, accepted| {
            self.line.session.reply(&Reply::Keys { accepted, keys: keys.to_vec() });
            sent = self.send();
            if sent.is_ok() && !self.is_stopped() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        sent?;
        match read {
            Ok(()) if self.is_stopped() => {}
            Ok(()) => self.line.session.reply(&Reply::End { next: end }),
            Err(error) => self.unanswered(0, &error),
        }
        Ok(())
    }

    fn send_piece(&mut self, piece: &mut Piece) -> io::Result<()> {
        let Piece { first, root, count, bytes } = piece;
        self.line.session.reply(&Reply::Entries { first_seq: *first, root: *root, count: *count, entries: bytes });
        *count = 0;
        bytes.clear();
        self.send()
    }
}

/// Entries of one batch that are sent together.
#[derive(Default)]
struct Piece {
    first: Seq,
    root: Root,
    count: u32,
    bytes: Vec<u8>,
}
