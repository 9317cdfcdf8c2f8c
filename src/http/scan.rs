//! Finds where a head ends, looking at each byte of input once however it dribbles in.
//!
//! Lines are delimited here and nowhere else: after this scan every CR of the head is followed by LF, every LF is preceded
//! by CR, and there is no NUL. The parser behind it is laxer about that, and never sees the difference.
use super::{fields, Fault, Limits};

/// Empty lines that are skipped before a request line (RFC 9112 section 2.2 asks for at least one).
pub const EMPTY_LINES_MAX: usize = 2;

/// How far the search for the end of a head has come. Positions count from the start of the connection's unconsumed input.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scan {
    /// Where the request line begins, after skipped empty lines.
    pub start: usize,
    /// Everything before this has been looked at.
    scanned: usize,
    /// Where the line that is being looked at begins.
    line: usize,
}

impl Scan {
    /// Whether nothing has been looked at yet.
    pub fn is_fresh(&self) -> bool {
        self.scanned == 0
    }

    /// The position after the empty line that ends the head, or `None` if it has not arrived.
    pub fn advance(&mut self, buffer: &[u8], limits: &Limits) -> Result<Option<usize>, Fault> {
        loop {
            if self.scanned == self.start {
                check_first_byte(&buffer[self.start..])?;
            }
            let end = buffer.len().min(self.start + limits.head_bytes_max);
            let Some(found) = memchr::memchr3(b'\r', b'\n', 0, &buffer[self.scanned..end]) else {
                self.scanned = end;
                break;
            };
            let at = self.scanned + found;
            if buffer[at] == 0 {
                return Err(Fault::malformed("the head holds a NUL byte; send text only"));
            }
            if buffer[at] == b'\n' {
                return Err(Fault::malformed("a line of the head ends with a bare LF; end every line with CRLF"));
            }
            if at + 1 == end {
                self.scanned = at;
                break;
            }
            if buffer[at + 1] != b'\n' {
                return Err(Fault::malformed("the head holds a CR that no LF follows; end every line with CRLF"));
            }
            if at > self.line {
                self.line = at + 2;
                self.scanned = self.line;
            } else if at > self.start {
                return Ok(Some(at + 2));
            } else if self.start == 2 * EMPTY_LINES_MAX {
                return Err(Fault::malformed("too many empty lines before the request line; send none"));
            } else {
                *self = Self { start: at + 2, scanned: at + 2, line: at + 2 };
            }
        }
        if buffer.len() - self.start < limits.head_bytes_max {
            return Ok(None);
        }
        let cap = limits.head_bytes_max;
        Err(if self.line == self.start {
            Fault::closing(414, format!("the request line alone is over the {cap} bytes of a head; send a shorter target"))
        } else {
            Fault::closing(431, format!("the head is over {cap} bytes; send fewer or shorter header fields"))
        })
    }
}

/// A connection that does not begin with a method is told so at once: it may never send a line end.
fn check_first_byte(rest: &[u8]) -> Result<(), Fault> {
    match rest.first() {
        Some(0x16) => Err(Fault::malformed("this looks like TLS; this port speaks plain HTTP, use http://")),
        Some(&byte) if !fields::is_token_byte(byte) && !matches!(byte, b'\r' | b'\n' | 0) => {
            Err(Fault::malformed("a request begins with a method, such as GET"))
        }
        Some(_) | None => Ok(()),
    }
}
