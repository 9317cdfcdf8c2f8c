//! What the generator knows that the server must hold: every account's balance and next nonce.
//!
//! Invariants: `available <= balance` (what is in flight has been taken from `available` already, and nothing is credited
//! before its receipt is here), and the sum of all balances only changes by what is issued. It does not know HTTP.

use crate::{operations::Op, requests::Spend};

/// One account as the generator believes it to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Minor units, after every spend that has been acknowledged.
    pub balance: u128,
    /// Minor units that may still be promised: the balance without the debits in flight, and without what is held.
    available: u128,
    /// Held minor units that captures and releases may still take. What the load itself has placed is not among them: another core may
    /// hear of it later than the client.
    held_available: u128,
    /// An account that has placed held value here.
    payer: Option<u32>,
    /// The last nonce that has been given out.
    reserved_nonce: u64,
    /// The last nonce that has been acknowledged; its predecessors are too, since the server takes them in order.
    pub confirmed_nonce: u64,
    /// The lowest nonce that was refused although it should not have been; 0 if none.
    refused_nonce: u64,
    in_flight: u32,
    /// Nobody knows the outcome of an earlier spend of it, so that a further one might have the wrong nonce.
    held: bool,
}

impl Account {
    /// What a debit of this kind takes from.
    fn purse(&mut self, op: Op) -> &mut u128 {
        if op.takes_held() {
            &mut self.held_available
        } else {
            &mut self.available
        }
    }
}

/// All accounts of a run.
#[derive(Clone, Debug)]
pub struct Model {
    accounts: Vec<Account>,
    issued_minor: u128,
}

impl Model {
    /// So many accounts that have never been seen.
    pub fn new(accounts: u32) -> Model {
        Model { accounts: vec![Account::default(); accounts as usize], issued_minor: 0 }
    }

    /// Takes over what the server says about an account before the run.
    pub fn adopt(&mut self, number: u32, balance: u128, last_nonce: u64) {
        let account = &mut self.accounts[number as usize];
        self.issued_minor = self.issued_minor - account.balance + balance;
        *account = Account {
            balance,
            available: balance,
            reserved_nonce: last_nonce,
            confirmed_nonce: last_nonce,
            ..Account::default()
        };
    }

    /// Value has been created on an account.
    pub fn issue(&mut self, number: u32, amount_minor: u128) {
        let account = &mut self.accounts[number as usize];
        account.balance += amount_minor;
        account.available += amount_minor;
        self.issued_minor += amount_minor;
    }

    /// Value has been placed on an account before the load, for captures and releases to take.
    pub fn place(&mut self, spend: &Spend) {
        self.settle(spend);
        let escrow = &mut self.accounts[spend.to as usize];
        escrow.held_available += u128::from(spend.amount_minor);
        escrow.payer = Some(spend.from);
    }

    /// An account that held value of this one can be given back to.
    pub fn payer(&self, number: u32) -> Option<u32> {
        self.accounts[number as usize].payer
    }

    /// Reserves an amount and a nonce for a debit; `None` if the account cannot pay, is held, or has to wait because an
    /// earlier spend of it failed and others are still in flight behind it.
    pub fn reserve(&mut self, number: u32, amount_minor: u32, op: Op) -> Option<u64> {
        let account = &mut self.accounts[number as usize];
        if account.held {
            return None;
        }
        if account.refused_nonce != 0 {
            if account.in_flight > 0 {
                return None;
            }
            // Nothing is in flight: the refused nonce is the next one again.
            account.reserved_nonce = account.refused_nonce - 1;
            account.refused_nonce = 0;
        }
        let purse = account.purse(op);
        *purse = purse.checked_sub(u128::from(amount_minor))?;
        account.in_flight += 1;
        account.reserved_nonce += 1;
        Some(account.reserved_nonce)
    }

    /// The nonce that a spend would have now, without reserving it: for deliberate overdrafts.
    pub fn peek_nonce(&self, number: u32) -> Option<u64> {
        let account = &self.accounts[number as usize];
        (account.refused_nonce == 0 && !account.held).then_some(account.reserved_nonce + 1)
    }

    /// Nobody knows the outcome of a spend of this account: it spends no more until [`Model::release_held`].
    pub fn hold(&mut self, number: u32) {
        self.accounts[number as usize].held = true;
    }

    /// Whether the account is held.
    pub fn is_held(&self, number: u32) -> bool {
        self.accounts[number as usize].held
    }

    /// The outcome of every spend is known, or will be before the next one is sent.
    pub fn release_held(&mut self) {
        self.accounts.iter_mut().for_each(|account| account.held = false);
    }

    /// A spend has been acknowledged.
    pub fn settle(&mut self, spend: &Spend) {
        let amount = u128::from(spend.amount_minor);
        if spend.op == Op::Issue {
            return self.issue(spend.to, amount);
        }
        let from = &mut self.accounts[spend.from as usize];
        assert!(from.balance >= amount, "only what was available has been reserved");
        from.balance -= amount;
        from.in_flight -= 1;
        from.confirmed_nonce = from.confirmed_nonce.max(spend.nonce);
        let to = &mut self.accounts[spend.to as usize];
        match spend.op {
            Op::Transfer | Op::Capture | Op::Release => {
                to.balance += amount;
                to.available += amount;
            }
            Op::Hold => to.balance += amount,
            Op::Burn => self.issued_minor -= amount,
            Op::Issue => unreachable!("an issue was settled above"),
        }
    }

