//! Writes replies onto a connection's output.
//!
//! A reply is a status line, a few fields and a body of known length, appended to one `Vec` so that the replies of a
//! pipelined batch leave in one write. It does not know what the body says. A control byte in a value that may come from a
//! client is written as a space, so that no value can ever end its line.

/// What to write when [`super::Step::NeedMore`] asks for it; the final reply comes later.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Width of a `Content-Length` whose value is filled in later; leading space is not part of a value.
const LENGTH_WIDTH: usize = 10;

/// What becomes of the connection after a reply, and whether the client must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It stays, as HTTP/1.1 takes for granted.
    Stays,
    /// It stays, which an HTTP/1.0 client must be told.
    StaysAnnounced,
    /// It closes after this reply.
    Closes,
}

impl Connection {
    /// What to say to a client of this version.
    pub fn of(keep_alive: bool, http_1_0: bool) -> Self {
        match (keep_alive, http_1_0) {
            (true, false) => Self::Stays,
            (true, true) => Self::StaysAnnounced,
            (false, _) => Self::Closes,
        }
    }
}

/// Everything before the body but its length.
#[derive(Clone, Copy, Debug)]
pub struct ReplyHead<'a> {
    /// 200 to 599.
    pub status: u16,
    /// From [`super::http_date`].
    pub date: &'a str,
    /// Empty where there is no body.
    pub content_type: &'a str,
    /// What becomes of the connection.
    pub connection: Connection,
    /// Whether the request was a HEAD: the body is measured and not sent.
    pub to_head: bool,
    /// Further fields, in order; their values may come from a client.
    pub extra: &'a [(&'a str, &'a [u8])],
}

impl ReplyHead<'_> {
    /// 204 and 304 end with their head, and 204 must not even have a length (RFC 9110 section 8.6).
    fn has_body(&self) -> bool {
        !matches!(self.status, 204 | 304)
    }
}

