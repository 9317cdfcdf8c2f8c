//! The comparison of what the ledger says with what the cores serve from: some accounts at a time, while both go on.
//!
//! The cores are asked between two positions of the audit. An account that no entry has touched in between must hold just what the
//! ledger says; one that was touched must be at one of the two ends, or with its nonce between them. Acknowledgements are on their
//! way for a moment, so a difference counts only if it stays. How the cores are asked is behind a trait.
use crate::domain::Nonce;

/// Looks one after the other that must see a difference before it counts: acknowledgements are on their way for a moment.
pub(super) const DIFFERENCES_MAX: u32 = 20;

/// What an account holds, by asset name and in the order of the names, without what is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The nonce of its newest durable debit.
    pub last_nonce: Nonce,
    /// Asset, free and held value in minor units.
    pub values: Vec<(Box<str>, u128, u128)>,
}

impl Held {
    /// Puts the values in order and leaves out what is nothing.
    pub fn new(last_nonce: Nonce, mut values: Vec<(Box<str>, u128, u128)>) -> Self {
        values.retain(|(_, free, held)| *free != 0 || *held != 0);
        values.sort_unstable();
        Self { last_nonce, values }
    }
}

/// Accounts with what they hold.
pub type Holders = Vec<(Box<str>, Held)>;

/// The ledger's side of the comparison, in this process or behind a socket.
pub trait Stated {
    /// The accounts that were touched last and some others in turn, with what they hold after the last entry that was replayed; `None`
    /// if that cannot be told now.
    fn touched(&mut self) -> Option<Holders>;

    /// What these accounts hold after the last entry that is durable now; `None` if that cannot be told now.
    fn held(&mut self, accounts: &[Box<str>]) -> Option<Vec<Held>>;
}

/// The cores' slices, as the auditor can ask them.
pub trait Live: Send + 'static {
    /// What each of these accounts holds now; `None` if not all cores answer soon, because they are busy or have ended.
    fn held(&self, accounts: &[Box<str>]) -> Option<Vec<Held>>;
}

/// The comparison as it goes on.
pub(super) struct Comparison {
    live: Box<dyn Live>,
    /// Accounts that were seen to agree, and looks one after the other that saw one that did not.
    agreed: u64,
    differed: u32,
    /// Accounts that differed at the last look: they are looked at again before any others.
    suspects: Vec<Box<str>>,
}

impl Comparison {
    pub fn new(live: Box<dyn Live>) -> Self {
        Self { live, agreed: 0, differed: 0, suspects: Vec::new() }
    }

    /// Accounts that were seen to agree so far.
    pub fn agreed(&self) -> u64 {
        self.agreed
    }

    /// Forgets what differed: nothing can be told now.
    pub fn forget(&mut self) {
        self.differed = 0;
        self.suspects.clear();
    }

    /// One look at some accounts; which one differs, and has for a while.
    pub fn look(&mut self, ledger: &mut dyn Stated) -> Option<String> {
        let (accounts, before): (Vec<Box<str>>, Vec<Held>) = if self.suspects.is_empty() {
            ledger.touched()?.into_iter().unzip()
        } else {
            (self.suspects.clone(), ledger.held(&self.suspects)?)
        };
        if accounts.is_empty() {
            return None;
        }
        let served = self.live.held(&accounts)?;
        let after = ledger.held(&accounts)?;
        let mut differs = None;
        self.suspects.clear();
        for (index, account) in accounts.iter().enumerate() {
            let (served, after) = (&served[index], &after[index]);
            match judge(&before[index], served, after) {
                Verdict::Agrees => self.agreed += 1,
                Verdict::Moved => {}
                Verdict::Differs => {
                    self.suspects.push(account.clone());
                    differs = Some(format!("account {account} is served as {served:?}, but the ledger says {after:?}"));
                }
            }
        }
        self.differed = if differs.is_some() { self.differed + 1 } else { 0 };
        differs.filter(|_| self.differed >= DIFFERENCES_MAX)
    }
}

/// What one look at one account shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it must be.
    Agrees,
    /// It was on the move, as far as can be told in order.
    Moved,
    /// Not as the ledger says, or not yet.
    Differs,
}

/// Compares what was served with what the ledger says from before and after.
pub(super) fn judge(before: &Held, live: &Held, after: &Held) -> Verdict {
    if live == before || live == after {
        return Verdict::Agrees;
    }
    let between = (before.last_nonce..=after.last_nonce).contains(&live.last_nonce);
    if before != after && between {
        Verdict::Moved
    } else {
        Verdict::Differs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_agrees_at_either_end_and_differs_if_nothing_can_explain_it() {
        let held = |nonce, free| Held::new(Nonce(nonce), vec![("roc".into(), free, 0), ("ron".into(), 0, 0)]);
        assert_eq!(held(1, 5).values, [("roc".into(), 5, 0)]);
        let cases = [
            ((1, 5), (1, 5), (1, 5), Verdict::Agrees),
            ((1, 5), (2, 4), (2, 4), Verdict::Agrees),
            ((1, 5), (2, 4), (3, 3), Verdict::Moved),
            ((1, 5), (1, 6), (2, 9), Verdict::Moved),
            ((1, 5), (1, 6), (1, 5), Verdict::Differs),
            ((1, 5), (0, 6), (1, 5), Verdict::Differs),
            ((1, 5), (4, 2), (3, 3), Verdict::Differs),
            ((1, 5), (0, 5), (3, 3), Verdict::Differs),
        ];
        for (before, live, after, expected) in cases {
            let at = |(nonce, free)| held(nonce, free);
            assert_eq!(judge(&at(before), &at(live), &at(after)), expected, "{before:?} {live:?} {after:?}");
        }
    }
}
