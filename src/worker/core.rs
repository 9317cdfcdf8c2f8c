//! One core: its engine, its front to the connections, its inbox, and the moving of letters between them.
//!
//! The three promises that the engine asks of its driver are kept here: the inbox is emptied before a request is handed in,
//! no reply leaves while a credit waits for another core's inbox, and batches go to the ledger in their order.
use super::front::Front;
use super::mailbox::{mailbox, Asked, Inbox, Letter, Mailbox, Order};
use crate::domain::{Account, Code, CoreId, Refusal};
use crate::engine::{Engine, Gate, Message};
use crate::ledger::{Answer, Held, LaneSender, LedgerError, Told};
use crate::telemetry::{CoreStats, Gauge, Tally};
use crossbeam_channel::TrySendError;
use std::cell::RefCell;
use std::rc::Rc;
use std::task::Waker;

/// Entries that are worth handing to the ledger while requests are still being read, so that the disk works while the core does.
const EARLY_ENTRIES: u32 = 128;
/// A batch of fewer entries waits for one more turn, because each commit has its price, if so many requests are in flight.
const HELD_ENTRIES: u32 = 48;
const HELD_IN_FLIGHT_MIN: usize = 64;

/// A core as its tasks share it; never borrowed across an await.
pub type SharedCore = Rc<RefCell<Core>>;

/// One core.
pub struct Core {
    /// The logic.
    pub engine: Engine,
    /// Connections, replies, tokens, figures.
    pub front: Front,
    inbox: Inbox,
    peers: Vec<Mailbox>,
    lane: LaneSender,
    stats_back: crossbeam_channel::Sender<(CoreId, Box<CoreStats>)>,
    /// Whether something could not be handed over and replies have to wait for it.
    stalled: bool,
    /// Whether a small batch was left to grow at the last flush.
    held: bool,
    flusher: Option<Waker>,
    flush_wanted: bool,
    /// Whether the core is to end when nothing is in flight.
    pub draining: bool,
}

impl Core {
    /// Puts a core together.
    pub fn new(
        engine: Engine,
        front: Front,
        inbox: Inbox,
        peers: Vec<Mailbox>,
        lane: LaneSender,
        stats_back: crossbeam_channel::Sender<(CoreId, Box<CoreStats>)>,
    ) -> Self {
        Self {
            engine,
            front,
            inbox,
            peers,
            lane,
            stats_back,
            stalled: false,
            held: false,
            flusher: None,
            flush_wanted: false,
            draining: false,
        }
    }

    /// Whether replies may leave now.
    pub fn replies_may_leave(&self) -> bool {
        !self.stalled && !self.engine.credits_waiting()
    }

    /// Takes every letter that has arrived.
    pub fn empty_inbox(&mut self) {
        while let Some(letter) = self.inbox.take() {
            self.want_flush();
            match letter {
                Letter::Messages(messages) => {
                    let gate = self.front.gate();
                    for message in messages {
                        self.engine.receive(message, gate, &mut self.front);
                    }
                }
                Letter::Durable(durable) => self.engine.committed(durable, &mut self.front),
                Letter::Answered(asked, answer) => self.answered(asked, answer),
                Letter::Order(Order::Stats(empty)) => self.hand_stats_over(empty),
                Letter::Order(Order::Held(accounts, answer)) => {
                    // Whoever asked waits for a while and no longer.
                    let _ = answer.try_send(self.held(&accounts));
                }
                Letter::Order(Order::Keyring(keyring)) => self.front.change_keyring(keyring),
                Letter::Order(Order::Drain) => self.draining = true,
            }
        }
    }

