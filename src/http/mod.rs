//! HTTP/1.1 as bytes: requests out of a connection's input, replies onto its output, bodies within their bounds.
//!
//! Everything here is a function of its arguments: no sockets, no clock, no state but the [`Framer`] of a connection. It
//! does not know the routes, the JSON, or what a request is worth; it imports nothing from the other modules.
//!
//! What RFC 9112 leaves to the server is decided as follows, always on the strict side, because a request that two
//! parties read differently is how requests are smuggled:
//! - Only CRLF ends a line. Whitespace before a colon, folded lines and control bytes are refused.
//! - Versions other than 1.0 and 1.1 are refused with 505, a later minor one included: none has ever been published.
//! - `Transfer-Encoding` may say `chunked`, once, on HTTP/1.1, without `Content-Length`; nothing else is understood.
//! - Chunk extensions are read and ignored, a size line has at most [`CHUNK_LINE_BYTES_MAX`] bytes, and the framing of
//!   a chunked body may take no more bytes than [`Limits::chunk_framing_bytes_max`] allows for the data that it carried.
//! - Trailer fields are checked and dropped; one that would change the framing is refused.
//! - An absolute target wins over `Host` (RFC 9112 section 3.2.2), and `Host` must be well formed all the same.
//! - At most [`EMPTY_LINES_MAX`] empty lines before a request line are skipped.
//! - Every fault of framing closes the connection; a fault in how a well-framed body is encoded does not.
mod chunked;
mod date;
mod decompress;
mod explain;
mod fault;
mod fields;
mod framer;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod head;
mod query;
mod reply;
mod rules;
mod scan;
mod target;

pub use chunked::CHUNK_LINE_BYTES_MAX;
pub use date::{http_date, HTTP_DATE_BYTES};
pub use decompress::{decode, ACCEPT_ENCODING, MEMBERS_MAX};
pub use fault::Fault;
pub use fields::is_named;
pub use framer::{Framer, Request, Step};
pub use head::{Encoding, Method, RequestHead};
pub use query::{pairs, Pairs};
pub use reply::{begin, finish, write, Begun, Connection, ReplyHead, CONTINUE};
pub use scan::EMPTY_LINES_MAX;

/// Most header fields that a configuration can allow in one request.
pub const HEADERS_CAP: usize = 64;
/// Most bytes of head that a configuration can allow; places in the head are kept in 16 bits.
pub const HEAD_BYTES_CAP: usize = u16::MAX as usize;

/// Most bytes of body that a configuration can allow: a body is held in memory, twice when it is compressed.
pub const BODY_BYTES_CAP: usize = 1 << 30;

/// What one request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of request line and header fields, with their line ends; at most [`HEAD_BYTES_CAP`].
    pub head_bytes_max: usize,
    /// Number of header fields; at most [`HEADERS_CAP`].
    pub headers_max: usize,
    /// Bytes of body, counted both as received (without chunk framing) and after decompression; at most [`BODY_BYTES_CAP`].
    pub body_bytes_max: usize,
    /// How many times larger than its compressed form a body may become.
    pub decompress_ratio_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { head_bytes_max: 16 * 1024, headers_max: HEADERS_CAP, body_bytes_max: 1024 * 1024, decompress_ratio_max: 10 }
    }
}

impl Limits {
    /// Bytes that size lines, extensions, line ends and trailers may take around `data_bytes` of a chunked body: as many
    /// as the data, and a head's worth on top. Chunks of one byte each are fine for a small body and refused for a large one.
    pub fn chunk_framing_bytes_max(&self, data_bytes: usize) -> usize {
        self.head_bytes_max.saturating_add(data_bytes)
    }

    /// Bytes of input after which [`Framer::next`] has surely stopped asking for more of the same request, so that an
    /// input buffer that can grow this far never blocks one.
    pub fn request_bytes_max(&self) -> usize {
        let body = self.body_bytes_max.saturating_add(self.chunk_framing_bytes_max(self.body_bytes_max));
        (2 * EMPTY_LINES_MAX + self.head_bytes_max + CHUNK_LINE_BYTES_MAX).saturating_add(body)
    }

    /// Checks the limits against what the code can represent.
    ///
    /// # Panics
    /// If a limit is zero or over its cap: the configuration must have refused it.
    pub fn assert_valid(&self) {
        assert!((1..=HEAD_BYTES_CAP).contains(&self.head_bytes_max), "head_bytes_max must be 1 to {HEAD_BYTES_CAP}");
        assert!((1..=HEADERS_CAP).contains(&self.headers_max), "headers_max must be 1 to {HEADERS_CAP}");
        assert!((1..=BODY_BYTES_CAP).contains(&self.body_bytes_max), "body_bytes_max must be 1 to {BODY_BYTES_CAP}");
        assert!(self.decompress_ratio_max > 0, "decompress_ratio_max must be positive");
    }
}
