//! The thread of one connection: moves bytes between the socket and the line, and lets the line at the chair. What a reader asks is
//! answered in `answers`.
//!
//! The thread of the wallet that writes commits by itself: while it waits for the disk, what the wallet sends collects in the
//! socket, and all of that goes into the next commit. So there is no queue here and nobody to wake.
use super::chair::{Chair, Turned};
use super::line::{Done, Line, Outcome};
use super::peer::Peer;
use super::server::Site;
use super::session::{Session, Wanted};
use crate::domain::Seq;
use crate::ledger::committer::{prefer_this_thread, rest_after};
use crate::ledger::log::Log;
use crate::ledger::protocol::{Fault, Refused};
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
    pub(super) line: Line,
    /// When it is to be noted how far the log reaches.
    quiet: Quiet,
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
        Self { site, stream, line: Line::new(peer, session), quiet: Quiet::default(), snapshot: None }
    }

    /// Says why and closes.
    pub fn refuse(&mut self, fault: Fault) {
        self.site.note_refusal(self.line.peer, &fault);
        self.line.session.end(fault);
        // Whoever is refused may be gone already.
        let _ = self.send();
    }

    /// Serves until one of the two ends goes.
    pub fn serve(mut self) {
        let Over = self.run().unwrap_or(Over);
        if let (Some(seat), Some(chair)) = (self.line.seat(), &mut *self.site.chair.lock().expect("a panic ends the process")) {
            chair.leave(*seat);
            let Peer { pid, uid } = self.line.peer;
            tracing::info!(event = "writer_left", pid, uid, "the writing wallet has left");
        }
    }

    fn run(&mut self) -> Result<Over, Over> {
        self.stream.set_write_timeout(Some(SEND_PATIENCE))?;
        loop {
            self.wait()?;
            let goes_on = self.read()?;
            self.work()?;
            let rest = self.commit()?;
            self.line.settle_state(&self.site.watch);
            self.send()?;
            // What was sent before the wallet went is still committed, unless there is no room for it.
            let waits = self.line.holds_back() && !self.line.is_full();
            if !(goes_on || waits) || self.line.session.ended() {
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
        let room_matters = self.line.seat().is_some() && self.site.watch.is_half_full();
        let (full, holds_back) = (self.line.is_full(), self.line.holds_back());
        let timeout = match (full, holds_back) {
            (true, _) => Some(RETRY),
            (false, true) => Some(Duration::ZERO),
            (false, false) if room_matters => Some(quiet.map_or(RETRY, |left| left.min(RETRY))),
            (false, false) => quiet,
        };
        let timeout = timeout.map(|wait| Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) });
        // What is not read must not end the wait, or there would be none.
        let reads = self.reads();
        let wanted = if reads { PollFlags::IN } else { PollFlags::empty() };
        let mut waiting = [PollFd::new(&self.stream, wanted), PollFd::new(&self.site.stop, PollFlags::IN)];
        // A signal may end the wait early; then there is nothing to read.
        let _ = poll(&mut waiting, timeout.as_ref());
        let [socket, stop] = waiting.map(|waited| waited.revents());
        if !stop.is_empty() {
            return Err(self.end(ending()));
        }
        if full && !reads && socket.intersects(PollFlags::HUP | PollFlags::ERR) {
            // The wallet is gone. Reading would show it, but not before there is room.
            return Err(Over);
        }
        Ok(())
    }

    /// Whether more is read before what waits is worked on.
    fn reads(&mut self) -> bool {
        self.line.session.input().waiting() < READ_AHEAD_BYTES_MAX
    }

    /// Takes what has arrived, also if a batch is held back: the wallet may have nothing to say but that it lives. False if nothing more
    /// will arrive.
    fn read(&mut self) -> Result<bool, Over> {
        while self.reads() {
            let stream = &self.stream;
            let read = |buffer: &mut [u8]| recv(stream, buffer, RecvFlags::DONTWAIT).map(|(_, count)| count);
            match self.line.session.input().fill(READ_BYTES, read) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.line.heard();
                    if count < READ_BYTES {
                        return Ok(true);
                    }
                }
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
        let output = self.line.session.output();
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

    /// Lets the line at the chair.
    fn at_chair<T>(&mut self, act: impl FnOnce(&mut Line, &mut Chair<Log<S>>, Duration) -> Result<T, Turned>) -> Result<T, Over> {
        let now = self.site.now();
        let done = match &mut *self.site.chair.lock().expect("a panic ends the process") {
            Some(chair) => act(&mut self.line, chair, now),
            None => Err(ending().into()),
        };
        done.map_err(|turned| match turned {
            Turned::Away(fault) => self.end(fault),
            Turned::Fatal(error) => {
                tracing::error!(
                    event = "ledger_failed", %error,
                    "FATAL: the ledger cannot make entries durable; nothing more is acknowledged, the process ends"
                );
                if let Some(on_fatal) = self.site.on_fatal.lock().expect("a panic ends the process").take() {
                    on_fatal(&error);
                }
                Over
            }
        })
    }

    /// Does what was asked for, but for the commit.
    fn work(&mut self) -> Result<(), Over> {
        if self.line.seat().is_some() {
            self.at_chair(|line, chair, now| line.begin(chair, now))?;
        }
        while let Some(wanted) = self.line.next() {
            match wanted {
                Wanted::Ask { id, inquiry } => {
                    self.answer(id, inquiry);
                    // An answer can be many times as long as its question: no second one before it is away.
                    self.send()?;
                }
                Wanted::Read { from } => self.read_all(from)?,
                Wanted::ReadKeys { end, since } => self.read_keys(end, since)?,
                wanted => {
                    let site = Arc::clone(&self.site);
                    let done = self.at_chair(|line, chair, now| line.act(wanted, chair, &site.watch, now))?;
                    if done == Done::Seated {
                        site.keep_keys(self.line.session.keys_ttl_ms());
                        prefer_this_thread();
                    }
                }
            }
        }
        self.line.tell_places();
        if self.line.session.ended() {
            // What is wrong with the input was found by the session itself.
            let text = "what was sent is not of the protocol; the other end was told what".to_owned();
            self.site.note_refusal(self.line.peer, &Fault { refused: Refused::Malformed, epoch: 0, text });
        }
        Ok(())
    }

    /// Commits what was admitted; returns how long to rest.
    fn commit(&mut self) -> Result<Duration, Over> {
        let Some(seat) = *self.line.seat() else { return Ok(Duration::ZERO) };
        let site = Arc::clone(&self.site);
        match self.at_chair(|line, chair, _| line.commit(chair, &|| site.now()))? {
            Outcome::Nothing => {
                if self.quiet.take_due(Instant::now()) {
                    self.at_chair(|_, chair, _| chair.note(seat))?;
                }
                Ok(Duration::ZERO)
            }
            Outcome::Durable(batches, took) => {
                self.quiet.committed(Instant::now());
                Ok(rest_after(batches.iter().map(|batch| u64::from(batch.count)).sum(), took))
            }
            Outcome::NoRoom => Ok(Duration::ZERO),
        }
    }
}

fn ending() -> Fault {
    Fault { refused: Refused::Unavailable, epoch: 0, text: "the daemon ends".to_owned() }
}
