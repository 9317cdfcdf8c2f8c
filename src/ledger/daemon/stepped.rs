//! The daemon without threads, sockets and a clock: whoever drives it decides what arrives when, and which time it is.
//!
//! For tests and for the simulator. It does what the thread of a connection does with what a writing wallet sends, in the same order.
//! Connections that read are not in it: a reader of the log answers their questions.
use super::chair::{Chair, Committed, Peer, Seat, Turned};
use super::session::{Session, Wanted};
use crate::domain::{Durable, LaneBatch, LogId};
use crate::ledger::log::{Log, Watch};
use crate::ledger::protocol::{Acknowledged, Reply};
use crate::ledger::reader::Reader;
use crate::ledger::storage::Storage;
use crate::ledger::LedgerError;
use std::time::Duration;

/// The daemon of a log.
pub struct SteppedDaemon<S: Storage> {
    chair: Chair<Log<S>>,
    log_id: LogId,
    reader: Reader<S>,
    watch: Watch<S>,
}

/// The daemon's end of a connection of a wallet that writes.
pub struct SteppedLine {
    peer: Peer,
    session: Session,
    seat: Option<Seat>,
    held_back: Option<LaneBatch>,
    /// What was admitted and is not committed, as it came.
    admitted: Vec<LaneBatch>,
    places: Vec<Acknowledged>,
    full: bool,
}

/// What came of serving a connection.
#[derive(Debug, Default)]
pub struct Served {
    /// What became durable, as one commit and in the order of the ledger.
    pub durable: Vec<Durable>,
    /// How many places were told of what was durable before.
    pub places: usize,
    /// There is no room for what was admitted; it waits.
    pub full: bool,
}

fn copy(batch: &LaneBatch) -> LaneBatch {
    LaneBatch { lane: batch.lane, lane_first: batch.lane_first, count: batch.count, bytes: batch.bytes.clone() }
}

impl SteppedLine {
    /// Takes bytes that have arrived.
    pub fn arrive(&mut self, bytes: &[u8]) {
        self.session.input().push(bytes);
    }

    /// What is to be sent to the wallet; to be emptied by the caller.
    pub fn output(&mut self) -> &mut Vec<u8> {
        self.session.output()
    }

    /// Whether the connection is over once the output has been sent.
    pub fn ended(&self) -> bool {
        self.session.ended()
    }

    /// What was admitted and is not committed.
    pub fn admitted(&self) -> &[LaneBatch] {
        &self.admitted
    }
}

impl<S: Storage> SteppedDaemon<S> {
    /// Serves this log.
    pub fn new(log: Log<S>) -> Self {
        let (log_id, reader, watch, tenure) = (log.log_id(), log.reader(), log.watch(), log.tenure());
        Self { chair: Chair::new(log, tenure, log_id), log_id, reader, watch }
    }

    /// The process of this number connects.
    pub fn accept(&self, pid: u32) -> SteppedLine {
        let session = Session::new(self.log_id, self.watch.head(), self.reader.first());
        let (peer, places) = (Peer { pid, uid: 1 }, Vec::new());
        SteppedLine { peer, session, seat: None, held_back: None, admitted: Vec::new(), places, full: false }
    }

    /// Works on everything that has arrived on this connection, and commits what it was asked to. One that is refused is told why and
    /// has [ended](SteppedLine::ended).
    ///
    /// # Errors
    /// If the daemon has to end. What the connection has [admitted](SteppedLine::admitted) then may be durable or not.
    pub fn serve(&mut self, line: &mut SteppedLine, now: Duration) -> Result<Served, LedgerError> {
        if line.ended() {
            return Ok(Served::default());
        }
        let served = match self.work(line, now) {
            Ok(served) => served,
            Err(Turned::Away(fault)) => {
                line.session.end(fault);
                Served::default()
            }
            Err(Turned::Fatal(error)) => return Err(error),
        };
        if line.ended() {
            self.leave(line);
        }
        Ok(served)
    }

