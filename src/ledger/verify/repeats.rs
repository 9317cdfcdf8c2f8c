//! Idempotency keys that are used twice while they are remembered: which keys may be, and then which are. Pure.
//!
//! Of each key 8 bytes are kept, for at least the time to live and at most twice that: a fingerprint, which depends on numbers drawn at
//! random. Fingerprints lie in the order in which they came until their time is full, and are then sorted, so that nothing waits
//! for memory in between. Two that are equal make a *candidate*; in a sound ledger there is one only where a key was used again after its
//! time. Candidates are looked for a second time, by their names and times, so that equal fingerprints never accuse anybody.
//!
//! Memory is bounded: with more fingerprints than there is room for, the upper half of their range is let go, and is for another
//! pass over the entries.
use crate::domain::{Account, Entry, KeyId, Seq, UnixMs};
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;

/// Fingerprints that are held at once, of 8 bytes each.
pub const FINGERPRINTS_MAX: usize = 1 << 27;
/// Candidates that are looked for at once.
pub const CANDIDATES_MAX: usize = 1 << 20;
/// What an entry's time may lie behind the moment of its decision: it is stamped when its request comes in.
const GRACE_MS: u64 = 60_000;
/// Fingerprints are divided by their first bits, so that what is sorted at once fits the cache of a processor.
const PARTS: usize = 256;

/// For how long a key is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The time to live, in milliseconds; 0 if no key is remembered.
    pub ttl_ms: u64,
}

impl Rule {
    /// Whether a key that was used then must still be known when the clock has shown `latest`. Clocks go back, and what was forgotten by
    /// then stays so; so the latest time of all entries counts, and not that of the entry which uses the key again.
    pub fn remembers(&self, used: UnixMs, latest: UnixMs) -> bool {
        used.0.saturating_add(self.ttl_ms) > latest.0.saturating_add(GRACE_MS.min(self.ttl_ms / 2))
    }
}

/// Makes fingerprints of the names of keys: different ones of different names, and nobody knows which without the seeds.
#[derive(Clone, Copy, Debug)]
pub struct Fingerprints([u64; 2]);

impl Fingerprints {
    /// With numbers that nobody can know ahead.
    pub fn new(seeds: [u64; 2]) -> Self {
        // Only odd factors keep different names different.
        Self([seeds[0], seeds[1] | 1])
    }

