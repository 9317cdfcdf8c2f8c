//! One core's logic without any I/O: requests, messages of other cores and ledger answers go in; replies, messages, batches and
//! questions come out.
//!
//! The driver keeps three promises. It empties the core's inbox before it hands in what it read from a socket. It hands every
//! [`Outbox::first`] message over before any answer or reply that came out after it leaves. It hands batches to the
//! ledger in the order in which it took them. In return a reply's effect is durable and visible everywhere before the reply.
mod behind;
mod lane;
mod message;
mod quotas;

pub use message::{Message, Outcome, Owned, OwnedAnswer, Repeat, Request, Ticket};
pub use quotas::Buckets;

use crate::domain::{
    Account, AccountState, Allowance, Asset, Code, CoreId, Durable, Entry, Found, KeyId, LaneBatch, Period, Question, QuotaScope,
    Refusal, Seq, UnixMs, UsedKey,
};
use crate::ring::Ring;
use crate::shard::{AssetIx, Budgets, Decision, Figures, Settings, Shard};
use ahash::RandomState;
use behind::{Behind, Waiting};
use lane::{Joined, Lane, Pending};
use message::own_entry;

/// Most entries of one core that may wait for the ledger; beyond it writes are refused before anything is reserved.
pub const PENDING_MAX: usize = 1 << 16;
/// Most messages that may wait for one other core; beyond it requests for that core are refused.
pub const OUTBOX_MAX: usize = 1 << 14;

/// Most repeats that may wait for the outcome of one entry; beyond it they are refused.
pub const JOINED_MAX: usize = 64;

/// Entries that are prepared for together: few enough that all of it stays in the nearest cache until it is used.
const EXPECTED_TOGETHER: u64 = 32;

/// Whether new writes may be let through to the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Yes.
    Open,
    /// Not now: the service is draining or a dependency other than the ledger is missing.
    NotReady,
    /// The ledger cannot take anything now.
    LedgerDown,
}

/// Where the engine puts what concerns its own connections.
pub trait Output {
    /// Answers a request of this core.
    fn reply(&mut self, ticket: Ticket, outcome: Outcome<'_>);
    /// Asks the ledger; the answer comes back through [`Engine::answered`]. Gives the question back if too many are waiting.
    #[allow(clippy::result_large_err)] // What comes back is what was given; boxing every question would cost more.
    fn ask(&mut self, repeat: Repeat) -> Result<(), Repeat>;
    /// Takes note of an entry that is refused here, beside the answer to whoever asked for it, whose connection may be another core's.
    fn refused(&mut self, _entry: &Entry<'_>, _refusal: &Refusal) {}
}

/// Messages for one other core.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Credits and forwarded requests: to be handed over before anything else leaves the core.
    pub first: Vec<Message>,
    /// Answers: to be handed over when no `first` message of any outbox is waiting.
    pub answers: Vec<Message>,
}

/// One core.
pub struct Engine {
    core: CoreId,
    ring: Ring,
    shard: Shard,
    lane: Lane,
    behind: Behind,
    /// Of the accounts that live here.
    buckets: Buckets,
    outboxes: Vec<Outbox>,
    credits_waiting: bool,
}

impl Engine {
    /// The engine of one core of the ring with an empty slice. All cores of a ring have the same budgets.
    pub fn new(core: CoreId, ring: Ring, settings: Settings, budgets: &Budgets) -> Self {
        assert!(core.0 < ring.cores());
        let outboxes = (0..ring.cores()).map(|_| Outbox::default()).collect();
        let [a, b, c, d] = settings.hash_seeds;
        Self {
            core,
            ring,
            shard: Shard::new(settings, budgets.clone()),
            lane: Lane::new(core.0),
            behind: Behind::default(),
            buckets: Buckets::new(RandomState::with_seeds(a, b, c, d)),
            outboxes,
            credits_waiting: false,
        }
    }

