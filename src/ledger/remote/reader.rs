//! Reading a ledger behind a socket: one question or one reading at a time, each waited for, on a connection of its own.
//!
//! A connection that failed is given up, and the next question makes a new one. While the writing connection is in trouble no
//! question is even tried, so that nobody waits for a daemon that is known to be gone.
use super::connect::connect_to;
use super::state::State;
use crate::domain::{Entry, Found, HistoryAnswer, HistoryQuestion, LogId, Page, PageQuestion, Question, Root, Seq, UnixMs};
use crate::ledger::audit::{Audit, Findings};
use crate::ledger::comparison::{Held, Holders, Stated};
use crate::ledger::handles::{EachEntry, EachKeys, ReadLedger};
use crate::ledger::protocol::{Frames, Inquiry, Reply, Request, Role, REPLY_BODY_BYTES_MAX};
use crate::ledger::LedgerError;
use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

/// How long one answer may take; making the index of a segment is part of it.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// What is read of the socket at once.
const READ_BYTES: usize = 256 << 10;

/// A handle for reading.
pub struct RemoteReader {
    state: Arc<State>,
    log_id: LogId,
    connection: Option<Connection>,
    next_id: u64,
}

pub(super) struct Connection {
    stream: UnixStream,
    frames: Frames,
    /// The log that the daemon has, once it has said so.
    log_id: Option<LogId>,
}

/// Whether there is more to come of what comes in many frames.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    More,
    /// That was the last frame.
    Ended,
    /// There may be more, and nobody wants it.
    Enough,
}

impl From<ControlFlow<()>> for Flow {
    fn from(flow: ControlFlow<()>) -> Self {
        if flow.is_break() {
            Flow::Enough
        } else {
            Flow::More
        }
    }
}

/// Why there is no answer.
pub(super) enum Trouble {
    /// The connection is of no more use.
    Lost(String),
    /// The daemon says that it has none; the connection is as good as before.
    Told(LedgerError),
}

impl From<String> for Trouble {
    fn from(what: String) -> Self {
        Trouble::Lost(what)
    }
}

impl Connection {
    /// Connects and says hello to a daemon that has the ledger `log_id`, or any if none is expected.
    pub(super) fn open(socket: &Path, log_id: Option<LogId>) -> Result<Self, Trouble> {
        let failed = |error: io::Error| not_reached(&error);
        let stream = connect_to(socket).map_err(failed)?;
        stream.set_nonblocking(false).map_err(failed)?;
        stream.set_read_timeout(Some(ANSWER_PATIENCE)).map_err(failed)?;
        stream.set_write_timeout(Some(ANSWER_PATIENCE)).map_err(failed)?;
        let mut connection = Self { stream, frames: Frames::new(REPLY_BODY_BYTES_MAX), log_id: None };
        connection.send(&Request::Hello(Role::Reader))?;
        let found = connection.receive(|reply| match reply {
            Reply::Welcome { log_id: found, .. } if log_id.map_or(true, |expected| found == expected) => Ok(found),
            Reply::Welcome { .. } => Err("the daemon has another ledger now".to_owned().into()),
            other => Err(unexpected(&other)),
        })?;
        connection.log_id = Some(found);
        Ok(connection)
    }

    /// The log that the daemon has.
    pub(super) fn log_id(&self) -> LogId {
        self.log_id.expect("a connection is handed out once the daemon has said it")
    }

    pub(super) fn send(&mut self, request: &Request<'_>) -> Result<(), Trouble> {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        self.stream.write_all(&bytes).map_err(|error| not_reached(&error).into())
    }

    pub(super) fn receive<T>(&mut self, take: impl FnOnce(Reply<'_>) -> Result<T, Trouble>) -> Result<T, Trouble> {
        loop {
            // Whole frames are looked for twice, because one that was found cannot be kept across a read.
            if self.frames.has_whole().map_err(|malformed| malformed.0)? {
                let (kind, body) = self.frames.take().map_err(|malformed| malformed.0)?.expect("just seen");
                return take(Reply::decode(kind, body).map_err(|malformed| malformed.0)?);
            }
            let stream = &mut self.stream;
            match self.frames.fill(READ_BYTES, |buffer| stream.read(buffer)) {
                Ok(0) => return Err(format!("the daemon has closed the connection; {LOOK_THERE}").into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(not_reached(&error).into()),
            }
        }
    }
}

/// What to do about a daemon that gives no answer.
const LOOK_THERE: &str = "see whether ron-ledger runs there and what it logs";

/// What an error of the socket means, and what to do.
pub(super) fn not_reached(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied => format!(
            "{error}: this is user {}, and the socket is for the user of ron-ledger and those whom its --allow-uid names and the modes of \
             the socket and its directory let in; do this as one of them",
            rustix::process::geteuid().as_raw()
        ),
        // What a socket says whose time for an answer is over.
        ErrorKind::WouldBlock | ErrorKind::TimedOut => format!(
            "connected, but it has not answered within {} s: it hangs or is stopped; look at its process and at what it logs",
            ANSWER_PATIENCE.as_secs()
        ),
        _ => format!("{error}; {LOOK_THERE}"),
    }
}

/// What the daemon says instead of an answer.
fn told(place: &str, archived_before: Option<Seq>, text: &str) -> Trouble {
    let place = place.to_owned();
    Trouble::Told(match archived_before {
        Some(first) => LedgerError::Archived { place, first },
        None => LedgerError::Declined { place, what: text.to_owned() },
    })
}

pub(super) fn unexpected(reply: &Reply<'_>) -> Trouble {
    match reply {
        Reply::Fault(fault) => fault.text.clone().into(),
        other => format!("the daemon has answered something else: {other:?}; {LOOK_THERE}").into(),
    }
}

impl RemoteReader {
    pub(super) fn new(state: Arc<State>, log_id: LogId) -> Self {
        Self { state, log_id, connection: None, next_id: 1 }
    }

