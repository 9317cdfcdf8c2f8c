//! The generator's event loop: connections, pacing, and latency from the intended send time.
//!
//! Replies on a connection come in the order of its requests (RFC 9112, section 9.3.2), so a queue per connection is all
//! the matching there is. At a fixed rate a request's latency counts from the moment at which it was due, whether or not a
//! connection was free then: a slow server cannot slow the clock down that it is measured with ("coordinated omission").
//! At `Max` every connection always has `pipeline` requests outstanding, and latency counts from the sending.
//! The engine does not know what is asked; a [`Source`] makes the requests and judges the replies.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token};

use crate::{
    connection::{Connection, Fill},
    fault::Fault,
    latency::Latencies,
    progress::Progress,
    reply::Reply,
};

/// Waits of at least this long are slept; shorter ones are spun through, on the generator's own core.
const SLEEP_MIN: Duration = Duration::from_millis(2);
/// However idle, the loop looks at the clock and at Ctrl-C this often.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// What a reply was a reply to; latencies are kept apart by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A fresh spend, or another write.
    Spend,
    /// A read.
    Read,
    /// An exact repeat of an earlier spend.
    Repeat,
    /// A refusal, intended or not.
    Refusal,
}

/// Makes requests and judges replies.
pub trait Source {
    /// What is remembered about a request until its reply.
    type Ticket: Copy;
    /// Appends the next request for this connection, or nothing if there is none now.
    fn next(&mut self, connection: usize, out: &mut Vec<u8>) -> Option<Self::Ticket>;
    /// The reply to a request.
    fn answered(&mut self, connection: usize, ticket: Self::Ticket, reply: &Reply<'_>) -> Class;
    /// How long ago the request was sent whose reply is handed over next.
    fn waited(&mut self, _since_sent: Duration) {}
    /// The connection broke before the reply came: nobody knows whether the request took effect.
    fn lost(&mut self, connection: usize, ticket: Self::Ticket);
    /// Replies so far that should not have been, for the progress line.
    fn troubles(&self) -> u64;
}

/// How fast requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As fast as replies come: `pipeline` requests outstanding on every connection.
    Max,
    /// So many per second, due at equal distances.
    PerSecond(f64),
}

/// What one drive does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How fast.
    pub pace: Pace,
    /// Sending stops after this long.
    pub duration: Option<Duration>,
    /// Sending stops after so many requests.
    pub requests: Option<u64>,
    /// Sending stops as soon as somebody says so.
    pub ending: Option<Ending>,
}

/// The end of a drive that another thread decides on.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Raised once the drive is to end.
    pub flag: Arc<AtomicBool>,
    /// What is unanswered then is not waited for: it counts as lost, although its connection stays open.
    pub abandon: bool,
}

impl Ending {
    fn is_raised(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }
}

impl Plan {
    /// Everything that the source has, as fast as it goes.
    pub fn everything() -> Plan {
        Plan { pace: Pace::Max, duration: None, requests: None, ending: None }
    }
}

/// What one drive did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Requests written.
    pub sent: u64,
    /// Replies read.
    pub answered: u64,
    /// Requests whose connection broke before the reply.
    pub lost: u64,
    /// Connections that broke.
    pub disconnected: u64,
    /// Requests that were due but never sent, because no connection was free before the end.
    pub unsent: u64,
    /// From the start to the last reply.
    pub elapsed: Duration,
    /// Why the first of them broke.
    pub first_break: Option<String>,
    /// Latency of every reply.
    pub latencies: Latencies,
}

impl Outcome {
    /// Takes the figures of a later drive in, as if the two were one.
    pub fn add(&mut self, later: Outcome) {
        self.sent += later.sent;
        self.answered += later.answered;
        self.lost += later.lost;
        self.disconnected += later.disconnected;
        self.unsent += later.unsent;
        self.elapsed += later.elapsed;
        self.first_break = self.first_break.take().or(later.first_break);
        self.latencies.add(&later.latencies);
    }

