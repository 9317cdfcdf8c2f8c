//! What a log must offer to whoever writes it: four calls, and nothing that only a local file could do.
//!
//! The local log ([`super::Log`]) is one engine; a replicated one can stand behind the same calls without its writer knowing.
//! **Unknown** is an answer like the others: a lost connection or a failed sync tells nothing about what was sent. What the writer
//! does then is in `super::writer`.
use super::batch::Section;
use super::merge::Placed;
use super::LedgerError;
use crate::domain::{LaneBatch, Root, Seq};
use std::ops::ControlFlow;

/// The right to append, until somebody else takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// Its number: every tenure has a higher one than all before.
    pub epoch: u64,
    /// The last durable entry when it began.
    pub head: Seq,
    /// Chain hash after that entry.
    pub root: Root,
}

/// What became of an append.
#[derive(Debug)]
pub enum Appended {
    /// It is durable, here.
    Acked(Placed),
    /// A newer writer has the log; nothing was appended, and nothing of this writer ever will be.
    Fenced {
        /// The epoch of the newer writer.
        epoch: u64,
    },
    /// There is no room, or something else is missing that may be there again. Nothing was written; the same call may succeed later.
    NoRoom(std::io::Error),
    /// Whether it is durable cannot be told.
    Unknown(LedgerError),
}

/// A durable batch as an engine reads it back.
#[derive(Debug)]
pub struct ReadBatch<'a> {
    /// Its first entry.
    pub first_seq: Seq,
    /// Chain hash before it.
    pub prev: Root,
    /// Chain hash after it.
    pub root: Root,
    /// What each lane has put into it.
    pub sections: Vec<Section<'a>>,
}

impl ReadBatch<'_> {
    /// Whether these lane batches, in this order, are what it is made of.
    pub fn holds(&self, parts: &[LaneBatch]) -> bool {
        let groups = || parts.chunk_by(|left, right| left.lane == right.lane);
        let same = |section: &Section<'_>, group: &[LaneBatch]| {
            let mut rest = section.bytes;
            let bytes = group.iter().all(|part| match rest.strip_prefix(&part.bytes[..]) {
                Some(after) => {
                    rest = after;
                    true
                }
                None => false,
            });
            bytes && rest.is_empty() && section.lane == group[0].lane && section.lane_first == group[0].lane_first
        };
        groups().count() == self.sections.len() && self.sections.iter().zip(groups()).all(|(section, group)| same(section, group))
    }
}

/// An ordered, durable log with one writer at a time.
pub trait Engine: Send + 'static {
    /// Takes the right to append. The new epoch is durable before this returns; every older one is refused from then on. A writer that
    /// wants to go on tells the epoch that it has: it is `Fenced` if another writer has taken a newer one, which stays in force.
    ///
    /// # Errors
    /// If it cannot be had, or the log can take nothing any more.
    fn acquire(&mut self, held: Option<u64>) -> Result<Tenure, LedgerError>;

    /// Appends these lane batches as one batch, if the tenure is still this one and the log ends before `first_seq` with the chain
    /// hash `prev`.
    fn append(&mut self, epoch: u64, first_seq: Seq, prev: Root, parts: &[LaneBatch]) -> Appended;

    /// Notes durably how far the log reaches, for idle moments: damage to what is noted cannot be taken for an interrupted write. Does
    /// nothing if nothing came since the last time.
    ///
    /// # Errors
    /// If it could not be noted; nothing else is concerned.
    fn note(&mut self) -> Result<(), LedgerError>;

    /// Hands over the durable batches from the one that holds `from` on, in order, until `each` breaks or the head is reached.
    ///
    /// # Errors
    /// If one cannot be read.
    fn read(&mut self, from: Seq, each: &mut dyn FnMut(ReadBatch<'_>) -> ControlFlow<()>) -> Result<(), LedgerError>;

    /// Lets go of what is before this entry; nothing of that needs to be there.
    ///
    /// # Errors
    /// If there is something, and the engine does not let go of it by itself; the message says who does.
    fn truncate_before(&mut self, seq: Seq) -> Result<(), LedgerError>;

    /// The largest body that one append takes, in bytes, section headers included.
    fn body_bytes_max(&self) -> usize;

    /// Its name for messages.
    fn place(&self) -> String;

    /// Lets go of the log in order; nothing is appended any more.
    ///
    /// # Errors
    /// If the end could not be noted; nothing that was acknowledged is lost by that.
    fn close(self) -> Result<(), LedgerError>
    where
        Self: Sized;
}