    /// Applies an entry read back from the ledger at start, in ledger order; entries that concern other cores only are ignored.
    /// Fails, saying why, if no correct writer can have written it.
    pub fn replay(&mut self, entry: &Entry<'_>, seq: Seq, now: UnixMs) -> Result<(), String> {
        if self.ring.owner(entry.owner()) == self.core {
            self.shard.replay(entry, seq, now)?;
        }
        if entry.to().is_some_and(|to| self.ring.owner(to) == self.core) {
            self.shard.credit(entry, seq);
        }
        Ok(())
    }

    /// Begins with what a snapshot says of the whole ledger; see [`Shard::begin_restore`]. `issued` is what was issued of each asset
    /// over all cores: each core answers for an equal share of it from here on, which keeps the sum below the limit of them all.
    pub fn begin_restore<'a>(
        &mut self,
        assets: impl Iterator<Item = (Asset<'a>, u128)>,
        height: Seq,
        accounts: usize,
    ) -> Vec<AssetIx> {
        let cores = u128::from(self.ring.cores());
        let shares = assets.map(|(asset, issued)| (asset, issued.div_ceil(cores)));
        self.shard.begin_restore(shares, height, accounts / usize::from(self.ring.cores()))
    }

    /// Prepares for accounts of this core that are about to be taken over. Only speeds up.
    pub fn expect_accounts<'n>(&mut self, names: impl Iterator<Item = Account<'n>>) {
        self.shard.expect_accounts(names);
    }

    /// Takes over an account of this core from a snapshot.
    pub fn restore(&mut self, state: &AccountState<'_>, assets: &[AssetIx]) {
        debug_assert_eq!(self.ring.owner(state.name), self.core, "an account of this core");
        self.shard.restore(state, assets);
    }

    /// Takes over the key of an issue from a snapshot, in the order of the entries; one of another core is ignored.
    pub fn restore_key(&mut self, key: &UsedKey, now: UnixMs) {
        if self.ring.owner_of_key(key.id) == self.core {
            self.shard.restore_key(key, now);
        }
    }

    /// What was debited under budgets, over all cores: a snapshot is restored into it once.
    pub fn budgets(&self) -> &Budgets {
        self.shard.budgets()
    }

    /// How the accounts are dealt to the cores.
    pub fn ring(&self) -> Ring {
        self.ring
    }

    /// This core.
    pub fn core(&self) -> CoreId {
        self.core
    }

