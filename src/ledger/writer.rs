//! The one who appends to an engine, and who finds out what became of a batch when the engine cannot tell.
//!
//! Invariant: a batch is appended once. When its fate is unknown, a new tenure is taken, so that nothing of the old one can arrive
//! any more; then the log is read: what is there is accepted, what is not is sent again. Who was replaced meanwhile gets none.
use super::engine::{Appended, Engine, Tenure};
use super::merge::Placed;
use super::LedgerError;
use crate::domain::{LaneBatch, Seq};
use std::ops::ControlFlow;

/// How often one batch is sent whose fate stays unknown.
const SENDINGS_MAX: u32 = 8;

/// What became of a batch, for sure.
#[derive(Debug)]
pub(super) enum Written {
    /// It is durable.
    Placed(Placed),
    /// There is no room now; nothing was written.
    NoRoom(std::io::Error),
    /// The writer must end: it was replaced, or the log takes nothing any more.
    Ended(LedgerError),
}

/// An engine and how far it was written.
pub(super) struct Writer<E> {
    engine: E,
    tenure: Tenure,
}

impl<E: Engine> Writer<E> {
    /// Goes on where this tenure begins.
    pub fn new(engine: E, tenure: Tenure) -> Self {
        Self { engine, tenure }
    }

    /// The present tenure, with the head as it is now.
    pub fn tenure(&self) -> Tenure {
        self.tenure
    }

    /// The engine.
    pub fn engine(&mut self) -> &mut E {
        &mut self.engine
    }

    /// Puts another tenure in the place of the present one.
    pub fn begin(&mut self, tenure: Tenure) {
        self.tenure = tenure;
    }

    /// Notes how far the log reaches, as far as that can be done.
    pub fn note(&mut self) {
        if let Err(error) = self.engine.note() {
            tracing::warn!(
                event = "mark_unwritten", %error,
                "how far the ledger reaches could not be noted; damage to the last commit may go unnoticed until the next one"
            );
        }
    }

    /// Lets go of the engine in order.
    pub fn close(self) -> Result<(), LedgerError> {
        self.engine.close()
    }

    /// Appends the batches as one.
    pub fn append(&mut self, parts: &[LaneBatch]) -> Written {
        let count: u64 = parts.iter().map(|part| u64::from(part.count)).sum();
        let mut sendings = 0;
        let placed = loop {
            let Tenure { epoch, head, root } = self.tenure;
            sendings += 1;
            match self.engine.append(epoch, Seq(head.0 + 1), root, parts) {
                Appended::Acked(placed) => break placed,
                Appended::Fenced { epoch: newer } => return Written::Ended(self.fenced(newer)),
                Appended::NoRoom(error) => return Written::NoRoom(error),
                Appended::Unknown(error) => {
                    tracing::warn!(
                        event = "batch_in_doubt", %error, entries = count,
                        "it is unknown whether a batch is durable; asking the ledger"
                    );
                    match self.find_out(parts, count) {
                        Ok(Some(placed)) => break placed,
                        Ok(None) if sendings < SENDINGS_MAX => {}
                        Ok(None) | Err(Doubt::Stays) => return Written::Ended(error),
                        Err(Doubt::Replaced(error)) => return Written::Ended(error),
                    }
                }
            }
        };
        assert_eq!(placed.first_seq.0, self.tenure.head.0 + 1, "entries are numbered densely");
        (self.tenure.head, self.tenure.root) = (Seq(self.tenure.head.0 + count), placed.root);
        Written::Placed(placed)
    }

    fn fenced(&self, newer: u64) -> LedgerError {
        LedgerError::Fenced { place: self.engine.place(), own: self.tenure.epoch, newer }
    }

    /// Where the batches are; `None` if they are not in the log, and then they never will be unless they are sent again.
    fn find_out(&mut self, parts: &[LaneBatch], count: u64) -> Result<Option<Placed>, Doubt> {
        let before = self.tenure;
        let now = self.engine.acquire(Some(before.epoch)).map_err(|error| match error {
            LedgerError::Fenced { .. } => Doubt::Replaced(error),
            error => {
                tracing::warn!(event = "batch_stays_in_doubt", %error, "the ledger does not tell");
                Doubt::Stays
            }
        })?;
        let replaced = Doubt::Replaced(self.fenced(now.epoch));
        if (now.head, now.root) == (before.head, before.root) {
            self.tenure = now;
            return Ok(None);
        }
        if now.head.0 != before.head.0 + count {
            return Err(replaced);
        }
        let mut found = None;
        let read = self.engine.read(Seq(before.head.0 + 1), &mut |batch| {
            let is_it = batch.first_seq.0 == before.head.0 + 1 && batch.holds(parts);
            found = is_it.then_some(Placed { first_seq: batch.first_seq, root: batch.root });
            ControlFlow::Break(())
        });
        match (read, found) {
            (Ok(()), Some(placed)) if placed.root == now.root => {
                self.tenure.epoch = now.epoch;
                Ok(Some(placed))
            }
            (Ok(()), Some(_) | None) => Err(replaced),
            (Err(error), _) => {
                tracing::warn!(event = "batch_stays_in_doubt", %error, "the ledger cannot be read back");
                Err(Doubt::Stays)
            }
        }
    }
}

/// Why the fate of a batch could not be found out.
enum Doubt {
    /// The engine does not answer, or answers always in the same way: whoever has failed for good.
    Stays,
    /// Somebody else has the log, or has written meanwhile.
    Replaced(LedgerError),
}
