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