    /// Prepares for these entries, which are about to be replayed. Only speeds up.
    pub fn expect_replay<'e>(&mut self, entries: impl Iterator<Item = Entry<'e>> + Clone) {
        let (ring, core) = (self.ring, self.core);
        self.shard.expect_replay(entries, |account| ring.owner(account) == core);
    }

    /// Takes note of a key that is still in its time and whose entry was accepted in this span, unless its account lives elsewhere: if
    /// it is used again, the ledger is asked. For a start that does not replay the entry.
    pub fn forget_known(&mut self, key: KeyId, accepted: Period) {
        if self.ring.owner_of_key(key) == self.core {
            self.shard.forget_known(key, accepted);
        }
    }

    /// Prepares for these entries, which are about to be submitted; entries of other cores' accounts do no harm. Only speeds up.
    pub fn expect<'e>(&mut self, entries: impl Iterator<Item = Entry<'e>> + Clone) {
        self.shard.expect_requests(entries);
    }

    /// Takes a request that was read on this core.
    pub fn submit(&mut self, ticket: Ticket, request: Request<'_>, gate: Gate, out: &mut impl Output) {
        assert_eq!(ticket.core, self.core);
        let owner = self.ring.owner(request.account());
        if owner == self.core {
            return self.execute(ticket, request, gate, out);
        }
        let outbox = &mut self.outboxes[usize::from(owner.0)];
        if outbox.first.len() >= OUTBOX_MAX {
            let refusal = Refusal::new(Code::Busy, "the core that owns the account has too much to do; retry");
            if let Request::Write { entry, .. } = &request {
                out.refused(entry, &refusal);
            }
            return out.reply(ticket, Outcome::Refused(refusal));
        }
        outbox.first.push(Message::Forward(ticket, Owned::from_request(&request)));
    }

    /// Takes a message of another core.
    pub fn receive(&mut self, message: Message, gate: Gate, out: &mut impl Output) {
        match message {
            Message::Forward(ticket, owned) => self.execute(ticket, owned.as_request(), gate, out),
            Message::Answer(ticket, answer) => out.reply(ticket, answer.as_outcome()),
            Message::Credit(bytes, seq) => self.shard.credit(&own_entry(&bytes), seq),
        }
    }

    /// Takes the acknowledgement of a batch: settles its entries, hands the credits on, answers everybody who waits.
    pub fn committed(&mut self, durable: Durable, out: &mut impl Output) {
        let LaneBatch { lane_first, count, bytes, .. } = durable.batch;
        let mut rest = &bytes[..];
        for index in 0..u64::from(count) {
            if index % EXPECTED_TOGETHER == 0 {
                self.expect_settlements(rest, (u64::from(count) - index).min(EXPECTED_TOGETHER) as usize);
            }
            let (entry, after) = Entry::parse_own(rest);
            rest = after;
            let seq = Seq(durable.first_seq.0 + index);
            let pending = self.lane.pop(lane_first + index);
            self.shard.settle(&pending.reservation, &entry, seq);
            self.hand_credit_on(&entry, seq);
            let receipt = |replayed| Outcome::Receipt { entry, seq, root: durable.root, replayed };
            self.reply(pending.ticket, receipt(false), out);
            for joined in pending.joined {
                let asked = own_entry(&joined.entry);
                let refusal = match (asked.same_request(&entry), same_key(&asked, &entry)) {
                    (true, true) => {
                        self.reply(joined.ticket, receipt(true), out);
                        continue;
                    }
                    (false, true) => other_request(),
                    (_, false) => Refusal::new(Code::Busy, "another key hid this one for a moment; retry"),
                };
                self.refuse(joined.ticket, &asked, refusal, out);
            }
        }
        assert!(rest.is_empty());
        self.lane.recycle(bytes);
    }

    /// Prepares for the next entries that are to be settled.
    fn expect_settlements(&mut self, bytes: &[u8], count: usize) {
        self.shard.expect_settlements(Entry::all_own(bytes).take(count), self.lane.oldest(count));
    }

    /// Takes the ledger's answer to a question; `None` if it has no such entry.
    pub fn answered(&mut self, repeat: Repeat, found: Option<Found>, gate: Gate, out: &mut impl Output) {
        let waiting = self.behind.end(&own_entry(&repeat.entry), repeat.ticket);
        self.decide_anew(repeat, found, gate, out);
        self.write_those_behind(waiting, gate, out);
    }

    fn write_those_behind(&mut self, waiting: Vec<Waiting>, gate: Gate, out: &mut impl Output) {
        for Waiting { ticket, entry, allowance } in waiting {
            self.write(ticket, &own_entry(&entry), allowance, gate, None, out);
        }
    }

    fn decide_anew(&mut self, repeat: Repeat, found: Option<Found>, gate: Gate, out: &mut impl Output) {
        let Repeat { ticket, entry, allowance, question, height, key_taken } = repeat;
        let asked = own_entry(&entry);
        let by_key = matches!(question, Question::Key(_));
        let Some(found) = found else {
            if by_key {
                return self.write(ticket, &asked, allowance, gate, Some(height), out);
            }
            let refusal = Refusal::new(Code::InternalError, "the ledger does not hold an entry that it should");
            return self.refuse(ticket, &asked, refusal, out);
        };
        let first = own_entry(&found.entry);
        if by_key && !(same_key(&first, &asked) && self.shard.key_lives(&first, &asked)) {
            return self.write(ticket, &asked, allowance, gate, Some(height), out);
        }
        if same_key(&first, &asked) {
            if first.same_request(&asked) {
                let receipt = Outcome::Receipt { entry: first, seq: found.seq, root: found.root, replayed: true };
                return self.reply(ticket, receipt, out);
            }
            let by_nonce = matches!(question, Question::Debit { .. });
            if let Some(question) = self.earlier_use(&asked, &first).filter(|_| !by_nonce) {
                return self.ask(Repeat { ticket, entry, allowance, question, height, key_taken: true }, out);
            }
            return self.refuse(ticket, &asked, other_request(), out);
        }
        if key_taken {
            return self.refuse(ticket, &asked, other_request(), out);
        }
        match question {
            // Another key with the same id took the place of this one, which may have been used all the same.
            Question::At(_) => {
                let (question, height) = (self.shard.question_about_key(&asked), self.shard.height());
                self.ask(Repeat { ticket, entry, allowance, question, height, key_taken }, out);
            }
            Question::Key(_) => unreachable!("an entry with another key has been told apart above"),
            Question::Debit { account, .. } => {
                let account = crate::domain::Account::new(&account).expect("the question was made from a checked name");
                let expected = self.shard.last_nonce(account).next;
                self.refuse(ticket, &asked, Refusal::nonce(expected), out);
            }
        }
    }

    /// Takes the news that the ledger cannot answer a question, and refuses the request that it was about.
    pub fn unanswered(&mut self, repeat: Repeat, refusal: Refusal, gate: Gate, out: &mut impl Output) {
        let asked = own_entry(&repeat.entry);
        let waiting = self.behind.end(&asked, repeat.ticket);
        self.refuse(repeat.ticket, &asked, refusal, out);
        self.write_those_behind(waiting, gate, out);
    }

    /// The question about an older debit with the same key: the key was used again after its time, and the repeat of the older
    /// debit still gets its first answer.
    fn earlier_use(&self, asked: &Entry<'_>, found: &Entry<'_>) -> Option<Question> {
        let (account, nonce) = (asked.from()?, asked.nonce()?);
        let itself = found.op().debits() && found.nonce() == Some(nonce);
        let used = nonce <= self.shard.last_nonce(account).confirmed && !itself;
        used.then(|| Question::Debit { account: account.as_str().into(), nonce })
    }

    /// Whether a credit was handed on to an outbox and not yet to its core: no reply may leave meanwhile.
    pub fn credits_waiting(&self) -> bool {
        self.credits_waiting
    }

    /// Notes that every [`Outbox::first`] message has been handed over.
    pub fn credits_handed_over(&mut self) {
        self.credits_waiting = false;
    }

    /// Entries of the newest batch that has not been handed to the ledger.
    pub fn batched(&self) -> u32 {
        self.lane.batched()
    }

    /// The oldest batch that has not been handed to the ledger.
    pub fn take_batch(&mut self) -> Option<LaneBatch> {
        self.lane.take_open()
    }

    /// Takes a batch back that the ledger's queue had no room for; it comes first again.
    pub fn untake_batch(&mut self, batch: LaneBatch) {
        self.lane.untake(batch);
    }

    /// The messages for each core, to be emptied by the driver.
    pub fn outboxes(&mut self) -> &mut [Outbox] {
        &mut self.outboxes
    }

    /// Forgets old idempotency keys, a bounded number per call; returns how many had to go before their time.
    pub fn expire_keys(&mut self, now: UnixMs) -> usize {
        self.shard.expire_keys(now)
    }

    /// How many entries wait for the ledger.
    pub fn pending(&self) -> usize {
        self.lane.pending()
    }

    /// Figures of the slice for metrics.
    pub fn figures(&self) -> Figures {
        self.shard.figures()
    }

    /// The slice, for checks that compare it with the ledger.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    fn execute(&mut self, ticket: Ticket, request: Request<'_>, gate: Gate, out: &mut impl Output) {
        match request {
            Request::Write { entry, allowance } => {
                let within = |quota| self.buckets.take(quota, entry.owner().as_str(), entry.ts());
                if !allowance.quota.map_or(true, within) {
                    return self.refuse(ticket, &entry, Refusal::quota(QuotaScope::Account), out);
                }
                self.write(ticket, &entry, allowance, gate, None, out);
            }
            Request::Balance { account, asset } => {
                let balance = self.shard.balance(account, asset);
                self.reply(ticket, Outcome::Balance { account, asset, balance }, out);
            }
            Request::LastNonce { account } => {
                let last = self.shard.last_nonce(account);
                self.reply(ticket, Outcome::LastNonce { account, last }, out);
            }
        }
    }

    fn write(
        &mut self,
        ticket: Ticket,
        entry: &Entry<'_>,
        allowance: Allowance,
        gate: Gate,
        searched: Option<Seq>,
        out: &mut impl Output,
    ) {
        if searched.is_none() {
            match self.behind.hold(ticket, entry, allowance) {
                None => {}
                Some(Ok(())) => return,
                Some(Err(())) => {
                    let refusal = Refusal::new(Code::Busy, "too many debits of this account wait for one before them; retry");
                    return self.refuse(ticket, entry, refusal, out);
                }
            }
        }
        let closed = if self.lane.pending() >= PENDING_MAX { Gate::LedgerDown } else { gate };
        let number = self.lane.next_number();
        match self.shard.decide(entry, allowance, number, closed == Gate::Open, searched) {
            Decision::Reserved(reservation) => {
                let pending = Pending { reservation, ticket, joined: Vec::new() };
                self.lane.push(entry, pending);
            }
            Decision::Shut => self.refuse(ticket, entry, shut(closed), out),
            Decision::Join(number) => {
                let pending = self.lane.find(number);
                if pending.joined.len() < JOINED_MAX {
                    pending.joined.push(Joined { ticket, entry: entry.bytes().into() });
                } else {
                    let refusal = Refusal::new(Code::Busy, "too many requests with this key wait for its outcome; retry");
                    self.refuse(ticket, entry, refusal, out);
                }
            }
            Decision::Ask(question) => {
                let height = self.shard.height();
                self.ask(Repeat { ticket, entry: entry.bytes().into(), allowance, question, height, key_taken: false }, out);
            }
            Decision::Refused(refusal) => self.refuse(ticket, entry, refusal, out),
        }
    }

    fn ask(&mut self, repeat: Repeat, out: &mut impl Output) {
        let entry = own_entry(&repeat.entry);
        let due = |account| entry.nonce() == Some(self.shard.last_nonce(account).next);
        if let (Question::Key(_), Some(account)) = (&repeat.question, entry.from().filter(|account| due(*account))) {
            self.behind.begin(account, repeat.ticket);
        }
        if let Err(repeat) = out.ask(repeat) {
            // Nobody else waits for this one yet: that begins after it.
            let asked = own_entry(&repeat.entry);
            self.behind.end(&asked, repeat.ticket);
            let refusal = Refusal::new(Code::Busy, "too many repeats are being looked up in the ledger; retry");
            self.refuse(repeat.ticket, &asked, refusal, out);
        }
    }

    fn hand_credit_on(&mut self, entry: &Entry<'_>, seq: Seq) {
        let Some(to) = entry.to() else { return };
        let owner = self.ring.owner(to);
        if owner == self.core {
            self.shard.credit(entry, seq);
        } else {
            self.credits_waiting = true;
            self.outboxes[usize::from(owner.0)].first.push(Message::Credit(entry.bytes().into(), seq));
        }
    }

    fn refuse(&mut self, ticket: Ticket, entry: &Entry<'_>, refusal: Refusal, out: &mut impl Output) {
        out.refused(entry, &refusal);
        self.reply(ticket, Outcome::Refused(refusal), out);
    }

    fn reply(&mut self, ticket: Ticket, outcome: Outcome<'_>, out: &mut impl Output) {
        if ticket.core == self.core {
            out.reply(ticket, outcome);
        } else {
            let answer = Message::Answer(ticket, OwnedAnswer::from_outcome(outcome));
            self.outboxes[usize::from(ticket.core.0)].answers.push(answer);
        }
    }
}

fn same_key(one: &Entry<'_>, other: &Entry<'_>) -> bool {
    one.owner() == other.owner() && one.key() == other.key()
}

fn other_request() -> Refusal {
    Refusal::new(
        Code::IdempotencyConflict,
        "the idempotency key was used for another request; choose a new key for a new request",
    )
}

fn shut(gate: Gate) -> Refusal {
    match gate {
        Gate::LedgerDown => {
            Refusal::new(Code::UpstreamUnavailable, "the ledger cannot take writes now; repeating the request is safe")
        }
        Gate::NotReady | Gate::Open => Refusal::new(Code::RetryLater, "not ready for writes; see /readyz for what is missing"),
    }
}

#[cfg(test)]
mod tests;
