//! A complete head, read and checked: what is asked, and in which fields.
//!
//! `httparse` checks the octets. It is lax about line ends alone, so those are either scanned before it runs or compared with
//! what it found. A head is kept as places in its bytes, so that the body behind it can be handed out for writing.
use super::rules::{Framing, Rules, Verdict};
use super::{explain::explain, fields, target::Target, Fault, Limits, HEADERS_CAP, HEAD_BYTES_CAP};
use std::mem::MaybeUninit;

/// A request method. Names are case-sensitive (RFC 9110 section 9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Head,
    Post,
    Options,
    Put,
    Delete,
    Patch,
    Trace,
    Connect,
    /// Any other token.
    Other,
}

impl Method {
    fn of(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "OPTIONS" => Self::Options,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            "PATCH" => Self::Patch,
            "TRACE" => Self::Trace,
            "CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }
}

/// How the bytes of a body stand for its content (RFC 9110 section 8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As they are.
    Identity,
    /// RFC 1952, one member or several.
    Gzip,
    /// RFC 1950, or the bare RFC 1951 that some clients send under this name.
    Deflate,
    /// RFC 8878, within the window of RFC 9659.
    Zstd,
}

/// A run of bytes in a head, which is at most [`HEAD_BYTES_CAP`] long.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    at: u16,
    bytes: u16,
}

impl Span {
    /// The place of `part`, which must be a slice of `whole`.
    fn of(part: &[u8], whole: &[u8]) -> Self {
        let at = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        debug_assert!(at + part.len() <= whole.len());
        Self { at: at as u16, bytes: part.len() as u16 }
    }

    fn within(self, whole: &[u8]) -> &[u8] {
        let at = usize::from(self.at);
        &whole[at..at + usize::from(self.bytes)]
    }
}

/// A head without its bytes; one is filled again for each request of a connection.
#[derive(Debug)]
pub(super) struct Places {
    method: Method,
    http_1_0: bool,
    path: Path,
    query: Option<Span>,
    /// Name and value of each field.
    fields: [(Span, Span); HEADERS_CAP],
    field_count: usize,
    pub verdict: Verdict,
}

/// A path that stands in the head, or one that an absolute target left out.
#[derive(Clone, Copy, Debug)]
enum Path {
    Written(Span),
    Implied(&'static str),
}

impl Default for Places {
    fn default() -> Self {
        Self {
            method: Method::Other,
            http_1_0: false,
            path: Path::Implied("/"),
            query: None,
            fields: [Default::default(); HEADERS_CAP],
            field_count: 0,
            verdict: Verdict {
                framing: Framing::Length(0),
                keep_alive: false,
                expects_continue: false,
                encoding: Some(Encoding::Identity),
            },
        }
    }
}

type Slots<'b> = [MaybeUninit<httparse::Header<'b>>; HEADERS_CAP];

impl Places {
    /// Reads the head at the front of `input` if it is whole and its line ends are strict; the bytes that it takes. `None`
    /// if not, or if anything but fields is wrong with it: then the scan must say how far it goes, or why it cannot.
    pub fn read_front(&mut self, input: &[u8], limits: &Limits) -> Option<Result<usize, Fault>> {
        if !input.first().is_some_and(|&byte| fields::is_token_byte(byte)) {
            return None;
        }
        let mut slots: Slots<'_> = [const { MaybeUninit::uninit() }; HEADERS_CAP];
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(input, &mut slots[..limits.headers_max.min(HEADERS_CAP)]) {
            Ok(httparse::Status::Complete(end)) if end <= limits.head_bytes_max => {
                let head = &input[..end];
                // Each field ends one line and begins the next, so every line end stands before a name or at the end.
                let strict = head.ends_with(b"\r\n\r\n")
                    && parsed.headers.iter().all(|header| {
                        let name_at = usize::from(Span::of(header.name.as_bytes(), head).at);
                        head[..name_at].ends_with(b"\r\n")
                    });
                strict.then(|| self.fill(&parsed, head, limits).map(|()| end))
            }
            Ok(httparse::Status::Complete(_) | httparse::Status::Partial) | Err(_) => None,
        }
    }