    fn answered(&mut self, asked: Asked, answer: Answer) {
        let gate: Gate = self.front.gate();
        let answer = answer.map_err(|error| unread(&error));
        match (asked, answer) {
            (Asked::Repeat { repeat, .. }, Ok(Told::Entry(found))) => self.engine.answered(repeat, found, gate, &mut self.front),
            (Asked::Repeat { repeat, .. }, Err(refusal)) => self.engine.unanswered(repeat, refusal, gate, &mut self.front),
            (Asked::Transaction { ticket, id, capability }, Ok(Told::Entry(found))) => {
                self.front.transaction(ticket, id, &capability, found);
            }
            (Asked::Page { ticket, account, capability }, Ok(Told::Page(page))) => {
                self.front.page(ticket, &account, &capability, &page);
            }
            (Asked::History { ticket, of, chosen }, Ok(Told::History(answer))) => {
                self.front.history(ticket, of, chosen, &answer);
            }
            (Asked::Totals { ticket, asset }, Ok(Told::Totals(totals))) => self.front.totals(ticket, &asset, totals),
            (Asked::Transaction { ticket, .. } | Asked::Page { ticket, .. }, Err(refusal))
            | (Asked::History { ticket, .. } | Asked::Totals { ticket, .. }, Err(refusal)) => self.front.refuse(ticket, refusal),
            (Asked::Repeat { .. } | Asked::Transaction { .. }, Ok(Told::Page(_) | Told::History(_) | Told::Totals(_)))
            | (Asked::Page { .. }, Ok(Told::Entry(_) | Told::History(_) | Told::Totals(_)))
            | (Asked::History { .. }, Ok(Told::Entry(_) | Told::Page(_) | Told::Totals(_)))
            | (Asked::Totals { .. }, Ok(Told::Entry(_) | Told::Page(_) | Told::History(_))) => {
                unreachable!("the desk answers what it was asked")
            }
        }
    }

    /// Hands over what has to leave the core and wakes the connections whose replies may now be written. Returns whether
    /// something stayed behind and has to be tried again shortly.
    pub fn flush(&mut self) -> bool {
        self.flush_wanted = false;
        self.held = !self.held && self.had_better_grow();
        let lane_full = !self.held && !self.hand_batches_over();
        self.stalled = !self.hand_messages_over();
        if self.stalled {
            self.front.stats.tally(Tally::InboxStall);
        } else {
            self.front.wake_answered();
        }
        self.held || lane_full || self.stalled
    }

    /// Whether the batch is too small for a commit while so much is in flight that the next turn will make it larger.
    fn had_better_grow(&self) -> bool {
        let small = (1..HELD_ENTRIES).contains(&self.engine.batched());
        small && self.front.in_flight_here() >= HELD_IN_FLIGHT_MIN && !self.draining
    }

    fn hand_batches_over(&mut self) -> bool {
        while let Some(batch) = self.engine.take_batch() {
            if let Err(batch) = self.lane.push(batch) {
                self.engine.untake_batch(batch);
                return false;
            }
        }
        true
    }

    /// First all credits and forwarded requests to everybody, then the answers; false if an inbox was full.
    fn hand_messages_over(&mut self) -> bool {
        if self.peers.len() == 1 {
            return true;
        }
        let Self { engine, peers, front, .. } = self;
        let mut complete = true;
        for (outbox, peer) in engine.outboxes().iter_mut().zip(peers.iter()) {
            complete &= hand_over(&mut outbox.first, peer, &mut front.stats);
        }
        if complete {
            engine.credits_handed_over();
            for (outbox, peer) in engine.outboxes().iter_mut().zip(peers.iter()) {
                complete &= hand_over(&mut outbox.answers, peer, &mut front.stats);
            }
        }
        complete
    }

    /// Hands a batch to the ledger before the flush if it is worth a commit, so that the disk works while the core does.
    pub fn hand_over_early(&mut self) {
        if self.engine.batched() >= EARLY_ENTRIES {
            // What does not fit now goes with the flush.
            self.hand_batches_over();
        }
    }

    /// Asks the flusher to run after the tasks that are ready now.
    pub fn want_flush(&mut self) {
        if !self.flush_wanted {
            self.flush_wanted = true;
            if let Some(waker) = self.flusher.take() {
                waker.wake();
            }
        }
    }

    /// Registers the flusher; returns whether there is something to do.
    pub fn poll_flush(&mut self, waker: &Waker) -> bool {
        if !self.flush_wanted {
            self.flusher = Some(waker.clone());
        }
        self.flush_wanted
    }

    /// A handle on which the core's main task sleeps until letters arrive.
    pub fn sleeper(&self) -> super::mailbox::Sleeper {
        self.inbox.sleeper()
    }

