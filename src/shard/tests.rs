//! The slice by itself: the ladder of refusals in its order, reservation and settlement, escrow, repeats, replay.
use super::*;
use crate::domain::{Draft, Key, TokenId, DAY_MS};

fn shard() -> Shard {
    Shard::new(Settings { hash_seeds: [1, 2, 3, 4], idempotency_ttl_ms: 1000, keys_max: 1 << 20 }, Budgets::default())
}

#[derive(Clone, Copy)]
struct Case<'a> {
    op: Op,
    from: &'a str,
    to: &'a str,
    amount: u128,
    nonce: u64,
    key: &'a str,
    ceiling: Option<u128>,
    budget: Option<u128>,
    /// What the policy says.
    daily_max: Option<u128>,
    frozen: bool,
    ts: u64,
}

const SPEND: Case<'static> = Case {
    op: Op::Transfer,
    from: "a",
    to: "b",
    amount: 30,
    nonce: 1,
    key: "k1",
    ceiling: None,
    budget: None,
    daily_max: None,
    frozen: false,
    ts: 2,
};
const ISSUE: Case<'static> = Case { op: Op::Issue, from: "", to: "a", amount: 100, nonce: 0, key: "i1", ts: 1, ..SPEND };

impl Case<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let draft = Draft {
            op: self.op,
            from: Account::new(self.from),
            to: Account::new(self.to),
            asset: Asset::new("roc").unwrap(),
            amount: Amount::new(self.amount).unwrap(),
            nonce: self.op.debits().then_some(Nonce(self.nonce)),
            key: Key::new(self.key).unwrap(),
            memo: None,
            corr: "c",
            token: TokenId([1; 16]),
            ceiling: self.ceiling.is_some(),
            budget: self.budget.is_some(),
            daily_max: self.daily_max.is_some(),
            ts: UnixMs(self.ts),
        };
        draft.encode(&mut bytes);
        bytes
    }

    fn decide(&self, shard: &mut Shard, number: u64) -> Decision {
        let bytes = self.bytes();
        self.decide_when(shard, number, true, &bytes)
    }

    fn decide_when(&self, shard: &mut Shard, number: u64, open: bool, bytes: &[u8]) -> Decision {
        let [daily_ceiling, budget, daily_max] =
            [self.ceiling, self.budget, self.daily_max].map(|units| units.and_then(Amount::new));
        let allowance = Allowance { daily_ceiling, budget, daily_max, quota: None, frozen: self.frozen };
        shard.decide(&Entry::parse(bytes).unwrap().0, allowance, number, open, None)
    }

    /// Reserves, settles and credits at `seq`.
    fn commit(&self, shard: &mut Shard, seq: u64) {
        let bytes = self.bytes();
        let entry = Entry::parse(&bytes).unwrap().0;
        match self.decide(shard, seq) {
            Decision::Reserved(reservation) => shard.settle(&reservation, &entry, Seq(seq)),
            other => panic!("not reserved: {other:?}"),
        }
        if self.op.credits() {
            shard.credit(&entry, Seq(seq));
        }
    }
}

fn balance(shard: &Shard, account: &str) -> (u128, u128) {
    let balance = shard.balance(Account::new(account).unwrap(), Asset::new("roc").unwrap());
    (balance.amount, balance.held)
}

