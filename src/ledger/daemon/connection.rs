//! The thread of one connection: moves bytes between socket and session, requests to the chair, replies back. What a reader asks is
//! answered in `answers`.
//!
//! The thread of the wallet that writes commits by itself: while it waits for the disk, what the wallet sends collects in the
//! socket, and all of that goes into the next commit. So there is no queue here and nobody to wake.
use super::chair::{Chair, Committed, Peer, Seat, Turned};
use super::server::Site;
use super::session::{Session, Wanted};
use crate::domain::{LaneBatch, Seq};
use crate::ledger::committer::{prefer_this_thread, rest_after};
use crate::ledger::log::Log;
use crate::ledger::protocol::{Acknowledged, Fault, Refused, Reply};
use crate::ledger::quiet::Quiet;
use crate::ledger::spares::RETRY;
use crate::ledger::storage::Storage;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::net::{recv, RecvFlags};
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is read of a socket at once.
const READ_BYTES: usize = 64 << 10;
/// What is read of a socket before it is worked on.
const READ_AHEAD_BYTES_MAX: usize = 4 << 20;
/// How long a wallet may take nothing of what it is sent.
const SEND_PATIENCE: Duration = Duration::from_secs(5);

/// One connection.
pub(super) struct Connection<S: Storage> {
    pub(super) site: Arc<Site<S>>,
    stream: UnixStream,
    peer: Peer,
    pub(super) session: Session,
    seat: Option<Seat>,
    /// The batch that did not fit into the commit.
    held_back: Option<LaneBatch>,
    /// Whether something was admitted and could not be committed.
    full: bool,
    /// When it is to be noted how far the log reaches.
    quiet: Quiet,
    /// Places that were asked for.
    places: Vec<Acknowledged>,
    /// The snapshot that pieces were asked of last.
    pub(super) snapshot: Option<(Seq, S::File)>,
}

/// The connection is over; the reason has been told, as far as there was somebody to tell.
pub(super) struct Over;

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        Over
    }
}

impl<S: Storage> Connection<S> {
    pub fn new(site: Arc<Site<S>>, stream: UnixStream, peer: Peer) -> Self {
        let session = Session::new(site.log_id, site.watch.head(), site.reader.first());
        Self {
            site,
            stream,
            peer,
            session,
            seat: None,
            held_back: None,
            full: false,
            quiet: Quiet::default(),
            places: Vec::new(),
            snapshot: None,
        }
    }

    /// Says why and closes.
    pub fn refuse(&mut self, fault: Fault) {
        self.site.note_refusal(self.peer, &fault);
        self.session.end(fault);
        // Whoever is refused may be gone already.
        let _ = self.send();
    }

    /// Serves until one of the two ends goes.
    pub fn serve(mut self) {
        let Over = self.run().unwrap_or(Over);
        if let (Some(seat), Some(chair)) = (self.seat, &mut *self.site.chair.lock().expect("a panic ends the process")) {
            chair.leave(seat);
            tracing::info!(pid = self.peer.pid, uid = self.peer.uid, "the writing wallet has left");
        }
    }

    fn run(&mut self) -> Result<Over, Over> {
        self.stream.set_write_timeout(Some(SEND_PATIENCE))?;
        loop {
            self.wait()?;
            let goes_on = self.read()?;
            self.work()?;
            let rest = self.commit()?;
            if self.session.owes_state(self.is_writable()) {
                self.tell_state();
            }
            self.send()?;
            if !goes_on || self.session.ended() {
                return Ok(Over);
            }
            if !rest.is_zero() {
                std::thread::sleep(rest);
            }
        }
    }