    /// Asks on the connection that there is. One that has been idle may have died with a daemon that is back meanwhile, so it is
    /// asked once more on a new one: asking changes nothing.
    fn with<T>(&mut self, mut act: impl FnMut(&mut Connection) -> Result<T, Trouble>) -> Result<T, LedgerError> {
        if self.state.disturbance.is_cut() {
            self.connection = None;
        }
        if let Some(mut connection) = self.connection.take() {
            match act(&mut connection) {
                Ok(done) => {
                    self.connection = Some(connection);
                    return Ok(done);
                }
                Err(Trouble::Told(error)) => {
                    self.connection = Some(connection);
                    return Err(error);
                }
                Err(Trouble::Lost(_)) => {}
            }
        }
        let place = self.state.place();
        if let Some(what) = self.state.out_of_reach() {
            return Err(LedgerError::Unreachable { place, what });
        }
        let acted = Connection::open(&self.state.socket, Some(self.log_id)).and_then(|mut connection| {
            let acted = act(&mut connection);
            if !matches!(acted, Err(Trouble::Lost(_))) {
                self.connection = Some(connection);
            }
            acted
        });
        acted.map_err(|trouble| match trouble {
            Trouble::Told(error) => error,
            Trouble::Lost(what) => LedgerError::Unreachable { place, what },
        })
    }

