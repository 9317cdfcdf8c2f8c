//! Daily ceilings as one core decides on them: exactly what it has let through for each capability, account and asset. Whatever is
//! let through stays within the ceiling, and whatever is refused because of it would have gone beyond.
//!
//! What a core has reserved shows in its lane, in the order of its decisions, long before it is durable.
use crate::core::Answer;
use crate::model::{Daily, CEILING, DAY_MS};
use std::collections::HashMap;
use svc_wallet::domain::{Code, Entry};
use svc_wallet::engine::{Engine, Message, OwnedAnswer, Ticket};

/// What one core has let through under ceilings.
#[derive(Default)]
pub struct Ceilings {
    spent: Daily,
    /// The last place in the lane that was looked at.
    seen: u64,
    /// Requests with a ceiling that this core has to decide on.
    asked: HashMap<Ticket, Vec<u8>>,
}

impl Ceilings {
    /// Begins with what the durable entries add up to.
    pub fn behind(spent: &Daily) -> Self {
        Self { spent: spent.clone(), ..Self::default() }
    }

    /// A request with a ceiling is about to be decided on, now or when the ledger has been asked.
    pub fn ask(&mut self, ticket: Ticket, entry: &Entry<'_>) {
        self.asked.insert(ticket, entry.bytes().to_vec());
    }

    /// The core has decided on something. Refusals that were counted, by what was refused.
    pub fn watch(&mut self, engine: &mut Engine, replies: &[(Ticket, Answer)]) -> Vec<Vec<u8>> {
        if self.asked.is_empty() {
            return Vec::new();
        }
        let batches: Vec<_> = std::iter::from_fn(|| engine.take_batch()).collect();
        for batch in &batches {
            for (number, entry) in (batch.lane_first..).zip(Entry::all_own(&batch.bytes)) {
                if number > self.seen && entry.counts_against_ceiling() {
                    assert!(self.spent.count(&entry) <= CEILING, "what is let through stays within the daily ceiling: {entry:?}");
                }
                self.seen = number.max(self.seen);
            }
        }
        batches.into_iter().rev().for_each(|batch| engine.untake_batch(batch));
        let mut refused = Vec::new();
        let mut answered = |ticket: &Ticket, code: Option<Code>| {
            refused.extend(self.asked.remove(ticket).filter(|_| code == Some(Code::LimitsExceeded)));
        };
        for (ticket, answer) in replies {
            answered(ticket, if let Answer::Refused { code, .. } = answer { Some(*code) } else { None });
        }
        for message in engine.outboxes().iter().flat_map(|outbox| &outbox.answers) {
            if let Message::Answer(ticket, answer) = message {
                answered(ticket, if let OwnedAnswer::Refused(refusal) = answer { Some(refusal.code) } else { None });
            }
        }
        for bytes in &refused {
            let entry = Entry::parse(bytes).unwrap().0;
            let spent = self.spent.before(&entry);
            let within = spent.checked_add(entry.amount().minor_units()).is_some_and(|total| total <= CEILING);
            assert!(!within, "the daily ceiling of {CEILING} leaves room: {spent} were debited before {entry:?}");
        }
        refused
    }
}

impl Daily {
    /// What was debited before, on the day of this entry or the newest one.
    pub fn before(&self, entry: &Entry<'_>) -> u128 {
        let known = self.0.get(&Self::key(entry));
        known.filter(|(newest, _)| entry.ts().0 / DAY_MS <= *newest).map_or(0, |(_, spent)| *spent)
    }

    /// Counts a debit, and says what it was with it.
    pub fn count(&mut self, entry: &Entry<'_>) -> u128 {
        let day = entry.ts().0 / DAY_MS;
        let (newest, spent) = self.0.entry(Self::key(entry)).or_default();
        if day > *newest {
            (*newest, *spent) = (day, 0);
        }
        *spent += entry.amount().minor_units();
        *spent
    }

    /// Whether the capability has debited the account today, and in another asset as well.
    pub fn has_other_asset(&self, entry: &Entry<'_>) -> bool {
        let (token, owner, asset) = Self::key(entry);
        self.0.keys().any(|(of, by, other)| *of == token && *by == owner && *other != asset)
    }

    fn key(entry: &Entry<'_>) -> ([u8; 16], String, String) {
        (entry.token().0, entry.owner().as_str().to_owned(), entry.asset().as_str().to_owned())
    }
}
