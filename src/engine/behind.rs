//! Debits that wait because an earlier one of their account is looked up in the ledger: so debits of one account that were sent one
//! behind the other are still decided in their order, and none fails for its nonce because the one before took longer.
use super::Ticket;
use crate::domain::{Account, Allowance, Entry};
use std::collections::BTreeMap;

/// Debits of one account that may wait; beyond it they are refused.
pub const BEHIND_MAX: usize = 1024;

/// A debit that waits.
pub(super) struct Waiting {
    pub ticket: Ticket,
    pub entry: Box<[u8]>,
    pub allowance: Allowance,
}

/// For each account the debit that is looked up, and those behind it.
#[derive(Default)]
pub(super) struct Behind {
    accounts: BTreeMap<Box<str>, (Ticket, Vec<Waiting>)>,
}

impl Behind {
    /// From now on further debits of the account wait for this one.
    pub fn begin(&mut self, account: Account<'_>, ticket: Ticket) {
        self.accounts.entry(account.as_str().into()).or_insert_with(|| (ticket, Vec::new()));
    }

    /// Whether the debit waits now; `None` if it need not, an error if too many do.
    pub fn hold(&mut self, ticket: Ticket, entry: &Entry<'_>, allowance: Allowance) -> Option<Result<(), ()>> {
        if self.accounts.is_empty() {
            return None;
        }
        let (_, waiting) = self.accounts.get_mut(entry.from()?.as_str())?;
        if waiting.len() >= BEHIND_MAX {
            return Some(Err(()));
        }
        waiting.push(Waiting { ticket, entry: entry.bytes().into(), allowance });
        Some(Ok(()))
    }

    /// Those that waited for this debit, in their order: they are to be decided after it.
    pub fn end(&mut self, entry: &Entry<'_>, ticket: Ticket) -> Vec<Waiting> {
        let account = entry.from().map_or("", Account::as_str);
        match self.accounts.get(account) {
            Some((first, _)) if *first == ticket => self.accounts.remove(account).map(|(_, waiting)| waiting).unwrap_or_default(),
            Some(_) | None => Vec::new(),
        }
    }
}
