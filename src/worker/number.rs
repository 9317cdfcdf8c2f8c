//! Numbers of cores as text, for a field of every reply.

/// A small number as text without allocating.
pub struct CoreNumber {
    digits: [u8; 5],
    start: usize,
}

/// The number as text.
pub fn core_number(number: u16) -> CoreNumber {
    let mut digits = [b'0'; 5];
    let (mut rest, mut start) = (number, digits.len());
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return CoreNumber { digits, start };
        }
    }
}

impl CoreNumber {
    /// Its digits, without leading zeros.
    pub fn as_bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_without_leading_zeros() {
        for number in [0, 7, 10, 255, 65_535] {
            assert_eq!(core_number(number).as_bytes(), number.to_string().as_bytes());
        }
    }
}
