//! Writes of one connection on their way from the front to the engine.
use crate::domain::{Amount, Entry};
use crate::engine::Ticket;

/// Writes that were read from one connection and are handed in together, so that the engine can prepare for all of them at once.
#[derive(Default)]
pub(super) struct Writes {
    /// Their tickets, and the daily ceilings of their capabilities.
    pub waiting: Vec<(Ticket, Option<Amount>)>,
    /// Their entries, one after the other.
    pub bytes: Vec<u8>,
}

impl Writes {
    pub fn push(&mut self, ticket: Ticket, entry: &Entry<'_>, ceiling: Option<Amount>) {
        self.waiting.push((ticket, ceiling));
        self.bytes.extend_from_slice(entry.bytes());
    }

    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> + Clone {
        Entry::all_own(&self.bytes)
    }
}
