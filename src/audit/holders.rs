//! Whose tokens are, for the tokens that are in use: an entry of the ledger carries the token's id only.
//!
//! Invariant: bounded. Two tables take turns: when the younger one is full it becomes the older one and the older one is dropped; what is
//! found in the older one moves to the younger. So a token that is in use stays known.
use crate::domain::TokenId;
use std::collections::HashMap;

/// Tokens in one of the two tables.
const TOKENS_MAX: usize = 1 << 16;

#[derive(Default)]
pub(super) struct Holders {
    young: HashMap<TokenId, Box<str>>,
    old: HashMap<TokenId, Box<str>>,
}

impl Holders {
    /// Takes note of whose a token is; whether that is news.
    pub fn learn(&mut self, token: TokenId, subject: &str) -> bool {
        let known = self.subject(token) == Some(subject);
        if !known {
            self.keep(token, subject.into());
        }
        !known
    }

    /// For whom the token was minted, if that is known.
    pub fn subject(&mut self, token: TokenId) -> Option<&str> {
        if !self.young.contains_key(&token) {
            let found = self.old.remove(&token)?;
            self.keep(token, found);
        }
        self.young.get(&token).map(|subject| &**subject)
    }

    fn keep(&mut self, token: TokenId, subject: Box<str>) {
        if self.young.len() >= TOKENS_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(token, subject);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: usize) -> TokenId {
        TokenId((number as u128).to_le_bytes())
    }

    #[test]
    fn what_is_in_use_stays_known_and_the_rest_is_bounded() {
        let mut holders = Holders::default();
        for number in 0..3 * TOKENS_MAX {
            assert!(holders.learn(token(number), "s"));
            assert_eq!(holders.subject(token(0)), Some("s"), "{number}");
        }
        assert!(!holders.learn(token(0), "s"));
        assert!(holders.young.len() + holders.old.len() <= 2 * TOKENS_MAX);
        assert_eq!(holders.subject(token(1)), None);
    }
}
