//! Control events: what is done to the service itself. A closed list of names, so that readers can rely on them.

/// Longest value of an event that is kept, in bytes.
const VALUE_BYTES_MAX: usize = 512;
/// Most members of an event.
const MEMBERS_MAX: usize = 12;

/// What happened. Each has a name in the stream; more may be added, none changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The service serves.
    Start,
    /// It ends in order.
    Stop,
    /// Something was read again while it serves.
    Reload,
    /// A key was made, made active or retired.
    KeyRotation,
    /// A token, a subject or a key was revoked or taken back, or another list of them is in force.
    Revocation,
    /// A capability was made, where the keys are in memory alone.
    Mint,
    /// The operator has had the counters brought up to the ledger, or counted anew.
    Counters,
    /// A fault was injected on purpose, or one ended.
    FaultInjection,
    /// The operator has taken the service out of rotation, or put it back.
    Drain,
    /// Something is wrong with what stands in the stream before this line.
    Stream,
}

impl EventKind {
    /// The name in the stream.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Start => "start",
            EventKind::Stop => "stop",
            EventKind::Reload => "reload",
            EventKind::KeyRotation => "key_rotation",
            EventKind::Revocation => "revocation",
            EventKind::Mint => "mint",
            EventKind::Counters => "counters",
            EventKind::FaultInjection => "fault_injection",
            EventKind::Drain => "drain",
            EventKind::Stream => "stream",
        }
    }
}

/// One event with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub(super) kind: EventKind,
    pub(super) ok: bool,
    pub(super) members: Vec<(&'static str, String)>,
}

impl Event {
    /// An event that came to its end, or failed.
    pub fn new(kind: EventKind, ok: bool) -> Self {
        Self { kind, ok, members: Vec::new() }
    }

    /// Says more about it, under a name of its own that is documented. Never a secret or a token. Long texts are cut, and control
    /// characters left out.
    ///
    /// # Panics
    /// If the name is one that every event has, or there are too many: the caller's mistakes.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        assert!(!["v", "n", "ts", "kind", "event", "ok", "hash"].contains(&name), "{name} is taken");
        assert!(self.members.len() < MEMBERS_MAX, "an event has a few members");
        let mut value: String = value.into().chars().filter(|letter| !letter.is_control()).collect();
        let end = (0..=value.len().min(VALUE_BYTES_MAX)).rev().find(|at| value.is_char_boundary(*at));
        value.truncate(end.expect("the beginning is a boundary"));
        self.members.push((name, value));
        self
    }
}
