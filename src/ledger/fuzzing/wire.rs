//! What arrives at either end of the daemon's socket: frames come out the same however they are cut, what is understood is written again
//! as the same bytes, and whoever sends anything else is told why and gets nothing.
use crate::domain::{Entry, LaneBatch, LogId, Seq};
use crate::ledger::daemon::session::{Session, Wanted};
use crate::ledger::protocol::{
    Acknowledged, Fault, Frames, Inquiry, Refused, Reply, Request, Role, Tenant, REPLY_BODY_BYTES_MAX, REQUEST_BODY_BYTES_MAX,
};
use crate::ledger::remote::{Heard, Link};
use crate::ledger::sample::lane_batch;

const LOG: LogId = LogId([7; 16]);
const LANES: u16 = 2;

/// The frames in these bytes, and whether something else follows them.
fn frames(input: &[u8], piece_bytes: usize, body_bytes_max: usize) -> (Vec<(u8, Vec<u8>)>, bool) {
    let (mut frames, mut found) = (Frames::new(body_bytes_max), Vec::new());
    for piece in input.chunks(piece_bytes) {
        frames.push(piece);
        loop {
            match frames.take() {
                Ok(Some((kind, body))) => found.push((kind, body.to_vec())),
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
    }
    let taken: usize = found.iter().map(|(_, body)| 8 + body.len()).sum();
    assert_eq!(frames.waiting(), input.len() - taken);
    (found, false)
}

/// The frame with this kind and body.
fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes()[..], &[kind, 0, 0, 0], body].concat()
}

/// What a connection to the daemon yields: what is wanted, whether it has ended, and what it was told.
fn session(input: &[u8], piece_bytes: usize) -> (Vec<Wanted>, bool, Vec<u8>) {
    let mut session = Session::new(LOG, Seq(9), Seq(1));
    let mut found = Vec::new();
    for piece in input.chunks(piece_bytes) {
        session.input().push(piece);
        while let Some(wanted) = session.next() {
            if let Wanted::Acquire { .. } | Wanted::Resume(_) = &wanted {
                session.grant(&Reply::Granted { epoch: 1, head: Seq(9), root: [0; 32], through: vec![0; LANES.into()] });
            }
            found.push(wanted);
        }
        if session.ended() {
            break;
        }
    }
    (found, session.ended(), std::mem::take(session.output()))
}

/// A byte for a cut, then what arrives at the daemon.
pub(crate) fn to_daemon(input: &[u8]) {
    let [piece, bytes @ ..] = input else { return };
    let whole = frames(bytes, bytes.len().max(1), REQUEST_BODY_BYTES_MAX);
    assert_eq!(frames(bytes, 1 + usize::from(*piece), REQUEST_BODY_BYTES_MAX), whole);
    for (kind, body) in &whole.0 {
        let Ok(request) = Request::decode(*kind, body) else { continue };
        let mut again = Vec::new();
        request.encode(&mut again);
        assert_eq!(again, frame(*kind, body), "{request:?}");
    }
    let (wanted, ended, told) = session(bytes, bytes.len().max(1));
    assert_eq!(session(bytes, 1 + usize::from(*piece)), (wanted, ended, told.clone()));
    let (wanted, ..) = session(bytes, bytes.len().max(1));
    for wanted in &wanted {
        let Wanted::Batch(batch) = wanted else { continue };
        let mut rest = &batch.bytes[..];
        for _ in 0..batch.count {
            rest = Entry::parse(rest).expect("a batch that is handed on can be read").1;
        }
        assert!(rest.is_empty());
    }
    let (replies, garbage) = frames(&told, told.len().max(1), REPLY_BODY_BYTES_MAX);
    let replies: Vec<Reply<'_>> =
        replies.iter().map(|(kind, body)| Reply::decode(*kind, body).expect("the daemon sends what can be read")).collect();
    assert!(!garbage);
    assert_eq!(ended, matches!(replies.last(), Some(Reply::Fault(_))), "{replies:?}");
    assert!(replies.iter().filter(|reply| matches!(reply, Reply::Fault(_))).count() <= 1);
}

