//! What a wallet says to the daemon. Pure.
use super::audit::{decode_accounts, encode_accounts};
use super::{frame, Fields, Malformed, MAGIC, PIECE_BYTES_MAX, PROTOCOL_VERSION};
use crate::domain::limits::{CORES_MAX, LANE_BATCH_BYTES_MAX, PAGE_ENTRIES_MAX};
use crate::domain::{Account, HistoryQuestion, Key, KeyUse, LogId, Nonce, PageQuestion, Period, Question, Root, Seq, UnixMs};
use crate::ledger::audit::COMPARED_MAX;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Writing.
    Writer {
        /// Through how many lanes, from 1.
        lanes: u16,
        /// How long it remembers idempotency keys, in milliseconds.
        keys_ttl_ms: u64,
    },
    /// Reading.
    Reader,
}

/// What a writer that goes on with its epoch knows of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// The log.
    pub log_id: LogId,
    /// The epoch.
    pub epoch: u64,
    /// The last entry that it knows to be durable.
    pub head: Seq,
    /// Chain hash after its batch.
    pub root: Root,
    /// An entry up to which nothing of its own is in doubt; not behind `head`.
    pub settled: Seq,
    /// For each lane the number of the last entry that was acknowledged.
    pub acknowledged: Vec<u64>,
}

/// A frame to the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// The first one.
    Hello(Role),
    /// Takes a new epoch.
    Acquire,
    /// Goes on with an epoch after the connection was lost.
    Resume(Tenant),
    /// A lane batch to be made durable.
    Batch {
        /// The lane.
        lane: u16,
        /// Number of its first entry within the lane.
        lane_first: u64,
        /// How many entries.
        count: u32,
        /// The entries.
        entries: &'a [u8],
    },
    /// Asks for the place of a lane batch that is durable already.
    Place {
        /// The lane.
        lane: u16,
        /// Number of its first entry within the lane.
        lane_first: u64,
        /// How many entries.
        count: u32,
    },
    /// Says that the writer is alive, and asks how the ledger is.
    Heartbeat,
    /// A question, answered with one frame.
    Ask {
        /// Chosen by the reader, returned with the answer.
        id: u64,
        /// The question.
        inquiry: Inquiry,
    },
    /// Asks for all durable entries from this one on.
    Read {
        /// The first one.
        from: Seq,
    },
    /// Asks for the keys of entries that are not read.
    ReadKeys {
        /// The first entry that is.
        end: Seq,
        /// Keys of entries that were accepted earlier are of no use.
        since: UnixMs,
    },
}

/// What a reader asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inquiry {
    /// About one entry.
    Entry(Question),
    /// About the entries of an account.
    Page(PageQuestion),
    /// About the history.
    History(HistoryQuestion),
    /// What the audit has found.
    Audit,
    /// What these accounts hold; those that were touched last if none is named.
    Held(Vec<Box<str>>),
    /// Which snapshots there are.
    Snapshots,
    /// Where the ledger is.
    Directory,
    /// A piece of the snapshot after this entry.
    Piece {
        /// The entry.
        snapshot: Seq,
        /// Where the piece begins, in bytes.
        offset: u64,
        /// How long it is at most, in bytes, up to [`PIECE_BYTES_MAX`].
        length: u32,
    },
}

const HELLO: u8 = 1;
const ACQUIRE: u8 = 2;
const RESUME: u8 = 3;
const BATCH: u8 = 4;
const PLACE: u8 = 5;
const HEARTBEAT: u8 = 6;
const ASK_AT: u8 = 7;
const ASK_DEBIT: u8 = 8;
const READ: u8 = 9;
const ASK_KEY: u8 = 10;
const ASK_PAGE: u8 = 11;
const ASK_PROOF: u8 = 12;
const ASK_ROOT: u8 = 13;
const ASK_CONSISTENCY: u8 = 14;
const ASK_AUDIT: u8 = 15;
const ASK_HELD: u8 = 16;
const ASK_SNAPSHOTS: u8 = 17;
const ASK_PIECE: u8 = 18;
const READ_KEYS: u8 = 19;
const ASK_DIRECTORY: u8 = 20;