    /// Until something arrives, or it is time to look again.
    fn wait(&mut self) -> Result<(), Over> {
        let quiet = self.quiet.left(Instant::now());
        // Whether there is room for the next segment is found out by another thread, which wakes nobody.
        let room_matters = self.seat.is_some() && self.site.watch.is_nearly_full();
        let timeout = match (self.full, &self.held_back) {
            (true, _) => Some(RETRY),
            (false, Some(_)) => Some(Duration::ZERO),
            (false, None) if room_matters => Some(quiet.map_or(RETRY, |left| left.min(RETRY))),
            (false, None) => quiet,
        };
        let timeout = timeout.map(|wait| Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) });
        let mut waiting = [PollFd::new(&self.stream, PollFlags::IN), PollFd::new(&self.site.stop, PollFlags::IN)];
        // A signal may end the wait early; then there is nothing to read.
        let _ = poll(&mut waiting, timeout.as_ref());
        if !waiting[1].revents().is_empty() {
            return Err(self.end(ending()));
        }
        Ok(())
    }

    /// Takes what has arrived; false if nothing more will.
    fn read(&mut self) -> Result<bool, Over> {
        while self.held_back.is_none() && self.session.input().waiting() < READ_AHEAD_BYTES_MAX {
            let stream = &self.stream;
            let read = |buffer: &mut [u8]| recv(stream, buffer, RecvFlags::DONTWAIT).map(|(_, count)| count);
            match self.session.input().fill(READ_BYTES, read) {
                Ok(0) => return Ok(false),
                Ok(count) if count < READ_BYTES => return Ok(true),
                Ok(_) => {}
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => return Ok(true),
                Err(_) => return Err(Over),
            }
        }
        Ok(true)
    }

    /// Whether the daemon ends.
    pub(super) fn is_stopped(&self) -> bool {
        let mut stop = [PollFd::new(&self.site.stop, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A signal may come between; then it is looked at the next time.
        let _ = poll(&mut stop, Some(&now));
        !stop[0].revents().is_empty()
    }

    pub(super) fn send(&mut self) -> io::Result<()> {
        let output = self.session.output();
        if !output.is_empty() {
            self.stream.write_all(output)?;
            output.clear();
        }
        Ok(())
    }

    pub(super) fn end(&mut self, fault: Fault) -> Over {
        self.refuse(fault);
        Over
    }

    /// Lets the chair do something for this connection.
    fn chair<T>(&mut self, act: impl FnOnce(&mut Chair<Log<S>>, Duration) -> Result<T, Turned>) -> Result<T, Over> {
        let now = self.site.now();
        let done = match &mut *self.site.chair.lock().expect("a panic ends the process") {
            Some(chair) => act(chair, now),
            None => Err(ending().into()),
        };
        done.map_err(|turned| match turned {
            Turned::Away(fault) => self.end(fault),
            Turned::Fatal(error) => {
                tracing::error!(%error, "FATAL: the ledger cannot make entries durable; nothing more is acknowledged, the process ends");
                if let Some(on_fatal) = self.site.on_fatal.lock().expect("a panic ends the process").take() {
                    on_fatal(&error);
                }
                Over
            }
        })
    }

    /// Does what was asked for, but for the commit.
    fn work(&mut self) -> Result<(), Over> {
        if let (Some(seat), true) = (self.seat, self.session.input().waiting() > 0) {
            self.chair(|chair, now| chair.heard(seat, now))?;
        }
        if let Some(batch) = self.held_back.take() {
            self.admit(batch)?;
        }
        while self.held_back.is_none() {
            let Some(wanted) = self.session.next() else { break };
            match wanted {
                Wanted::Acquire { lanes } => {
                    let peer = self.peer;
                    let (seat, granted) = self.chair(|chair, now| chair.acquire(peer, lanes, now))?;
                    self.take_seat(seat, &granted, "a wallet has the ledger in a new epoch");
                }
                Wanted::Resume(tenant) => {
                    let peer = self.peer;
                    let (seat, granted) = self.chair(|chair, now| chair.resume(peer, &tenant, now))?;
                    self.take_seat(seat, &granted, "a wallet goes on with its epoch");
                }
                Wanted::Batch(batch) => self.admit(batch)?,
                Wanted::Place { lane, lane_first, count } => {
                    let seat = self.seat.expect("only a writer that was granted the ledger asks for places");
                    let place = self.chair(|chair, _| chair.place(seat, lane, lane_first, count))?;
                    self.places.push(place);
                }
                Wanted::Heartbeat => self.tell_state(),
                Wanted::Ask { id, inquiry } => {
                    self.answer(id, inquiry);
                    // An answer can be many times as long as its question: no second one before it is away.
                    self.send()?;
                }
                Wanted::Read { from } => self.read_all(from)?,
                Wanted::ReadKeys { end, since } => self.read_keys(end, since)?,
            }
        }
        if !self.places.is_empty() {
            let batches = std::mem::take(&mut self.places);
            self.session.reply(&Reply::Durable { commit_us: 0, batches });
        }
        if self.session.ended() {
            // What is wrong with the input was found by the session itself.
            let text = "what was sent is not of the protocol; the other end was told what".to_owned();
            self.site.note_refusal(self.peer, &Fault { refused: Refused::Malformed, epoch: 0, text });
        }
        Ok(())
    }

    fn take_seat(&mut self, seat: Seat, granted: &Reply<'_>, message: &str) {
        let Reply::Granted { epoch, head, .. } = granted else { unreachable!("a seat comes with a grant") };
        tracing::info!(pid = self.peer.pid, uid = self.peer.uid, epoch, head = head.0, "{message}");
        self.seat = Some(seat);
        self.session.grant(granted);
        self.site.keep_keys(self.session.keys_ttl_ms());
        self.tell_state();
        prefer_this_thread();
    }

    fn admit(&mut self, batch: LaneBatch) -> Result<(), Over> {
        let seat = self.seat.expect("only a writer that was granted the ledger sends batches");
        match self.chair(|chair, _| chair.admit(seat, batch))? {
            Ok(None) => {}
            Ok(Some(place)) => self.places.push(place),
            Err(batch) => self.held_back = Some(batch),
        }
        Ok(())
    }

    fn is_writable(&self) -> bool {
        !self.full && self.site.watch.is_writable()
    }

    fn tell_state(&mut self) {
        let watch = &self.site.watch;
        let writable = self.is_writable();
        let state = Reply::State { head: watch.head(), writable, failed_allocations: watch.failed_allocations() };
        self.session.reply(&state);
    }

    /// Commits what was admitted; returns how long to rest.
    fn commit(&mut self) -> Result<Duration, Over> {
        let Some(seat) = self.seat.filter(|_| !self.session.ended()) else { return Ok(Duration::ZERO) };
        let started = Instant::now();
        match self.chair(|chair, _| chair.commit(seat))? {
            Committed::Nothing => {
                if self.quiet.take_due(Instant::now()) {
                    self.chair(|chair, _| chair.note(seat))?;
                }
                Ok(Duration::ZERO)
            }
            Committed::Durable(batches) => {
                let took = started.elapsed();
                let entries = batches.iter().map(|batch| u64::from(batch.count)).sum();
                // Whatever was sent while the disk was busy has not been looked at: a slow disk is no silence.
                self.chair(|chair, now| chair.heard(seat, now))?;
                let commit_us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
                self.session.reply(&Reply::Durable { commit_us, batches });
                self.quiet.committed(Instant::now());
                if self.full {
                    self.full = false;
                    tracing::warn!("there is room for the next ledger segment again; commits go on");
                }
                Ok(rest_after(entries, took))
            }
            Committed::NoRoom(error) => {
                if !self.full {
                    tracing::error!(%error, "no room for the next ledger segment; free some space, commits wait for it");
                }
                self.full = true;
                self.tell_state();
                Ok(Duration::ZERO)
            }
        }
    }
}

fn ending() -> Fault {
    Fault { refused: Refused::Unavailable, epoch: 0, text: "the daemon ends".to_owned() }
}
