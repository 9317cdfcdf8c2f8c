//! The headers that the API reads, collected in one pass.
//!
//! Invariants: of a header that can only have one meaning, two that differ are refused, never chosen from; a value that is
//! not visible ASCII is refused where it would matter. Names are compared without regard to case.
use crate::domain::limits::CORR_BYTES_MAX;
use crate::domain::{Code, Refusal};
use crate::http::is_named;

/// What counts of the headers of one request. Values are ASCII.
#[derive(Clone, Copy, Debug, Default)]
pub struct IncomingHeaders<'a> {
    /// `Authorization`.
    pub authorization: Option<&'a [u8]>,
    /// `X-Wallet-Discharge`.
    pub discharge: Option<&'a [u8]>,
    /// `Idempotency-Key`, or `X-Idempotency-Key`.
    pub idempotency_key: Option<&'a [u8]>,
    /// `Content-Type`.
    pub content_type: Option<&'a [u8]>,
    /// The best of `X-Corr-ID`, `X-Request-ID` and `X-Correlation-ID`, in this order, that can be echoed as it is.
    pub corr: Option<&'a str>,
    /// The trace that the request belongs to, from `traceparent`.
    pub trace: Option<TraceContext>,
    traces: u8,
    corr_rank: u8,
    flaw: Option<Flaw>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    RepeatedAuthorization,
    RepeatedDischarge,
    TwoKeys,
    TwoContentTypes,
    NotText,
}

impl<'a> IncomingHeaders<'a> {
    /// Takes note of one header. To be called for each, in their order.
    pub fn observe(&mut self, name: &[u8], value: &'a [u8]) {
        // The length decides first: most headers are none of ours and cost one comparison.
        match name.len() {
            13 if is_named(name, b"authorization") => {
                let flaw = self.authorization.is_some().then_some(Flaw::RepeatedAuthorization);
                self.authorization = self.ascii(value, flaw);
            }
            15 if is_named(name, b"idempotency-key") => self.key(value),
            17 if is_named(name, b"x-idempotency-key") => self.key(value),
            12 if is_named(name, b"content-type") => {
                let flaw = self.content_type.is_some_and(|known| known != value).then_some(Flaw::TwoContentTypes);
                self.content_type = self.ascii(value, flaw);
            }
            18 if is_named(name, b"x-wallet-discharge") => {
                let flaw = self.discharge.is_some().then_some(Flaw::RepeatedDischarge);
                self.discharge = self.ascii(value, flaw);
            }
            9 if is_named(name, b"x-corr-id") => self.corr(value, 3),
            12 if is_named(name, b"x-request-id") => self.corr(value, 2),
            16 if is_named(name, b"x-correlation-id") => self.corr(value, 1),
            11 if is_named(name, b"traceparent") => {
                self.traces = self.traces.saturating_add(1);
                // Of two the right one cannot be known; tracing is no reason to refuse a spend.
                self.trace = if self.traces == 1 { TraceContext::of_traceparent(value) } else { None };
            }
            _ => {}
        }
    }

    /// What can be told of the headers of a message that is not served: the lines that are complete, however wrong others are.
    pub fn of_lines(input: &'a [u8]) -> Self {
        let mut headers = Self::default();
        // The request line holds no header, and what follows the last line end may be cut short.
        let mut lines = input.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")).map(<[u8]>::trim_ascii);
        let fields = lines.by_ref().skip_while(|line| line.is_empty()).skip(1).take_while(|line| !line.is_empty());
        for line in fields {
            if let Some(colon) = line.iter().position(|byte| *byte == b':') {
                headers.observe(&line[..colon], line[colon + 1..].trim_ascii());
            }
        }
        headers
    }

    /// Refuses headers that contradict each other; to be asked before any of them is used.
    pub fn check(&self) -> Result<(), Refusal> {
        let Some(flaw) = self.flaw else { return Ok(()) };
        let message = match flaw {
            Flaw::RepeatedAuthorization => "more than one Authorization header; send one",
            Flaw::RepeatedDischarge => "more than one X-Wallet-Discharge header; send all discharges in one, separated by commas",
            Flaw::TwoKeys => "Idempotency-Key headers that differ; send one",
            Flaw::TwoContentTypes => "Content-Type headers that differ; send one",
            Flaw::NotText => "a header of the API holds bytes that are not visible ASCII; send it as plain text",
        };
        Err(Refusal::new(Code::BadRequest, message))
    }