const WRITER: u8 = 1;
const READER: u8 = 2;

impl<'a> Request<'a> {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Request::Hello(role) => frame(out, HELLO, |out| {
                let (role, lanes, keys_ttl_ms) = match role {
                    Role::Writer { lanes, keys_ttl_ms } => (WRITER, *lanes, *keys_ttl_ms),
                    Role::Reader => (READER, 0, 0),
                };
                out.extend_from_slice(&MAGIC);
                out.extend_from_slice(&PROTOCOL_VERSION.to_le_bytes());
                out.extend_from_slice(&[role, 0]);
                out.extend_from_slice(&lanes.to_le_bytes());
                numbers(out, &[keys_ttl_ms]);
            }),
            Request::Acquire => frame(out, ACQUIRE, |_| ()),
            Request::Resume(Tenant { log_id, epoch, head, root, settled, acknowledged }) => frame(out, RESUME, |out| {
                out.extend_from_slice(&log_id.0);
                numbers(out, &[*epoch, head.0]);
                out.extend_from_slice(root);
                numbers(out, &[settled.0]);
                numbers(out, acknowledged);
            }),
            Request::Batch { lane, lane_first, count, entries } => frame(out, BATCH, |out| {
                name(out, *lane, *lane_first, *count);
                out.extend_from_slice(entries);
            }),
            Request::Place { lane, lane_first, count } => frame(out, PLACE, |out| name(out, *lane, *lane_first, *count)),
            Request::Heartbeat => frame(out, HEARTBEAT, |_| ()),
            Request::Ask { id, inquiry } => frame(out, inquiry.kind(), |out| {
                numbers(out, &[*id]);
                inquiry.encode(out);
            }),
            Request::Read { from } => frame(out, READ, |out| numbers(out, &[from.0])),
            Request::ReadKeys { end, since } => frame(out, READ_KEYS, |out| numbers(out, &[end.0, since.0])),
        }
    }

    /// Reads the body of a frame of this kind.
    ///
    /// # Errors
    /// If there is no such kind, or the body is not what it must be.
    pub fn decode(kind: u8, body: &'a [u8]) -> Result<Self, Malformed> {
        match kind {
            HELLO => hello(body).map(Request::Hello),
            ACQUIRE => Fields::new("ACQUIRE", body).end().map(|()| Request::Acquire),
            RESUME => {
                let mut fields = Fields::new("RESUME", body);
                let (log_id, epoch) = (LogId(fields.array()?), fields.u64()?);
                let (head, root, settled) = (Seq(fields.u64()?), fields.array()?, Seq(fields.u64()?));
                let mut acknowledged = Vec::new();
                while !fields.rest.is_empty() {
                    acknowledged.push(fields.u64()?);
                }
                Ok(Request::Resume(Tenant { log_id, epoch, head, root, settled, acknowledged }))
            }
            BATCH => {
                let mut fields = Fields::new("BATCH", body);
                let (lane, lane_first, count) = named(&mut fields)?;
                let entries = fields.rest();
                if entries.is_empty() || entries.len() > LANE_BATCH_BYTES_MAX {
                    return Err(Malformed(format!(
                        "a lane batch of {} bytes; 1 to {LANE_BATCH_BYTES_MAX} are possible",
                        entries.len()
                    )));
                }
                Ok(Request::Batch { lane, lane_first, count, entries })
            }
            PLACE => {
                let mut fields = Fields::new("PLACE", body);
                let (lane, lane_first, count) = named(&mut fields)?;
                fields.end().map(|()| Request::Place { lane, lane_first, count })
            }
            HEARTBEAT => Fields::new("HEARTBEAT", body).end().map(|()| Request::Heartbeat),
            READ => {
                let mut fields = Fields::new("READ", body);
                let from = Seq(fields.u64()?);
                fields.end().map(|()| Request::Read { from })
            }
            READ_KEYS => {
                let mut fields = Fields::new("READ KEYS", body);
                let (end, since) = (Seq(fields.u64()?), UnixMs(fields.u64()?));
                fields.end().map(|()| Request::ReadKeys { end, since })
            }
            _ => {
                let mut fields = Fields::new("ASK", body);
                let id = fields.u64();
                let inquiry = Inquiry::decode(kind, fields)?;
                Ok(Request::Ask { id: id?, inquiry })
            }
        }
    }
}