    /// Replies per second.
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Connections to one server, ready to be driven again and again.
pub struct Engine {
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    pipeline: usize,
    patience: Duration,
    stop: Arc<AtomicBool>,
}

struct InFlight<T> {
    ticket: T,
    /// When the request was due.
    due: Instant,
    /// When it was handed to its connection.
    sent: Instant,
}

/// The state of one drive.
struct Drive<'a, S: Source> {
    source: &'a mut S,
    plan: &'a Plan,
    queues: Vec<VecDeque<InFlight<S::Ticket>>>,
    begin: Instant,
    heard: Instant,
    outstanding: u64,
    sending: bool,
    outcome: Outcome,
}

impl Engine {
    /// Opens the connections.
    ///
    /// # Errors
    /// [`Fault::Connect`] for the first one that cannot be opened.
    pub fn connect(
        address: SocketAddr,
        connections: usize,
        pipeline: usize,
        patience: Duration,
        stop: &Arc<AtomicBool>,
    ) -> Result<Engine, Fault> {
        let poll = Poll::new().map_err(Fault::io("an epoll instance"))?;
        let mut opened = Vec::with_capacity(connections);
        for number in 0..connections {
            let mut connection = Connection::open(address).map_err(|cause| Fault::Connect { address, open: number, cause })?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry()
                .register(connection.stream(), Token(number), interest)
                .map_err(Fault::io("registering a connection with epoll"))?;
            opened.push(connection);
        }
        let events = Events::with_capacity(connections.clamp(64, 4096));
        Ok(Engine { poll, events, connections: opened, pipeline, patience, stop: Arc::clone(stop) })
    }

    /// How many connections there are, broken ones included.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Drives the source through all connections until the plan's end, or until it has nothing left, and waits for the
    /// replies that are still due.
    ///
    /// # Errors
    /// [`Fault::Interrupted`], [`Fault::Stalled`], or [`Fault::Io`] from the poll.
    pub fn drive<S: Source>(&mut self, source: &mut S, plan: &Plan, progress: &mut Progress) -> Result<Outcome, Fault> {
        let begin = Instant::now();
        let queues = self.connections.iter().map(|_| VecDeque::with_capacity(self.pipeline)).collect();
        let outcome = Outcome {
            sent: 0,
            answered: 0,
            lost: 0,
            disconnected: 0,
            unsent: 0,
            elapsed: Duration::ZERO,
            first_break: None,
            latencies: Latencies::new(),
        };
        let mut drive = Drive { source, plan, queues, begin, heard: begin, outstanding: 0, sending: true, outcome };
        let mut cursor = 0;
        self.send_due(&mut drive, begin, &mut cursor);
        loop {
            let now = Instant::now();
            if self.stop.load(Ordering::Relaxed) {
                return Err(Fault::Interrupted);
            }
            if drive.sending && (drive.is_over(now) || self.connections.iter().all(|connection| !connection.is_open())) {
                if let Pace::PerSecond(_) = plan.pace {
                    // What fell due since the last look, up to the end of the duration.
                    self.send_due(&mut drive, now, &mut cursor);
                }
                drive.sending = false;
                drive.outcome.unsent = drive.due_count(now).saturating_sub(drive.outcome.sent);
            }
            if !drive.sending && plan.ending.as_ref().is_some_and(|ending| ending.abandon && ending.is_raised()) {
                drive.abandon();
            }
            if drive.outstanding == 0 && (!drive.sending || plan.pace == Pace::Max) {
                break;
            }
            if drive.outstanding == 0 {
                drive.heard = now;
            } else if now.duration_since(drive.heard) > self.patience {
                return Err(Fault::Stalled { waiting: drive.outstanding, patience: self.patience });
            }
            progress.tick(now, drive.outcome.answered, drive.source.troubles(), &drive.outcome.latencies);
            self.wait(drive.next_wait(now))?;
            self.handle_events(&mut drive);
            if let Pace::PerSecond(_) = plan.pace {
                if !self.send_due(&mut drive, Instant::now(), &mut cursor) {
                    drive.sending = false;
                }
            }
        }
        let mut outcome = drive.outcome;
        outcome.elapsed = drive.heard.duration_since(begin);
        progress.done(outcome.answered, &outcome.latencies);
        Ok(outcome)
    }

