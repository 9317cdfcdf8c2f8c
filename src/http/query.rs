//! The pairs of a query string.
//!
//! This is RFC 3986, not the encoding of HTML forms: `+` is a plus sign, `&` separates, `%` and two hexadecimal digits are a
//! byte. Which keys are known, and what a repeated one means, is for the routes to say.
use super::Fault;
use std::borrow::Cow;

/// Iterates over the decoded `(key, value)` pairs of a query. A pair without `=` has an empty value; an empty one, as in
/// `a=1&&b=2`, is skipped.
pub fn pairs(query: &str) -> Pairs<'_> {
    Pairs { rest: Some(query) }
}

/// See [`pairs`].
#[derive(Clone, Debug)]
pub struct Pairs<'q> {
    rest: Option<&'q str>,
}

impl<'q> Iterator for Pairs<'q> {
    /// A pair, or a 400 that leaves the connection open: a `%` without two hexadecimal digits, or bytes that are not UTF-8.
    type Item = Result<(Cow<'q, str>, Cow<'q, str>), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.rest?;
            let pair = match rest.split_once('&') {
                Some((pair, rest)) => {
                    self.rest = Some(rest);
                    pair
                }
                None => {
                    self.rest = None;
                    rest
                }
            };
            if !pair.is_empty() {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                return Some(decode(key).and_then(|key| Ok((key, decode(value)?))));
            }
        }
    }
}

fn decode(text: &str) -> Result<Cow<'_, str>, Fault> {
    if memchr::memchr(b'%', text.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes().iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| (digit as char).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(Fault::staying(400, "a % in the query is not followed by two hexadecimal digits; write it as %25"));
        };
        bytes.push((high << 4 | low) as u8);
    }
    String::from_utf8(bytes)
        .map(Cow::Owned)
        .map_err(|_| Fault::staying(400, "the query decodes to bytes that are not UTF-8; percent-encode UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding() {
        for (query, expected) in [
            ("", &[][..]),
            ("&&", &[]),
            ("a=1&b=2", &[("a", "1"), ("b", "2")]),
            ("a&b=&=c", &[("a", ""), ("b", ""), ("", "c")]),
            ("a=b=c&a=+d", &[("a", "b=c"), ("a", "+d")]),
            ("account=user%3Aalice%2f1&%61sset=roc", &[("account", "user:alice/1"), ("asset", "roc")]),
            ("x=%C3%A9%26%3d%00", &[("x", "é&=\0")]),
        ] {
            let decoded: Vec<_> = pairs(query).map(|pair| pair.unwrap()).collect();
            let decoded: Vec<_> = decoded.iter().map(|(key, value)| (key.as_ref(), value.as_ref())).collect();
            assert_eq!(decoded, expected, "{query}");
        }
        assert!(matches!(pairs("plain=value").next(), Some(Ok((Cow::Borrowed("plain"), Cow::Borrowed("value"))))));
    }

    #[test]
    fn refusals_and_what_follows_them() {
        for query in ["a=%", "a=%4", "a=%4&b=1", "%G0=1", "a=%+1", "a=%é", "a=%ff", "a=%C3"] {
            let fault = pairs(query).next().unwrap().unwrap_err();
            assert_eq!((fault.status, fault.close), (400, false), "{query}");
        }
        let after: Vec<_> = pairs("a=%&b=1").map(|pair| pair.is_ok()).collect();
        assert_eq!(after, [false, true], "a bad pair does not hide the next one");
    }
}
