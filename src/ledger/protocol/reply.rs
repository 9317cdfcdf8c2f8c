//! What the daemon says to a wallet. Pure.
use super::answers::{decode_answer, decode_page, encode_answer, encode_page};
use super::audit::{decode_audit, decode_holders, encode_audit, encode_holders};
use super::{frame, shortened, Fields, Malformed};
use crate::domain::{HistoryAnswer, KeyId, LogId, Page, Period, Root, Seq, UnixMs};
use crate::ledger::{Audit, Holders};

/// A lane batch that is durable, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// The lane.
    pub lane: u16,
    /// Number of its first entry within the lane.
    pub lane_first: u64,
    /// How many entries.
    pub count: u32,
    /// Where the first one stands.
    pub first_seq: Seq,
    /// Chain hash after the ledger batch that holds them.
    pub root: Root,
}

/// Why the daemon closes a connection, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// What was sent is not of this protocol, or not possible.
    Malformed,
    /// Another wallet holds the ledger and is alive.
    InUse,
    /// A newer wallet has taken the ledger over; `epoch` is its epoch.
    Fenced,
    /// The ledger is not the one that the wallet knows, or has less than was acknowledged.
    Foreign,
    /// The ledger cannot be had now; it may be later.
    Unavailable,
    /// The user of the wallet's process is not on the daemon's list.
    Stranger,
}

/// The last frame of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The cause.
    pub refused: Refused,
    /// The epoch that it is about; 0 if none.
    pub epoch: u64,
    /// What is wrong, where, and what to do.
    pub text: String,
}

/// A frame from the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The answer to the hello.
    Welcome {
        /// The log.
        log_id: LogId,
        /// The last durable entry.
        head: Seq,
        /// The first entry that can be read: what came before it is in an archive.
        first: Seq,
    },
    /// The writer has the ledger.
    Granted {
        /// Its epoch.
        epoch: u64,
        /// The last durable entry.
        head: Seq,
        /// Chain hash after it.
        root: Root,
        /// For each lane the number of its last durable entry in this epoch.
        through: Vec<u64>,
    },
    /// What one commit has made durable, in ledger order.
    Durable {
        /// What it took, in microseconds; 0 for places that were asked for.
        commit_us: u32,
        /// The batches.
        batches: Vec<Acknowledged>,
    },
    /// How the ledger is.
    State {
        /// The last durable entry.
        head: Seq,
        /// Whether it takes entries.
        writable: bool,
        /// Whether there is no room for the next segment, and less than half of it in the one that is written.
        scarce: bool,
        /// Attempts to get it room that failed since the daemon has started.
        failed_allocations: u64,
    },
    /// The entry that was asked for.
    Found {
        /// Of the question.
        id: u64,
        /// Where it stands.
        seq: Seq,
        /// Chain hash after its batch.
        root: Root,
        /// The entry.
        entry: &'a [u8],
    },
    /// There is no such durable entry.
    Nothing {
        /// Of the question.
        id: u64,
    },
    /// The question cannot be answered.
    Unanswered {
        /// Of the question.
        id: u64,
        /// The first entry that is not in an archive, if the answer would be there.
        archived_before: Option<Seq>,
        /// Why.
        text: &'a str,
    },
    /// Entries of an account.
    Page {
        /// Of the question.
        id: u64,
        /// The entries.
        page: Page,
    },
    /// What the history says.
    History {
        /// Of the question.
        id: u64,
        /// The answer.
        answer: Box<HistoryAnswer>,
    },
    /// What the audit has found.
    Audit {
        /// Of the question.
        id: u64,
        /// All of it, but for accounts that agree.
        audit: Box<Audit>,
    },
    /// What accounts hold.
    Holders {
        /// Of the question.
        id: u64,
        /// The accounts, in the order of the question.
        holders: Holders,
    },
    /// Which snapshots there are.
    Snapshots {
        /// Of the question.
        id: u64,
        /// The entries after which they are, the newest first.
        snapshots: Vec<Seq>,
    },
    /// A piece of a snapshot.
    Piece {
        /// Of the question.
        id: u64,
        /// Length of the whole snapshot, in bytes.
        size: u64,
        /// The piece; shorter than it was asked for at the end only.
        bytes: &'a [u8],
    },
    /// Where the ledger is.
    Directory {
        /// Of the question.
        id: u64,
        /// The absolute path of its directory, in the bytes of the system, which need not be UTF-8.
        path: &'a [u8],
    },
    /// Keys of entries; none to show that the daemon is at it.
    Keys {
        /// The time in which the entries were accepted.
        accepted: Period,
        /// The keys.
        keys: Vec<KeyId>,
    },
    /// Durable entries that stand one behind the other.
    Entries {
        /// Where the first one stands.
        first_seq: Seq,
        /// Chain hash after their batch.
        root: Root,
        /// How many.
        count: u32,
        /// The entries.
        entries: &'a [u8],
    },
    /// Everything up to the head has been handed over.
    End {
        /// Where to go on next time.
        next: Seq,
    },
    /// The connection ends.
    Fault(Fault),
}

