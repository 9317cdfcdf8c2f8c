//! The operations that change the ledger.

/// What an entry does. The numbers are the wire format of the ledger and never change meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    /// Creates value on `to`.
    Issue = 1,
    /// Moves value from `from` to `to`.
    Transfer = 2,
    /// Destroys value of `from`.
    Burn = 3,
    /// Moves value from `from` into the held part of the escrow account `to`.
    Hold = 4,
    /// Pays held value of the escrow account `from` out to `to`.
    Capture = 5,
    /// Gives held value of the escrow account `from` back to a payer `to`.
    Release = 6,
}

impl Op {
    /// All operations, in the order of their numbers.
    pub const ALL: [Op; 6] = [Op::Issue, Op::Transfer, Op::Burn, Op::Hold, Op::Capture, Op::Release];

    /// The operation of a ledger number; `None` if this version knows no such operation.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|op| *op as u8 == number)
    }

    /// The name used in routes, receipts, scopes and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Op::Issue => "issue",
            Op::Transfer => "transfer",
            Op::Burn => "burn",
            Op::Hold => "hold",
            Op::Capture => "capture",
            Op::Release => "release",
        }
    }

    /// Whether the operation takes value from `from` and so needs its next nonce.
    pub fn debits(self) -> bool {
        self != Op::Issue
    }

    /// Whether the operation gives value to `to`.
    pub fn credits(self) -> bool {
        self != Op::Burn
    }

    /// Whether the debit draws on the held part of an escrow account.
    pub fn draws_held(self) -> bool {
        matches!(self, Op::Capture | Op::Release)
    }
}
