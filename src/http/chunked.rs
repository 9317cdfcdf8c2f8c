//! Takes the framing out of a chunked body, in place, as far as it has arrived (RFC 9112 section 7.1).
//!
//! Data moves towards the front of the buffer, each byte once; the bytes behind the data that was moved are then stale.
//! A size is believed only within the body's cap, so nothing here can overflow or wait for more than is allowed.
use super::{fields, rules::body_too_large, Fault, Limits};

/// Most bytes in a size line, extensions included and CRLF not. No client is known to come near.
pub const CHUNK_LINE_BYTES_MAX: usize = 256;

/// Hexadecimal digits of the largest size that is read; more can only be zeros or nonsense.
const SIZE_DIGITS_MAX: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the beginning of a size line.
    Size,
    /// Inside data, with so many bytes of it still to come.
    Data(usize),
    /// At the CRLF behind the data of a chunk.
    DataEnd,
    /// At the beginning of a trailer line, with so many lines before it.
    Trailer(usize),
    /// Behind the empty line that ends the body.
    Done,
}

/// The progress of one chunked body. Positions count from the first byte after the head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dechunker {
    state: State,
    /// Input before this is used up.
    read: usize,
    /// In a line that has not ended, input before this has been looked at.
    scanned: usize,
    /// Data before this is in its final place.
    written: usize,
}

impl Dechunker {
    pub fn new() -> Self {
        Self { state: State::Size, read: 0, scanned: 0, written: 0 }
    }

    /// Works through what has arrived; `true` when the body is complete.
    pub fn advance(&mut self, body: &mut [u8], limits: &Limits) -> Result<bool, Fault> {
        loop {
            match self.state {
                State::Size => {
                    let Some(line) = self.line(body, CHUNK_LINE_BYTES_MAX, TOO_LONG_LINE)? else { return Ok(false) };
                    let size = read_size(line)?;
                    let room = (limits.body_bytes_max - self.written) as u64;
                    self.state = match usize::try_from(size) {
                        Ok(0) => State::Trailer(0),
                        Ok(bytes) if size <= room => State::Data(bytes),
                        Ok(_) | Err(_) => return Err(body_too_large(limits)),
                    };
                }
                State::Data(0) => self.state = State::DataEnd,
                State::Data(left) => {
                    let arrived = left.min(body.len() - self.read);
                    if arrived == 0 {
                        return Ok(false);
                    }
                    body.copy_within(self.read..self.read + arrived, self.written);
                    self.read += arrived;
                    self.scanned = self.read;
                    self.written += arrived;
                    self.state = State::Data(left - arrived);
                }
                State::DataEnd => {
                    let end = &body[self.read..body.len().min(self.read + 2)];
                    if !b"\r\n".starts_with(end) {
                        return Err(Fault::malformed("the data of a chunk is not followed by CRLF; check the chunk's size"));
                    }
                    if end.len() < 2 {
                        return Ok(false);
                    }
                    self.read += 2;
                    self.scanned = self.read;
                    self.state = State::Size;
                }
                State::Trailer(lines) => {
                    let Some(line) = self.line(body, limits.head_bytes_max, TOO_LONG_TRAILERS)? else { return Ok(false) };
                    if line.is_empty() {
                        self.state = State::Done;
                        continue;
                    }
                    check_trailer(line)?;
                    if lines == limits.headers_max {
                        return Err(Fault::closing(431, format!("more than {lines} trailer fields; send none")));
                    }
                    self.state = State::Trailer(lines + 1);
                }
                State::Done => return Ok(true),
            }
            if self.read - self.written > limits.chunk_framing_bytes_max(self.written) {
                return Err(Fault::malformed("the body is mostly chunk framing; send larger chunks, or Content-Length"));
            }
        }
    }

    /// Bytes of data, all at the front of the body; to be asked when it is complete.
    pub fn data_bytes(&self) -> usize {
        self.written
    }

