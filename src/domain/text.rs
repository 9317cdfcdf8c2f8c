//! Bytes and texts as they stand in JSON, in files and before people.
const DIGITS: &[u8; 16] = b"0123456789abcdef";

fn digits(byte: u8) -> [u8; 2] {
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

/// Appends bytes in lower-case hex.
pub fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(bytes.iter().flat_map(|byte| digits(*byte)));
}

/// Bytes in lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| digits(*byte).map(char::from)).collect()
}

/// The bytes of lower-case hex of exactly this length.
pub fn bytes_of_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |letter: u8| match letter {
        b'0'..=b'9' => Some(letter - b'0'),
        b'a'..=b'f' => Some(letter - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Appends a text as the inside of a JSON string.
pub fn push_escaped(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\')) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            sign @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', sign]),
            control => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&digits(control));
            }
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Whether a letter of a text from elsewhere could steer a terminal, or make people read something else than is there: control
/// characters, those that turn the direction of others around or break lines (Unicode 15, sections 5.8 and 23.2), and those that have no
/// width.
pub fn misleads(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_that_steer_or_turn_others_mislead_and_those_of_every_language_do_not() {
        for letter in
            "\0\u{1b}\n\u{85}\u{61c}\u{200b}\u{200e}\u{200f}\u{2028}\u{202a}\u{202e}\u{2060}\u{2066}\u{2069}\u{feff}".chars()
        {
            assert!(misleads(letter), "{letter:?}");
        }
        assert!(!"Zoë, לאה, علی, 王\u{200d}-x '\"?".chars().any(misleads));
    }

    #[test]
    fn hex_is_lower_case() {
        assert_eq!(hex(&[0, 0xab, 0xff]), "00abff");
    }

    #[test]
    fn hex_is_read_in_its_one_spelling() {
        assert_eq!(bytes_of_hex("00abff"), Some([0, 0xab, 0xff]));
        for bad in ["00abf", "00abfff", "00ABFF", "00abfg", "+0abff", "00abf\u{e9}"] {
            assert_eq!(bytes_of_hex::<3>(bad), None, "{bad}");
        }
    }
}
