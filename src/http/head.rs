//! A complete head, read and checked: what is asked, in which fields, and how the body is delimited.
//!
//! The input has passed [`super::scan`], so its lines end in CRLF and hold no NUL. `httparse` checks the octets; the rules
//! about fields that decide framing are here (RFC 9112 sections 3, 5 and 6), each one refused where it is ambiguous.
use super::{fields, target::Target, Fault, Limits, HEADERS_CAP, HEAD_BYTES_CAP};
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

/// Where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// After this many bytes; 0 without `Content-Length`.
    Length(usize),
    /// Where the chunks say.
    Chunked,
}

/// One header field, as places in the head.
#[derive(Clone, Copy, Default)]
struct Field {
    name_at: u16,
    name_bytes: u16,
    value_at: u16,
    value_bytes: u16,
}

/// The request line and the fields of one request, borrowed from the connection's input.
#[derive(Clone)]
pub struct RequestHead<'b> {
    /// What to do.
    pub method: Method,
    /// Begins with `/`, still percent-encoded; or `*` for an `OPTIONS` of the whole server.
    pub path: &'b str,
    /// What follows the first `?` of the target, without it; see [`super::pairs`].
    pub query: Option<&'b str>,
    /// Whether the client speaks HTTP/1.0, which must be told when the connection stays open.
    pub http_1_0: bool,
    /// Whether the connection may carry another request after this one. Where it is false, read nothing more.
    pub keep_alive: bool,
    bytes: &'b [u8],
    fields: [Field; HEADERS_CAP],
    field_count: usize,
    encoding: Option<Encoding>,
    pub(super) framing: Framing,
    pub(super) expects_continue: bool,
}

impl<'b> RequestHead<'b> {
    /// All fields in their order: name as sent, value without the space around it. Values may hold any byte but controls.
    pub fn headers(&self) -> impl Iterator<Item = (&'b [u8], &'b [u8])> + '_ {
        let bytes = self.bytes;
        self.fields[..self.field_count].iter().map(move |field| {
            let (name, value) = (usize::from(field.name_at), usize::from(field.value_at));
            (&bytes[name..name + usize::from(field.name_bytes)], &bytes[value..value + usize::from(field.value_bytes)])
        })
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
        self.encoding.ok_or_else(|| {
            Fault::staying(415, "the Content-Encoding is not supported; send the body plain, or in one of gzip, deflate, zstd")
        })
    }

    /// Reads a head that ends with its empty line.
    pub(super) fn parse(bytes: &'b [u8], limits: &Limits) -> Result<Self, Fault> {
        debug_assert!(bytes.ends_with(b"\r\n\r\n") && bytes.len() <= HEAD_BYTES_CAP);
        let mut slots = [const { MaybeUninit::<httparse::Header<'b>>::uninit() }; HEADERS_CAP];
        let slots = &mut slots[..limits.headers_max.min(HEADERS_CAP)];
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(bytes, slots) {
            Ok(httparse::Status::Complete(consumed)) if consumed == bytes.len() => {}
            Ok(httparse::Status::Complete(_) | httparse::Status::Partial) => {
                return Err(Fault::malformed("the head is not a request line followed by header fields"));
            }
            Err(error) => return Err(explain(error, bytes, limits)),
        }
        let method = Method::of(parsed.method.unwrap_or_default());
        let target = Target::parse(method, parsed.path.unwrap_or_default())?;
        let http_1_0 = parsed.version == Some(0);

        let mut head = Self {
            method,
            path: target.path,
            query: target.query,
            http_1_0,
            keep_alive: !http_1_0,
            bytes,
            fields: [Field::default(); HEADERS_CAP],
            field_count: parsed.headers.len(),
            encoding: Some(Encoding::Identity),
            framing: Framing::Length(0),
            expects_continue: false,
        };
        let base = bytes.as_ptr() as usize;
        let mut rules = Rules::default();
        for (place, header) in head.fields.iter_mut().zip(parsed.headers.iter()) {
            // Both are slices of a head that is at most HEAD_BYTES_CAP long, so the differences fit.
            *place = Field {
                name_at: (header.name.as_ptr() as usize - base) as u16,
                name_bytes: header.name.len() as u16,
                value_at: (header.value.as_ptr() as usize - base) as u16,
                value_bytes: header.value.len() as u16,
            };
            rules.take(header.name, header.value)?;
        }
        rules.finish(&mut head, limits)?;
        Ok(head)
    }
}

impl std::fmt::Debug for RequestHead<'_> {
    /// Leaves out the query and the values of fields, where secrets travel.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("http_1_0", &self.http_1_0)
            .field("keep_alive", &self.keep_alive)
            .field("framing", &self.framing)
            .finish_non_exhaustive()
    }
}