    /// Hears what still comes on connections whose requests were abandoned, until all of them are closed. False if some are still
    /// open after so long.
    ///
    /// # Errors
    /// [`Fault::Interrupted`], or [`Fault::Io`] from the poll.
    pub fn hear_out(&mut self, most: Duration, each: &mut dyn FnMut(&Reply<'_>)) -> Result<bool, Fault> {
        let begin = Instant::now();
        loop {
            for connection in self.connections.iter_mut().filter(|connection| connection.is_open()) {
                let open = loop {
                    let filled = connection.fill(true);
                    while let Ok(Some(reply)) = connection.next_reply() {
                        each(&reply);
                    }
                    match filled {
                        Ok(Fill::More) => {}
                        Ok(Fill::Drained) => break true,
                        Ok(Fill::Closed) | Err(_) => break false,
                    }
                };
                if !open {
                    connection.close();
                }
            }
            if self.connections.iter().all(|connection| !connection.is_open()) {
                return Ok(true);
            }
            if self.stop.load(Ordering::Relaxed) {
                return Err(Fault::Interrupted);
            }
            if begin.elapsed() > most {
                return Ok(false);
            }
            self.wait(SLEEP_MIN)?;
        }
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), Fault> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(Fault::Io { what: "waiting for replies".into(), cause: error }),
        }
    }

    fn handle_events<S: Source>(&mut self, drive: &mut Drive<'_, S>) {
        for event in &self.events {
            let number = event.token().0;
            let connection = &mut self.connections[number];
            if !connection.is_open() {
                continue;
            }
            let mut state = Ok(());
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                state = drive.read(number, connection, event.is_read_closed() || event.is_error());
            }
            if state.is_ok() && drive.plan.pace == Pace::Max {
                drive.top_up(number, connection, self.pipeline);
            }
            drive.settle(number, connection, state);
        }
    }

    /// Sends what is due. At `Max` that is whatever fits; at a rate, requests go round robin to connections with room.
    /// False if the source has nothing left for any of them.
    fn send_due<S: Source>(&mut self, drive: &mut Drive<'_, S>, now: Instant, cursor: &mut usize) -> bool {
        let count = self.connections.len();
        let Pace::PerSecond(rate) = drive.plan.pace else {
            for (number, connection) in self.connections.iter_mut().enumerate().filter(|(_, c)| c.is_open()) {
                drive.top_up(number, connection, self.pipeline);
                drive.settle(number, connection, Ok(()));
            }
            return true;
        };
        let due = drive.due_count(now);
        let mut refused = 0;
        let mut skipped = 0;
        while drive.sending && drive.outcome.sent < due && skipped < count {
            let number = *cursor % count;
            *cursor = number + 1;
            let connection = &mut self.connections[number];
            if !connection.is_open() || drive.queues[number].len() >= self.pipeline {
                skipped += 1;
                continue;
            }
            let intended = drive.begin + Duration::from_secs_f64(drive.outcome.sent as f64 / rate);
            if !drive.send(number, connection, intended) {
                refused += 1;
                skipped += 1;
                continue;
            }
            skipped = 0;
            drive.settle(number, connection, Ok(()));
        }
        refused < count
    }
}

