//! The fields that decide where a request ends and what becomes of its connection (RFC 9112 sections 3.2, 6 and 9).
//!
//! Each is refused where it is ambiguous, even where a repetition says the same, because somebody else may have acted on
//! another reading. It does not know how fields are delimited.
use super::{fields, Encoding, Fault, Limits};

/// Where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// After this many bytes; 0 without `Content-Length`.
    Length(usize),
    /// Where the chunks say.
    Chunked,
}

/// What the fields of a request come to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    /// Where the body ends.
    pub framing: Framing,
    /// Whether another request may follow.
    pub keep_alive: bool,
    /// Whether the client waits for leave to send a body.
    pub expects_continue: bool,
    /// `None` for a coding, or a number of them, that is not understood.
    pub encoding: Option<Encoding>,
}

/// What the fields that decide framing and persistence have said so far.
#[derive(Default)]
pub(super) struct Rules<'b> {
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
    /// Looks at one field. The order of fields does not matter.
    pub fn take(&mut self, name: &[u8], value: &'b [u8]) -> Result<(), Fault> {
        // The length tells most fields apart before their letters are compared.
        match name.len() {
            4 if fields::is_named(name, b"host") => {
                once(&mut self.host, value, "Host is given more than once; send it once")?;
                if !fields::is_authority(value) {
                    return Err(Fault::malformed("Host is not a host name or address with an optional port"));
                }
            }
            6 if fields::is_named(name, b"expect") => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Fault::closing(417, "the only expectation that can be met is 100-continue"));
                }
                self.expects_continue = true;
            }
            10 if fields::is_named(name, b"connection") => {
                for option in fields::list(value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if fields::is_named(name, b"content-length") => {
                once(&mut self.content_length, value, "Content-Length is given more than once; send it once")?;
            }
            16 if fields::is_named(name, b"content-encoding") => {
                for coding in fields::list(value) {
                    self.content_codings += 1;
                    self.encoding = coding_named(coding);
                }
            }
            17 if fields::is_named(name, b"transfer-encoding") => {
                once(&mut self.transfer_encoding, value, "Transfer-Encoding is given more than once; send one chunked")?;
            }
            _ => {}
        }
        Ok(())
    }

    /// What all fields together mean for a request of this version.
    pub fn finish(&self, http_1_0: bool, limits: &Limits) -> Result<Verdict, Fault> {
        if self.host.is_none() && !http_1_0 {
            return Err(Fault::malformed("HTTP/1.1 needs a Host field"));
        }
        let framing = self.framing(http_1_0, limits)?;
        Ok(Verdict {
            framing,
            keep_alive: !self.close && (self.keep_alive || !http_1_0),
            // An HTTP/1.0 client cannot mean it (RFC 9110 section 10.1.1).
            expects_continue: self.expects_continue && !http_1_0 && framing != Framing::Length(0),
            encoding: match self.content_codings {
                0 => Some(Encoding::Identity),
                1 => self.encoding,
                _ => None,
            },
        })
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
