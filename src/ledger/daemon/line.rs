//! The daemon's end of a connection without I/O: what a wallet that writes wants is done with the chair, in the order in which it came.
//!
//! Invariants: what does not fit into the commit waits, and nothing behind it is looked at before it; whatever the wallet is told to be
//! durable is. It uses no clock: the time comes in.
use super::chair::{Chair, Committed, Seat, Turned};
use super::peer::Peer;
use super::session::{Session, Wanted};
use crate::domain::LaneBatch;
use crate::ledger::engine::Engine;
use crate::ledger::log::Watch;
use crate::ledger::protocol::{Acknowledged, Reply};
use crate::ledger::storage::Storage;
use std::time::Duration;

/// The daemon's end of a connection.
pub(super) struct Line {
    pub peer: Peer,
    pub session: Session,
    seat: Option<Seat>,
    /// The batch that did not fit into the commit.
    held_back: Option<LaneBatch>,
    /// Places that were asked for, or that are those of batches which came again.
    places: Vec<Acknowledged>,
    /// Something was admitted and could not be committed.
    full: bool,
    /// Something has arrived since the last turn.
    heard: bool,
}

/// What was done for a wallet that writes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// It has the ledger.
    Seated,
    /// Its batch is in the next commit.
    Admitted,
    /// Its batch waits for the commit after that.
    HeldBack,
    /// What needs nothing more.
    Answered,
}

/// What became of what was admitted.
#[derive(Debug)]
pub(super) enum Outcome {
    /// There was nothing.
    Nothing,
    /// It is durable, in this order, and that took so long.
    Durable(Vec<Acknowledged>, Duration),
    /// There is no room; it waits.
    NoRoom,
}

impl Line {
    /// A connection that has just been made.
    pub fn new(peer: Peer, session: Session) -> Self {
        Self { peer, session, seat: None, held_back: None, places: Vec::new(), full: false, heard: false }
    }

    /// Its right to write, if it has had one; to be given up when the connection is gone.
    pub fn seat(&mut self) -> &mut Option<Seat> {
        &mut self.seat
    }

    /// Whether a batch waits for the next commit.
    pub fn holds_back(&self) -> bool {
        self.held_back.is_some()
    }

    /// Whether something that was admitted waits for room.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// What is to be done next; nothing while a batch waits for the commit.
    pub fn next(&mut self) -> Option<Wanted> {
        if self.held_back.is_some() {
            return None;
        }
        self.session.next()
    }

    /// Something has arrived, whatever it is.
    pub fn heard(&mut self) {
        self.heard = true;
    }

    /// Begins a turn: whoever sends something lives, and what was held back is tried again.
    pub fn begin<E: Engine>(&mut self, chair: &mut Chair<E>, now: Duration) -> Result<Option<Done>, Turned> {
        if let (Some(seat), true) = (self.seat, std::mem::take(&mut self.heard)) {
            chair.heard(seat, now)?;
        }
        self.held_back.take().map(|batch| self.admit(batch, chair)).transpose()
    }

    /// Does something for a wallet that writes. What connections want that read is not for here.
    pub fn act<E: Engine, S: Storage>(
        &mut self,
        wanted: Wanted,
        chair: &mut Chair<E>,
        watch: &Watch<S>,
        now: Duration,
    ) -> Result<Done, Turned> {
        match wanted {
            Wanted::Acquire { lanes } => {
                let taken = chair.acquire(self.peer, lanes, now)?;
                return Ok(self.take_seat(taken, watch, "a wallet has the ledger in a new epoch"));
            }
            Wanted::Resume(tenant) => {
                let taken = chair.resume(self.peer, &tenant, now)?;
                return Ok(self.take_seat(taken, watch, "a wallet goes on with its epoch"));
            }
            Wanted::Batch(batch) => return self.admit(batch, chair),
            Wanted::Place { lane, lane_first, count } => {
                self.places.push(chair.place(self.granted(), lane, lane_first, count)?)
            }
            Wanted::Heartbeat => self.tell_state(watch),
            Wanted::Ask { .. } | Wanted::Read { .. } | Wanted::ReadKeys { .. } => unreachable!("a writer does not read"),
        }
        Ok(Done::Answered)
    }

    fn granted(&self) -> Seat {
        self.seat.expect("only a writer that was granted the ledger sends batches and asks for places")
    }

    fn take_seat<S: Storage>(&mut self, (seat, granted): (Seat, Reply<'_>), watch: &Watch<S>, message: &str) -> Done {
        let Reply::Granted { epoch, head, .. } = granted else { unreachable!("a seat comes with a grant") };
        let Peer { pid, uid } = self.peer;
        tracing::info!(event = "ledger_granted", pid, uid, epoch, head = head.0, "{message}");
        self.seat = Some(seat);
        self.session.grant(&granted);
        self.tell_state(watch);
        Done::Seated
    }

    fn admit<E: Engine>(&mut self, batch: LaneBatch, chair: &mut Chair<E>) -> Result<Done, Turned> {
        Ok(match chair.admit(self.granted(), batch)? {
            Ok(None) => Done::Admitted,
            Ok(Some(place)) => {
                self.places.push(place);
                Done::Answered
            }
            Err(batch) => {
                self.held_back = Some(batch);
                Done::HeldBack
            }
        })
    }

    fn is_writable<S: Storage>(&self, watch: &Watch<S>) -> bool {
        !self.full && watch.is_writable()
    }

    fn tell_state<S: Storage>(&mut self, watch: &Watch<S>) {
        let writable = self.is_writable(watch);
        let (head, scarce, failed_allocations) = (watch.head(), watch.is_scarce(), watch.failed_allocations());
        self.session.reply(&Reply::State { head, writable, scarce, failed_allocations });
    }

    /// Tells the places that were asked for; returns how many.
    pub fn tell_places(&mut self) -> usize {
        let batches = std::mem::take(&mut self.places);
        let told = batches.len();
        if told > 0 {
            self.session.reply(&Reply::Durable { commit_us: 0, batches });
        }
        told
    }

    /// Commits what was admitted, and tells it.
    pub fn commit<E: Engine>(&mut self, chair: &mut Chair<E>, clock: &dyn Fn() -> Duration) -> Result<Outcome, Turned> {
        let Some(seat) = self.seat.filter(|_| !self.session.ended()) else { return Ok(Outcome::Nothing) };
        let started = clock();
        match chair.commit(seat)? {
            Committed::Nothing => Ok(Outcome::Nothing),
            Committed::Durable(batches) => {
                // Whatever was sent while the disk was busy has not been looked at: a slow disk is no silence.
                chair.heard(seat, clock())?;
                let took = clock().saturating_sub(started);
                let commit_us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
                self.session.reply(&Reply::Durable { commit_us, batches: batches.clone() });
                if std::mem::take(&mut self.full) {
                    tracing::warn!(event = "commits_go_on", "there is room for the next ledger segment again; commits go on");
                }
                Ok(Outcome::Durable(batches, took))
            }
            Committed::NoRoom(error) => {
                if !std::mem::replace(&mut self.full, true) {
                    tracing::error!(
                        event = "commits_wait", %error,
                        "no room for the next ledger segment, or no file descriptor, as the error says; commits wait for it"
                    );
                }
                Ok(Outcome::NoRoom)
            }
        }
    }

    /// Tells a wallet that writes how the ledger is although it has not asked, if it has to know.
    pub fn settle_state<S: Storage>(&mut self, watch: &Watch<S>) {
        if self.session.owes_state(self.is_writable(watch), watch.is_scarce()) {
            self.tell_state(watch);
        }
    }
}
