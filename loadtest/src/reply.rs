//! The least that a client must understand of an HTTP/1.1 reply: status, length, and whether the reply was a repeat.
//!
//! Strict where it is cheap: every reply of the server has a `Content-Length`, so anything else is reported as malformed
//! instead of being guessed at. It does not know sockets or JSON.

/// The largest head that is accepted, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// A complete reply; its body is borrowed from the connection's buffer.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// HTTP status code.
    pub status: u16,
    /// `Idempotency-Replayed: true` was there.
    pub replayed: bool,
    /// The server will close the connection after this reply.
    pub close: bool,
    /// The body, exactly as sent.
    pub body: &'a [u8],
}

/// Why bytes are not a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// Takes the first complete reply off `bytes`, with the number of bytes that it filled; `None` if more are needed.
///
/// # Errors
/// [`Malformed`] if the bytes can never become a reply; the connection is of no more use then.
pub fn parse(bytes: &[u8]) -> Result<Option<(Reply<'_>, usize)>, Malformed> {
    let Some(mut at) = memchr::memchr(b'\n', bytes).map(|end| end + 1) else { return too_long(bytes) };
    let status = status_of(&bytes[..at])?;
    let mut length: Option<usize> = None;
    let mut replayed = false;
    let mut close = false;
    loop {
        let Some(width) = memchr::memchr(b'\n', &bytes[at..]) else { return too_long(&bytes[..at]) };
        let line = bytes[at..at + width].strip_suffix(b"\r").ok_or(Malformed("a header line ends without CR"))?;
        at += width + 1;
        if line.is_empty() {
            break;
        }
        // Names are told apart by their length first: most lines cost one comparison.
        let colon = memchr::memchr(b':', line).ok_or(Malformed("a header line has no colon"))?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        match colon {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let number = crate::requests::decimal(value).and_then(|number| usize::try_from(number).ok());
                if length.is_some() {
                    return Err(Malformed("Content-Length is repeated"));
                }
                length = Some(number.ok_or(Malformed("Content-Length is not a number"))?);
            }
            20 if name.eq_ignore_ascii_case(b"idempotency-replayed") => replayed = value == b"true",
            10 if name.eq_ignore_ascii_case(b"connection") => close = value.eq_ignore_ascii_case(b"close"),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => return Err(Malformed("the reply is chunked")),
            _other_header => {}
        }
    }
    let body_bytes = length.ok_or(Malformed("the reply has no Content-Length"))?;
    let end = at.checked_add(body_bytes).ok_or(Malformed("Content-Length is beyond this machine"))?;
    if bytes.len() < end {
        return Ok(None);
    }
    Ok(Some((Reply { status, replayed, close, body: &bytes[at..end] }, end)))
}

fn status_of(line: &[u8]) -> Result<u16, Malformed> {
    let rest = line.strip_prefix(b"HTTP/1.1 ").ok_or(Malformed("the status line does not begin with HTTP/1.1"))?;
    let digits = rest.get(..3).and_then(crate::requests::decimal).ok_or(Malformed("the status is not three digits"))?;
    if !matches!(rest.get(3), Some(b' ' | b'\r')) {
        return Err(Malformed("the status is not three digits"));
    }
    u16::try_from(digits).map_err(|_| Malformed("the status is not three digits"))
}

fn too_long(head: &[u8]) -> Result<Option<(Reply<'_>, usize)>, Malformed> {
    if head.len() > HEAD_BYTES_MAX {
        return Err(Malformed("the head is longer than 16 KiB"));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    //! Replies cut at every byte are incomplete, never wrong; what is not a reply is named.
    use super::*;

    const GOOD: &[u8] =
        b"HTTP/1.1 200 OK\r\nX-Corr-ID: a\r\nIdempotency-Replayed: true\r\ncontent-length: 4\r\n\r\nbodyHTTP/1.1 4";

    #[test]
    fn a_reply_is_taken_whole_and_leaves_what_follows() {
        let (reply, used) = parse(GOOD).unwrap().unwrap();
        assert_eq!((reply.status, reply.replayed, reply.close, reply.body), (200, true, false, &b"body"[..]));
        assert_eq!(&GOOD[used..], b"HTTP/1.1 4");
        for cut in 0..used {
            assert!(parse(&GOOD[..cut]).unwrap().is_none(), "cut at {cut}");
        }
    }

    #[test]
    fn replies_are_told_apart_with_room_before_their_lengths() {
        let two = b"HTTP/1.1 401 Unauthorized\r\nContent-Length:          3\r\n\r\nabcHTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n";
        let (first, used) = parse(two).unwrap().unwrap();
        assert_eq!((first.status, &two[used..used + 8]), (401, &b"HTTP/1.1"[..]));
        assert_eq!(parse(&two[used..]).unwrap().unwrap().0.status, 204);
        assert!(parse(&two[..used - 1]).unwrap().is_none());
    }

    #[test]
    fn what_is_not_a_reply_is_refused() {
        let cases: [&[u8]; 7] = [
            b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        ];
        for case in cases {
            assert!(parse(case).is_err(), "{}", String::from_utf8_lossy(case));
        }
    }
}
