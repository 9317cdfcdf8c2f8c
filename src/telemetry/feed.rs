//! What a core tells the audit stream: writes that were refused, and whose a token is. Bounded queues that a core never waits for.
//!
//! Invariants: what does not fit is counted by its reason and let go; whose a token is has a queue of its own, so that no flood of
//! refusals pushes it out, and stands in it before a write under that token is handed in. A core knows nothing else of the stream.
use crate::domain::{Code, Entry, Op, Reason, Refusal, TokenId, UnixMs};
use crossbeam_channel::{bounded, Receiver, Sender};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// Refusals of one core that wait for the stream; what is more is counted.
pub const REFUSALS_MAX: usize = 1024;
/// Holders of tokens that one core has verified and that wait for the stream.
pub const HOLDERS_MAX: usize = 4096;
/// Tokens of which a core remembers that it has told whose they are; a power of two.
const TOLD_MAX: usize = 4096;

const _: () = assert!(TOLD_MAX.is_power_of_two() && TOLD_MAX <= 1 << 16);

/// Why something is not in the stream, as it is counted: the reasons of refusals, then refusals without one, holders of tokens, and
/// control events.
pub const DROP_REASONS: [&str; Reason::ALL.len() + 3] = {
    let mut names = ["other"; Reason::ALL.len() + 3];
    let mut index = 0;
    while index < Reason::ALL.len() {
        names[index] = Reason::ALL[index].as_str();
        index += 1;
    }
    names[index + 1] = "holder";
    names[index + 2] = "event";
    names
};

/// Place of holders among the [`DROP_REASONS`].
const HOLDER: usize = Reason::ALL.len() + 1;
/// Place of control events among the [`DROP_REASONS`].
pub const EVENT: usize = Reason::ALL.len() + 2;

/// How many of each of the [`DROP_REASONS`].
pub type DropCounts = [u64; DROP_REASONS.len()];

/// Place of a refusal among the [`DROP_REASONS`].
pub fn drop_place(reason: Option<Reason>) -> usize {
    reason.map_or(Reason::ALL.len(), |reason| reason as usize)
}

/// Whose a token is, from its verified identifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The token.
    pub token: TokenId,
    /// For whom it was minted.
    pub subject: Box<str>,
    /// Which key signed it.
    pub key_id: Box<str>,
}

/// What is known of a write that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The entry that it would have made, encoded.
    Entry(Box<[u8]>),
    /// Its body was not read, or not understood.
    Unread {
        /// What was to be done.
        op: Op,
        /// When it was refused.
        ts: UnixMs,
        /// Its correlation id.
        corr: Box<str>,
    },
}

/// A write that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What was asked.
    pub asked: Asked,
    /// What the client was told.
    pub code: Code,
    /// And with which status.
    pub status: u16,
    /// Why, as it is counted.
    pub reason: Option<Reason>,
    /// Whether the client was told that nobody knows: then the entry may still become durable.
    pub unknown: bool,
    /// Under which token, and whose it is, if its signature was right and the entry does not say it.
    pub holder: Option<(TokenId, Box<str>)>,
    /// The version of the policy in force; [`Feed::refused`] says it.
    pub policy_version: u64,
}

impl Refused {
    /// The refusal of something that is known only by these.
    pub fn unread(op: Op, ts: UnixMs, corr: &str, refusal: &Refusal) -> Self {
        Self::of(Asked::Unread { op, ts, corr: corr.into() }, refusal)
    }

    /// The refusal of an entry.
    pub fn entry(entry: &Entry<'_>, refusal: &Refusal) -> Self {
        Self::of(Asked::Entry(entry.bytes().into()), refusal)
    }

    fn of(asked: Asked, refusal: &Refusal) -> Self {
        Self {
            asked,
            code: refusal.code,
            status: refusal.status,
            reason: refusal.reason,
            unknown: false,
            holder: None,
            policy_version: 0,
        }
    }
}

/// A core's end.
pub struct Feed {
    refusals: Sender<Refused>,
    holders: Sender<Holder>,
    dropped: Arc<[AtomicU64; DROP_REASONS.len()]>,
    told: Box<[TokenId]>,
    policy_version: u64,
}

/// The stream's end.
pub struct Intake {
    refusals: Receiver<Refused>,
    holders: Receiver<Holder>,
    dropped: Arc<[AtomicU64; DROP_REASONS.len()]>,
}