    fn key(&mut self, value: &'a [u8]) {
        let flaw = self.idempotency_key.is_some_and(|known| known != value).then_some(Flaw::TwoKeys);
        self.idempotency_key = self.ascii(value, flaw);
    }

    fn corr(&mut self, value: &'a [u8], rank: u8) {
        if rank > self.corr_rank {
            if let Some(text) = correlation(value) {
                self.corr = Some(text);
                self.corr_rank = rank;
            }
        }
    }

    /// The first flaw is kept. A value that is not ASCII counts as absent; control bytes have not come this far, because the framing
    /// refuses them.
    fn ascii(&mut self, value: &'a [u8], flaw: Option<Flaw>) -> Option<&'a [u8]> {
        let ascii = value.is_ascii();
        self.flaw = self.flaw.or(if ascii { flaw } else { Some(Flaw::NotText) });
        ascii.then_some(value)
    }
}

/// The flag of a trace that is recorded.
const RECORDED: u8 = 1;

/// The place of a request in a trace that spans services, as W3C Trace Context has it. It is shown as the id of the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace: 16 bytes, not all of them zero.
    pub trace: [u8; 16],
    /// The span of whoever sent the request: not all of them zero.
    pub parent: [u8; 8],
    /// Whether whoever sent it records the trace.
    pub is_recorded: bool,
}

impl TraceContext {
    /// That of a `traceparent` of version 00. `None` for anything that is not exactly one: then there is no trace.
    pub fn of_traceparent(value: &[u8]) -> Option<Self> {
        let [b'0', b'0', b'-', rest @ ..] = value else { return None };
        if rest.len() != 52 || rest[32] != b'-' || rest[49] != b'-' {
            return None;
        }
        let (mut trace, mut parent, mut flags) = ([0; 16], [0; 8], [0; 1]);
        unhex(&rest[..32], &mut trace)?;
        unhex(&rest[33..49], &mut parent)?;
        unhex(&rest[50..], &mut flags)?;
        let [flags] = flags;
        (trace != [0; 16] && parent != [0; 8]).then_some(Self { trace, parent, is_recorded: flags & RECORDED != 0 })
    }
}

impl std::fmt::Display for TraceContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.trace.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Reads lowercase hexadecimal digits, two for each byte of `out`.
fn unhex(digits: &[u8], out: &mut [u8]) -> Option<()> {
    let digit = |letter: u8| match letter {
        b'0'..=b'9' => Some(letter - b'0'),
        b'a'..=b'f' => Some(letter - b'a' + 10),
        _ => None,
    };
    for (pair, byte) in digits.chunks_exact(2).zip(out) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(())
}