/// Writes a whole reply.
///
/// # Panics
/// If there is a body and the status cannot have one.
pub fn write(out: &mut Vec<u8>, head: &ReplyHead<'_>, body: &[u8]) {
    write_fields(out, head);
    if head.has_body() {
        out.extend_from_slice(b"Content-Length: ");
        out.extend_from_slice(itoa::Buffer::new().format(body.len()).as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
        if !head.to_head {
            out.extend_from_slice(body);
        }
    } else {
        assert!(body.is_empty(), "a reply of status {} has no body", head.status);
        out.extend_from_slice(b"\r\n");
    }
}

/// A reply whose head is written and whose body is being appended; see [`begin`].
#[derive(Debug)]
#[must_use = "the reply has no length until it is finished"]
pub struct Begun {
    body_at: usize,
    to_head: bool,
}

/// Writes a head and leaves room for the length: the caller appends the body to `out` and then calls [`finish`].
///
/// # Panics
/// If the status cannot have a body.
pub fn begin(out: &mut Vec<u8>, head: &ReplyHead<'_>) -> Begun {
    assert!(head.has_body(), "a reply of status {} has no body", head.status);
    write_fields(out, head);
    out.extend_from_slice(b"Content-Length: ");
    out.extend_from_slice(&[b' '; LENGTH_WIDTH]);
    out.extend_from_slice(b"\r\n\r\n");
    Begun { body_at: out.len(), to_head: head.to_head }
}

/// Fills in the length of everything that was appended since [`begin`], and takes it off again in the reply to a HEAD.
///
/// # Panics
/// If `out` has lost the head since, or has grown by more than 9,999,999,999 bytes.
pub fn finish(out: &mut Vec<u8>, begun: Begun) {
    let body_bytes = out.len().checked_sub(begun.body_at).expect("the output still holds the head that was begun");
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(body_bytes).as_bytes();
    assert!(digits.len() <= LENGTH_WIDTH, "the length of a reply has room");
    let length_end = begun.body_at - b"\r\n\r\n".len();
    out[length_end - digits.len()..length_end].copy_from_slice(digits);
    if begun.to_head {
        out.truncate(begun.body_at);
    }
}

/// The status line and every field but the length.
fn write_fields(out: &mut Vec<u8>, head: &ReplyHead<'_>) {
    assert!((200..600).contains(&head.status), "{} is not the status of a final reply", head.status);
    match status_line(head.status) {
        Some(line) => out.extend_from_slice(line),
        None => {
            // A status without a known phrase keeps the space before the phrase that it lacks.
            out.extend_from_slice(b"HTTP/1.1 ");
            out.extend_from_slice(itoa::Buffer::new().format(head.status).as_bytes());
            out.extend_from_slice(b" \r\nDate: ");
        }
    }
    out.extend_from_slice(head.date.as_bytes());
    if !head.content_type.is_empty() {
        out.extend_from_slice(b"\r\nContent-Type: ");
        out.extend_from_slice(head.content_type.as_bytes());
    }
    for (name, value) in head.extra {
        out.extend_from_slice(b"\r\n");
        debug_assert!(name.bytes().all(super::fields::is_token_byte), "field names are our own");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        write_value(out, value);
    }
    out.extend_from_slice(match head.connection {
        Connection::Stays => b"\r\n",
        Connection::StaysAnnounced => b"\r\nConnection: keep-alive\r\n",
        Connection::Closes => b"\r\nConnection: close\r\n",
    });
}

fn write_value(out: &mut Vec<u8>, value: &[u8]) {
    let from = out.len();
    out.extend_from_slice(value);
    // Without a way out in between, so that many bytes are looked at in one step.
    if out[from..].iter().fold(false, |any, byte| any | (*byte < b' ') | (*byte == 0x7f)) {
        out[from..].iter_mut().filter(|byte| byte.is_ascii_control()).for_each(|byte| *byte = b' ');
    }
}

/// The line for a status and the name of the field that follows it, as one piece.
fn status_line(status: u16) -> Option<&'static [u8]> {
    macro_rules! line {
        ($rest:literal) => {
            Some(concat!("HTTP/1.1 ", $rest, "\r\nDate: ").as_bytes())
        };
    }
    match status {
        200 => line!("200 OK"),
        202 => line!("202 Accepted"),
        204 => line!("204 No Content"),
        304 => line!("304 Not Modified"),
        400 => line!("400 Bad Request"),
        401 => line!("401 Unauthorized"),
        403 => line!("403 Forbidden"),
        404 => line!("404 Not Found"),
        405 => line!("405 Method Not Allowed"),
        408 => line!("408 Request Timeout"),
        409 => line!("409 Conflict"),
        413 => line!("413 Content Too Large"),
        414 => line!("414 URI Too Long"),
        415 => line!("415 Unsupported Media Type"),
        417 => line!("417 Expectation Failed"),
        429 => line!("429 Too Many Requests"),
        431 => line!("431 Request Header Fields Too Large"),
        500 => line!("500 Internal Server Error"),
        501 => line!("501 Not Implemented"),
        503 => line!("503 Service Unavailable"),
        505 => line!("505 HTTP Version Not Supported"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn head(status: u16) -> ReplyHead<'static> {
        ReplyHead {
            status,
            date: DATE,
            content_type: "application/json",
            connection: Connection::Stays,
            to_head: false,
            extra: &[],
        }
    }

    fn written(head: &ReplyHead<'_>, body: &str) -> String {
        let mut out = b"before".to_vec();
        write(&mut out, head, body.as_bytes());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn whole_replies() {
        let plain =
            format!("beforeHTTP/1.1 200 OK\r\nDate: {DATE}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n");
        assert_eq!(written(&head(200), "{}"), format!("{plain}{{}}"));
        assert_eq!(written(&ReplyHead { to_head: true, ..head(200) }, "{}"), plain);
        let empty = ReplyHead { content_type: "", connection: Connection::StaysAnnounced, ..head(204) };
        assert_eq!(
            written(&empty, ""),
            format!("beforeHTTP/1.1 204 No Content\r\nDate: {DATE}\r\nConnection: keep-alive\r\n\r\n")
        );
        let extra = &[("Retry-After", &b"1"[..]), ("X-Corr-ID", "a\r\nSet-Cookie: b\0é".as_bytes())];
        assert_eq!(
            written(&ReplyHead { extra, connection: Connection::Closes, ..head(599) }, ""),
            format!(
                "beforeHTTP/1.1 599 \r\nDate: {DATE}\r\nContent-Type: application/json\r\nRetry-After: 1\r\nX-Corr-ID: a  \
                 Set-Cookie: b é\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            )
        );
    }

    #[test]
    fn every_status_line_names_its_own_status() {
        for status in 200..600 {
            let reply = written(&head(status), "");
            assert!(reply.starts_with(&format!("beforeHTTP/1.1 {status} ")), "{reply}");
        }
    }

    #[test]
    fn lengths_filled_in_later_read_the_same() {
        for body_bytes in [0, 1, 9, 10, 999, 123_456] {
            for to_head in [false, true] {
                let (body, head) = ("x".repeat(body_bytes), ReplyHead { to_head, ..head(200) });
                let mut out = b"before".to_vec();
                let begun = begin(&mut out, &head);
                out.extend_from_slice(body.as_bytes());
                finish(&mut out, begun);
                let late = String::from_utf8(out).unwrap();
                assert!(late.contains(&format!("Content-Length: {body_bytes:>10}\r\n\r\n")), "{body_bytes}");
                let (before, after) = late.split_once("Content-Length:").unwrap();
                let trimmed = format!("{before}Content-Length: {}", after.trim_start());
                assert_eq!(trimmed, written(&head, &body), "{body_bytes}");
            }
        }
    }

    #[test]
    fn what_each_client_is_told_about_its_connection() {
        assert_eq!(Connection::of(true, false), Connection::Stays);
        assert_eq!(Connection::of(true, true), Connection::StaysAnnounced);
        assert_eq!(Connection::of(false, false), Connection::Closes);
        assert_eq!(Connection::of(false, true), Connection::Closes);
    }
}