    /// Bytes of input that the body took, framing included; to be asked when it is complete.
    pub fn consumed(&self) -> usize {
        self.read
    }

    /// The line at `read` without its CRLF, and moves behind it; `None` if it has not ended yet.
    fn line<'a>(&mut self, body: &'a [u8], bytes_max: usize, too_long: (u16, &'static str)) -> Result<Option<&'a [u8]>, Fault> {
        let ended = memchr::memchr2(b'\r', b'\n', &body[self.scanned..]).map(|found| self.scanned + found);
        let at = ended.unwrap_or(body.len());
        if at - self.read > bytes_max {
            return Err(Fault::closing(too_long.0, too_long.1));
        }
        self.scanned = at;
        if ended.is_none() {
            return Ok(None);
        }
        match (body[at], body.get(at + 1)) {
            (b'\r', None) => Ok(None),
            (b'\r', Some(b'\n')) => {
                let line = &body[self.read..at];
                self.read = at + 2;
                self.scanned = self.read;
                Ok(Some(line))
            }
            (b'\r', Some(_)) => Err(Fault::malformed("a line of the chunked body holds a CR that no LF follows")),
            (_, _) => Err(Fault::malformed("a line of the chunked body ends with a bare LF; end every line with CRLF")),
        }
    }
}

const TOO_LONG_LINE: (u16, &str) = (400, "a chunk's size line is too long; leave out its extensions");
const TOO_LONG_TRAILERS: (u16, &str) = (431, "a trailer line is over the bytes of a head; send no trailers");

/// The size in a size line, extensions dropped. 0 means the last chunk.
fn read_size(line: &[u8]) -> Result<u64, Fault> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, rest) = line.split_at(digits);
    if size.is_empty() || size.len() > SIZE_DIGITS_MAX {
        return Err(Fault::malformed("a chunk's size is not 1 to 16 hexadecimal digits"));
    }
    let extension = rest.trim_ascii_start();
    let is_extension = extension.starts_with(b";") && extension.iter().all(|&byte| fields::is_value_byte(byte));
    if !rest.is_empty() && !is_extension {
        return Err(Fault::malformed("a chunk's size is followed by something that is no extension"));
    }
    let value = size.iter().fold(0u64, |value, &digit| {
        let digit = (digit as char).to_digit(16).expect("only hexadecimal digits were taken");
        value << 4 | u64::from(digit)
    });
    Ok(value)
}

