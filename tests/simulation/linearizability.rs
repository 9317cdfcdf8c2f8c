//! A checker of linearizability for one account: whether the answers that its clients got can be explained by some order of the
//! operations in which each takes effect at one moment between its call and its answer.
//!
//! The search of Wing and Gong with Lowe's memory of states that led nowhere. The state after a set of operations does not depend on
//! their order, so a set is remembered by itself. An account is a register of its own (locality), so accounts are checked one by one.
use crate::model::ASSETS;
use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Credit(u128),
    Debit { nonce: u64, amount: u128 },
    ReadBalance(u128),
    ReadNonce(u64),
}

/// What a client did and saw. Without an answer it may take effect at any time after its call, and unless it is certain to have come
/// true, perhaps never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    pub call: u64,
    pub answer: Option<u64>,
    pub certain: bool,
    /// Its place in [`ASSETS`]; nonces are of the account, whatever it moves.
    pub asset: usize,
    pub effect: Effect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    Linearizable,
    Violation,
    /// The search was given up at its bound.
    Undecided,
}

/// States that are looked into at most.
const STATES_MAX: usize = 20_000;

#[derive(Clone, Copy)]
struct Register {
    balances: [u128; ASSETS.len()],
    nonce: u64,
}

impl Register {
    /// The state after this effect; `None` if it cannot happen here.
    fn after(mut self, asset: usize, effect: Effect) -> Option<Self> {
        let balance = &mut self.balances[asset];
        match effect {
            Effect::Credit(amount) => *balance = balance.checked_add(amount)?,
            Effect::Debit { nonce, amount } if nonce == self.nonce + 1 => {
                *balance = balance.checked_sub(amount)?;
                self.nonce = nonce;
            }
            Effect::Debit { .. } => return None,
            Effect::ReadBalance(read) if read != *balance => return None,
            Effect::ReadNonce(read) if read != self.nonce => return None,
            Effect::ReadBalance(_) | Effect::ReadNonce(_) => {}
        }
        Some(self)
    }
}

struct Search<'a> {
    operations: &'a [Operation],
    done: Vec<u64>,
    /// Sets of operations from which no order leads to the end.
    dead: BTreeSet<Vec<u64>>,
    states: usize,
}

impl Search<'_> {
    fn is_done(&self, index: usize) -> bool {
        self.done[index / 64] >> (index % 64) & 1 == 1
    }

    fn toggle(&mut self, index: usize) {
        self.done[index / 64] ^= 1 << (index % 64);
    }

    /// Operations are in the order of their calls; all before `first` are done. Depth is bounded by their number.
    fn run(&mut self, mut first: usize, state: Register) -> Finding {
        while first < self.operations.len() && self.is_done(first) {
            first += 1;
        }
        let open = (first..self.operations.len()).filter(|index| !self.is_done(*index));
        let mut horizon = u64::MAX;
        let mut candidates = Vec::new();
        let mut complete = true;
        for index in open {
            let operation = &self.operations[index];
            // Whatever begins after another one has ended comes after it.
            if operation.call > horizon {
                complete = false;
                break;
            }
            horizon = horizon.min(operation.answer.unwrap_or(u64::MAX));
            complete &= !operation.certain;
            candidates.push(index);
        }
        if complete {
            return Finding::Linearizable;
        }
        if self.dead.contains(&self.done) {
            return Finding::Violation;
        }
        self.states += 1;
        if self.states > STATES_MAX {
            return Finding::Undecided;
        }
        // What was answered first probably took effect first.
        candidates.sort_by_key(|index| self.operations[*index].answer.unwrap_or(u64::MAX));
        for index in candidates {
            let operation = self.operations[index];
            if operation.call > horizon {
                continue;
            }
            let Some(after) = state.after(operation.asset, operation.effect) else { continue };
            self.toggle(index);
            let found = self.run(first, after);
            self.toggle(index);
            // A read that fits changes nothing, so nothing is gained by leaving it for later.
            let is_read = matches!(operation.effect, Effect::ReadBalance(_) | Effect::ReadNonce(_));
            if found != Finding::Violation || is_read {
                if found == Finding::Violation {
                    break;
                }
                return found;
            }
        }
        self.dead.insert(self.done.clone());
        Finding::Violation
    }
}

/// Whether these operations on one account, empty before, are linearizable.
pub fn check(mut operations: Vec<Operation>) -> Finding {
    operations.sort_by_key(|operation| operation.call);
    let done = vec![0; operations.len().div_ceil(64)];
    let empty = Register { balances: [0; ASSETS.len()], nonce: 0 };
    Search { operations: &operations, done, dead: BTreeSet::new(), states: 0 }.run(0, empty)
}

#[cfg(test)]
mod tests {
    use super::Effect::{Credit, Debit, ReadBalance, ReadNonce};
    use super::*;

    fn done(call: u64, answer: u64, effect: Effect) -> Operation {
        Operation { call, answer: Some(answer), certain: true, asset: 0, effect }
    }

    fn unknown(call: u64, effect: Effect) -> Operation {
        Operation { call, answer: None, certain: false, asset: 0, effect }
    }

