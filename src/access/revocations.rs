//! Capabilities that are refused although they are whole and in their time: by token id, by subject, or by the key that signed them.
//!
//! A list never changes; the control thread puts a new one on the board, and every core takes it from there before it believes the
//! next token. Revoking a token revokes all that were narrowed from it, which have its id.
use super::board::Board;
use super::capability::Capability;
use super::identifier::{key_id_well_formed, subject_well_formed, token_id_text};
use crate::domain::{bytes_of_hex, TokenId, UnixMs};
use ahash::RandomState;
use std::collections::HashSet;

/// What is revoked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Revoked {
    /// The token with this id.
    Token(TokenId),
    /// Every token of this subject.
    Subject(String),
    /// Every token that this key signed.
    Key(String),
}

impl Revoked {
    /// A token by its id, as `ronctl cap inspect` and the log show it: 32 hexadecimal digits.
    pub fn token(text: &str) -> Option<Self> {
        bytes_of_hex(text).map(TokenId).map(Self::Token)
    }

    /// A subject, if it can be one.
    pub fn subject(text: &str) -> Option<Self> {
        subject_well_formed(text).then(|| Self::Subject(text.to_owned()))
    }

    /// A key, if this can be its id.
    pub fn key(text: &str) -> Option<Self> {
        key_id_well_formed(text).then(|| Self::Key(text.to_owned()))
    }

    /// The word for its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Revoked::Token(_) => "token",
            Revoked::Subject(_) => "subject",
            Revoked::Key(_) => "key",
        }
    }

    /// Its name within that kind.
    pub fn name(&self) -> String {
        match self {
            Revoked::Token(id) => token_id_text(*id),
            Revoked::Subject(name) | Revoked::Key(name) => name.clone(),
        }
    }

    /// What [`Revoked::kind`] and [`Revoked::name`] say.
    pub(super) fn named(kind: &str, name: &str) -> Option<Self> {
        match kind {
            "token" => Self::token(name),
            "subject" => Self::subject(name),
            "key" => Self::key(name),
            _ => None,
        }
    }
}

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// What.
    pub what: Revoked,
    /// Since when.
    pub at: UnixMs,
    /// Why, for people; empty if nobody said.
    pub reason: String,
}

/// A whole list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    tokens: HashSet<TokenId, RandomState>,
    subjects: HashSet<Box<str>, RandomState>,
    keys: HashSet<Box<str>, RandomState>,
}

impl Revocations {
    /// The list of these.
    pub fn of<'a>(all: impl IntoIterator<Item = &'a Revoked>) -> Self {
        let mut list = Self::default();
        for what in all {
            match what {
                Revoked::Token(id) => drop(list.tokens.insert(*id)),
                Revoked::Subject(name) => drop(list.subjects.insert(name.as_str().into())),
                Revoked::Key(name) => drop(list.keys.insert(name.as_str().into())),
            }
        }
        list
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.tokens.len() + self.subjects.len() + self.keys.len()
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is on this list and not on that one, in the order of [`Revoked`].
    pub fn beyond(&self, other: &Self) -> Vec<Revoked> {
        let mut all: Vec<Revoked> = self.tokens.difference(&other.tokens).map(|id| Revoked::Token(*id)).collect();
        all.extend(self.subjects.difference(&other.subjects).map(|name| Revoked::Subject(name.to_string())));
        all.extend(self.keys.difference(&other.keys).map(|name| Revoked::Key(name.to_string())));
        all.sort_unstable();
        all
    }

    /// BLAKE3 of what is revoked: a line `KIND NAME` for each, in the order of [`Revoked`], tokens first. Equal lists have equal digests.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for what in self.beyond(&Self::default()) {
            hasher.update(format!("{} {}\n", what.kind(), what.name()).as_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    /// Whether the capability is revoked.
    pub(super) fn cover(&self, capability: &Capability) -> bool {
        self.tokens.contains(&capability.token())
            || self.subjects.contains(capability.subject())
            || self.keys.contains(capability.key_id())
    }
}

/// Where the list in force is.
pub type RevocationBoard = Board<Revocations>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_differ_by_what_is_on_one_of_them_alone() {
        let [a, b, c] = [Revoked::subject("a"), Revoked::key("k-1"), Revoked::token(&"00".repeat(16))].map(Option::unwrap);
        let (one, other) = (Revocations::of([&a, &b]), Revocations::of([&b, &c]));
        assert_eq!((one.beyond(&other), other.beyond(&one)), (vec![a.clone()], vec![c.clone()]));
        assert_eq!(Revocations::of([&a, &b, &c]).beyond(&Revocations::default()), [c.clone(), a.clone(), b.clone()]);
        assert_eq!(Revocations::of([&b, &a]).digest(), one.digest());
        let lines = format!("token {}\nkey k-1\n", "00".repeat(16));
        assert_eq!(other.digest(), *blake3::hash(lines.as_bytes()).as_bytes());
    }

    #[test]
    fn kinds_and_names_are_read_as_they_are_written() {
        let id = "00112233445566778899aabbccddeeff";
        for what in [Revoked::token(id), Revoked::subject("ülo, till 3"), Revoked::key("k-1")] {
            let what = what.expect("well formed");
            assert_eq!(Revoked::named(what.kind(), &what.name()), Some(what));
        }
        assert_eq!(Revoked::token(id).map(|what| what.name()).as_deref(), Some(id));
        for bad in ["", "0", "+0112233445566778899aabbccddeeff", "00112233445566778899AABBCCDDEEFF", &id.repeat(2)] {
            assert_eq!(Revoked::token(bad), None, "{bad}");
        }
        assert_eq!((Revoked::subject("a\nb"), Revoked::key("K"), Revoked::named("tokens", id)), (None, None, None));
    }
}
