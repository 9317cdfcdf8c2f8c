//! Writes of one connection on their way from the front to the engine.
use crate::domain::{Allowance, Entry};
use crate::engine::Ticket;

/// Writes that were read from one connection and are handed in together, so that the engine can prepare for all of them at once.
#[derive(Default)]
pub(super) struct Writes {
    /// Their tickets, and how far their capabilities limit sums of debits.
    pub waiting: Vec<(Ticket, Allowance)>,
    /// Their entries, one after the other.
    pub bytes: Vec<u8>,
}

impl Writes {
    pub fn push(&mut self, ticket: Ticket, entry: &Entry<'_>, allowance: Allowance) {
        self.waiting.push((ticket, allowance));
        self.bytes.extend_from_slice(entry.bytes());
    }

    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> + Clone {
        Entry::all_own(&self.bytes)
    }
}