/// What the fields that decide framing and persistence have said so far.
#[derive(Default)]
struct Rules<'b> {
    host: Option<&'b [u8]>,
    content_length: Option<&'b [u8]>,
    transfer_encoding: Option<&'b [u8]>,
    content_codings: usize,
    encoding: Option<Encoding>,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl<'b> Rules<'b> {
    fn take(&mut self, name: &str, value: &'b [u8]) -> Result<(), Fault> {
        // The length tells most fields apart before their letters are compared.
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => {
                once(&mut self.host, value, "Host is given more than once; send it once")?;
                if !fields::is_authority(value) {
                    return Err(Fault::malformed("Host is not a host name or address with an optional port"));
                }
            }
            6 if name.eq_ignore_ascii_case("expect") => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Fault::closing(417, "the only expectation that can be met is 100-continue"));
                }
                self.expects_continue = true;
            }
            10 if name.eq_ignore_ascii_case("connection") => {
                for option in fields::list(value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if name.eq_ignore_ascii_case("content-length") => {
                once(&mut self.content_length, value, "Content-Length is given more than once; send it once")?;
            }
            16 if name.eq_ignore_ascii_case("content-encoding") => {
                for coding in fields::list(value) {
                    self.content_codings += 1;
                    self.encoding = coding_named(coding);
                }
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                once(&mut self.transfer_encoding, value, "Transfer-Encoding is given more than once; send one chunked")?;
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(self, head: &mut RequestHead<'b>, limits: &Limits) -> Result<(), Fault> {
        if self.host.is_none() && !head.http_1_0 {
            return Err(Fault::malformed("HTTP/1.1 needs a Host field"));
        }
        head.framing = self.framing(head.http_1_0, limits)?;
        // An HTTP/1.0 client cannot mean it (RFC 9110 section 10.1.1).
        head.expects_continue = self.expects_continue && !head.http_1_0 && head.framing != Framing::Length(0);
        head.keep_alive = !self.close && (self.keep_alive || !head.http_1_0);
        head.encoding = match self.content_codings {
            0 => Some(Encoding::Identity),
            1 => self.encoding,
            _ => None,
        };
        Ok(())
    }

    fn framing(&self, http_1_0: bool, limits: &Limits) -> Result<Framing, Fault> {
        match (self.transfer_encoding, self.content_length) {
            (Some(_), Some(_)) => Err(Fault::malformed("Transfer-Encoding and Content-Length exclude each other; send one")),
            (Some(_), None) if http_1_0 => Err(Fault::malformed("HTTP/1.0 has no Transfer-Encoding; send Content-Length")),
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            (Some(codings), None) => Err(explain_codings(codings)),
            (None, Some(length)) => {
                let Some(length) = fields::decimal(length) else {
                    return Err(Fault::malformed("Content-Length is not one plain decimal number"));
                };
                match usize::try_from(length) {
                    Ok(length) if length <= limits.body_bytes_max => Ok(Framing::Length(length)),
                    Ok(_) | Err(_) => Err(body_too_large(limits)),
                }
            }
            (None, None) => Ok(Framing::Length(0)),
        }
    }
}

/// Keeps the value of a field that may come once only, even where a repetition says the same.
fn once<'b>(slot: &mut Option<&'b [u8]>, value: &'b [u8], repeated: &'static str) -> Result<(), Fault> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Fault::malformed(repeated)),
    }
}

/// The body, as declared or as received, is over its cap.
pub(super) fn body_too_large(limits: &Limits) -> Fault {
    Fault::closing(413, format!("the body is over {} bytes; send less in one request", limits.body_bytes_max))
}

fn coding_named(coding: &[u8]) -> Option<Encoding> {
    let known: [(&[u8], Encoding); 5] = [
        (b"gzip", Encoding::Gzip),
        (b"x-gzip", Encoding::Gzip),
        (b"deflate", Encoding::Deflate),
        (b"zstd", Encoding::Zstd),
        (b"identity", Encoding::Identity),
    ];
    known.iter().find(|(name, _)| coding.eq_ignore_ascii_case(name)).map(|(_, encoding)| *encoding)
}

/// Tells codings that end in `chunked`, which are merely not implemented, from those that leave the body without an end
/// (RFC 9112 sections 6.1 and 6.3).
fn explain_codings(codings: &[u8]) -> Fault {
    let is_chunked = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let ends_chunked = fields::list(codings).last().is_some_and(|last| is_chunked(&last));
    let chunked_once = fields::list(codings).filter(is_chunked).count() == 1;
    if ends_chunked && chunked_once && fields::list(codings).count() > 1 {
        return Fault::closing(501, "of all transfer codings only chunked is understood; use Content-Encoding to compress");
    }
    Fault::malformed("Transfer-Encoding is not exactly chunked, so the body has no certain end")
}

/// Finds the words for what `httparse` refused.
fn explain(error: httparse::Error, bytes: &[u8], limits: &Limits) -> Fault {
    let line_end = memchr::memchr(b'\r', bytes).unwrap_or(bytes.len());
    match error {
        httparse::Error::TooManyHeaders => {
            Fault::closing(431, format!("more than {} header fields; send fewer", limits.headers_max))
        }
        httparse::Error::HeaderName => explain_name(&bytes[line_end..]),
        httparse::Error::HeaderValue => Fault::malformed("a header value holds a control byte; send visible text only"),
        httparse::Error::Version | httparse::Error::Token | httparse::Error::NewLine | httparse::Error::Status => {
            explain_request_line(&bytes[..line_end])
        }
    }
}

fn explain_name(lines: &[u8]) -> Fault {
    for line in lines.split(|&byte| byte == b'\n').skip(1) {
        if line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
            return Fault::malformed("a header line begins with space; folded lines are obsolete, write each field on one line");
        }
        let name = &line[..memchr::memchr(b':', line).unwrap_or(line.len())];
        if name.last().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
            return Fault::malformed("there is space between a header name and its colon; remove it");
        }
    }
    Fault::malformed("a header line is not a name made of token characters, a colon and a value")
}

fn explain_request_line(line: &[u8]) -> Fault {
    let version = line.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
    let parts = line.split(|&byte| byte == b' ').count();
    match version {
        // 1.0 and 1.1 would have been understood, so something before them was wrong.
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if parts == 3 && major.is_ascii_digit() && minor.is_ascii_digit() => {
            if *major == b'1' && matches!(minor, b'0' | b'1') {
                Fault::malformed("the request line holds a byte that its method or target may not")
            } else {
                Fault::closing(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
            }
        }
        _ => Fault::malformed("the request line is not a method, a target and a version with one space between them"),
    }
}