impl<S: Source> Drive<'_, S> {
    fn is_over(&self, now: Instant) -> bool {
        self.plan.duration.is_some_and(|limit| now.duration_since(self.begin) >= limit)
            || self.plan.requests.is_some_and(|limit| self.outcome.sent >= limit)
            || self.plan.ending.as_ref().is_some_and(Ending::is_raised)
    }

    /// Gives up what is unanswered.
    fn abandon(&mut self) {
        for (number, queue) in self.queues.iter_mut().enumerate() {
            while let Some(request) = queue.pop_front() {
                self.source.lost(number, request.ticket);
                self.outcome.lost += 1;
                self.outstanding -= 1;
            }
        }
    }

    /// Requests that should have been sent by now.
    fn due_count(&self, now: Instant) -> u64 {
        let limit = self.plan.requests.unwrap_or(u64::MAX);
        match self.plan.pace {
            Pace::Max => 0,
            Pace::PerSecond(rate) => {
                let spent = now.duration_since(self.begin).min(self.plan.duration.unwrap_or(Duration::MAX));
                ((spent.as_secs_f64() * rate) as u64 + 1).min(limit)
            }
        }
    }

    fn next_wait(&self, now: Instant) -> Duration {
        match self.plan.pace {
            Pace::PerSecond(rate) if self.sending => {
                let due = self.begin + Duration::from_secs_f64(self.outcome.sent as f64 / rate);
                let left = due.saturating_duration_since(now);
                // The poll counts in milliseconds and rounds up, so the last stretch is spun through.
                if left < SLEEP_MIN {
                    Duration::ZERO
                } else {
                    (left - SLEEP_MIN / 2).min(SLEEP_MAX)
                }
            }
            Pace::PerSecond(_) | Pace::Max => SLEEP_MAX,
        }
    }

    fn top_up(&mut self, number: usize, connection: &mut Connection, pipeline: usize) {
        if !self.sending || self.queues[number].len() >= pipeline {
            return;
        }
        let now = Instant::now();
        while self.sending && self.queues[number].len() < pipeline {
            if self.is_over(now) || !self.send(number, connection, now) {
                return;
            }
        }
    }

    /// Appends one request to the connection's buffer; false if the source has none for it.
    fn send(&mut self, number: usize, connection: &mut Connection, due: Instant) -> bool {
        let Some(ticket) = self.source.next(number, &mut connection.out) else { return false };
        let sent = if self.plan.pace == Pace::Max { due } else { Instant::now() };
        self.queues[number].push_back(InFlight { ticket, due, sent });
        self.outcome.sent += 1;
        self.outstanding += 1;
        true
    }

    /// Takes every reply that has arrived. `Err` with the reason if the connection is of no more use.
    fn read(&mut self, number: usize, connection: &mut Connection, peer_closed: bool) -> Result<(), String> {
        loop {
            let fill = connection.fill(peer_closed).map_err(|error| error.to_string())?;
            let now = Instant::now();
            loop {
                let reply = match connection.next_reply() {
                    Ok(Some(reply)) => reply,
                    Ok(None) => break,
                    Err(malformed) => return Err(format!("not an HTTP reply: {}", malformed.0)),
                };
                let (close, status) = (reply.close, reply.status);
                let request = self.queues[number].pop_front().ok_or("a reply that nothing was asked for")?;
                self.source.waited(now.saturating_duration_since(request.sent));
                let class = self.source.answered(number, request.ticket, &reply);
                self.outcome.latencies.record(class, now.saturating_duration_since(request.due));
                self.outcome.answered += 1;
                self.outstanding -= 1;
                self.heard = now;
                if close {
                    return Err(format!("the server closed the connection with status {status}"));
                }
            }
            match fill {
                Fill::More => {}
                Fill::Drained => return Ok(()),
                Fill::Closed => return Err("the server closed the connection".into()),
            }
        }
    }

    /// Writes what is waiting, or gives the connection up if it turned out to be broken.
    fn settle(&mut self, number: usize, connection: &mut Connection, state: Result<(), String>) {
        let written = state.and_then(|()| connection.flush().map_err(|error| error.to_string()));
        let Err(reason) = written else { return };
        connection.close();
        self.outcome.disconnected += 1;
        self.outcome.first_break.get_or_insert(reason);
        while let Some(request) = self.queues[number].pop_front() {
            self.source.lost(number, request.ticket);
            self.outcome.lost += 1;
            self.outstanding -= 1;
        }
    }
}