/// A correlation id that can be kept and echoed: 1 to 64 visible ASCII characters but `"` and `\`. `None` for any other,
/// which is then made anew: a bad one is no reason to refuse a spend.
pub fn correlation(value: &[u8]) -> Option<&str> {
    let fits = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    if value.is_empty() || value.len() > CORR_BYTES_MAX || !value.iter().all(fits) {
        return None;
    }
    std::str::from_utf8(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed<'a>(headers: &[(&str, &'a [u8])]) -> IncomingHeaders<'a> {
        let mut incoming = IncomingHeaders::default();
        headers.iter().for_each(|(name, value)| incoming.observe(name.as_bytes(), value));
        incoming
    }

    #[test]
    fn names_are_found_whatever_their_case() {
        let incoming = observed(&[
            ("Host", b"localhost"),
            ("AUTHORIZATION", b"Bearer x"),
            ("content-Type", b"application/json"),
            ("Idempotency-Key", b"k"),
            ("x-wallet-discharge", b"a,b"),
            ("X-Request-ID", b"r-1"),
        ]);
        assert_eq!(incoming.authorization, Some(&b"Bearer x"[..]));
        assert_eq!(incoming.content_type, Some(&b"application/json"[..]));
        assert_eq!(incoming.idempotency_key, Some(&b"k"[..]));
        assert_eq!(incoming.discharge, Some(&b"a,b"[..]));
        assert_eq!(incoming.corr, Some("r-1"));
        assert!(incoming.check().is_ok());
    }

    #[test]
    fn contradictions_are_refused_and_agreement_is_not() {
        type Headers<'a> = &'a [(&'a str, &'a [u8])];
        let cases: [(Headers<'_>, bool); 10] = [
            (&[("Idempotency-Key", b"k"), ("X-Idempotency-Key", b"k")], true),
            (&[("Idempotency-Key", b"k"), ("Idempotency-Key", b"k")], true),
            (&[("Idempotency-Key", b"k"), ("X-Idempotency-Key", b"l")], false),
            (&[("X-Idempotency-Key", b"k"), ("X-Idempotency-Key", b"l")], false),
            (&[("Authorization", b"Bearer a"), ("Authorization", b"Bearer b")], false),
            (&[("Authorization", b"Bearer a"), ("authorization", b"Bearer a")], false),
            (&[("X-Wallet-Discharge", b"a"), ("X-Wallet-Discharge", b"b")], false),
            (&[("Content-Type", b"application/json"), ("Content-Type", b"text/plain")], false),
            (&[("Authorization", b"Bearer \xff")], false),
            (&[("X-Corr-ID", b"\xff"), ("Cookie", b"\xff")], true),
        ];
        for (headers, fine) in cases {
            let outcome = observed(headers).check();
            assert_eq!(outcome.is_ok(), fine, "{headers:?}");
            assert!(outcome.err().map_or(true, |refusal| refusal.status == 400));
        }
    }

    #[test]
    fn the_correlation_id_is_the_best_that_can_be_echoed() {
        let corr = |headers: &[(&str, &'static [u8])]| observed(headers).corr;
        assert_eq!(corr(&[("X-Correlation-ID", b"c"), ("X-Corr-ID", b"a"), ("X-Request-ID", b"b")]), Some("a"));
        assert_eq!(corr(&[("X-Request-ID", b"b"), ("X-Correlation-ID", b"c")]), Some("b"));
        assert_eq!(corr(&[("X-Corr-ID", b"first"), ("X-Corr-ID", b"second")]), Some("first"));
        assert_eq!(corr(&[("X-Corr-ID", b"a b"), ("X-Request-ID", b"b")]), Some("b"));
        assert_eq!(corr(&[]), None);
        for bad in [&b""[..], b"a\"b", b"a\\b", b"a\rb", b"\xc3\xa9", &[b'x'; 65]] {
            assert_eq!(correlation(bad), None, "{bad:?}");
        }
        assert_eq!(correlation(&[b'x'; 64]).map(str::len), Some(64));
    }

    #[test]
    fn what_is_told_of_a_message_that_is_not_served_comes_from_its_complete_lines() {
        let corr = |input: &'static [u8]| IncomingHeaders::of_lines(input).corr;
        assert_eq!(corr(b"POST / HTTP/1.1\r\nHost: a\r\nX-Corr-ID: mine \r\nContent-Length: 99999999\r\n\r\n"), Some("mine"));
        assert_eq!(corr(b"\r\nPOST / HTTP/1.1\nbroken\nx-corr-id:mine\n"), Some("mine"));
        assert_eq!(corr(b"POST / HTTP/1.1\r\nX-Corr-ID: min"), None, "the line may be cut short");
        assert_eq!(corr(b"POST / HTTP/1.1\r\n\r\nX-Corr-ID: body\r\n"), None);
        assert_eq!(corr(b"X-Corr-ID: no request line\r\n\r\n"), None);
        assert_eq!(corr(b""), None);
    }

    #[test]
    fn a_trace_is_taken_over_if_it_is_exactly_one_of_version_00() {
        const GOOD: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace = |headers: &[(&str, &'static [u8])]| observed(headers).trace.map(|trace| trace.to_string());
        assert_eq!(trace(&[("TraceParent", GOOD)]).as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        assert_eq!(trace(&[("traceparent", GOOD), ("traceparent", GOOD)]), None);
        let context = |value: &[u8]| TraceContext::of_traceparent(value).unwrap();
        assert_eq!(context(GOOD).parent, [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
        for (flags, is_recorded) in [("00", false), ("01", true), ("02", false), ("ff", true)] {
            let value = [&GOOD[..GOOD.len() - 2], flags.as_bytes()].concat();
            assert_eq!(context(&value).is_recorded, is_recorded, "{flags}");
        }
        let bad: [&[u8]; 12] = [
            b"",
            b"00",
            b"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            b"00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            b"00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
            b"00-00000000000000000000000000000000-b7ad6b7169203331-01",
            b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            b"00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ];
        for value in bad {
            assert_eq!(TraceContext::of_traceparent(value), None, "{}", String::from_utf8_lossy(value));
            assert!(observed(&[("traceparent", value)]).check().is_ok());
        }
    }
}