    /// Reads a head that the scan has delimited.
    pub fn read(&mut self, head: &[u8], limits: &Limits) -> Result<(), Fault> {
        assert!(head.ends_with(b"\r\n\r\n") && head.len() <= HEAD_BYTES_CAP, "the scan delimits heads");
        let mut slots: Slots<'_> = [const { MaybeUninit::uninit() }; HEADERS_CAP];
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(head, &mut slots[..limits.headers_max.min(HEADERS_CAP)]) {
            Ok(httparse::Status::Complete(end)) if end == head.len() => self.fill(&parsed, head, limits),
            Ok(httparse::Status::Complete(_) | httparse::Status::Partial) => {
                Err(Fault::malformed("the head is not a request line followed by header fields"))
            }
            Err(error) => Err(explain(error, head, limits)),
        }
    }

    fn fill(&mut self, parsed: &httparse::Request<'_, '_>, head: &[u8], limits: &Limits) -> Result<(), Fault> {
        self.method = Method::of(parsed.method.unwrap_or_default());
        self.http_1_0 = parsed.version == Some(0);
        let text = parsed.path.unwrap_or_default();
        let target = Target::parse(self.method, text)?;
        self.path = match target.path {
            Some(path) => Path::Written(Span::of(path.as_bytes(), head)),
            None if self.method == Method::Options && target.query.is_none() => Path::Implied("*"),
            None => Path::Implied("/"),
        };
        self.query = target.query.map(|query| Span::of(query.as_bytes(), head));
        let mut rules = Rules::default();
        for (place, header) in self.fields.iter_mut().zip(parsed.headers.iter()) {
            *place = (Span::of(header.name.as_bytes(), head), Span::of(header.value, head));
            rules.take(header.name.as_bytes(), header.value)?;
        }
        self.field_count = parsed.headers.len();
        self.verdict = rules.finish(self.http_1_0, limits)?;
        Ok(())
    }
}

/// The request line and the fields of one request, borrowed from the connection's input.
#[derive(Clone, Copy)]
pub struct RequestHead<'b> {
    pub(super) bytes: &'b [u8],
    pub(super) places: &'b Places,
}

impl<'b> RequestHead<'b> {
    /// What to do.
    pub fn method(&self) -> Method {
        self.places.method
    }

    /// Begins with `/`, still percent-encoded; or is `*` for an `OPTIONS` of the whole server.
    pub fn path(&self) -> &'b str {
        match self.places.path {
            Path::Written(span) => text(span.within(self.bytes)),
            Path::Implied(path) => path,
        }
    }

    /// What follows the first `?` of the target, without it; see [`super::pairs`].
    pub fn query(&self) -> Option<&'b str> {
        self.places.query.map(|span| text(span.within(self.bytes)))
    }

    /// Whether the client speaks HTTP/1.0, which must be told when the connection stays open.
    pub fn http_1_0(&self) -> bool {
        self.places.http_1_0
    }

    /// Whether the connection may carry another request after this one. Where it is false, read nothing more.
    pub fn keep_alive(&self) -> bool {
        self.places.verdict.keep_alive
    }

    /// All fields in their order: name as sent, value without the space around it. Values may hold any byte but controls.
    pub fn headers(&self) -> impl Iterator<Item = (&'b [u8], &'b [u8])> + 'b {
        let bytes = self.bytes;
        self.places.fields[..self.places.field_count].iter().map(move |(name, value)| (name.within(bytes), value.within(bytes)))
    }

    /// The value of the first field of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.headers().find(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// How the body is encoded.
    ///
    /// # Errors
    /// 415 for a coding that is not understood, and for more than one on top of each other. The connection can stay open;
    /// the reply should name [`super::ACCEPT_ENCODING`] in an `Accept-Encoding` field (RFC 9110 section 15.5.16).
    pub fn encoding(&self) -> Result<Encoding, Fault> {
        self.places.verdict.encoding.ok_or_else(|| {
            Fault::staying(415, "the Content-Encoding is not supported; send the body plain, or in one of gzip, deflate, zstd")
        })
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("a target is checked to be ASCII")
}

impl std::fmt::Debug for RequestHead<'_> {
    /// Leaves out the query and the values of fields, where secrets travel.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.method())
            .field("path", &self.path())
            .field("http_1_0", &self.http_1_0())
            .field("verdict", &self.places.verdict)
            .finish_non_exhaustive()
    }
}