const WELCOME: u8 = 65;
const GRANTED: u8 = 66;
const DURABLE: u8 = 67;
const STATE: u8 = 68;
const FOUND: u8 = 69;
const NOTHING: u8 = 70;
const UNANSWERED: u8 = 71;
const ENTRIES: u8 = 72;
const END: u8 = 73;
const FAULT: u8 = 74;
const PAGE: u8 = 75;
const HISTORY: u8 = 76;
const AUDIT: u8 = 77;
const HOLDERS: u8 = 78;
const SNAPSHOTS: u8 = 79;
const PIECE: u8 = 80;
const KEYS: u8 = 81;
const DIRECTORY: u8 = 82;

/// Length of one acknowledgement.
const ACKNOWLEDGED_BYTES: usize = 56;

impl Refused {
    const ALL: [Refused; 6] =
        [Refused::Malformed, Refused::InUse, Refused::Fenced, Refused::Foreign, Refused::Unavailable, Refused::Stranger];

    fn number(self) -> u16 {
        self as u16 + 1
    }
}

impl<'a> Reply<'a> {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Reply::Welcome { log_id, head, first } => frame(out, WELCOME, |out| {
                out.extend_from_slice(&log_id.0);
                out.extend_from_slice(&head.0.to_le_bytes());
                out.extend_from_slice(&first.0.to_le_bytes());
            }),
            Reply::Granted { epoch, head, root, through } => frame(out, GRANTED, |out| {
                out.extend_from_slice(&epoch.to_le_bytes());
                out.extend_from_slice(&head.0.to_le_bytes());
                out.extend_from_slice(root);
                through.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
            }),
            Reply::Durable { commit_us, batches } => frame(out, DURABLE, |out| {
                out.extend_from_slice(&commit_us.to_le_bytes());
                out.extend_from_slice(&[0; 4]);
                for batch in batches {
                    out.extend_from_slice(&batch.lane.to_le_bytes());
                    out.extend_from_slice(&[0; 2]);
                    out.extend_from_slice(&batch.count.to_le_bytes());
                    out.extend_from_slice(&batch.lane_first.to_le_bytes());
                    out.extend_from_slice(&batch.first_seq.0.to_le_bytes());
                    out.extend_from_slice(&batch.root);
                }
            }),
            Reply::State { head, writable, scarce, failed_allocations } => frame(out, STATE, |out| {
                out.extend_from_slice(&head.0.to_le_bytes());
                out.extend_from_slice(&failed_allocations.to_le_bytes());
                out.extend_from_slice(&[u8::from(*writable), u8::from(*scarce), 0, 0, 0, 0, 0, 0]);
            }),
            Reply::Found { id, seq, root, entry } => frame(out, FOUND, |out| {
                out.extend_from_slice(&id.to_le_bytes());
                out.extend_from_slice(&seq.0.to_le_bytes());
                out.extend_from_slice(root);
                out.extend_from_slice(entry);
            }),
            Reply::Nothing { id } => frame(out, NOTHING, |out| out.extend_from_slice(&id.to_le_bytes())),
            Reply::Unanswered { id, archived_before, text } => frame(out, UNANSWERED, |out| {
                out.extend_from_slice(&id.to_le_bytes());
                out.extend_from_slice(&archived_before.map_or(0, |first| first.0).to_le_bytes());
                out.extend_from_slice(shortened(text).as_bytes());
            }),
            Reply::Page { id, page } => frame(out, PAGE, |out| {
                out.extend_from_slice(&id.to_le_bytes());
                encode_page(page, out);
            }),
            Reply::History { id, answer } => frame(out, HISTORY, |out| {
                out.extend_from_slice(&id.to_le_bytes());
                encode_answer(answer, out);
            }),
            Reply::Audit { id, audit } => frame(out, AUDIT, |out| {
                out.extend_from_slice(&id.to_le_bytes());
                encode_audit(audit, out);
            }),
            Reply::Holders { id, holders } => frame(out, HOLDERS, |out| {
                out.extend_from_slice(&id.to_le_bytes());
                encode_holders(holders, out);
            }),
            Reply::Snapshots { id, snapshots } => frame(out, SNAPSHOTS, |out| {
                out.extend_from_slice(&id.to_le_bytes());
                snapshots.iter().for_each(|seq| out.extend_from_slice(&seq.0.to_le_bytes()));
            }),
            Reply::Piece { id, size, bytes } => frame(out, PIECE, |out| {
                out.extend_from_slice(&id.to_le_bytes());
                out.extend_from_slice(&size.to_le_bytes());
                out.extend_from_slice(bytes);
            }),
            Reply::Directory { id, path } => frame(out, DIRECTORY, |out| {
                out.extend_from_slice(&id.to_le_bytes());
                out.extend_from_slice(path);
            }),
            Reply::Keys { accepted, keys } => frame(out, KEYS, |out| {
                let numbers = [accepted.first.0, accepted.last.0].into_iter().chain(keys.iter().map(|key| key.0));
                numbers.for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
            }),
            Reply::Entries { first_seq, root, count, entries } => frame(out, ENTRIES, |out| {
                out.extend_from_slice(&first_seq.0.to_le_bytes());
                out.extend_from_slice(root);
                out.extend_from_slice(&count.to_le_bytes());
                out.extend_from_slice(&[0; 4]);
                out.extend_from_slice(entries);
            }),
            Reply::End { next } => frame(out, END, |out| out.extend_from_slice(&next.0.to_le_bytes())),
            Reply::Fault(fault) => frame(out, FAULT, |out| {
                out.extend_from_slice(&fault.refused.number().to_le_bytes());
                out.extend_from_slice(&[0; 6]);
                out.extend_from_slice(&fault.epoch.to_le_bytes());
                out.extend_from_slice(shortened(&fault.text).as_bytes());
            }),
        }
    }

    /// Reads the body of a frame of this kind.
    ///
    /// # Errors
    /// If there is no such kind, or the body is not what it must be.
    pub fn decode(kind: u8, body: &'a [u8]) -> Result<Self, Malformed> {
        match kind {
            WELCOME => {
                let mut fields = Fields::new("WELCOME", body);
                let (log_id, head, first) = (LogId(fields.array()?), Seq(fields.u64()?), Seq(fields.u64()?));
                fields.end().map(|()| Reply::Welcome { log_id, head, first })
            }
            GRANTED => {
                let mut fields = Fields::new("GRANTED", body);
                let (epoch, head, root) = (fields.u64()?, Seq(fields.u64()?), fields.array()?);
                let mut through = Vec::new();
                while !fields.rest.is_empty() {
                    through.push(fields.u64()?);
                }
                Ok(Reply::Granted { epoch, head, root, through })
            }
            DURABLE => durable(body),
            STATE => {
                let mut fields = Fields::new("STATE", body);
                let (head, failed_allocations) = (Seq(fields.u64()?), fields.u64()?);
                let flags: [u8; 2] = fields.array()?;
                fields.zeros(6)?;
                if let Some(flag) = flags.iter().find(|flag| **flag > 1) {
                    return Err(Malformed(format!("a frame STATE with the flag {flag}")));
                }
                let [writable, scarce] = flags.map(|flag| flag == 1);
                fields.end().map(|()| Reply::State { head, writable, scarce, failed_allocations })
            }
            FOUND => {
                let mut fields = Fields::new("FOUND", body);
                let (id, seq, root) = (fields.u64()?, Seq(fields.u64()?), fields.array()?);
                Ok(Reply::Found { id, seq, root, entry: fields.rest() })
            }
            NOTHING => {
                let mut fields = Fields::new("NOTHING", body);
                let id = fields.u64()?;
                fields.end().map(|()| Reply::Nothing { id })
            }
            UNANSWERED => {
                let mut fields = Fields::new("UNANSWERED", body);
                let (id, first) = (fields.u64()?, Seq(fields.u64()?));
                let archived_before = Some(first).filter(|first| *first > Seq(0));
                Ok(Reply::Unanswered { id, archived_before, text: fields.text()? })
            }
            PAGE => {
                let mut fields = Fields::new("PAGE", body);
                let id = fields.u64()?;
                Ok(Reply::Page { id, page: decode_page(fields)? })
            }
            HISTORY => {
                let mut fields = Fields::new("HISTORY", body);
                let id = fields.u64()?;
                Ok(Reply::History { id, answer: Box::new(decode_answer(fields)?) })
            }
            AUDIT => {
                let mut fields = Fields::new("AUDIT", body);
                let id = fields.u64()?;
                Ok(Reply::Audit { id, audit: Box::new(decode_audit(fields)?) })
            }
            HOLDERS => {
                let mut fields = Fields::new("HOLDERS", body);
                let id = fields.u64()?;
                Ok(Reply::Holders { id, holders: decode_holders(fields)? })
            }
            SNAPSHOTS => {
                let mut fields = Fields::new("SNAPSHOTS", body);
                let id = fields.u64()?;
                let mut snapshots = Vec::new();
                while !fields.rest.is_empty() {
                    snapshots.push(Seq(fields.u64()?));
                }
                Ok(Reply::Snapshots { id, snapshots })
            }
            PIECE => {
                let mut fields = Fields::new("PIECE", body);
                let (id, size) = (fields.u64()?, fields.u64()?);
                Ok(Reply::Piece { id, size, bytes: fields.rest() })
            }
            DIRECTORY => {
                let mut fields = Fields::new("DIRECTORY", body);
                let id = fields.u64()?;
                match fields.rest() {
                    path @ [b'/', ..] => Ok(Reply::Directory { id, path }),
                    _ => Err(Malformed("a frame DIRECTORY with a path that is not absolute".into())),
                }
            }
            KEYS => {
                let mut fields = Fields::new("KEYS", body);
                let accepted = Period { first: UnixMs(fields.u64()?), last: UnixMs(fields.u64()?) };
                let mut keys = Vec::with_capacity(fields.rest.len() / size_of::<KeyId>());
                while !fields.rest.is_empty() {
                    keys.push(KeyId(fields.u64()?));
                }
                Ok(Reply::Keys { accepted, keys })
            }
            ENTRIES => {
                let mut fields = Fields::new("ENTRIES", body);
                let (first_seq, root, count) = (Seq(fields.u64()?), fields.array()?, fields.u32()?);
                fields.zeros(4)?;
                Ok(Reply::Entries { first_seq, root, count, entries: fields.rest() })
            }
            END => {
                let mut fields = Fields::new("END", body);
                let next = Seq(fields.u64()?);
                fields.end().map(|()| Reply::End { next })
            }
            FAULT => {
                let mut fields = Fields::new("FAULT", body);
                let number = fields.u16()?;
                fields.zeros(6)?;
                let epoch = fields.u64()?;
                let text = fields.text()?.to_owned();
                let refused = Refused::ALL.into_iter().find(|refused| refused.number() == number);
                let refused = refused.ok_or_else(|| Malformed(format!("a frame FAULT with the number {number}: {text}")))?;
                Ok(Reply::Fault(Fault { refused, epoch, text }))
            }
            _ => Err(Malformed(format!("there is no frame of kind {kind} from the daemon"))),
        }
    }
}

fn durable<'a>(body: &[u8]) -> Result<Reply<'a>, Malformed> {
    let mut fields = Fields::new("DURABLE", body);
    let commit_us = fields.u32()?;
    fields.zeros(4)?;
    let mut batches = Vec::with_capacity(fields.rest.len() / ACKNOWLEDGED_BYTES);
    while !fields.rest.is_empty() {
        let lane = fields.u16()?;
        fields.zeros(2)?;
        let (count, lane_first, first_seq, root) = (fields.u32()?, fields.u64()?, Seq(fields.u64()?), fields.array()?);
        batches.push(Acknowledged { lane, lane_first, count, first_seq, root });
    }
    Ok(Reply::Durable { commit_us, batches })
}
