//! One connection to the daemon without I/O: bytes in, requests out, replies in, bytes out. Pure.
//!
//! Invariants: nothing is understood before a hello of the right version; a reader cannot write and a writer has to be granted the
//! ledger first; a lane batch is handed on only if it holds as many well-formed entries as it says. After the first thing that is
//! wrong the connection is told why and nothing more of it is read.
use crate::domain::{Entry, LaneBatch, LogId, Seq, UnixMs};
use crate::ledger::protocol::{Fault, Frames, Inquiry, Malformed, Refused, Reply, Request, Role, Tenant, REQUEST_BODY_BYTES_MAX};

/// What the other end wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A new epoch.
    Acquire {
        /// For so many lanes.
        lanes: u16,
    },
    /// To go on with its epoch.
    Resume(Tenant),
    /// To have a batch made durable.
    Batch(LaneBatch),
    /// To be told the place of a durable batch.
    Place {
        /// The lane.
        lane: u16,
        /// Its first entry.
        lane_first: u64,
        /// How many.
        count: u32,
    },
    /// To be known as alive, and to know how the ledger is.
    Heartbeat,
    /// An answer.
    Ask {
        /// Comes back with it.
        id: u64,
        /// The question.
        inquiry: Inquiry,
    },
    /// All durable entries from this one on.
    Read {
        /// The first one.
        from: Seq,
    },
    /// The keys of the entries before this one.
    ReadKeys {
        /// The entry.
        end: Seq,
        /// Those of entries that were accepted earlier are of no use.
        since: UnixMs,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    New,
    Asking { lanes: u16 },
    Writing,
    Reading,
    Ended,
}

/// One connection.
pub struct Session {
    log_id: LogId,
    head: Seq,
    first: Seq,
    stage: Stage,
    keys_ttl_ms: u64,
    /// What the writer was told last of whether the ledger is writable, and whether its disk is scarce.
    told_room: Option<(bool, bool)>,
    frames: Frames,
    output: Vec<u8>,
}

impl Session {
    /// A connection that has just been made, to this log, which is durable up to `head` and can be read from `first` on.
    pub fn new(log_id: LogId, head: Seq, first: Seq) -> Self {
        let frames = Frames::new(REQUEST_BODY_BYTES_MAX);
        Self { log_id, head, first, stage: Stage::New, keys_ttl_ms: 0, told_room: None, frames, output: Vec::new() }
    }

    /// Where bytes that arrive are put.
    pub fn input(&mut self) -> &mut Frames {
        &mut self.frames
    }

    /// What is to be sent; to be emptied by the caller.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// How long the writer remembers idempotency keys, in milliseconds.
    pub fn keys_ttl_ms(&self) -> u64 {
        self.keys_ttl_ms
    }

    /// Whether the connection is to be closed once the output has been sent.
    pub fn ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// The next thing that the other end wants; `None` if nothing whole has arrived, or the connection has ended.
    pub fn next(&mut self) -> Option<Wanted> {
        while !self.ended() {
            match self.step() {
                Ok(Step::Wanted(wanted)) => return Some(wanted),
                Ok(Step::Nothing) => return None,
                Ok(Step::Greeted(role)) => {
                    self.stage = match role {
                        Role::Writer { lanes, keys_ttl_ms } => {
                            self.keys_ttl_ms = keys_ttl_ms;
                            Stage::Asking { lanes }
                        }
                        Role::Reader => Stage::Reading,
                    };
                    self.reply(&Reply::Welcome { log_id: self.log_id, head: self.head, first: self.first });
                }
                Err(Malformed(text)) => self.end(Fault { refused: Refused::Malformed, epoch: 0, text }),
            }
        }
        None
    }

    fn step(&mut self) -> Result<Step, Malformed> {
        let Some((kind, body)) = self.frames.take()? else { return Ok(Step::Nothing) };
        let wanted = match (self.stage, Request::decode(kind, body)?) {
            (Stage::New, Request::Hello(role)) => return Ok(Step::Greeted(role)),
            (Stage::Asking { lanes }, Request::Acquire) => Wanted::Acquire { lanes },
            (Stage::Asking { lanes }, Request::Resume(tenant)) => {
                let told = tenant.acknowledged.len();
                if told != usize::from(lanes) {
                    return Err(Malformed(format!("a writer of {lanes} lanes tells of {told}")));
                }
                Wanted::Resume(tenant)
            }
            (Stage::Writing, Request::Batch { lane, lane_first, count, entries }) => {
                check_entries(entries, count)?;
                Wanted::Batch(LaneBatch { lane, lane_first, count, bytes: entries.to_vec() })
            }
            (Stage::Writing, Request::Place { lane, lane_first, count }) => Wanted::Place { lane, lane_first, count },
            (Stage::Writing, Request::Heartbeat) => Wanted::Heartbeat,
            (Stage::Reading, Request::Ask { id, inquiry }) => Wanted::Ask { id, inquiry },
            (Stage::Reading, Request::Read { from }) => Wanted::Read { from },
            (Stage::Reading, Request::ReadKeys { end, since }) => Wanted::ReadKeys { end, since },
            (Stage::New | Stage::Asking { .. } | Stage::Writing | Stage::Reading | Stage::Ended, _) => {
                return Err(Malformed(format!("a frame of kind {kind} does not belong here: {}", self.stage.expects())));
            }
        };
        Ok(Step::Wanted(wanted))
    }

    /// The writer has the ledger; its batches are taken from here on.
    pub fn grant(&mut self, granted: &Reply<'_>) {
        assert!(matches!(granted, Reply::Granted { .. }) && matches!(self.stage, Stage::Asking { .. }));
        self.stage = Stage::Writing;
        self.reply(granted);
    }

    /// Sends a reply.
    pub fn reply(&mut self, reply: &Reply<'_>) {
        if self.ended() {
            return;
        }
        if let Reply::State { writable, scarce, .. } = reply {
            self.told_room = Some((*writable, *scarce));
        }
        reply.encode(&mut self.output);
    }

    /// Whether the writer is to be told how the ledger is although it has not asked: it would go on sending what can only wait, or
    /// refuse what could be written.
    pub fn owes_state(&self, writable: bool, scarce: bool) -> bool {
        self.stage == Stage::Writing && self.told_room != Some((writable, scarce))
    }

    /// Says why, and ends the connection.
    pub fn end(&mut self, fault: Fault) {
        self.reply(&Reply::Fault(fault));
        self.stage = Stage::Ended;
    }
}

enum Step {
    Nothing,
    Greeted(Role),
    Wanted(Wanted),
}

impl Stage {
    fn expects(self) -> &'static str {
        match self {
            Stage::New => "a connection begins with HELLO",
            Stage::Asking { .. } => "a writer asks for the ledger first, with ACQUIRE or RESUME",
            Stage::Writing => "a writer sends batches, places and heartbeats",
            Stage::Reading => "a reader asks and reads",
            Stage::Ended => "the connection has ended",
        }
    }
}

/// What cannot be read back may not be appended: the ledger would never open again.
fn check_entries(entries: &[u8], count: u32) -> Result<(), Malformed> {
    let mut rest = entries;
    for number in 0..count {
        (_, rest) = Entry::parse(rest)
            .map_err(|fault| Malformed(format!("entry {} of a lane batch of {count} cannot be read: {fault}", number + 1)))?;
    }
    if !rest.is_empty() {
        return Err(Malformed(format!("a lane batch has {} bytes behind its {count} entries", rest.len())));
    }
    Ok(())
}