impl Inquiry {
    fn kind(&self) -> u8 {
        match self {
            Inquiry::Entry(Question::At(_)) => ASK_AT,
            Inquiry::Entry(Question::Debit { .. }) => ASK_DEBIT,
            Inquiry::Entry(Question::Key(_)) => ASK_KEY,
            Inquiry::Page(_) => ASK_PAGE,
            Inquiry::History(HistoryQuestion::Proof { .. }) => ASK_PROOF,
            Inquiry::History(HistoryQuestion::Root) => ASK_ROOT,
            Inquiry::History(HistoryQuestion::Consistency { .. }) => ASK_CONSISTENCY,
            Inquiry::Audit => ASK_AUDIT,
            Inquiry::Held(_) => ASK_HELD,
            Inquiry::Snapshots => ASK_SNAPSHOTS,
            Inquiry::Directory => ASK_DIRECTORY,
            Inquiry::Piece { .. } => ASK_PIECE,
        }
    }

    /// Appends what stands behind the number of the question.
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Inquiry::Entry(Question::At(seq)) => numbers(out, &[seq.0]),
            Inquiry::Entry(Question::Debit { account, nonce }) => {
                numbers(out, &[nonce.0]);
                out.extend_from_slice(account.as_bytes());
            }
            Inquiry::Entry(Question::Key(used)) => {
                numbers(out, &[used.accepted.first.0, used.accepted.last.0]);
                out.extend_from_slice(&(used.account.len() as u16).to_le_bytes());
                out.extend_from_slice(used.account.as_bytes());
                out.extend_from_slice(used.key.as_bytes());
            }
            Inquiry::Page(PageQuestion { account, before, limit }) => {
                // Nothing stands behind the last number there is.
                let before = before.map_or(u64::MAX, |before| before.0);
                numbers(out, &[before, *limit as u64]);
                out.extend_from_slice(account.as_bytes());
            }
            Inquiry::History(HistoryQuestion::Proof { seq, size }) => {
                numbers(out, &[seq.0, u64::from(size.is_some()), size.unwrap_or(0)]);
            }
            Inquiry::History(HistoryQuestion::Root) | Inquiry::Audit | Inquiry::Snapshots | Inquiry::Directory => {}
            Inquiry::History(HistoryQuestion::Consistency { from, to }) => numbers(out, &[*from, *to]),
            Inquiry::Held(accounts) => encode_accounts(accounts, out),
            Inquiry::Piece { snapshot, offset, length } => numbers(out, &[snapshot.0, *offset, u64::from(*length)]),
        }
    }

    /// Reads what [`Inquiry::encode`] has written.
    fn decode(kind: u8, mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let inquiry = match kind {
            ASK_AT => Inquiry::Entry(Question::At(Seq(fields.u64()?))),
            ASK_DEBIT => {
                let nonce = Nonce(fields.u64()?);
                return Ok(Inquiry::Entry(Question::Debit { account: account(fields)?, nonce }));
            }
            ASK_KEY => return used_key(fields),
            ASK_PAGE => {
                let (before, limit) = (fields.u64()?, usize::try_from(fields.u64()?).unwrap_or(usize::MAX));
                if !(1..=PAGE_ENTRIES_MAX).contains(&limit) {
                    return Err(Malformed(format!("a page of {limit} entries; 1 to {PAGE_ENTRIES_MAX} are possible")));
                }
                let before = Some(Seq(before)).filter(|before| before.0 != u64::MAX);
                return Ok(Inquiry::Page(PageQuestion { account: account(fields)?, before, limit }));
            }
            ASK_PROOF => {
                let (seq, given, size) = (Seq(fields.u64()?), fields.u64()?, fields.u64()?);
                let size = match (given, size) {
                    (0, 0) => None,
                    (1, size) => Some(size),
                    _ => return Err(Malformed(format!("a proof for the size {size}, flag {given}"))),
                };
                Inquiry::History(HistoryQuestion::Proof { seq, size })
            }
            ASK_ROOT => Inquiry::History(HistoryQuestion::Root),
            ASK_CONSISTENCY => Inquiry::History(HistoryQuestion::Consistency { from: fields.u64()?, to: fields.u64()? }),
            ASK_AUDIT => Inquiry::Audit,
            ASK_HELD => return Ok(Inquiry::Held(decode_accounts(fields, COMPARED_MAX)?)),
            ASK_SNAPSHOTS => Inquiry::Snapshots,
            ASK_DIRECTORY => Inquiry::Directory,
            ASK_PIECE => {
                let (snapshot, offset, length) = (Seq(fields.u64()?), fields.u64()?, fields.u64()?);
                match u32::try_from(length) {
                    Ok(length) if length as usize <= PIECE_BYTES_MAX => Inquiry::Piece { snapshot, offset, length },
                    _ => return Err(Malformed(format!("a piece of {length} bytes; {PIECE_BYTES_MAX} are possible"))),
                }
            }
            _ => return Err(Malformed(format!("there is no frame of kind {kind} to the daemon"))),
        };
        fields.end().map(|()| inquiry)
    }
}

