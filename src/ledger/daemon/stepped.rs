//! The daemon without threads, sockets and a clock: whoever drives it decides what arrives when, and which time it is.
//!
//! For tests and for the simulator: in place of `server` and `connection`, around the same lines and the same chair. Connections that read
//! are not in it: a reader of the log answers their questions.
use super::chair::{Chair, Turned};
use super::line::{Done, Line, Outcome};
use super::peer::Peer;
use super::session::{Session, Wanted};
use crate::domain::{Durable, LaneBatch, LogId};
use crate::ledger::log::{Log, Watch};
use crate::ledger::protocol::Acknowledged;
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
    line: Line,
    /// What was admitted and is not committed, as it came; behind it what is held back.
    admitted: Vec<LaneBatch>,
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
        if !bytes.is_empty() {
            self.line.heard();
        }
        self.line.session.input().push(bytes);
    }

    /// What is to be sent to the wallet; to be emptied by the caller.
    pub fn output(&mut self) -> &mut Vec<u8> {
        self.line.session.output()
    }

    /// Whether the connection is over once the output has been sent.
    pub fn ended(&self) -> bool {
        self.line.session.ended()
    }

    /// What was admitted and is not committed.
    pub fn admitted(&self) -> &[LaneBatch] {
        &self.admitted[..self.admitted.len() - usize::from(self.line.holds_back())]
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
        SteppedLine { line: Line::new(Peer { pid, uid: 1 }, session), admitted: Vec::new() }
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
                line.line.session.end(fault);
                Served::default()
            }
            Err(Turned::Fatal(error)) => return Err(error),
        };
        if line.ended() {
            self.leave(line);
        }
        Ok(served)
    }

    fn work(&mut self, SteppedLine { line, admitted }: &mut SteppedLine, now: Duration) -> Result<Served, Turned> {
        let Self { chair, watch, .. } = self;
        line.begin(chair, now)?;
        while let Some(wanted) = line.next() {
            let batch = if let Wanted::Batch(batch) = &wanted { Some(copy(batch)) } else { None };
            if matches!(line.act(wanted, chair, watch, now)?, Done::Admitted | Done::HeldBack) {
                admitted.extend(batch);
            }
        }
        let mut served = Served { places: line.tell_places(), ..Served::default() };
        match line.commit(chair, &|| now)? {
            Outcome::Nothing => {}
            Outcome::Durable(batches, _) => {
                let placed = |(batch, told): (LaneBatch, &Acknowledged)| {
                    assert_eq!((batch.lane, batch.lane_first, batch.count), (told.lane, told.lane_first, told.count));
                    Durable { batch, first_seq: told.first_seq, root: told.root }
                };
                served.durable = admitted.drain(..batches.len()).zip(&batches).map(placed).collect();
                assert_eq!(admitted.len(), usize::from(line.holds_back()), "all of what was admitted is committed");
            }
            Outcome::NoRoom => served.full = true,
        }
        line.settle_state(watch);
        Ok(served)
    }

    /// Nothing came on this connection for a while: how far the log reaches is noted, as far as that can be done.
    pub fn note(&mut self, line: &mut SteppedLine) {
        if let Some(seat) = *line.line.seat() {
            // A wallet that was replaced hears so when it is served next.
            let _ = self.chair.note(seat);
        }
    }

    /// One attempt at the next segment, as by the thread that allocates ahead.
    pub fn attempt_ahead(&mut self) {
        self.chair.engine().attempt_ahead();
    }

    /// The other end of this connection is gone.
    pub fn leave(&mut self, line: &mut SteppedLine) {
        line.admitted.clear();
        if let Some(seat) = line.line.seat().take() {
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