    /// The fingerprint of a key. Names that are equal, which for 64 bits they hardly are by accident, are told apart later.
    pub fn of(&self, id: KeyId) -> u64 {
        let mixed = (id.0 ^ self.0[0]).wrapping_mul(self.0[1]);
        (mixed ^ (mixed >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

/// The fingerprints of one time to live.
struct Span(Vec<Vec<u64>>);

impl Span {
    fn new() -> Self {
        Self(vec![Vec::new(); PARTS])
    }

    fn len(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    fn keep_up_to(&mut self, last: u64) {
        for part in &mut self.0 {
            part.retain(|fingerprint| *fingerprint <= last);
            part.shrink_to_fit();
        }
    }
}

/// Finds candidates among the keys of entries, in one pass over them.
pub struct Candidates {
    rule: Rule,
    fingerprints: Fingerprints,
    /// What this pass looks at.
    first: u64,
    last: u64,
    latest: UnixMs,
    /// When the span under way began.
    began: UnixMs,
    now: Span,
    /// The one before it, sorted.
    before: Span,
    held: usize,
    held_max: usize,
    found: Vec<u64>,
}

impl Candidates {
    /// Looks at fingerprints from `first` on, and holds at most so many.
    pub fn new(rule: Rule, fingerprints: Fingerprints, first: u64, held_max: usize) -> Self {
        Self {
            rule,
            fingerprints,
            first,
            last: u64::MAX,
            latest: UnixMs(0),
            began: UnixMs(0),
            now: Span::new(),
            before: Span::new(),
            held: 0,
            held_max,
            found: Vec::new(),
        }
    }

    /// Takes the key of the next entry, or of an entry that is not there any more.
    pub fn note(&mut self, id: KeyId, used: UnixMs) {
        if self.rule.ttl_ms == 0 {
            return;
        }
        self.latest = self.latest.max(used);
        if self.latest.0 >= self.began.0.saturating_add(self.rule.ttl_ms) {
            self.end_span();
        }
        let fingerprint = self.fingerprints.of(id);
        if (self.first..=self.last).contains(&fingerprint) {
            self.now.0[(fingerprint >> 56) as usize].push(fingerprint);
            self.held += 1;
            if self.held > self.held_max && self.last > self.first {
                self.narrow();
            }
        }
    }

    /// The candidates, and the last fingerprint that was looked at: what follows it is for another pass.
    pub fn end(mut self) -> (Vec<u64>, u64) {
        self.end_span();
        (self.found, self.last)
    }

    /// Two uses that are less than the time to live apart lie in one span or in neighbours, because a span lasts at least as long.
    fn end_span(&mut self) {
        for (now, before) in self.now.0.iter_mut().zip(&self.before.0) {
            now.sort_unstable();
            let mut earlier = before.iter().peekable();
            let mut previous = None;
            for fingerprint in &*now {
                while earlier.next_if(|known| *known < fingerprint).is_some() {}
                if previous == Some(fingerprint) || earlier.peek() == Some(&fingerprint) {
                    self.found.push(*fingerprint);
                }
                previous = Some(fingerprint);
            }
        }
        // Behind a pause that is as long, all of these are over their time as well.
        let over = self.latest.0 >= self.began.0.saturating_add(self.rule.ttl_ms.saturating_mul(2));
        let ended = std::mem::replace(&mut self.now, Span::new());
        self.before = if over { Span::new() } else { ended };
        self.began = self.latest;
        self.held = self.before.len();
        self.found.sort_unstable();
        self.found.dedup();
        while self.found.len() > CANDIDATES_MAX && self.last > self.first {
            self.narrow();
        }
    }

    fn narrow(&mut self) {
        self.last = self.first + (self.last - self.first) / 2;
        self.now.keep_up_to(self.last);
        self.before.keep_up_to(self.last);
        self.found.retain(|fingerprint| *fingerprint <= self.last);
        self.held = self.now.len() + self.before.len();
    }
}

/// An entry whose key was in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// This entry had used it.
    Of(Seq),
    /// This entry, which is not there any more, had used it or one of the same name of 64 bits.
    PerhapsOf(Seq),
}

/// Looks at the entries of candidates by their keys, in a second pass.
pub struct Repeats<S> {
    rule: Rule,
    fingerprints: Fingerprints,
    candidates: HashSet<u64, S>,
    latest: UnixMs,
    /// By account and key: the entry that used it last, and when.
    used: HashMap<Box<[u8]>, (Seq, UnixMs), S>,
    /// By fingerprint, of entries that are not there any more.
    archived: HashMap<u64, (Seq, UnixMs), S>,
    used_max: usize,
}

impl<S: BuildHasher + Clone> Repeats<S> {
    /// Looks at these only.
    pub fn new(rule: Rule, fingerprints: Fingerprints, candidates: Vec<u64>, hasher: S) -> Self {
        let mut set = HashSet::with_capacity_and_hasher(candidates.len(), hasher.clone());
        set.extend(candidates);
        let (used, archived) = (HashMap::with_hasher(hasher.clone()), HashMap::with_hasher(hasher));
        Self { rule, fingerprints, candidates: set, latest: UnixMs(0), used, archived, used_max: CANDIDATES_MAX }
    }

    /// Takes the key of an entry that is not there any more.
    pub fn note_archived(&mut self, id: KeyId, seq: Seq, used: UnixMs) {
        self.latest = self.latest.max(used);
        let fingerprint = self.fingerprints.of(id);
        if self.candidates.contains(&fingerprint) {
            self.archived.insert(fingerprint, (seq, used));
        }
    }

    /// Takes the next entry, and tells if its key was still in use.
    pub fn note(&mut self, seq: Seq, entry: &Entry<'_>) -> Option<Repeat> {
        self.latest = self.latest.max(entry.ts());
        let fingerprint = self.fingerprints.of(key_id(entry));
        if !self.candidates.contains(&fingerprint) {
            return None;
        }
        let (rule, latest) = (self.rule, self.latest);
        if self.used.len() >= self.used_max {
            self.used.retain(|_, (_, used)| rule.remembers(*used, latest));
            self.used_max = CANDIDATES_MAX.max(2 * self.used.len());
        }
        let owner: Account<'_> = entry.owner();
        let name = [owner.as_bytes(), entry.key().as_bytes()].join(&0);
        let before = self.used.insert(name.into(), (seq, entry.ts()));
        let lives = |known: &(Seq, UnixMs)| rule.remembers(known.1, latest);
        let archived = self.archived.get(&fingerprint).filter(|known| lives(known)).map(|known| Repeat::PerhapsOf(known.0));
        before.filter(lives).map(|known| Repeat::Of(known.0)).or(archived)
    }
}

/// The name of an entry's key.
pub fn key_id(entry: &Entry<'_>) -> KeyId {
    KeyId::of(entry.owner(), entry.key())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Draft, Key, Op};
    use crate::ledger::sample::{draft, Dice};
    use ahash::RandomState;

    const RULE: Rule = Rule { ttl_ms: 1_000 };

    fn fingerprints() -> Fingerprints {
        Fingerprints::new([11, 22])
    }

    /// Candidates among the keys with these numbers and times, in passes that hold so many; also how many passes that took.
    fn candidates(keys: &[(u64, u64)], held_max: usize) -> (Vec<u64>, usize) {
        let (mut found, mut first, mut passes) = (Vec::new(), 0, 0);
        loop {
            let mut pass = Candidates::new(RULE, fingerprints(), first, held_max);
            keys.iter().for_each(|(id, used)| pass.note(KeyId(*id), UnixMs(*used)));
            assert!(pass.held <= held_max);
            let (mut some, last) = pass.end();
            found.append(&mut some);
            passes += 1;
            match last.checked_add(1) {
                Some(next) => first = next,
                None => return (found, passes),
            }
        }
    }

    #[test]
    fn each_key_that_comes_twice_in_its_time_is_a_candidate_in_one_pass_and_in_many() {
        let mut dice = Dice(7);
        for round in 0..50 {
            let ids = 50 + dice.below(3_000);
            let mut latest = 0;
            let keys: Vec<(u64, u64)> = (0..2_000)
                .map(|_| {
                    latest += dice.below(5);
                    // Out of order by a little, and now and then by much.
                    let back = if dice.below(50) == 0 { dice.below(3_000) } else { dice.below(3) };
                    (dice.below(ids), latest.saturating_sub(back))
                })
                .collect();
            let (found, passes) = candidates(&keys, usize::MAX);
            assert_eq!((passes, found.windows(2).all(|pair| pair[0] < pair[1])), (1, true), "round {round}");
            let (mut used, mut latest): (HashMap<u64, u64>, _) = (HashMap::new(), UnixMs(0));
            for (id, ts) in &keys {
                latest = latest.max(UnixMs(*ts));
                let again = used.insert(*id, *ts).is_some_and(|used| RULE.remembers(UnixMs(used), latest));
                let known = found.binary_search(&fingerprints().of(KeyId(*id))).is_ok();
                assert!(known || !again, "round {round}: key {id} at {ts}");
            }
            let (few, passes) = candidates(&keys, 300);
            // A narrow pass may hold keys for longer, never for less.
            assert!(passes > 3 && found == few, "round {round}: {passes}");
        }
    }

    #[test]
    fn a_key_that_comes_again_long_after_its_time_is_none_and_its_fingerprint_is_gone() {
        let keys: Vec<(u64, u64)> = (0..10).flat_map(|day| (0..100).map(move |id| (id, 2_001 * day))).collect();
        assert_eq!(candidates(&keys, 200), (Vec::new(), 1), "two times to live are the most that is held");
        let mut nothing = Candidates::new(Rule { ttl_ms: 0 }, fingerprints(), 0, 10);
        (0..100).for_each(|_| nothing.note(KeyId(1), UnixMs(1)));
        assert_eq!(nothing.end(), (Vec::new(), u64::MAX));
        let mut forever = Candidates::new(Rule { ttl_ms: u64::MAX }, fingerprints(), 0, 10);
        (1..3).for_each(|used| forever.note(KeyId(1), UnixMs(used)));
        assert_eq!(forever.end().0.len(), 1, "a time to live that never ends");
    }

    fn noted(repeats: &mut Repeats<RandomState>, seq: u64, to: &str, key: &str, ts: u64) -> Option<Repeat> {
        let mut bytes = Vec::new();
        Draft { key: Key::new(key).unwrap(), ts: UnixMs(ts), ..draft(Op::Issue, "", to, 1, 0) }.encode(&mut bytes);
        repeats.note(Seq(seq), &Entry::parse(&bytes).unwrap().0)
    }

    #[test]
    fn a_candidate_is_a_repeat_by_its_account_its_key_and_its_time_only() {
        let id = |account: &str, key: &str| KeyId::of(Account::new(account).unwrap(), Key::new(key).unwrap());
        // All of them are candidates, as if their fingerprints were equal to others.
        let names = [("a", "k"), ("b", "k"), ("a", "l"), ("a", "gone"), ("b", "old")];
        let all = names.iter().map(|(account, key)| fingerprints().of(id(account, key))).collect();
        let mut repeats = Repeats::new(RULE, fingerprints(), all, RandomState::with_seeds(1, 2, 3, 4));
        repeats.note_archived(id("a", "gone"), Seq(3), UnixMs(5));
        repeats.note_archived(id("b", "other"), Seq(4), UnixMs(5));
        let steps = [
            (10, "a", "k", 10, None),
            (11, "b", "k", 11, None),
            (12, "a", "l", 12, None),
            (13, "c", "k", 13, None),
            (14, "c", "k", 14, None),
            (15, "a", "gone", 15, Some(Repeat::PerhapsOf(Seq(3)))),
            (16, "b", "other", 16, None),
            (17, "b", "k", 509, Some(Repeat::Of(Seq(11)))),
            (18, "a", "k", 511, None),
            (19, "a", "k", 9, Some(Repeat::Of(Seq(18)))),
        ];
        for (seq, account, key, ts, expected) in steps {
            assert_eq!(noted(&mut repeats, seq, account, key, ts), expected, "entry {seq}");
        }
        assert_eq!(noted(&mut repeats, 20, "b", "old", 10_000), None);
        assert_eq!(noted(&mut repeats, 21, "b", "old", 1), Some(Repeat::Of(Seq(20))));
        assert_eq!(noted(&mut repeats, 22, "b", "old", 2), None, "the clock had shown its end before");
    }
}