fn code(decision: Decision) -> Code {
    match decision {
        Decision::Refused(refusal) => refusal.code,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn the_ladder_refuses_in_the_order_of_the_contract() {
    let mut shard = shard();
    assert_eq!(code(SPEND.decide(&mut shard, 1)), Code::InsufficientFunds, "an account never seen has nothing");
    ISSUE.commit(&mut shard, 1);
    assert_eq!(code(Case { nonce: 2, amount: 500, ..SPEND }.decide(&mut shard, 2)), Code::NonceConflict, "nonce before funds");
    assert_eq!(code(Case { ceiling: Some(10), amount: 500, ..SPEND }.decide(&mut shard, 2)), Code::LimitsExceeded);
    assert_eq!(code(Case { amount: 101, ..SPEND }.decide(&mut shard, 2)), Code::InsufficientFunds);
    SPEND.commit(&mut shard, 2);
    assert!(matches!(SPEND.decide(&mut shard, 3), Decision::Ask(Question::At(Seq(2)))), "a repeat leads to the ledger");
    assert_eq!(code(Case { key: "k2", ..SPEND }.decide(&mut shard, 3)), Code::NonceConflict, "new key, used nonce");
}

#[test]
fn a_reservation_is_taken_at_once_and_credited_only_when_durable() {
    let mut shard = shard();
    ISSUE.commit(&mut shard, 1);
    let spend = Case { amount: 80, ..SPEND };
    let Decision::Reserved(reservation) = spend.decide(&mut shard, 2) else { panic!("funded") };
    assert_eq!(balance(&shard, "a"), (100, 0), "balances are what is durable");
    assert_eq!(code(Case { nonce: 2, key: "k2", ..SPEND }.decide(&mut shard, 3)), Code::InsufficientFunds);
    assert!(matches!(Case { amount: 80, ..SPEND }.decide(&mut shard, 3), Decision::Join(2)));
    shard.settle(&reservation, &Entry::parse(&spend.bytes()).unwrap().0, Seq(2));
    assert_eq!((balance(&shard, "a"), balance(&shard, "b")), ((20, 0), (0, 0)));
    let next = shard.last_nonce(Account::new("a").unwrap());
    assert_eq!((next.confirmed, next.next), (Nonce(1), Nonce(2)));
}

#[test]
fn held_value_can_only_be_captured_or_given_back_to_its_payer() {
    let mut shard = shard();
    ISSUE.commit(&mut shard, 1);
    Case { op: Op::Hold, to: "e", amount: 60, ..SPEND }.commit(&mut shard, 2);
    assert_eq!((balance(&shard, "a"), balance(&shard, "e")), ((40, 0), (60, 60)));
    let take = Case { from: "e", to: "m", amount: 25, key: "c1", ..SPEND };
    assert_eq!(code(take.decide(&mut shard, 3)), Code::InsufficientFunds, "a transfer cannot take held value");
    Case { op: Op::Capture, ..take }.commit(&mut shard, 3);
    assert_eq!(
        code(Case { op: Op::Capture, nonce: 2, amount: 36, key: "c2", ..take }.decide(&mut shard, 4)),
        Code::InsufficientFunds
    );
    let release = Case { op: Op::Release, nonce: 2, amount: 35, key: "c3", ..take };
    assert_eq!(code(release.decide(&mut shard, 4)), Code::Forbidden, "not the payer");
    Case { to: "a", ..release }.commit(&mut shard, 4);
    assert_eq!((balance(&shard, "a"), balance(&shard, "e"), balance(&shard, "m")), ((75, 0), (0, 0), (25, 0)));
    assert_eq!(code(Case { op: Op::Capture, from: "b", ..take }.decide(&mut shard, 5)), Code::InsufficientFunds);
}

#[test]
fn a_daily_ceiling_counts_reservations_of_the_same_day_only() {
    let mut shard = shard();
    Case { amount: 1000, ..ISSUE }.commit(&mut shard, 1);
    Case { ceiling: Some(50), ..SPEND }.commit(&mut shard, 2);
    let second = Case { ceiling: Some(50), nonce: 2, key: "k2", ..SPEND };
    assert_eq!(code(second.decide(&mut shard, 3)), Code::LimitsExceeded);
    Case { ts: 86_400_002, ..second }.commit(&mut shard, 3);
}

/// Two slices that share their budgets, as two cores do; accounts of any name live on either here.
#[test]
fn what_the_policy_allows_in_a_day_is_counted_for_each_operation_whatever_the_token_and_survives_replay() {
    let mut shard = shard();
    ISSUE.commit(&mut shard, 1);
    let first = Case { daily_max: Some(50), ..SPEND };
    first.commit(&mut shard, 2);
    let second = Case { nonce: 2, key: "k2", ..first };
    assert_eq!(code(second.decide(&mut shard, 3)), Code::LimitsExceeded);
    Case { op: Op::Burn, to: "", ..second }.commit(&mut shard, 3);
    let third = Case { amount: 20, nonce: 3, key: "k3", ..first };
    third.commit(&mut shard, 4);
    let over = Case { amount: 1, nonce: 4, key: "k4", ..first };
    assert_eq!(code(over.decide(&mut shard, 5)), Code::LimitsExceeded, "to the last unit");
    let mut again = self::shard();
    for (seq, case) in [(1, ISSUE), (2, first), (3, Case { op: Op::Burn, to: "", ..second }), (4, third)] {
        let bytes = case.bytes();
        let entry = Entry::parse(&bytes).unwrap().0;
        again.replay(&entry, Seq(seq), UnixMs(3)).unwrap();
        if case.op.credits() {
            again.credit(&entry, Seq(seq));
        }
    }
    assert_eq!(code(over.decide(&mut again, 5)), Code::LimitsExceeded, "after a start as before it");
    Case { ts: DAY_MS + 1, ..over }.commit(&mut again, 5);
}

#[test]
fn a_frozen_account_pays_nothing_new_and_its_repeats_are_answered() {
    let mut shard = shard();
    ISSUE.commit(&mut shard, 1);
    SPEND.commit(&mut shard, 2);
    let frozen = Case { frozen: true, ..SPEND };
    let next = Case { nonce: 2, key: "k2", ..frozen };
    assert_eq!(code(next.decide(&mut shard, 3)), Code::Forbidden);
    assert_eq!(code(Case { amount: 5000, ..next }.decide(&mut shard, 3)), Code::Forbidden);
    assert!(matches!(frozen.decide(&mut shard, 3), Decision::Ask(_)), "a repeat");
    assert_eq!(code(Case { nonce: 9, ..next }.decide(&mut shard, 3)), Code::Forbidden);
    assert_eq!(code(Case { from: "nobody", ..next }.decide(&mut shard, 3)), Code::Forbidden);
    Case { frozen: false, ..next }.commit(&mut shard, 3);
}

#[test]
fn a_budget_counts_what_is_reserved_on_every_core_once_and_nothing_else() {
    let budgets = Budgets::default();
    let settings = Settings { hash_seeds: [1, 2, 3, 4], idempotency_ttl_ms: 1000, keys_max: 1 << 20 };
    let mut cores = [0, 1].map(|_| Shard::new(settings, budgets.clone()));
    cores.iter_mut().for_each(|core| Case { amount: 1000, ..ISSUE }.commit(core, 1));
    let spent = || budgets.spent(TokenId([1; 16]));
    let spend = Case { budget: Some(100), amount: 60, ..SPEND };
    assert!(matches!(spend.decide_when(&mut cores[0], 2, false, &spend.bytes()), Decision::Shut));
    assert_eq!(code(Case { amount: 1001, ..spend }.decide(&mut cores[0], 2)), Code::InsufficientFunds);
    assert_eq!(code(Case { nonce: 2, ..spend }.decide(&mut cores[0], 2)), Code::NonceConflict);
    assert_eq!(code(Case { ceiling: Some(59), ..spend }.decide(&mut cores[0], 2)), Code::LimitsExceeded);
    assert_eq!(spent(), 0, "what is not reserved does not count");
    spend.commit(&mut cores[0], 2);
    Case { budget: None, nonce: 2, key: "k2", amount: 500, ..spend }.commit(&mut cores[0], 3);
    assert!(matches!(spend.decide(&mut cores[0], 4), Decision::Ask(_)), "a repeat");
    assert_eq!(spent(), 60);
    assert_eq!(code(Case { amount: 41, ..spend }.decide(&mut cores[1], 2)), Code::LimitsExceeded, "also on the other core");
    Case { op: Op::Burn, to: "", amount: 40, ..spend }.commit(&mut cores[1], 2);
    assert_eq!(code(Case { nonce: 3, key: "k3", amount: 1, ..spend }.decide(&mut cores[0], 4)), Code::LimitsExceeded);
    assert_eq!(spent(), 100, "to the last unit");
}

#[test]
fn issued_value_is_capped_so_that_no_balance_can_overflow() {
    let mut shard = shard();
    Case { amount: ISSUED_PER_CORE_MAX, ..ISSUE }.commit(&mut shard, 1);
    assert_eq!(code(Case { amount: 1, key: "i2", ..ISSUE }.decide(&mut shard, 2)), Code::LimitsExceeded);
}

#[test]
fn replay_comes_to_the_same_state_and_refuses_what_nobody_can_have_written() {
    let mut live = shard();
    let history = [
        ISSUE,
        SPEND,
        Case { op: Op::Hold, to: "e", nonce: 2, key: "k2", ..SPEND },
        Case { op: Op::Capture, from: "e", to: "b", amount: 10, key: "k3", ..SPEND },
        Case { op: Op::Release, from: "e", to: "a", amount: 5, nonce: 2, key: "k4", ..SPEND },
        Case { op: Op::Burn, to: "", amount: 7, nonce: 3, key: "k5", budget: Some(9), ..SPEND },
    ];
    let mut rebuilt = shard();
    for (index, case) in history.iter().enumerate() {
        let seq = index as u64 + 1;
        case.commit(&mut live, seq);
        let bytes = case.bytes();
        let entry = Entry::parse(&bytes).unwrap().0;
        rebuilt.replay(&entry, Seq(seq), UnixMs(10)).unwrap();
        if case.op.credits() {
            rebuilt.credit(&entry, Seq(seq));
        }
    }
    let state = |shard: &Shard| {
        let mut rows = Vec::new();
        shard
            .for_each_balance(|account, asset, balance, nonce| rows.push((account.to_owned(), asset.to_owned(), balance, nonce)));
        rows.sort_by(|left, right| left.0.cmp(&right.0));
        rows
    };
    assert_eq!(state(&live), state(&rebuilt));
    assert_eq!(live.budgets().all(), [(TokenId([1; 16]), 7)]);
    assert_eq!(live.budgets().all(), rebuilt.budgets().all());
    assert!(matches!(SPEND.decide(&mut rebuilt, 9), Decision::Ask(Question::At(Seq(2)))));
    for impossible in [Case { nonce: 9, ..SPEND }, Case { nonce: 4, amount: 10_000, ..SPEND }] {
        let bytes = impossible.bytes();
        assert!(rebuilt.replay(&Entry::parse(&bytes).unwrap().0, Seq(7), UnixMs(10)).is_err());
    }
}

#[test]
fn a_repeat_that_left_the_window_leads_to_the_ledger_by_its_nonce() {
    let mut shard = shard();
    ISSUE.commit(&mut shard, 1);
    SPEND.commit(&mut shard, 2);
    shard.expire_keys(UnixMs(5000));
    assert!(matches!(SPEND.decide(&mut shard, 3), Decision::Ask(Question::Debit { nonce: Nonce(1), .. })));
}

#[test]
fn an_issue_is_remembered_for_its_time_however_many_there_are_and_through_a_restart() {
    let small = Settings { hash_seeds: [1, 2, 3, 4], idempotency_ttl_ms: 1000, keys_max: 10 };
    let mut rebuilt = Shard::new(small, Budgets::default());
    for number in 1..=3000 {
        let key = format!("i{number}");
        let bytes = Case { key: &key, ..ISSUE }.bytes();
        let entry = Entry::parse(&bytes).unwrap().0;
        rebuilt.replay(&entry, Seq(number), UnixMs(10)).unwrap();
        rebuilt.credit(&entry, Seq(number));
    }
    assert!(matches!(ISSUE.decide(&mut rebuilt, 1), Decision::Ask(Question::At(Seq(1)))), "the first issue is still known");
    assert_eq!(code(Case { key: "fresh", ..ISSUE }.decide(&mut rebuilt, 1)), Code::Busy, "a new one has no room");
}