/// Trailers are dropped, so they need only be well formed, and none that a careless reader could take for framing.
fn check_trailer(line: &[u8]) -> Result<(), Fault> {
    let colon = memchr::memchr(b':', line).unwrap_or(line.len());
    let (name, value) = line.split_at(colon);
    let well_formed = !name.is_empty()
        && name.iter().all(|&byte| fields::is_token_byte(byte))
        && value.starts_with(b":")
        && value.iter().all(|&byte| fields::is_value_byte(byte));
    if !well_formed {
        return Err(Fault::malformed("a trailer line is not a name, a colon and a value"));
    }
    let forbidden: [&[u8]; 4] = [b"content-length", b"transfer-encoding", b"host", b"content-encoding"];
    if forbidden.iter().any(|known| name.eq_ignore_ascii_case(known)) {
        return Err(Fault::malformed("a trailer names a field that belongs in the head"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a body through in pieces of this many bytes; the data and the bytes consumed, or the status of the fault.
    fn run(input: &[u8], piece: usize, limits: &Limits) -> Result<Option<(Vec<u8>, usize)>, u16> {
        let (mut buffer, mut dechunker) = (Vec::new(), Dechunker::new());
        for part in input.chunks(piece) {
            buffer.extend_from_slice(part);
            if dechunker.advance(&mut buffer, limits).map_err(|fault| fault.status)? {
                let data = buffer[..dechunker.data_bytes()].to_vec();
                return Ok(Some((data, dechunker.consumed())));
            }
        }
        Ok(None)
    }

    #[test]
    fn bodies_in_pieces_of_every_size() {
        let limits = Limits { body_bytes_max: 64, head_bytes_max: 128, headers_max: 2, ..Limits::default() };
        let long_line = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(CHUNK_LINE_BYTES_MAX));
        let most_trailers = "0\r\nA: 1\r\nB: 2\r\n\r\n";
        let too_many_trailers = "0\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n";
        let exact = format!("40\r\n{}\r\n0\r\n\r\n", "x".repeat(64));
        let over = format!("3f\r\n{}\r\n2\r\nab\r\n0\r\n\r\n", "x".repeat(63));
        for (input, expected) in [
            ("0\r\n\r\n", Ok(Some(""))),
            ("5\r\nhello\r\n6;a=b\r\n world\r\n00\r\n\r\n", Ok(Some("hello world"))),
            ("5 ; a=\"b\"\r\nhello\r\n0;x\r\nT: v\r\n\r\n", Ok(Some("hello"))),
            ("A\r\n0123456789\r\n0\r\n\r\n", Ok(Some("0123456789"))),
            (exact.as_str(), Ok(Some("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"))),
            (most_trailers, Ok(Some(""))),
            ("5\r\nhello\r\n0\r\n", Ok(None)),
            ("5\r\nhel", Ok(None)),
            (over.as_str(), Err(413)),
            ("41\r\n", Err(413)),
            ("ffffffffffffffff\r\n", Err(413)),
            ("10000000000000000\r\n", Err(400)),
            ("+5\r\nhello\r\n", Err(400)),
            ("-5\r\nhello\r\n", Err(400)),
            ("0x5\r\nhello\r\n", Err(400)),
            (" 5\r\nhello\r\n", Err(400)),
            ("5 \r\nhello\r\n", Err(400)),
            ("\r\nhello\r\n", Err(400)),
            ("5_0\r\n", Err(400)),
            ("5\nhello\r\n", Err(400)),
            ("5\rhello\r\n", Err(400)),
            ("5;a\n\r\nhello\r\n", Err(400)),
            ("5;a\0\r\nhello\r\n", Err(400)),
            ("5\r\nhello\n0\r\n\r\n", Err(400)),
            ("5\r\nhello!\r\n", Err(400)),
            ("5\r\nhelloX\n", Err(400)),
            ("0\r\nno colon\r\n\r\n", Err(400)),
            ("0\r\n folded: x\r\n\r\n", Err(400)),
            ("0\r\nContent-Length: 5\r\n\r\n", Err(400)),
            ("0\r\nA: \x01\r\n\r\n", Err(400)),
            ("0\r\nA: b\n\r\n", Err(400)),
            (long_line.as_str(), Err(400)),
            (too_many_trailers, Err(431)),
        ] {
            for piece in 1..=input.len() {
                let outcome = run(input.as_bytes(), piece, &limits);
                let wanted = expected.map(|data| data.map(|data| (data.as_bytes().to_vec(), input.len())));
                assert_eq!(outcome, wanted, "{input:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn framing_may_not_outgrow_the_data_without_bound() {
        let limits = Limits::default();
        let crumbs = |count: usize| [b"1\r\nx\r\n".repeat(count), b"0\r\n\r\n".to_vec()].concat();
        assert_eq!(run(&crumbs(1000), 4096, &limits), Ok(Some((vec![b'x'; 1000], 6005))));
        assert_eq!(run(&crumbs(100_000), 4096, &limits), Err(400));
        // Trailers count as well, however short each of them is.
        let limits = Limits { head_bytes_max: 100, ..limits };
        let trailers = ["0\r\n".to_owned(), "A: 12345678901234567890\r\n".repeat(10), "\r\n".to_owned()].concat();
        assert_eq!(run(trailers.as_bytes(), 7, &limits), Err(400));
    }
}
