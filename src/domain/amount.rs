//! Amounts of value: unsigned 128-bit minor units, never zero, never a float.
use std::num::NonZeroU128;

/// An amount of one asset in minor units, 1 to 2^128 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(NonZeroU128);

impl Amount {
    /// `None` for zero.
    pub fn new(minor_units: u128) -> Option<Self> {
        NonZeroU128::new(minor_units).map(Self)
    }

    /// Reads decimal digits and nothing else: no sign, no point, no exponent, no spaces, no leading zero, not zero, within 128 bits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.is_empty() || digits.len() > 39 || digits[0] == b'0' || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        if digits.len() <= 19 {
            let value = digits.iter().fold(0u64, |value, digit| value * 10 + u64::from(digit - b'0'));
            return Self::new(u128::from(value));
        }
        text.parse().ok().and_then(Self::new)
    }

    /// The amount in minor units.
    pub fn minor_units(self) -> u128 {
        self.0.get()
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_decimal_digits_are_an_amount() {
        assert_eq!(Amount::parse("1").map(Amount::minor_units), Some(1));
        assert_eq!(Amount::parse("9999999999999999999").map(Amount::minor_units), Some(9_999_999_999_999_999_999));
        assert_eq!(Amount::parse(&u128::MAX.to_string()).map(Amount::minor_units), Some(u128::MAX));
        for bad in ["", "0", "00", "01", "+1", "-1", "1.0", "1e3", " 1", "1 ", "0x1", "340282366920938463463374607431768211456"] {
            assert!(Amount::parse(bad).is_none(), "{bad:?}");
        }
    }
}
