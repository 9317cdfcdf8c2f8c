//! Daily ceilings and budgets as one core decides on them: exactly what it has let through for each capability, account and asset, and
//! what all cores have for each capability. Whatever is let through stays within ceiling and budget, and whatever is refused because of
//! them would have gone beyond one of them.
//!
//! What a core has reserved shows in its lane, in the order of its decisions, long before it is durable.
use crate::core::Answer;
use crate::model::{Daily, CEILING, DAY_MS};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use svc_wallet::domain::{Allowance, Amount, Code, Entry, TokenId};
use svc_wallet::engine::{Engine, Message, OwnedAnswer, Ticket};

/// What all cores of one process have let through under budgets.
type Spent = Rc<RefCell<BTreeMap<TokenId, u128>>>;

/// What one core has let through under ceilings, and all of them under budgets.
#[derive(Default)]
pub struct Ceilings {
    daily: Daily,
    spent: Spent,
    /// The last place in the lane that was looked at.
    seen: u64,
    /// Requests with a ceiling or a budget that this core has to decide on.
    asked: HashMap<Ticket, (Vec<u8>, Allowance)>,
}

/// A decision under a budget, to be counted.
pub struct Budgeted {
    token: TokenId,
    refused: bool,
    amount: u128,
    /// What all cores have let through, with this one if it was not refused.
    sum: u128,
    budget: u128,
}

impl Budgeted {
    /// What is counted of it, when these sums are durable.
    pub fn name(&self, durable: &BTreeMap<TokenId, u128>) -> &'static str {
        let there = durable.get(&self.token).copied().unwrap_or(0);
        match (self.refused, self.sum == self.budget) {
            (true, _) if there.saturating_add(self.amount) <= self.budget => "budget: refused for a debit that was not durable",
            (true, _) => "budget: refused",
            (false, true) => "budget: exactly used up",
            (false, false) => "budget: spent",
        }
    }
}

impl Ceilings {
    /// Begins with what the durable entries add up to; the cores of one process have one `spent`.
    pub fn behind(daily: &Daily, spent: Spent) -> Self {
        Self { daily: daily.clone(), spent, ..Self::default() }
    }

    /// A request is about to be decided on, now or when the ledger has been asked.
    pub fn ask(&mut self, ticket: Ticket, entry: &Entry<'_>, allowance: Allowance) {
        if allowance != Allowance::default() {
            self.asked.insert(ticket, (entry.bytes().to_vec(), allowance));
        }
    }

    /// The core has decided on something: the entries that it has refused because of a ceiling, and its decisions under budgets.
    pub fn watch(&mut self, engine: &mut Engine, replies: &[(Ticket, Answer)]) -> (Vec<Vec<u8>>, Vec<Budgeted>) {
        let mut budgeted = Vec::new();
        if self.asked.is_empty() {
            return (Vec::new(), budgeted);
        }
        let batches: Vec<_> = std::iter::from_fn(|| engine.take_batch()).collect();
        for batch in &batches {
            for (number, entry) in (batch.lane_first..).zip(Entry::all_own(&batch.bytes)) {
                if number > self.seen && entry.counts_against_ceiling() {
                    assert!(self.daily.count(&entry) <= CEILING, "what is let through stays within the daily ceiling: {entry:?}");
                }
                if number > self.seen && entry.counts_against_budget() {
                    budgeted.push(self.count(&entry));
                }
                self.seen = number.max(self.seen);
            }
        }
        batches.into_iter().rev().for_each(|batch| engine.untake_batch(batch));
        let counted: Vec<_> = self.spent.borrow().iter().map(|(token, spent)| (*token, *spent)).collect();
        assert_eq!(engine.budgets().all(), counted, "what was debited under budgets is what was let through");
        let mut over_ceiling = Vec::new();
        for (bytes, allowance) in self.refused(engine, replies) {
            let entry = Entry::parse(&bytes).unwrap().0;
            let (amount, before) = (entry.amount().minor_units(), self.daily.before(&entry));
            let sum = self.spent.borrow().get(&entry.token()).copied().unwrap_or(0);
            let beyond = |spent: u128, limit: u128| spent.checked_add(amount).map_or(true, |total| total > limit);
            let budget = allowance.budget.map(Amount::minor_units);
            let over_budget = budget.is_some_and(|budget| beyond(sum, budget));
            if allowance.daily_ceiling.is_some() && beyond(before, CEILING) {
                over_ceiling.push(bytes);
            } else {
                assert!(
                    over_budget,
                    "ceiling and budget leave room: {before} of {CEILING}, {sum} of {budget:?} before {entry:?}"
                );
                let (token, budget) = (entry.token(), budget.unwrap_or(0));
                budgeted.push(Budgeted { token, refused: true, amount, sum, budget });
            }
        }
        (over_ceiling, budgeted)
    }

    /// What was asked and is refused because of a limit now. What was answered in another way is forgotten.
    fn refused(&mut self, engine: &mut Engine, replies: &[(Ticket, Answer)]) -> Vec<(Vec<u8>, Allowance)> {
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
        refused
    }

    /// Counts a debit that was let through under a budget.
    fn count(&mut self, entry: &Entry<'_>) -> Budgeted {
        let (token, amount) = (entry.token(), entry.amount().minor_units());
        let asked = self.asked.values().find(|(bytes, _)| bytes == entry.bytes());
        let budget = asked.and_then(|(_, allowance)| allowance.budget).expect("it was asked for under a budget").minor_units();
        let mut spent = self.spent.borrow_mut();
        let sum = spent.entry(token).or_default();
        *sum += amount;
        assert!(*sum <= budget, "what is let through stays within the budget of {budget}: {entry:?} makes it {sum}");
        Budgeted { token, refused: false, amount, sum: *sum, budget }
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