    fn other(operation: Operation) -> Operation {
        Operation { asset: 1, ..operation }
    }

    fn debit(nonce: u64, amount: u128) -> Effect {
        Debit { nonce, amount }
    }

    #[test]
    fn good_histories_are_explained() {
        let good: [&[Operation]; 10] = [
            &[],
            &[done(1, 2, Credit(5)), done(3, 4, ReadBalance(5)), done(5, 6, debit(1, 5)), done(7, 8, ReadBalance(0))],
            // Reads during a write may see it or not, in either order of their calls, but not in both orders one after the other.
            &[done(1, 9, Credit(5)), done(2, 3, ReadBalance(0)), done(4, 5, ReadBalance(5)), done(6, 7, ReadBalance(5))],
            &[done(1, 6, Credit(5)), done(2, 5, ReadBalance(5)), done(3, 4, ReadBalance(0))],
            // A debit whose funds come from a credit that overlaps it.
            &[done(1, 8, debit(1, 5)), done(2, 7, Credit(5)), done(9, 10, ReadNonce(1))],
            // What was never answered may have happened or not, early or late.
            &[done(1, 2, Credit(5)), unknown(3, debit(1, 5)), done(4, 5, ReadBalance(5)), done(6, 7, ReadBalance(0))],
            &[done(1, 2, Credit(5)), unknown(3, debit(1, 5)), done(4, 5, ReadBalance(5))],
            // Debits out of the order of their calls.
            &[done(1, 2, Credit(9)), done(3, 8, debit(2, 1)), done(4, 7, debit(1, 1)), done(9, 10, ReadBalance(7))],
            // One row of nonces for all assets.
            &[done(1, 2, Credit(9)), other(done(3, 4, Credit(1))), done(5, 6, debit(1, 9)), other(done(7, 8, debit(2, 1)))],
            // Two accounts of the same credit amount are told apart by nothing, so both orders do.
            &[done(1, 5, Credit(1)), done(2, 6, Credit(1)), done(3, 4, ReadBalance(1)), done(7, 8, ReadBalance(2))],
        ];
        for (number, history) in good.into_iter().enumerate() {
            assert_eq!(check(history.to_vec()), Finding::Linearizable, "history {number}");
        }
    }

    #[test]
    fn bad_histories_are_found_out() {
        let bad: [(&str, &[Operation]); 13] = [
            ("a stale read", &[done(1, 2, Credit(5)), done(3, 4, ReadBalance(0))]),
            ("a lost update", &[done(1, 2, Credit(5)), done(3, 4, Credit(7)), done(5, 6, ReadBalance(7))]),
            ("an effect before its call", &[done(1, 2, ReadBalance(5)), done(3, 4, Credit(5))]),
            ("a credit applied twice", &[done(1, 2, Credit(5)), done(3, 4, ReadBalance(10))]),
            ("a debit applied twice", &[done(1, 2, Credit(9)), done(3, 4, debit(1, 4)), done(5, 6, ReadBalance(1))]),
            ("a nonce spent twice", &[done(1, 2, Credit(9)), done(3, 4, debit(1, 4)), done(5, 6, debit(1, 4))]),
            ("a nonce left out", &[done(1, 2, Credit(9)), done(3, 4, debit(2, 4))]),
            ("more spent than there was", &[done(1, 2, Credit(3)), done(3, 4, debit(1, 4))]),
            ("a read that goes back", &[done(1, 9, Credit(5)), done(2, 3, ReadBalance(5)), done(4, 5, ReadBalance(0))]),
            (
                "an unknown outcome that comes and goes",
                &[done(1, 2, Credit(5)), unknown(3, debit(1, 5)), done(4, 5, ReadBalance(0)), done(6, 7, ReadBalance(5))],
            ),
            ("one asset spent as another", &[done(1, 2, Credit(9)), other(done(3, 4, debit(1, 4)))]),
            ("a balance of another asset", &[done(1, 2, Credit(9)), other(done(3, 4, ReadBalance(9)))]),
            ("a nonce that is behind", &[done(1, 2, Credit(9)), done(3, 4, debit(1, 4)), done(5, 6, ReadNonce(0))]),
        ];
        for (name, history) in bad {
            assert_eq!(check(history.to_vec()), Finding::Violation, "{name}");
        }
    }

    #[test]
    fn many_overlapping_operations_are_decided_and_the_search_has_a_bound() {
        let mut history: Vec<_> = (0..60).map(|n| done(n, 1000 + n, Credit(1 << (n % 8)))).collect();
        let total = history.iter().map(|operation| if let Credit(amount) = operation.effect { amount } else { 0 }).sum();
        history.push(done(2000, 2001, ReadBalance(total)));
        assert_eq!(check(history.clone()), Finding::Linearizable);
        history.push(done(500, 501, ReadBalance(3)));
        assert_eq!(check(history.clone()), Finding::Linearizable);
        history.push(done(2002, 2003, ReadBalance(total + 1)));
        assert_eq!(check(history), Finding::Undecided);
    }
}
