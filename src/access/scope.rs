//! Scopes: the kinds of request that a capability can be limited to.
//!
//! A scope on the wire is `wallet:<name>`, the bare `<name>`, or `wallet:*` for all of them. Names of other services may
//! stand in the same list; they grant nothing here.
const PREFIX: &str = "wallet:";
const EVERY: &str = "wallet:*";

/// One kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // The names are those of the wire contract.
pub enum Scope {
    Issue,
    Transfer,
    Spend,
    Burn,
    Hold,
    Capture,
    Release,
    Read,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Scope; 8] =
        [Scope::Issue, Scope::Transfer, Scope::Spend, Scope::Burn, Scope::Hold, Scope::Capture, Scope::Release, Scope::Read];

    /// The bare name.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Issue => "issue",
            Scope::Transfer => "transfer",
            Scope::Spend => "spend",
            Scope::Burn => "burn",
            Scope::Hold => "hold",
            Scope::Capture => "capture",
            Scope::Release => "release",
            Scope::Read => "read",
        }
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ScopeSet(u8);

impl ScopeSet {
    /// The set of these scopes.
    pub const fn of(scopes: &[Scope]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < scopes.len() {
            bits |= 1 << scopes[index] as u8;
            index += 1;
        }
        Self(bits)
    }

    /// The scopes that one item of a list names; `None` if it names none of this service.
    pub fn named(item: &str) -> Option<Self> {
        if item == EVERY {
            return Some(Self::of(&Scope::ALL));
        }
        let name = item.strip_prefix(PREFIX).unwrap_or(item);
        Scope::ALL.into_iter().find(|scope| scope.as_str() == name).map(|scope| Self::of(&[scope]))
    }

    /// The scopes of both sets.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether some scope is in both sets.
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether the scope is in the set.
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_name_scopes_with_and_without_the_service() {
        assert_eq!(ScopeSet::named("wallet:read"), Some(ScopeSet::of(&[Scope::Read])));
        assert_eq!(ScopeSet::named("read"), Some(ScopeSet::of(&[Scope::Read])));
        for scope in Scope::ALL {
            assert!(ScopeSet::named("wallet:*").is_some_and(|set| set.contains(scope)), "{scope:?}");
        }
        for foreign in ["", "*", "wallet:", "wallet:READ", "storage:read", "wallet:wallet:read", "rea"] {
            assert_eq!(ScopeSet::named(foreign), None, "{foreign:?}");
        }
    }
}