    /// A spend has been refused, which consumed nothing. True if it only fell with an earlier one of the same account.
    pub fn refuse(&mut self, spend: &Spend) -> bool {
        if spend.op == Op::Issue {
            return false;
        }
        let account = &mut self.accounts[spend.from as usize];
        account.in_flight -= 1;
        *account.purse(spend.op) += u128::from(spend.amount_minor);
        let follows = account.refused_nonce != 0 && account.refused_nonce < spend.nonce;
        if !follows {
            account.refused_nonce = spend.nonce;
        }
        follows
    }

    /// A refused spend took effect after all, when it was repeated: undoes [`Model::refuse`].
    pub fn revive(&mut self, spend: &Spend) {
        if spend.op == Op::Issue {
            return;
        }
        let account = &mut self.accounts[spend.from as usize];
        account.in_flight += 1;
        *account.purse(spend.op) -= u128::from(spend.amount_minor);
        if account.refused_nonce == spend.nonce {
            account.refused_nonce = 0;
        }
    }

    /// One account.
    pub fn account(&self, number: u32) -> &Account {
        &self.accounts[number as usize]
    }

    /// How many accounts there are.
    pub fn len(&self) -> u32 {
        u32::try_from(self.accounts.len()).expect("the number of accounts came as a u32")
    }

    /// Everything ever issued to these accounts and not burned, which is what they must hold together.
    pub fn issued_minor(&self) -> u128 {
        self.issued_minor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spend(nonce: u64) -> Spend {
        Spend { from: 0, to: 1, amount_minor: 100, nonce, key: nonce, op: Op::Transfer }
    }

    #[test]
    fn nothing_is_spent_twice_and_credits_come_with_the_receipt() {
        let mut model = Model::new(2);
        model.issue(0, 150);
        assert_eq!(model.reserve(0, 100, Op::Transfer), Some(1));
        assert_eq!(model.reserve(0, 100, Op::Transfer), None, "50 are left");
        assert_eq!(model.reserve(1, 100, Op::Transfer), None, "the credit is not there yet");
        model.settle(&spend(1));
        assert_eq!(model.reserve(1, 100, Op::Transfer), Some(1));
        assert_eq!((model.account(0).balance, model.account(1).balance, model.issued_minor()), (50, 100, 150));
    }

    #[test]
    fn an_account_with_a_spend_in_doubt_spends_no_more_until_that_is_known() {
        let mut model = Model::new(2);
        model.issue(0, 1_000);
        assert_eq!(model.reserve(0, 100, Op::Transfer), Some(1));
        model.hold(0);
        assert_eq!((model.reserve(0, 100, Op::Transfer), model.peek_nonce(0), model.is_held(1)), (None, None, false));
        model.release_held();
        model.settle(&spend(1));
        assert_eq!(model.reserve(0, 100, Op::Transfer), Some(2));
    }

    #[test]
    fn after_a_refusal_the_account_waits_and_goes_back_to_the_refused_nonce() {
        let mut model = Model::new(2);
        model.issue(0, 1_000);
        assert_eq!((model.reserve(0, 100, Op::Transfer), model.reserve(0, 100, Op::Transfer)), (Some(1), Some(2)));
        assert!(!model.refuse(&spend(1)), "the first refusal is its own");
        assert_eq!(model.reserve(0, 100, Op::Transfer), None, "nonce 2 is in flight");
        assert!(model.refuse(&spend(2)), "the second only follows");
        assert_eq!(model.reserve(0, 100, Op::Transfer), Some(1));
        assert_eq!(model.account(0).balance, 1_000);
    }

    #[test]
    fn held_value_is_apart_from_free_value_and_a_burn_leaves_the_sum() {
        let mut model = Model::new(2);
        model.issue(0, 1_000);
        let write = |op, from, to, nonce| Spend { op, from, to, ..spend(nonce) };
        assert_eq!(model.reserve(0, 100, Op::Hold), Some(1));
        model.place(&write(Op::Hold, 0, 1, 1));
        assert_eq!((model.account(1).balance, model.payer(1), model.payer(0)), (100, Some(0), None));
        assert_eq!(model.reserve(1, 100, Op::Transfer), None, "what is held is not free");
        assert_eq!(model.reserve(1, 100, Op::Capture), Some(1));
        assert_eq!(model.reserve(1, 100, Op::Release), None, "nothing is left");
        assert!(!model.refuse(&write(Op::Capture, 1, 0, 1)));
        assert_eq!(model.reserve(1, 100, Op::Release), Some(1));
        model.settle(&write(Op::Release, 1, 0, 1));
        assert_eq!(model.reserve(0, 100, Op::Burn), Some(2));
        model.settle(&write(Op::Burn, 0, 0, 2));
        model.settle(&write(Op::Issue, 1, 1, 0));
        let balances = (model.account(0).balance, model.account(1).balance, model.issued_minor());
        assert_eq!(balances, (900, 100, 1_000));
    }
}
