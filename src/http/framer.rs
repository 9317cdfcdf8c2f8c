//! Cuts the input of one connection into requests.
//!
//! Sans-I/O: the worker reads bytes and hands over all that it has not used up yet; the framer says what is there. It keeps
//! its place between calls, so that input which dribbles in costs no more than input which arrives at once, and after a
//! fault it only repeats the fault. It does not know sockets, time, or what happens to a request.
use super::chunked::Dechunker;
use super::head::Places;
use super::rules::Framing;
use super::scan::Scan;
use super::{Fault, Limits, RequestHead, HEAD_BYTES_CAP};

/// The reader's place in the input of one connection.
#[derive(Debug, Default)]
pub struct Framer {
    phase: Phase,
    /// Where the parts of the head lie that was read last.
    places: Places,
}

#[derive(Debug)]
enum Phase {
    /// The head has not ended yet.
    Head(Scan),
    /// The head lies at `start..end` and is good; its body is arriving.
    Body { start: usize, end: usize, body: Body },
    /// Where the next request begins is no longer certain.
    Refused(Fault),
}

impl Default for Phase {
    fn default() -> Self {
        Self::Head(Scan::default())
    }
}

#[derive(Clone, Copy, Debug)]
enum Body {
    Plain { bytes: usize },
    Chunked(Dechunker),
}

impl Body {
    /// Bytes of data and bytes of input, once all of the body is there.
    fn advance(&mut self, rest: &mut [u8], limits: &Limits) -> Result<Option<(usize, usize)>, Fault> {
        match self {
            Self::Plain { bytes } => Ok((rest.len() >= *bytes).then_some((*bytes, *bytes))),
            Self::Chunked(dechunker) => {
                Ok(dechunker.advance(rest, limits)?.then(|| (dechunker.data_bytes(), dechunker.consumed())))
            }
        }
    }
}

/// What the input holds next.
#[derive(Debug)]
// The large variant is the common one, it is used up where it is returned, and a box would be an allocation per request.
#[allow(clippy::large_enum_variant)]
pub enum Step<'b> {
    /// No complete request yet: read more and append it.
    NeedMore {
        /// True once per request whose client waits for leave to send its body: write [`super::CONTINUE`] now.
        expect_continue: bool,
    },
    /// A complete request.
    Request(Request<'b>),
    /// The input cannot be served. Reply and close the connection; every further call says the same.
    Refused(Fault),
}

/// One complete request, borrowed from the connection's input.
#[derive(Debug)]
pub struct Request<'b> {
    /// The request line and the header fields.
    pub head: RequestHead<'b>,
    /// The body without chunk framing, still content-encoded; see [`RequestHead::encoding`]. A parser may work in it.
    pub body: &'b mut [u8],
    /// Bytes of input that this request took. They must be gone from the front of the buffer at the next call.
    pub consumed: usize,
}

impl Framer {
    /// Looks for a request at the front of `buffer`, which holds all input of the connection that no request has consumed.
    ///
    /// Between calls the buffer may move and must grow only at its end, by what was read. After [`Step::Request`] the
    /// caller drops the consumed bytes and calls again, until more input is needed; a request whose `keep_alive` is false
    /// is the last one. The bytes of a chunked body that has not ended may be changed by this call.
    ///
    /// # Panics
    /// If `limits` allow a longer head than [`HEAD_BYTES_CAP`].
    pub fn next<'b>(&'b mut self, buffer: &'b mut [u8], limits: &Limits) -> Step<'b> {
        assert!(limits.head_bytes_max <= HEAD_BYTES_CAP, "places in a head are kept in 16 bits");
        match self.find(buffer, limits) {
            Ok(Found::Nothing { expect_continue }) => Step::NeedMore { expect_continue },
            Ok(Found::Request { start, end, data_bytes, body_bytes }) => {
                self.phase = Phase::default();
                let (head, rest) = buffer.split_at_mut(end);
                let head = RequestHead { bytes: &head[start..], places: &self.places };
                Step::Request(Request { head, body: &mut rest[..data_bytes], consumed: end + body_bytes })
            }
            Err(fault) => {
                debug_assert!(fault.close, "framing faults close the connection");
                self.phase = Phase::Refused(fault.clone());
                Step::Refused(fault)
            }
        }
    }

    /// Whether a part of a request has been seen: a connection that ends or idles now leaves a request incomplete.
    pub fn is_inside_request(&self, buffered_bytes: usize) -> bool {
        match &self.phase {
            Phase::Head(scan) => buffered_bytes > scan.start,
            Phase::Body { .. } => true,
            Phase::Refused(_) => false,
        }
    }

    /// Finds the extent of the next request, and fills in the places of its head once it is complete.
    fn find(&mut self, buffer: &mut [u8], limits: &Limits) -> Result<Found, Fault> {
        let Self { phase, places } = self;
        let (start, end, mut body, resumed) = match phase {
            Phase::Head(scan) => {
                // Nearly every head arrives whole, and needs no scan; one that does not is scanned from here on.
                let front = if scan.is_fresh() { places.read_front(buffer, limits) } else { None };
                let (start, end) = match front {
                    Some(end) => (0, end?),
                    None => {
                        let Some(end) = scan.advance(buffer, limits)? else {
                            return Ok(Found::Nothing { expect_continue: false });
                        };
                        places.read(&buffer[scan.start..end], limits)?;
                        (scan.start, end)
                    }
                };
                let body = match places.verdict.framing {
                    Framing::Length(bytes) => Body::Plain { bytes },
                    Framing::Chunked => Body::Chunked(Dechunker::new()),
                };
                (start, end, body, false)
            }
            Phase::Body { start, end, body } => (*start, *end, *body, true),
            Phase::Refused(fault) => return Err(fault.clone()),
        };
        let rest = &mut buffer[end..];
        let Some((data_bytes, body_bytes)) = body.advance(rest, limits)? else {
            let expect_continue = !resumed && places.verdict.expects_continue && rest.is_empty();
            *phase = Phase::Body { start, end, body };
            return Ok(Found::Nothing { expect_continue });
        };
        Ok(Found::Request { start, end, data_bytes, body_bytes })
    }
}

/// What lies at the front of the input: places that the borrow of it does not bind.
enum Found {
    Nothing { expect_continue: bool },
    Request { start: usize, end: usize, data_bytes: usize, body_bytes: usize },
}