    /// Asks one question; `take` is given the reply if it is no refusal, and the number of the question.
    fn ask<T>(
        &mut self,
        inquiry: &Inquiry,
        mut take: impl FnMut(Reply<'_>, u64) -> Result<T, Trouble>,
    ) -> Result<T, LedgerError> {
        let id = self.next_id;
        self.next_id += 1;
        let place = self.state.place();
        self.with(|connection| {
            connection.send(&Request::Ask { id, inquiry: inquiry.clone() })?;
            connection.receive(|reply| match reply {
                Reply::Unanswered { id: of, archived_before, text } if of == id => Err(told(&place, archived_before, text)),
                other => take(other, id),
            })
        })
    }

    /// Asks for what comes in many frames; `take` is given each until it has the last one, or enough.
    fn stream(
        &mut self,
        request: impl Fn() -> Request<'static>,
        mut take: impl FnMut(Reply<'_>) -> Result<Flow, Trouble>,
    ) -> Result<(), LedgerError> {
        let place = self.state.place();
        let mut flow = Flow::More;
        self.with(|connection| {
            connection.send(&request())?;
            while flow == Flow::More {
                flow = connection.receive(|reply| match reply {
                    Reply::Unanswered { id: 0, archived_before, text } => Err(told(&place, archived_before, text)),
                    other => take(other),
                })?;
            }
            Ok(())
        })?;
        if flow == Flow::Enough {
            // The rest is on its way, and nobody wants it.
            self.connection = None;
        }
        Ok(())
    }
}

impl ReadLedger for RemoteReader {
    fn log_id(&self) -> LogId {
        self.log_id
    }

    fn head(&self) -> Seq {
        self.state.head()
    }

    fn first(&self) -> Seq {
        Seq(self.state.first.load(Ordering::Acquire))
    }

    fn find(&mut self, question: &Question) -> Result<Option<Found>, LedgerError> {
        self.ask(&Inquiry::Entry(question.clone()), |reply, id| match reply {
            Reply::Found { id: of, seq, root, entry } if of == id => Ok(Some(Found { entry: entry.into(), seq, root })),
            Reply::Nothing { id: of } if of == id => Ok(None),
            other => Err(unexpected(&other)),
        })
    }

    fn scan(&mut self, from: Seq, each: EachEntry<'_>) -> Result<Seq, LedgerError> {
        let next = Cell::new(from.max(Seq(1)));
        self.stream(
            || Request::Read { from: next.get() },
            |reply| match reply {
                Reply::Entries { first_seq, root, count, entries } if first_seq == next.get() => {
                    let mut at = first_seq;
                    let handed = hand_over(&mut at, &root, count, entries, each);
                    next.set(at);
                    Ok(handed?.into())
                }
                Reply::End { next: end } if end == next.get() => Ok(Flow::Ended),
                other => Err(unexpected(&other)),
            },
        )?;
        Ok(next.get())
    }

    fn keys_before(&mut self, end: Seq, since: UnixMs, each: EachKeys<'_>) -> Result<(), LedgerError> {
        self.stream(
            || Request::ReadKeys { end, since },
            |reply| match reply {
                Reply::Keys { accepted, keys } => Ok(each(&keys, accepted).into()),
                Reply::End { next } if next == end => Ok(Flow::Ended),
                other => Err(unexpected(&other)),
            },
        )
    }

    fn history(&mut self, question: &HistoryQuestion) -> Result<HistoryAnswer, LedgerError> {
        self.ask(&Inquiry::History(*question), |reply, id| match reply {
            Reply::History { id: of, answer } if of == id => Ok(*answer),
            other => Err(unexpected(&other)),
        })
    }

    fn page(&mut self, question: &PageQuestion) -> Result<Page, LedgerError> {
        self.ask(&Inquiry::Page(question.clone()), |reply, id| match reply {
            Reply::Page { id: of, page } if of == id => Ok(page),
            other => Err(unexpected(&other)),
        })
    }

    fn findings(&self) -> &Findings {
        &self.state.findings
    }

    /// The daemon prepares for itself.
    fn prepare(&mut self) -> bool {
        false
    }
}

impl RemoteReader {
    /// Whether the writing connection is lost.
    pub(super) fn is_cut_off(&self) -> bool {
        self.state.out_of_reach().is_some()
    }

    /// What the auditor of the daemon has found; `None` while it ends.
    pub(super) fn audit(&mut self) -> Result<Option<Audit>, LedgerError> {
        self.ask(&Inquiry::Audit, |reply, id| match reply {
            Reply::Audit { id: of, audit } if of == id => Ok(Some(*audit)),
            Reply::Nothing { id: of } if of == id => Ok(None),
            other => Err(unexpected(&other)),
        })
    }

    /// The entries after which there are snapshots, the newest first.
    pub(super) fn snapshots(&mut self) -> Result<Vec<Seq>, LedgerError> {
        self.ask(&Inquiry::Snapshots, |reply, id| match reply {
            Reply::Snapshots { id: of, snapshots } if of == id => Ok(snapshots),
            other => Err(unexpected(&other)),
        })
    }

    /// Hands over a piece of the snapshot after an entry, shorter than was asked for at its end only; returns its whole length.
    pub(super) fn piece(
        &mut self,
        snapshot: Seq,
        offset: u64,
        length: u32,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<u64, LedgerError> {
        self.ask(&Inquiry::Piece { snapshot, offset, length }, |reply, id| match reply {
            Reply::Piece { id: of, size, bytes } if of == id && bytes.len() <= length as usize => {
                take(bytes);
                Ok(size)
            }
            other => Err(unexpected(&other)),
        })
    }

    fn holders(&mut self, accounts: &[Box<str>]) -> Option<Holders> {
        let told = self.ask(&Inquiry::Held(accounts.to_vec()), |reply, id| match reply {
            Reply::Holders { id: of, holders } if of == id => Ok(Some(holders)),
            Reply::Nothing { id: of } if of == id => Ok(None),
            other => Err(unexpected(&other)),
        });
        told.unwrap_or_else(|error| {
            tracing::debug!(%error, "the daemon cannot be asked what accounts hold");
            None
        })
    }
}

impl Stated for RemoteReader {
    fn touched(&mut self) -> Option<Holders> {
        self.holders(&[])
    }

    fn held(&mut self, accounts: &[Box<str>]) -> Option<Vec<Held>> {
        let holders = self.holders(accounts)?;
        let named = holders.iter().map(|(account, _)| account);
        named.eq(accounts).then(|| holders.into_iter().map(|(_, held)| held).collect())
    }
}

fn hand_over(
    next: &mut Seq,
    root: &Root,
    count: u32,
    entries: &[u8],
    each: &mut dyn FnMut(Seq, &Root, Entry<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, String> {
    let mut rest = entries;
    for _ in 0..count {
        let (entry, after) = Entry::parse(rest).map_err(|fault| format!("entry {} cannot be read: {fault}", next.0))?;
        rest = after;
        let seq = *next;
        *next = Seq(seq.0 + 1);
        if each(seq, root, entry).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    if rest.is_empty() {
        Ok(ControlFlow::Continue(()))
    } else {
        Err(format!("more bytes than entries before entry {}", next.0))
    }
}
