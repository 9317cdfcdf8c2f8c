//! Reading a ledger behind a socket: one question or one reading at a time, each waited for, on a connection of its own.
//!
//! A connection that failed is given up, and the next question makes a new one. While the writing connection is in trouble no
//! question is even tried, so that nobody waits for a daemon that is known to be gone.
use super::state::State;
use crate::domain::{Entry, Found, HistoryAnswer, HistoryQuestion, LogId, Page, PageQuestion, Question, Root, Seq};
use crate::ledger::handles::{EachEntry, ReadLedger};
use crate::ledger::protocol::{Frames, Reply, Request, Role, REPLY_BODY_BYTES_MAX};
use crate::ledger::LedgerError;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
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

struct Connection {
    stream: UnixStream,
    frames: Frames,
}

impl Connection {
    fn open(state: &State, log_id: LogId) -> Result<Self, String> {
        let failed = |error: std::io::Error| error.to_string();
        let stream = UnixStream::connect(&state.socket).map_err(failed)?;
        stream.set_read_timeout(Some(ANSWER_PATIENCE)).map_err(failed)?;
        stream.set_write_timeout(Some(ANSWER_PATIENCE)).map_err(failed)?;
        let mut connection = Self { stream, frames: Frames::new(REPLY_BODY_BYTES_MAX) };
        connection.send(&Request::Hello(Role::Reader))?;
        connection.receive(|reply| match reply {
            Reply::Welcome { log_id: found, .. } if found == log_id => Ok(()),
            Reply::Welcome { .. } => Err("the daemon has another ledger now".to_owned()),
            other => Err(unexpected(&other)),
        })?;
        Ok(connection)
    }

    fn send(&mut self, request: &Request<'_>) -> Result<(), String> {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        self.stream.write_all(&bytes).map_err(|error| error.to_string())
    }

    fn receive<T>(&mut self, take: impl FnOnce(Reply<'_>) -> Result<T, String>) -> Result<T, String> {
        loop {
            // Whole frames are looked for twice, because one that was found cannot be kept across a read.
            if self.frames.has_whole().map_err(|malformed| malformed.0)? {
                let (kind, body) = self.frames.take().map_err(|malformed| malformed.0)?.expect("just seen");
                return take(Reply::decode(kind, body).map_err(|malformed| malformed.0)?);
            }
            let stream = &mut self.stream;
            match self.frames.fill(READ_BYTES, |buffer| stream.read(buffer)) {
                Ok(0) => return Err("the daemon has closed the connection".to_owned()),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

fn unexpected(reply: &Reply<'_>) -> String {
    match reply {
        Reply::Fault(fault) => fault.text.clone(),
        Reply::Unanswered { text, .. } => (*text).to_owned(),
        other => format!("the daemon has answered something else: {other:?}"),
    }
}

impl RemoteReader {
    pub(super) fn new(state: Arc<State>, log_id: LogId) -> Self {
        Self { state, log_id, connection: None, next_id: 1 }
    }

    /// Asks on the connection that there is. One that has been idle may have died with a daemon that is back meanwhile, so it is
    /// asked once more on a new one: asking changes nothing.
    fn with<T>(&mut self, mut act: impl FnMut(&mut Connection) -> Result<T, String>) -> Result<T, LedgerError> {
        if let Some(mut connection) = self.connection.take() {
            if let Ok(done) = act(&mut connection) {
                self.connection = Some(connection);
                return Ok(done);
            }
        }
        let unreachable = |what| LedgerError::Unreachable { place: self.state.place(), what };
        if let Some(trouble) = self.state.trouble() {
            return Err(unreachable(trouble));
        }
        let mut connection = Connection::open(&self.state, self.log_id).map_err(unreachable)?;
        let done = act(&mut connection).map_err(unreachable)?;
        self.connection = Some(connection);
        Ok(done)
    }
}

impl ReadLedger for RemoteReader {
    fn log_id(&self) -> LogId {
        self.log_id
    }

    fn head(&self) -> Seq {
        self.state.head()
    }

    fn find(&mut self, question: &Question) -> Result<Option<Found>, LedgerError> {
        let id = self.next_id;
        self.next_id += 1;
        self.with(|connection| {
            connection.send(&Request::Ask { id, question: question.clone() })?;
            connection.receive(|reply| match reply {
                Reply::Found { id: of, seq, root, entry } if of == id => Ok(Some(Found { entry: entry.into(), seq, root })),
                Reply::Nothing { id: of } if of == id => Ok(None),
                other => Err(unexpected(&other)),
            })
        })
    }

    fn scan(&mut self, from: Seq, each: EachEntry<'_>) -> Result<Seq, LedgerError> {
        let mut next = from.max(Seq(1));
        let mut flow = ControlFlow::Continue(());
        self.with(|connection| {
            connection.send(&Request::Read { from: next })?;
            while flow.is_continue() {
                let ended = connection.receive(|reply| match reply {
                    Reply::Entries { first_seq, root, count, entries } if first_seq == next => {
                        flow = hand_over(&mut next, &root, count, entries, each)?;
                        Ok(false)
                    }
                    Reply::End { next: end } if end == next => Ok(true),
                    other => Err(unexpected(&other)),
                })?;
                if ended {
                    return Ok(());
                }
            }
            Ok(())
        })?;
        if flow.is_break() {
            // The rest is on its way, and nobody wants it.
            self.connection = None;
        }
        Ok(next)
    }

    fn history(&mut self, _: &HistoryQuestion) -> Result<HistoryAnswer, LedgerError> {
        let what = "proofs of history are given by an embedded ledger only".to_owned();
        Err(LedgerError::Declined { place: self.state.place(), what })
    }

    fn page(&mut self, _: &PageQuestion) -> Result<Page, LedgerError> {
        let what = "the entries of an account are listed by an embedded ledger only".to_owned();
        Err(LedgerError::Declined { place: self.state.place(), what })
    }

    /// The daemon prepares for itself.
    fn prepare(&mut self) -> bool {
        false
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
