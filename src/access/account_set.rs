//! A set of accounts: names, and beginnings of names followed by `*`.
use crate::domain::Account;
use std::collections::BTreeSet;

/// Most beginnings in one set: all of them are tried for each request.
pub(super) const BEGINNINGS_MAX: usize = 256;

/// Accounts by name and by beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AccountSet {
    names: BTreeSet<Box<str>>,
    beginnings: BTreeSet<Box<str>>,
}

impl AccountSet {
    /// Adds what a text means; false if it means nothing, is in the set already, or is one beginning too many.
    pub fn add(&mut self, text: &str) -> bool {
        let Some(beginning) = text.strip_suffix('*') else {
            return Account::new(text).is_some() && self.names.insert(text.into());
        };
        // A beginning may be empty: everybody.
        let well_formed = beginning.is_empty() || Account::new(beginning).is_some();
        well_formed && self.beginnings.len() < BEGINNINGS_MAX && self.beginnings.insert(beginning.into())
    }

    /// Whether an account is in it.
    pub fn covers(&self, account: Account<'_>) -> bool {
        let account = account.as_str();
        self.names.contains(account) || self.beginnings.iter().any(|beginning| account.starts_with(&**beginning))
    }

    /// As they are written, in order.
    pub fn texts(&self) -> impl Iterator<Item = String> + '_ {
        let beginnings = self.beginnings.iter().map(|beginning| format!("{beginning}*"));
        self.names.iter().map(|name| name.to_string()).chain(beginnings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_beginnings_cover_what_they_say_and_nothing_else() {
        let mut set = AccountSet::default();
        for (text, taken) in [("bob", true), ("shop:*", true), ("alice", true), ("bob", false), ("shop:*", false), ("", false)] {
            assert_eq!(set.add(text), taken, "{text:?}");
        }
        for bad in ["a*b", "a b", "**", "é"] {
            assert!(!set.add(bad), "{bad}");
        }
        let covers = |name: &str| set.covers(Account::new(name).unwrap());
        assert!(covers("alice") && covers("bob") && covers("shop:1") && covers("shop:"));
        assert!(!covers("bobby") && !covers("shop") && !covers("ali"));
        assert_eq!(set.texts().collect::<Vec<_>>(), ["alice", "bob", "shop:*"]);
        let mut all = AccountSet::default();
        assert!(all.add("*") && all.covers(Account::new("x").unwrap()));
    }
}
