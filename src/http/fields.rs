//! The small grammars that header fields share: tokens, lists, and the octets that a target or a host may hold.
//!
//! Pure predicates over bytes (RFC 9110 section 5.6, RFC 3986 section 2); they do not know which field they serve.

/// Whether a byte may stand in a token, such as a method or a field name (RFC 9110 section 5.6.2).
pub(super) const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// Whether a field name is this one, whose letters are lower case. Both are tokens, and no token byte but a letter becomes one by the
/// bit that makes letters lower case; without a way out in between, so that many bytes are compared in one step.
pub fn is_named<const N: usize>(name: &[u8], lower: &[u8; N]) -> bool {
    let Ok(name) = <&[u8; N]>::try_from(name) else { return false };
    debug_assert!(lower.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'-'));
    let different = name.iter().zip(lower).fold(0, |different, (byte, known)| different | ((byte | 0x20) ^ known));
    different == 0
}

/// Whether a byte may stand in a field value: visible, space, tab or opaque (RFC 9110 section 5.5).
pub(super) const fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Whether a byte may stand in a reg-name, and so in a host that is no IP literal (RFC 3986 section 3.2.2). Percent is let
/// through, since a host is never decoded here; the comma is not, since it is how two `Host` fields look when joined.
const fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=')
}

/// Whether a byte may stand in a path or a query (RFC 3986 sections 3.3 and 3.4).
const fn is_target_byte(byte: u8) -> bool {
    is_host_byte(byte) || matches!(byte, b'/' | b'?' | b':' | b'@' | b',')
}

const IN_TARGET: u8 = 1;
const IN_HOST: u8 = 2;

/// The predicates as a table, since every byte of every target and host is looked up.
static CLASSES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let in_target = if is_target_byte(byte as u8) { IN_TARGET } else { 0 };
        let in_host = if is_host_byte(byte as u8) { IN_HOST } else { 0 };
        table[byte] = in_target | in_host;
        byte += 1;
    }
    table
};

fn all_in(bytes: &[u8], class: u8) -> bool {
    bytes.iter().fold(class, |common, &byte| common & CLASSES[usize::from(byte)]) != 0
}

/// Whether all bytes may stand in a path or a query.
pub(super) fn is_path_and_query(bytes: &[u8]) -> bool {
    all_in(bytes, IN_TARGET)
}

/// Whether the bytes are a host with an optional port, and nothing else: no user information, no empty host.
pub(super) fn is_authority(bytes: &[u8]) -> bool {
    let (host_is_good, port) = if let Some(literal) = bytes.strip_prefix(b"[") {
        let Some(close) = literal.iter().position(|&byte| byte == b']') else { return false };
        let (address, rest) = (&literal[..close], &literal[close + 1..]);
        let good = std::str::from_utf8(address).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok());
        match rest {
            [] => (good, None),
            [b':', port @ ..] => (good, Some(port)),
            [_, ..] => return false,
        }
    } else {
        let (host, port) = match bytes.iter().position(|&byte| byte == b':') {
            Some(colon) => (&bytes[..colon], Some(&bytes[colon + 1..])),
            None => (bytes, None),
        };
        (!host.is_empty() && all_in(host, IN_HOST), port)
    };
    host_is_good && port.map_or(true, is_port)
}

/// An empty port is legal and means the default one (RFC 3986 section 3.2.3).
fn is_port(digits: &[u8]) -> bool {
    digits.is_empty() || decimal(digits).is_some_and(|port| port <= u64::from(u16::MAX))
}

/// The value of a run of digits, held at `u64::MAX` when it is larger; `None` if empty or anything but digits.
pub(super) fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    bytes.iter().try_fold(0u64, |value, byte| {
        byte.is_ascii_digit().then(|| value.saturating_mul(10).saturating_add(u64::from(byte - b'0')))
    })
}

/// The members of a comma-separated list, trimmed, empty ones left out (RFC 9110 section 5.6.1).
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        for good in ["a", "localhost:8080", "a.b-c_d:", "127.0.0.1:1", "[::1]", "[::1]:8080", "[fe80::1]:65535", "x%20y"] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in
            ["", ":80", "a b", "a@b", "a:b", "a:80:80", "a:65536", "a:-1", "[::1", "[::1]x", "[zz]", "a/b", "a,b", "a\tb", "é"]
        {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn decimals_are_digits_only_and_never_wrap() {
        for (text, value) in [("0", Some(0)), ("007", Some(7)), ("18446744073709551616", Some(u64::MAX)), ("", None)] {
            assert_eq!(decimal(text.as_bytes()), value, "{text}");
        }
        for bad in ["+1", "-1", "1 ", "0x1", "1,1", "1.0", "１"] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad}");
        }
    }
}
