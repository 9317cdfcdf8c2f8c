//! What must hold of the control plane, the admin socket among it, whatever bytes arrive; `src/fuzzing.rs` feeds it.
use super::super::ephemeral::EphemeralKeys;
use super::super::faults;
use super::super::notes::Notes;
use super::*;
use crate::access::{inspect, MintRequest};
use std::sync::OnceLock;

/// Most header fields of a reply.
const REPLY_HEADERS_MAX: usize = 16;

/// A peer that sends these bytes, so many at a time, and then no more.
struct Peer<'a> {
    left: &'a [u8],
    piece_bytes: usize,
}

impl Read for Peer<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.piece_bytes.min(into.len()).min(self.left.len());
        let (piece, left) = self.left.split_at(bytes);
        into[..bytes].copy_from_slice(piece);
        self.left = left;
        Ok(bytes)
    }
}

impl Write for Peer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Limit for Peer<'_> {
    fn limit(&self, _: Duration) -> io::Result<()> {
        Ok(())
    }
}

impl Connection for Peer<'_> {
    fn twin(&self) -> io::Result<Box<dyn Connection>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn shut(&self, _: Shutdown) {}

    fn user(&self) -> Option<u32> {
        None
    }
}

/// The request that a peer gets an answer to; `None` if it goes before there is one.
fn read(left: &[u8], piece_bytes: usize, surface: Surface) -> Option<Request> {
    let (mut peer, deadline) = (Peer { left, piece_bytes }, Instant::now() + CONNECTION_TIME);
    let mut request = read_request(&mut peer, deadline).ok()??;
    if request.action(surface).is_some() {
        read_body(&mut peer, &mut request, deadline).ok()?;
    }
    Some(request)
}

/// One reply of HTTP, whole, whatever of the request is echoed in it.
fn assert_reply(reply: &[u8]) {
    let mut headers = [httparse::EMPTY_HEADER; REPLY_HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(head_bytes)) = parsed.parse(reply) else { panic!("no reply: {reply:?}") };
    let body_bytes = reply.len() - head_bytes;
    let length = parsed.headers.iter().find(|header| header.name == "content-length");
    let length = length.map_or(0, |length| std::str::from_utf8(length.value).expect("a number").parse().expect("a number"));
    assert!(body_bytes == length || body_bytes == 0, "{body_bytes} bytes instead of {length}");
    let ids = parsed.headers.iter().filter(|header| header.name == "x-corr-id").count();
    assert!(ids == 1 && !has_bare_line_feed(&reply[..head_bytes]));
}

/// A request says the same however it is cut, and is answered with one reply. What the admin socket can be asked to do is asked of a
/// keyring in memory.
pub(crate) fn requests(input: &[u8]) {
    static KEYS: OnceLock<EphemeralKeys> = OnceLock::new();
    let keys = KEYS.get_or_init(|| EphemeralKeys::new(Notes::default()).expect("there is randomness"));
    let pages = |_: Page| PageReply::json("{}");
    for surface in [Surface::Port, Surface::Admin] {
        let (whole, in_pieces) = (read(input, usize::MAX, surface), read(input, 7, surface));
        assert_eq!(whole.is_some(), in_pieces.is_some());
        let (Some(whole), Some(in_pieces)) = (whole, in_pieces) else { continue };
        // One that is not understood may be refused for another reason before all of it is there.
        assert_eq!(whole.line.is_ok(), in_pieces.line.is_ok());
        if let Ok(line) = &whole.line {
            assert_eq!((Ok(line), &whole.corr_id), (in_pieces.line.as_ref(), &in_pieces.corr_id));
        }
        let action = whole.action(surface);
        assert!(action.is_none() || whole.body == in_pieces.body);
        assert!(whole.body.len() <= BODY_BYTES_MAX.max(HEAD_BYTES_MAX));
        let acted = action.map(|action| keys.act(action, &whole.body, 0));
        assert_reply(&answer(&whole, surface, &pages, acted));
    }
    faults::bodies(input);
    if let Ok(minted) = keys.act(Action::Mint, input, 0) {
        let minted: serde_json::Value = serde_json::from_slice(&minted.body).expect("an answer is JSON");
        let token = minted["token"].as_str().expect("a token was made");
        assert_eq!(&*inspect(token).expect("what was made can be read").key_id, keys.keyring().active_id());
    }
}

/// Requests for both surfaces, and bodies of what the admin socket is asked to do.
pub(crate) fn requests_seeds() -> Vec<Vec<u8>> {
    let wanted = MintRequest {
        subject: "alice".into(),
        scopes: vec!["wallet:read".into()],
        ttl: Duration::from_secs(60),
        audience: "svc-wallet".into(),
        ..MintRequest::default()
    };
    let mint = serde_json::to_string(&wanted).expect("plain data");
    let post = format!("POST /capabilities HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{mint}", mint.len());
    [
        "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        "HEAD /status?x HTTP/1.1\r\nHost: x\r\nX-Corr-ID: probe-1\r\n\r\n",
        "OPTIONS * HTTP/1.0\r\n\r\n",
        "POST /keys HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{\"rotate\":{}}",
        "PUT /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /readyz HTTP/1.1\nHost: x\n\n",
        &post,
        &mint,
        r#"{"rotate":{"hybrid":true}}"#,
        "{}",
        r#"{"fault":"latency","dep":"ron-ledger","ms":20,"for_ms":1000}"#,
        r#"{"fault":"quota_storm","rate":0.25}"#,
        r#"{"id":"f-1"}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