/// A byte for a cut, then what arrives at a wallet that has a batch of each lane in doubt: it takes one acknowledgement for each, in
/// their order, and invents none.
pub(crate) fn from_daemon(input: &[u8]) {
    let [piece, bytes @ ..] = input else { return };
    let whole = frames(bytes, bytes.len().max(1), REPLY_BODY_BYTES_MAX);
    assert_eq!(frames(bytes, 1 + usize::from(*piece), REPLY_BODY_BYTES_MAX), whole);
    for (kind, body) in &whole.0 {
        let Ok(reply) = Reply::decode(*kind, body) else { continue };
        let mut again = Vec::new();
        reply.encode(&mut again);
        assert_eq!(again, frame(*kind, body), "{reply:?}");
    }
    let mut link = Link::new(LANES, 1_000);
    let batches = || (0..LANES).flat_map(|lane| [lane_batch(lane, 1, 2), lane_batch(lane, 3, 1)]);
    batches().for_each(|batch| link.push(batch));
    link.connected();
    let mut acknowledged: Vec<LaneBatch> = Vec::new();
    for piece in bytes.chunks(1 + usize::from(*piece)) {
        link.input().push(piece);
        loop {
            match link.next() {
                Ok(Some(Heard::Durable(durable))) => acknowledged.push(durable.batch),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(fault) => return assert!(!fault.0.is_empty()),
            }
        }
        assert_eq!(link.in_doubt() + acknowledged.len(), batches().count());
    }
    for lane in 0..LANES {
        let pushed: Vec<LaneBatch> = batches().filter(|batch| batch.lane == lane).collect();
        let told = acknowledged.iter().filter(|batch| batch.lane == lane);
        assert!(told.zip(&pushed).all(|(told, pushed)| told == pushed));
    }
    let sent = std::mem::take(link.output());
    let (sent, garbage) = frames(&sent, sent.len().max(1), REQUEST_BODY_BYTES_MAX);
    assert!(!garbage && sent.iter().all(|(kind, body)| Request::decode(*kind, body).is_ok()));
}

/// Inputs from which a fuzzer of [`to_daemon`] begins.
pub(crate) fn to_daemon_seeds() -> Vec<Vec<u8>> {
    let hello = Request::Hello(Role::Writer { lanes: LANES, keys_ttl_ms: 5 });
    let LaneBatch { lane, lane_first, count, bytes: entries } = lane_batch(1, 1, 2);
    let batch = Request::Batch { lane, lane_first, count, entries: &entries };
    let tenant = Tenant { log_id: LOG, epoch: 1, head: Seq(2), root: [3; 32], settled: Seq(2), acknowledged: vec![1, 2] };
    let ask = |inquiry| Request::Ask { id: 9, inquiry };
    let rows: [&[Request<'_>]; 4] = [
        &[hello.clone(), Request::Acquire, batch, Request::Place { lane, lane_first, count }, Request::Heartbeat],
        &[hello, Request::Resume(tenant), Request::Heartbeat],
        &[Request::Hello(Role::Reader), ask(Inquiry::Audit), ask(Inquiry::Held(vec!["alice".into()])), ask(Inquiry::Snapshots)],
        &[
            Request::Hello(Role::Reader),
            Request::Read { from: Seq(1) },
            ask(Inquiry::Piece { snapshot: Seq(1), offset: 0, length: 9 }),
        ],
    ];
    rows.map(|row| {
        row.iter().fold(vec![7], |mut bytes, request| {
            request.encode(&mut bytes);
            bytes
        })
    })
    .into()
}

/// Inputs from which a fuzzer of [`from_daemon`] begins.
pub(crate) fn from_daemon_seeds() -> Vec<Vec<u8>> {
    let welcome = Reply::Welcome { log_id: LOG, head: Seq(9), first: Seq(1) };
    let granted = |through| Reply::Granted { epoch: 1, head: Seq(9), root: [0; 32], through };
    let told = |lane, lane_first, count, seq| Acknowledged { lane, lane_first, count, first_seq: Seq(seq), root: [5; 32] };
    let durable = Reply::Durable { commit_us: 1, batches: vec![told(0, 1, 2, 10), told(1, 1, 2, 12), told(0, 3, 1, 14)] };
    let state = Reply::State { head: Seq(1), writable: false, scarce: true, failed_allocations: 2 };
    let fault = Reply::Fault(Fault { refused: Refused::Fenced, epoch: 6, text: "why".into() });
    let entries = lane_batch(1, 1, 1).bytes;
    let rows: [&[Reply<'_>]; 4] = [
        &[welcome.clone(), granted(vec![0, 0]), durable.clone(), state],
        &[welcome.clone(), granted(vec![2, 0]), durable],
        &[welcome, fault],
        &[
            Reply::Found { id: 1, seq: Seq(2), root: [3; 32], entry: &entries },
            Reply::Entries { first_seq: Seq(1), root: [2; 32], count: 1, entries: &entries },
            Reply::Directory { id: 1, path: b"/var/lib/ron/\xffledger" },
            Reply::Snapshots { id: 1, snapshots: vec![Seq(9)] },
        ],
    ];
    rows.map(|row| {
        row.iter().fold(vec![3], |mut bytes, reply| {
            reply.encode(&mut bytes);
            bytes
        })
    })
    .into()
}