    fn work(&mut self, line: &mut SteppedLine, now: Duration) -> Result<Served, Turned> {
        if let (Some(seat), true) = (line.seat, line.session.input().waiting() > 0) {
            self.chair.heard(seat, now)?;
        }
        if let Some(batch) = line.held_back.take() {
            self.admit(line, batch)?;
        }
        while line.held_back.is_none() {
            let Some(wanted) = line.session.next() else { break };
            match wanted {
                Wanted::Acquire { lanes } => {
                    let taken = self.chair.acquire(line.peer, lanes, now)?;
                    self.take_seat(line, taken);
                }
                Wanted::Resume(tenant) => {
                    let taken = self.chair.resume(line.peer, &tenant, now)?;
                    self.take_seat(line, taken);
                }
                Wanted::Batch(batch) => self.admit(line, batch)?,
                Wanted::Place { lane, lane_first, count } => {
                    let place = self.chair.place(seat_of(line), lane, lane_first, count)?;
                    line.places.push(place);
                }
                Wanted::Heartbeat => self.tell_state(line),
                Wanted::Ask { .. } | Wanted::Read { .. } | Wanted::ReadKeys { .. } => {
                    unreachable!("only wallets that write are connected here")
                }
            }
        }
        let batches = std::mem::take(&mut line.places);
        let mut served = Served { places: batches.len(), ..Served::default() };
        if served.places > 0 {
            line.session.reply(&Reply::Durable { commit_us: 0, batches });
        }
        self.commit(line, now, &mut served)?;
        Ok(served)
    }

    fn take_seat(&self, line: &mut SteppedLine, (seat, granted): (Seat, Reply<'_>)) {
        line.seat = Some(seat);
        line.session.grant(&granted);
        self.tell_state(line);
    }

    fn admit(&mut self, line: &mut SteppedLine, batch: LaneBatch) -> Result<(), Turned> {
        let kept = copy(&batch);
        match self.chair.admit(seat_of(line), batch)? {
            Ok(None) => line.admitted.push(kept),
            Ok(Some(place)) => line.places.push(place),
            Err(batch) => line.held_back = Some(batch),
        }
        Ok(())
    }

    fn tell_state(&self, line: &mut SteppedLine) {
        let Self { watch, .. } = self;
        let state =
            Reply::State { head: watch.head(), writable: watch.is_writable(), failed_allocations: watch.failed_allocations() };
        line.session.reply(&state);
    }

    fn commit(&mut self, line: &mut SteppedLine, now: Duration, served: &mut Served) -> Result<(), Turned> {
        let Some(seat) = line.seat.filter(|_| !line.ended()) else { return Ok(()) };
        match self.chair.commit(seat)? {
            Committed::Nothing => {}
            Committed::Durable(batches) => {
                self.chair.heard(seat, now)?;
                let admitted = std::mem::take(&mut line.admitted);
                assert_eq!(admitted.len(), batches.len(), "all of what was admitted is committed");
                let placed = |(batch, told): (LaneBatch, &Acknowledged)| {
                    assert_eq!((batch.lane, batch.lane_first, batch.count), (told.lane, told.lane_first, told.count));
                    Durable { batch, first_seq: told.first_seq, root: told.root }
                };
                served.durable = admitted.into_iter().zip(&batches).map(placed).collect();
                line.session.reply(&Reply::Durable { commit_us: 1, batches });
                if std::mem::take(&mut line.full) {
                    self.tell_state(line);
                }
            }
            Committed::NoRoom(_) => {
                (line.full, served.full) = (true, true);
                self.tell_state(line);
            }
        }
        Ok(())
    }

    /// Nothing came on this connection for a while: how far the log reaches is noted, as far as that can be done.
    pub fn note(&mut self, line: &SteppedLine) {
        if let Some(seat) = line.seat {
            // A wallet that was replaced hears so when it is served next.
            let _ = self.chair.note(seat);
        }
    }

    /// The other end of this connection is gone.
    pub fn leave(&mut self, line: &mut SteppedLine) {
        line.admitted.clear();
        if let Some(seat) = line.seat.take() {
            self.chair.leave(seat);
        }
    }

    /// Lets go of the ledger in order.
    ///
    /// # Errors
    /// If the end could not be noted; nothing that was acknowledged is lost by that.
    pub fn close(self) -> Result<(), LedgerError> {
        self.chair.close()
    }
}

fn seat_of(line: &SteppedLine) -> Seat {
    line.seat.expect("only a writer that was granted the ledger sends batches and asks for places")
}