fn account(fields: Fields<'_>) -> Result<Box<str>, Malformed> {
    let name = fields.text()?;
    match Account::new(name) {
        Some(_) => Ok(name.into()),
        None => Err(Malformed(format!("the name of an account with {} bytes", name.len()))),
    }
}

fn used_key(mut fields: Fields<'_>) -> Result<Inquiry, Malformed> {
    let (first, last) = (UnixMs(fields.u64()?), UnixMs(fields.u64()?));
    let account_bytes = usize::from(fields.u16()?);
    let both = fields.text()?;
    let (account, key) = both.split_at_checked(account_bytes).unwrap_or_default();
    if Account::new(account).is_none() || Key::new(key).is_none() {
        return Err(Malformed(format!("an account of {account_bytes} bytes and a key, of {} bytes in all", both.len())));
    }
    let used = KeyUse { account: account.into(), key: key.into(), accepted: Period { first, last } };
    Ok(Inquiry::Entry(Question::Key(used.into())))
}
fn numbers(out: &mut Vec<u8>, numbers: &[u64]) {
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
}

/// The first frame: told apart by what is wrong with it, so that a stranger is told what to do.
fn hello(body: &[u8]) -> Result<Role, Malformed> {
    let mut fields = Fields::new("HELLO", body);
    if fields.array()? != MAGIC {
        return Err(Malformed("the first frame does not begin as one of a wallet".into()));
    }
    let version = fields.u32()?;
    if version != PROTOCOL_VERSION {
        return Err(Malformed(format!(
            "protocol version {version}; this daemon speaks version {PROTOCOL_VERSION}: run svc-wallet and ron-ledger of one release"
        )));
    }
    let [role, zero] = fields.array()?;
    let (lanes, keys_ttl_ms) = (fields.u16()?, fields.u64()?);
    fields.end()?;
    match (role, zero, lanes, keys_ttl_ms) {
        (WRITER, 0, 1.., _) if usize::from(lanes) <= CORES_MAX => Ok(Role::Writer { lanes, keys_ttl_ms }),
        (READER, 0, 0, 0) => Ok(Role::Reader),
        _ => Err(Malformed(format!("a hello of role {role} with {lanes} lanes"))),
    }
}

fn name(out: &mut Vec<u8>, lane: u16, lane_first: u64, count: u32) {
    out.extend_from_slice(&lane.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&lane_first.to_le_bytes());
}

fn named(fields: &mut Fields<'_>) -> Result<(u16, u64, u32), Malformed> {
    let lane = fields.u16()?;
    fields.zeros(2)?;
    let count = fields.u32()?;
    Ok((lane, fields.u64()?, count))
}
