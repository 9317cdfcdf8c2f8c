//! Budgets: what was ever debited under a token id, over all accounts, assets and cores.
//!
//! The accounts of one token may live on several cores, so this is the one table that cores share, and only debits under a budget touch
//! it. A sum is raised by whoever decides, together with the check and as the last thing before the value is reserved, and never taken
//! back. So no interleaving of cores can go beyond a budget; what one core has decided and is not durable yet can refuse a debit on
//! another. The sums follow from the ledger, because entries that count say so.
use crate::domain::TokenId;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Parts with a lock each, so that cores seldom meet at one.
const STRIPES: usize = 64;

/// Sums by token id. A tree, because a table that grows would hold its lock for as long as it takes to move all of it.
type Sums = BTreeMap<TokenId, u128>;

/// A part, alone on its line of the processor's cache.
#[derive(Default)]
#[repr(align(64))]
struct Stripe(Mutex<Sums>);

/// The sums of all cores; a clone is the same sums.
#[derive(Clone)]
pub struct Budgets(Arc<[Stripe]>);

impl Default for Budgets {
    fn default() -> Self {
        Self((0..STRIPES).map(|_| Stripe::default()).collect())
    }
}

impl Budgets {
    /// Adds a debit, in minor units, if the sum stays within the budget; false if it would not, and then nothing has changed.
    #[must_use]
    pub fn charge(&self, token: TokenId, amount: u128, budget: u128) -> bool {
        let mut sums = self.stripe(token);
        let entry = sums.entry(token);
        let spent = if let Entry::Occupied(known) = &entry { *known.get() } else { 0 };
        let total = spent.checked_add(amount).filter(|total| *total <= budget);
        // What is refused leaves no trace: only who spends takes memory.
        total.map(|total| *entry.or_default() = total).is_some()
    }

    /// Adds what the ledger or a snapshot says was debited, whatever the budget was. Fails if the sum leaves 128 bits, which no correct
    /// writer can have written.
    pub fn restore(&self, token: TokenId, amount: u128) -> Result<(), String> {
        let mut sums = self.stripe(token);
        let sum = sums.entry(token).or_default();
        *sum = sum.checked_add(amount).ok_or("more debited under one budget than 128 bits hold")?;
        Ok(())
    }

    /// What was debited under a token id, in minor units.
    pub fn spent(&self, token: TokenId) -> u128 {
        self.stripe(token).get(&token).copied().unwrap_or(0)
    }

    /// Under how many token ids something was debited.
    pub fn len(&self) -> usize {
        (0..STRIPES).map(|at| self.lock(at).len()).sum()
    }

    /// Whether nothing was debited under a budget yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All sums, for checks: token ids in their order with minor units.
    pub fn all(&self) -> Vec<(TokenId, u128)> {
        let of = |at: usize| self.lock(at).iter().map(|(token, spent)| (*token, *spent)).collect::<Vec<_>>();
        let mut all: Vec<_> = (0..STRIPES).flat_map(of).collect();
        all.sort_unstable();
        all
    }

    fn stripe(&self, token: TokenId) -> MutexGuard<'_, Sums> {
        // Token ids are random in every byte.
        self.lock(usize::from(token.0[0]) % STRIPES)
    }

    /// A sum is changed in one step, so it is right even if somebody has panicked with the lock in hand.
    fn lock(&self, at: usize) -> MutexGuard<'_, Sums> {
        self.0[at].0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: TokenId = TokenId([7; 16]);

    #[test]
    fn a_sum_never_leaves_its_budget_nor_128_bits_and_the_smallest_budget_holds() {
        let budgets = Budgets::default();
        assert!(!budgets.charge(TOKEN, 11, 10) && budgets.is_empty(), "a refusal leaves nothing behind");
        assert!(budgets.charge(TOKEN, 4, 10) && budgets.charge(TOKEN, 6, 10));
        assert!(!budgets.charge(TOKEN, 1, 10) && !budgets.charge(TOKEN, 1, 5));
        assert!(budgets.charge(TOKEN, 1, 20), "a wider token of the same id has the same sum");
        assert!(!budgets.charge(TOKEN, u128::MAX, u128::MAX));
        assert_eq!((budgets.spent(TOKEN), budgets.spent(TokenId([8; 16])), budgets.len()), (11, 0, 1));
        assert!(budgets.restore(TOKEN, u128::MAX - 11).is_ok() && budgets.restore(TOKEN, 1).is_err());
        assert_eq!(budgets.all(), [(TOKEN, u128::MAX)]);
    }

    #[test]
    fn many_threads_spend_a_budget_to_its_last_unit_and_a_panic_among_them_does_not_matter() {
        let budgets = Budgets::default();
        let poison = budgets.clone();
        let panicked = std::thread::spawn(move || {
            let _held = poison.stripe(TOKEN);
            panic!("with the lock in hand");
        });
        assert!(panicked.join().is_err());
        let accepted = |budgets: Budgets| (0..5_000).filter(|_| budgets.charge(TOKEN, 3, 30_001)).count() as u128;
        let spenders: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn({
                    let budgets = budgets.clone();
                    move || accepted(budgets)
                })
            })
            .collect();
        let accepted: u128 = spenders.into_iter().map(|spender| spender.join().unwrap()).sum();
        assert_eq!((accepted, budgets.spent(TOKEN)), (10_000, 30_000));
    }
}