/// Both ends for one core.
pub fn feed() -> (Feed, Intake) {
    let ((refusals, refusals_of), (holders, holders_of)) = (bounded(REFUSALS_MAX), bounded(HOLDERS_MAX));
    let dropped: Arc<[AtomicU64; DROP_REASONS.len()]> = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
    let told = vec![TokenId::default(); TOLD_MAX].into_boxed_slice();
    let feed = Feed { refusals, holders, dropped: dropped.clone(), told, policy_version: 0 };
    (feed, Intake { refusals: refusals_of, holders: holders_of, dropped })
}

impl Feed {
    /// The same feed, which tells refusals under the policy of this version.
    pub fn under(self, policy_version: u64) -> Self {
        Self { policy_version, ..self }
    }

    /// Tells of a refusal.
    pub fn refused(&self, refused: Refused) {
        let place = drop_place(refused.reason);
        let refused = Refused { policy_version: self.policy_version, ..refused };
        if self.refusals.try_send(refused).is_err() {
            self.dropped[place].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tells whose a token is, unless that was told lately; false if there is no room, so that it has to be told another time.
    pub fn holder(&mut self, token: TokenId, holder: impl FnOnce() -> Holder) -> bool {
        let place = usize::from(u16::from_le_bytes([token.0[0], token.0[1]])) & (TOLD_MAX - 1);
        if self.told[place] == token {
            return true;
        }
        let has_room = self.holders.try_send(holder()).is_ok();
        if has_room {
            self.told[place] = token;
        } else {
            self.dropped[HOLDER].fetch_add(1, Ordering::Relaxed);
        }
        has_room
    }
}

impl Intake {
    /// The holders that have been told; at most as many as the queue holds, however many come meanwhile.
    pub fn holders(&self) -> impl Iterator<Item = Holder> + '_ {
        self.holders.try_iter().take(HOLDERS_MAX)
    }

    /// The refusals that have been told, bounded in the same way.
    pub fn refusals(&self) -> impl Iterator<Item = Refused> + '_ {
        self.refusals.try_iter().take(REFUSALS_MAX)
    }

    /// Adds what was dropped since the last call.
    pub fn take_dropped(&self, counts: &mut DropCounts) {
        for (count, dropped) in counts.iter_mut().zip(self.dropped.iter()) {
            *count += dropped.swap(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: Code) -> Refused {
        Refused::unread(Op::Burn, UnixMs(1), "c", &Refusal::new(code, "no"))
    }

    #[test]
    fn a_flood_is_bounded_counted_by_reason_and_pushes_no_holder_out() {
        let (mut feed, intake) = feed();
        for _ in 0..REFUSALS_MAX + 7 {
            feed.refused(refused(Code::Unauthorized));
        }
        feed.refused(refused(Code::InternalError));
        let token = TokenId([3; 16]);
        let holder = || Holder { token, subject: "alice".into(), key_id: "k-1".into() };
        assert!(feed.holder(token, holder) && feed.holder(token, || unreachable!("it was told already")));
        assert_eq!(intake.holders().collect::<Vec<_>>(), [holder()]);
        assert_eq!(intake.refusals().count(), REFUSALS_MAX);
        let mut counts = DropCounts::default();
        intake.take_dropped(&mut counts);
        assert_eq!((counts[drop_place(Some(Reason::Cap))], counts[drop_place(None)], counts.iter().sum::<u64>()), (7, 1, 8));
        intake.take_dropped(&mut counts);
        assert_eq!(counts.iter().sum::<u64>(), 8, "each is taken once");
    }

    #[test]
    fn a_holder_that_found_no_room_is_counted_and_told_at_the_next_occasion() {
        let (mut feed, intake) = feed();
        let holder = |number: u16| {
            let token = TokenId(std::array::from_fn(|at| number.to_le_bytes()[at % 2] ^ at as u8 >> 1));
            (token, Holder { token, subject: "s".into(), key_id: "k".into() })
        };
        for number in 0..=HOLDERS_MAX as u16 {
            let (token, holder) = holder(number);
            assert_eq!(feed.holder(token, || holder), usize::from(number) < HOLDERS_MAX);
        }
        let mut counts = DropCounts::default();
        intake.take_dropped(&mut counts);
        assert_eq!((counts[HOLDER], intake.holders().count()), (1, HOLDERS_MAX));
        let (token, last) = holder(HOLDERS_MAX as u16);
        assert!(feed.holder(token, || last.clone()));
        assert_eq!(intake.holders().collect::<Vec<_>>(), [last]);
    }

    #[test]
    fn what_is_dropped_has_a_name_of_its_own() {
        assert_eq!(DROP_REASONS[drop_place(Some(Reason::Upstream))], "upstream");
        assert_eq!([drop_place(None), HOLDER, EVENT].map(|place| DROP_REASONS[place]), ["other", "holder", "event"]);
    }
}
