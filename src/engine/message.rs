//! What goes in and out of a core's engine.
use crate::domain::{Account, Allowance, Asset, CoreId};
use crate::domain::{Balance, Entry, LastNonce, Question, Refusal, Root, Seq};

/// Where a reply goes: a place in the ordered replies of one connection of one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The core that holds the connection.
    pub core: CoreId,
    /// The connection's place in the core's table.
    pub connection: u32,
    /// Which connection of that place it is; late replies to an earlier one are dropped.
    pub generation: u32,
    /// The request's number within the connection.
    pub request: u64,
}

/// A request whose owner core has to be found, borrowed from where it was read.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// Change the ledger.
    Write {
        /// The encoded entry.
        entry: Entry<'a>,
        /// How far the capability limits sums of debits.
        allowance: Allowance,
    },
    /// Read a balance.
    Balance {
        /// Whose.
        account: Account<'a>,
        /// In what.
        asset: Asset<'a>,
    },
    /// Read how far the debits of an account have come.
    LastNonce {
        /// Whose.
        account: Account<'a>,
    },
}

impl<'a> Request<'a> {
    /// The account whose owner core answers.
    pub fn account(&self) -> Account<'a> {
        match self {
            Request::Write { entry, .. } => entry.owner(),
            Request::Balance { account, .. } | Request::LastNonce { account } => *account,
        }
    }
}

/// An answer, borrowed from the engine for as long as it takes to write it down.
#[derive(Clone, Debug)]
pub enum Outcome<'a> {
    /// The entry is durable.
    Receipt {
        /// The entry.
        entry: Entry<'a>,
        /// Its ledger position.
        seq: Seq,
        /// The chain hash after its batch.
        root: Root,
        /// Whether this repeats an answer that was owed to an earlier request.
        replayed: bool,
    },
    /// A durable balance.
    Balance {
        /// Whose.
        account: Account<'a>,
        /// In what.
        asset: Asset<'a>,
        /// How much.
        balance: Balance,
    },
    /// The state of an account's debits.
    LastNonce {
        /// Whose.
        account: Account<'a>,
        /// How far.
        last: LastNonce,
    },
    /// No.
    Refused(Refusal),
}

/// A write that waits for an answer of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// Who asked.
    pub ticket: Ticket,
    /// The entry that the request would have made.
    pub entry: Box<[u8]>,
    /// How far the capability limits sums of debits.
    pub allowance: Allowance,
    /// What the ledger was asked.
    pub question: Question,
    /// The newest ledger position that the core knew of when it asked.
    pub height: Seq,
    /// Whether the key is known to have been used for another request lately.
    pub key_taken: bool,
}

/// What one core sends another.
#[derive(Clone, Debug)]
pub enum Message {
    /// A request for an account that lives there.
    Forward(Ticket, Owned),
    /// The answer to a forwarded request.
    Answer(Ticket, OwnedAnswer),
    /// A durable entry whose credited account lives there.
    Credit(Box<[u8]>, Seq),
}

/// A request that left the core where it was read.
#[derive(Clone, Debug)]
pub enum Owned {
    /// See [`Request::Write`].
    Write(Box<[u8]>, Allowance),
    /// See [`Request::Balance`].
    Balance(Box<str>, Box<str>),
    /// See [`Request::LastNonce`].
    LastNonce(Box<str>),
}

/// An answer on its way to the core that holds the connection.
#[derive(Clone, Debug)]
pub enum OwnedAnswer {
    /// See [`Outcome::Receipt`].
    Receipt(Box<[u8]>, Seq, Root, bool),
    /// See [`Outcome::Balance`].
    Balance(Box<str>, Box<str>, Balance),
    /// See [`Outcome::LastNonce`].
    LastNonce(Box<str>, LastNonce),
    /// See [`Outcome::Refused`].
    Refused(Refusal),
}

/// An entry that this server encoded itself.
pub(super) fn own_entry(bytes: &[u8]) -> Entry<'_> {
    Entry::parse_own(bytes).0
}

fn own_account(name: &str) -> Account<'_> {
    Account::new(name).expect("the name was checked before it was forwarded")
}

fn own_asset(name: &str) -> Asset<'_> {
    Asset::new(name).expect("the name was checked before it was forwarded")
}

impl Owned {
    pub(super) fn from_request(request: &Request<'_>) -> Self {
        match request {
            Request::Write { entry, allowance } => Owned::Write(entry.bytes().into(), *allowance),
            Request::Balance { account, asset } => Owned::Balance(account.as_str().into(), asset.as_str().into()),
            Request::LastNonce { account } => Owned::LastNonce(account.as_str().into()),
        }
    }

    pub(super) fn as_request(&self) -> Request<'_> {
        match self {
            Owned::Write(bytes, allowance) => Request::Write { entry: own_entry(bytes), allowance: *allowance },
            Owned::Balance(account, asset) => Request::Balance { account: own_account(account), asset: own_asset(asset) },
            Owned::LastNonce(account) => Request::LastNonce { account: own_account(account) },
        }
    }
}

impl OwnedAnswer {
    pub(super) fn from_outcome(outcome: Outcome<'_>) -> Self {
        match outcome {
            Outcome::Receipt { entry, seq, root, replayed } => OwnedAnswer::Receipt(entry.bytes().into(), seq, root, replayed),
            Outcome::Balance { account, asset, balance } => {
                OwnedAnswer::Balance(account.as_str().into(), asset.as_str().into(), balance)
            }
            Outcome::LastNonce { account, last } => OwnedAnswer::LastNonce(account.as_str().into(), last),
            Outcome::Refused(refusal) => OwnedAnswer::Refused(refusal),
        }
    }

    pub(super) fn as_outcome(&self) -> Outcome<'_> {
        match self {
            OwnedAnswer::Receipt(bytes, seq, root, replayed) => {
                Outcome::Receipt { entry: own_entry(bytes), seq: *seq, root: *root, replayed: *replayed }
            }
            OwnedAnswer::Balance(account, asset, balance) => {
                Outcome::Balance { account: own_account(account), asset: own_asset(asset), balance: *balance }
            }
            OwnedAnswer::LastNonce(account, last) => Outcome::LastNonce { account: own_account(account), last: *last },
            OwnedAnswer::Refused(refusal) => Outcome::Refused(refusal.clone()),
        }
    }
}