    /// Lets go of the inbox of a core that ends: whoever puts a letter there from now on waits for nobody.
    pub fn close_inbox(&mut self) {
        (_, self.inbox) = mailbox();
    }

    /// Whether nothing is left to do for a core that is to end.
    pub fn finished(&self) -> bool {
        self.draining && self.front.connections.open() == 0 && self.engine.pending() == 0 && !self.stalled
    }

    /// What those of these accounts hold that live here.
    fn held(&self, accounts: &[Box<str>]) -> Vec<(usize, Held)> {
        let here = |account: &Account<'_>| self.engine.ring().owner(*account) == self.engine.core();
        let named = accounts.iter().enumerate().filter_map(|(place, name)| Some((place, Account::new(name).filter(here)?)));
        named
            .map(|(place, account)| {
                let (last_nonce, values) = self.engine.shard().held(account);
                (place, Held::new(last_nonce, values))
            })
            .collect()
    }

    fn hand_stats_over(&mut self, empty: Box<CoreStats>) {
        self.front.count_lookups();
        let figures = self.engine.figures();
        let waiting: usize = self.engine.outboxes().iter().map(|outbox| outbox.first.len() + outbox.answers.len()).sum();
        // All cores have the same ones.
        let budgets = if self.front.core() == CoreId(0) { self.engine.budgets().len() } else { 0 };
        let gauges = [
            (Gauge::Connections, self.front.connections.open()),
            (Gauge::Accounts, figures.accounts),
            (Gauge::Budgets, budgets),
            (Gauge::RememberedKeys, figures.keys),
            (Gauge::LanePending, self.engine.pending()),
            (Gauge::ForwardPending, waiting),
            (Gauge::Inflight, self.front.in_flight_here()),
            (Gauge::CachedTokens, self.front.cached_tokens()),
        ];
        for (gauge, value) in gauges {
            self.front.stats.gauge(gauge, value as u64);
        }
        self.front.stats.cpu(cpu_us());
        let full = std::mem::replace(&mut self.front.stats, empty);
        if let Err(TrySendError::Full((_, full))) = self.stats_back.try_send((self.front.core(), full)) {
            // They go with the next ones. A control thread that has ended needs no figures.
            self.front.stats = full;
        }
    }
}

/// How much processor time this thread has used, in microseconds.
fn cpu_us() -> u64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    used.tv_sec as u64 * 1_000_000 + used.tv_nsec as u64 / 1_000
}

/// What a client is told of an entry that cannot be read.
fn unread(error: &LedgerError) -> Refusal {
    if let LedgerError::Archived { first, .. } = error {
        tracing::debug!(event = "archived", %error, "an entry was asked for that is in an archive");
        return Refusal::archived(format!(
            "what came before entry {} is in an archive that is not connected: repeating the request is safe and helps once the \
             operator has brought it back, not before",
            first.0
        ));
    }
    if matches!(error, LedgerError::Unreachable { .. }) {
        // That the ledger is away is logged once, by its link.
        tracing::debug!(event = "ledger_away", %error, "an entry was asked for while the ledger cannot be reached");
        return Refusal::new(Code::UpstreamUnavailable, "the ledger cannot be reached; repeating the request is safe");
    }
    tracing::error!(event = "ledger_read_failed", %error, "an entry could not be read back from the ledger");
    Refusal::new(Code::InternalError, "the ledger could not be read")
}

fn hand_over(messages: &mut Vec<Message>, peer: &Mailbox, stats: &mut CoreStats) -> bool {
    if messages.is_empty() {
        return true;
    }
    let count = messages.len() as u64;
    match peer.try_put(Letter::Messages(std::mem::take(messages))) {
        Ok(()) => {
            stats.tally(Tally::ForwardBatch);
            stats.tally_many(Tally::Forward, count);
            peer.ring();
            true
        }
        Err(Letter::Messages(back)) => {
            *messages = back;
            false
        }
        Err(Letter::Durable(_) | Letter::Answered(..) | Letter::Order(_)) => {
            unreachable!("the inbox gives back what it was given")
        }
    }
}
