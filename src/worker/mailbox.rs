//! A core's inbox for everything that other threads tell it: one bounded channel, so that what was sent first is seen first.
//!
//! A sender wakes the core only if the core may be asleep: `notified` is swapped on both sides, so that one wake covers
//! all letters that arrive before the core looks.
use crate::access::{Capability, Keyring};
use crate::domain::{CoreId, Durable, TxId};
use crate::engine::{Message, Repeat, Ticket};
use crate::ledger::{Answer, Held};
use crate::telemetry::CoreStats;
use atomic_waker::AtomicWaker;
use crossbeam_channel::{Receiver, Sender, TrySendError};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll};

/// Letters that a core's inbox holds; a letter is a batch of up to some thousand messages.
const LETTERS_MAX: usize = 1024;

/// What a core is told by other threads.
pub enum Letter {
    /// Messages of another core, in their order.
    Messages(Vec<Message>),
    /// A batch of this core's lane is durable.
    Durable(Durable),
    /// The ledger's answer to a question of this core.
    Answered(Asked, Answer),
    /// An order of the control thread.
    Order(Order),
}

/// Who asked the ledger a question.
pub enum Asked {
    /// The engine of the core that owns the account, about a request that may be a repeat.
    Repeat {
        /// The core that asked; the ticket of the request may belong to another one.
        asker: CoreId,
        /// The request.
        repeat: Repeat,
    },
    /// A reader, about a transaction.
    Transaction {
        /// Where the reply goes.
        ticket: Ticket,
        /// What was asked for.
        id: TxId,
        /// What allows it.
        capability: Arc<Capability>,
    },
    /// A reader, about the entries of an account.
    Page {
        /// Where the reply goes.
        ticket: Ticket,
        /// Whose.
        account: Box<str>,
        /// What allows it.
        capability: Arc<Capability>,
    },
    /// A reader, about the history.
    History {
        /// Where the reply goes.
        ticket: Ticket,
        /// For the proof of a transaction: which one, and what allows it.
        of: Option<(TxId, Arc<Capability>)>,
        /// Whether the root was chosen here and not by whoever asks.
        chosen: bool,
    },
    /// A reader, about the sums of an asset.
    Totals {
        /// Where the reply goes.
        ticket: Ticket,
        /// Which one.
        asset: Box<str>,
    },
}

impl Asked {
    /// The core that asked, and that can do something with the answer.
    pub fn asker(&self) -> CoreId {
        match self {
            Asked::Repeat { asker, .. } => *asker,
            Asked::Transaction { ticket, .. } | Asked::Page { ticket, .. } => ticket.core,
            Asked::History { ticket, .. } | Asked::Totals { ticket, .. } => ticket.core,
        }
    }
}

/// What the control thread tells a core to do.
pub enum Order {
    /// Hand the figures of the last second over and go on with this empty set.
    Stats(Box<CoreStats>),
    /// Say what those of these accounts hold that live here, each with its place in the list.
    Held(Arc<[Box<str>]>, Sender<Vec<(usize, Held)>>),
    /// Verify with this keyring from now on.
    Keyring(Arc<Keyring>),
    /// Accept no more connections, let what is in flight finish, close what is idle, then end.
    Drain,
}

/// The sending half, shared by all other threads.
#[derive(Clone)]
pub struct Mailbox {
    letters: Sender<Letter>,
    bell: Arc<Bell>,
}

/// The receiving half, owned by the core.
pub struct Inbox {
    letters: Receiver<Letter>,
    bell: Arc<Bell>,
}

#[derive(Default)]
struct Bell {
    notified: AtomicBool,
    waker: AtomicWaker,
}

/// Makes the two halves.
pub fn mailbox() -> (Mailbox, Inbox) {
    let (sender, receiver) = crossbeam_channel::bounded(LETTERS_MAX);
    let bell = Arc::new(Bell::default());
    (Mailbox { letters: sender, bell: bell.clone() }, Inbox { letters: receiver, bell })
}

impl Mailbox {
    /// Puts a letter in without waiting; gives it back if the inbox is full. Call [`Mailbox::ring`] after the last of a batch.
    #[allow(clippy::result_large_err)] // What comes back is what was given; boxing every letter would cost more.
    pub fn try_put(&self, letter: Letter) -> Result<(), Letter> {
        match self.letters.try_send(letter) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(letter)) => Err(letter),
            // A core that has ended takes nothing any more, and nobody waits for what it would have done.
            Err(TrySendError::Disconnected(_)) => Ok(()),
        }
    }

    /// Puts a letter in, waiting for room, and wakes the core: for plain threads only, never for a core.
    pub fn put(&self, letter: Letter) {
        if self.letters.send(letter).is_ok() {
            self.ring();
        }
    }

    /// How many letters wait, and how many fit.
    pub fn fill(&self) -> (usize, usize) {
        (self.letters.len(), LETTERS_MAX)
    }

    /// Wakes the core if it may be asleep.
    pub fn ring(&self) {
        if !self.bell.notified.swap(true, Ordering::AcqRel) {
            self.bell.waker.wake();
        }
    }
}

impl Inbox {
    /// The next letter, if there is one.
    pub fn take(&self) -> Option<Letter> {
        self.letters.try_recv().ok()
    }

    /// A handle for the task that sleeps until letters arrive.
    pub fn sleeper(&self) -> Sleeper {
        Sleeper { bell: self.bell.clone() }
    }
}

/// Sleeps until letters arrive.
pub struct Sleeper {
    bell: Arc<Bell>,
}

impl Sleeper {
    /// Ready once per ring; the caller then empties the inbox.
    pub fn poll_letters(&self, context: &mut Context<'_>) -> Poll<()> {
        self.bell.waker.register(context.waker());
        if self.bell.notified.swap(false, Ordering::AcqRel) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}
