//! Every frame comes back as it was sent, whatever pieces it arrives in; what is cut, too long, unknown or oversized is refused.
use super::*;
use crate::domain::{
    Consistency, Found, HistoryAnswer, HistoryQuestion, HistoryRoot, Inclusion, KeyId, KeyUse, LogId, Nonce, Page, PageQuestion,
    Path, Period, Question, Seq, UnixMs, Unproven,
};
use crate::ledger::snapshot::AssetSums;
use crate::ledger::{Audit, Held, Scrubbed};

fn requests() -> Vec<Request<'static>> {
    vec![
        Request::Hello(Role::Writer { lanes: 256, keys_ttl_ms: 86_400_000 }),
        Request::Hello(Role::Reader),
        Request::Acquire,
        Request::Resume(Tenant {
            log_id: LogId([1; 16]),
            epoch: 2,
            head: Seq(3),
            root: [4; 32],
            settled: Seq(1),
            acknowledged: vec![5, 6],
        }),
        Request::Batch { lane: 5, lane_first: 6, count: 7, entries: &[8; 900] },
        Request::Place { lane: 5, lane_first: 6, count: 7 },
        Request::Heartbeat,
        ask(Inquiry::Entry(Question::At(Seq(10)))),
        ask(Inquiry::Entry(Question::Key(Box::new(KeyUse {
            account: "alice".into(),
            key: "k-1".into(),
            accepted: Period { first: UnixMs(5), last: UnixMs(6) },
        })))),
        ask(Inquiry::Entry(Question::Debit { account: "alice".into(), nonce: Nonce(11) })),
        page_of(Some(Seq(3))),
        page_of(None),
        ask(Inquiry::History(HistoryQuestion::Proof { seq: Seq(1), size: None })),
        ask(Inquiry::History(HistoryQuestion::Proof { seq: Seq(1), size: Some(0) })),
        ask(Inquiry::History(HistoryQuestion::Root)),
        ask(Inquiry::History(HistoryQuestion::Consistency { from: 1, to: 2 })),
        ask(Inquiry::Audit),
        ask(Inquiry::Held(Vec::new())),
        ask(Inquiry::Held(vec!["alice".into(), "bob".into()])),
        ask(Inquiry::Snapshots),
        ask(Inquiry::Directory),
        ask(Inquiry::Piece { snapshot: Seq(3), offset: 4, length: PIECE_BYTES_MAX as u32 }),
        Request::Read { from: Seq(12) },
        Request::ReadKeys { end: Seq(13), since: UnixMs(14) },
    ]
}

fn ask(inquiry: Inquiry) -> Request<'static> {
    Request::Ask { id: 9, inquiry }
}

fn page_of(before: Option<Seq>) -> Request<'static> {
    ask(Inquiry::Page(PageQuestion { account: "alice".into(), before, limit: 100 }))
}

/// Every kind of answer out of the history, proven and not.
fn answers() -> Vec<HistoryAnswer> {
    let found = Found { entry: [7; 70].into(), seq: Seq(8), root: [9; 32] };
    let root = |size| HistoryRoot { size, through: Seq(2 * size), hash: [size as u8; 32] };
    let path = |siblings, peaks| Path { siblings: vec![[1; 32]; siblings], peaks: vec![[2; 32]; peaks] };
    let inclusion =
        Inclusion { first_seq: Seq(8), entries: 3, in_batch: path(2, 0), batch: 4, in_history: path(0, 3), root: root(5) };
    let peaks = vec![[3; 32]; 2];
    let continued = Consistency { log_id: LogId([1; 16]), from: root(1), to: root(2), peaks, additions: vec![[4; 32]] };
    vec![
        HistoryAnswer::NoEntry,
        HistoryAnswer::Proof(found.clone(), Ok(inclusion)),
        HistoryAnswer::Proof(found, Err(Unproven::NotReached { size_min: 6 })),
        HistoryAnswer::Root(Ok(root(7))),
        HistoryAnswer::Root(Err(Unproven::Behind)),
        HistoryAnswer::Consistency(Ok(continued)),
        HistoryAnswer::Consistency(Err(Unproven::NoSuchSize { current: 9 })),
        HistoryAnswer::Consistency(Err(Unproven::WrongOrder)),
        HistoryAnswer::Consistency(Err(Unproven::Archived { size_min: 8 })),
    ]
}

fn replies() -> Vec<Reply<'static>> {
    let batch = |lane| Acknowledged { lane, lane_first: 2, count: 3, first_seq: Seq(4), root: [5; 32] };
    let found = |length| Found { entry: vec![4; length].into(), seq: Seq(2), root: [3; 32] };
    let sums = |asset: &str| AssetSums { asset: asset.to_owned(), issued: u128::MAX, burned: 2, held: 3 };
    let audit = Audit {
        through: Seq(8),
        sums: vec![sums("roc"), sums("ron")],
        snapshot: Seq(7),
        snapshot_newest: UnixMs(9),
        snapshot_ms: 6,
        snapshots_taken: 10,
        snapshots_failed: 5,
        reads_failed: 4,
        agreed: 0,
        scrub: Scrubbed { last_end: UnixMs(4), damaged: [1, 2, 3] },
        broken: Some("why".into()),
    };
    let held = Held { last_nonce: Nonce(3), values: vec![("roc".into(), 1, 2), ("ron".into(), 3, 4)] };
    let fault = |refused| Reply::Fault(Fault { refused, epoch: 6, text: "why".into() });
    let mut replies = vec![
        Reply::Welcome { log_id: LogId([1; 16]), head: Seq(2), first: Seq(1) },
        Reply::Granted { epoch: 1, head: Seq(2), root: [3; 32], through: vec![4, 5, 6] },
        Reply::Durable { commit_us: 1, batches: vec![batch(0), batch(1)] },
        Reply::State { head: Seq(1), writable: true, scarce: true, failed_allocations: 2 },
        Reply::State { head: Seq(1), writable: false, scarce: false, failed_allocations: 0 },
        Reply::Found { id: 1, seq: Seq(2), root: [3; 32], entry: &[4; 70] },
        Reply::Nothing { id: 1 },
        Reply::Unanswered { id: 1, archived_before: None, text: "why" },
        Reply::Unanswered { id: 1, archived_before: Some(Seq(2)), text: "why" },
        Reply::Audit { id: 1, audit: Box::default() },
        Reply::Audit { id: 1, audit: Box::new(audit) },
        Reply::Holders { id: 1, holders: Vec::new() },
        Reply::Holders { id: 1, holders: vec![("alice".into(), held), ("bob".into(), Held::default())] },
        Reply::Page { id: 1, page: Page::default() },
        Reply::Page { id: 1, page: Page { entries: vec![found(70), found(90)], before: Some(Seq(3)) } },
        Reply::Snapshots { id: 1, snapshots: Vec::new() },
        Reply::Snapshots { id: 1, snapshots: vec![Seq(9), Seq(7)] },
        Reply::Piece { id: 1, size: 70, bytes: &[4; 70] },
        Reply::Directory { id: 1, path: b"/var/lib/ron/\xffledger" },
        Reply::Keys { accepted: Period { first: UnixMs(2), last: UnixMs(3) }, keys: vec![KeyId(1), KeyId(4)] },
        Reply::Keys { accepted: Period::EMPTY, keys: Vec::new() },
        Reply::Entries { first_seq: Seq(1), root: [2; 32], count: 3, entries: &[4; 200] },
        Reply::End { next: Seq(1) },
    ];
    let causes = [Refused::Malformed, Refused::InUse, Refused::Fenced, Refused::Foreign, Refused::Unavailable];
    replies.extend(causes.map(fault));
    replies.extend(answers().into_iter().map(|answer| Reply::History { id: 1, answer: Box::new(answer) }));
    replies
}

/// The frames in these bytes, which arrive in pieces of this length.
fn cut(bytes: &[u8], piece: usize) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Frames::new(1 << 20);
    let mut found = Vec::new();
    for piece in bytes.chunks(piece) {
        frames.push(piece);
        while let Some((kind, body)) = frames.take().unwrap() {
            found.push((kind, body.to_vec()));
        }
    }
    assert_eq!(frames.waiting(), 0);
    found
}

#[test]
fn every_frame_comes_back_as_it_was_sent_in_whatever_pieces() {
    let mut bytes = Vec::new();
    requests().iter().for_each(|request| request.encode(&mut bytes));
    for piece in [1, 2, 7, 8, 9, 1000, bytes.len()] {
        let found = cut(&bytes, piece);
        let found: Vec<_> = found.iter().map(|(kind, body)| Request::decode(*kind, body).unwrap()).collect();
        assert_eq!(found, requests());
    }
    bytes.clear();
    replies().iter().for_each(|reply| reply.encode(&mut bytes));
    let found = cut(&bytes, 13);
    let found: Vec<_> = found.iter().map(|(kind, body)| Reply::decode(*kind, body).unwrap()).collect();
    assert_eq!(found, replies());
}

#[test]
fn bodies_of_another_length_are_refused_or_mean_something_else() {
    for request in requests() {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        let (kind, body) = (bytes[4], &bytes[FRAME_HEAD_BYTES..]);
        for end in 0..body.len() {
            assert_ne!(Request::decode(kind, &body[..end]), Ok(request.clone()), "{end}");
        }
        let longer = [body, &[0]].concat();
        assert_ne!(Request::decode(kind, &longer), Ok(request));
    }
    for reply in replies() {
        let mut bytes = Vec::new();
        reply.encode(&mut bytes);
        let (kind, body) = (bytes[4], &bytes[FRAME_HEAD_BYTES..]);
        for end in 0..body.len() {
            assert_ne!(Reply::decode(kind, &body[..end]), Ok(reply.clone()), "{end}");
        }
    }
}

#[test]
fn what_is_not_of_this_protocol_is_refused_with_the_reason() {
    let told = |kind, body: &[u8]| Request::decode(kind, body).unwrap_err().0;
    assert!(told(0, &[]).contains("no frame of kind 0"));
    assert!(told(200, &[]).contains("no frame of kind 200"));
    assert!(Reply::decode(1, &[]).unwrap_err().0.contains("no frame of kind 1"));
    let mut hello = Vec::new();
    Request::Hello(Role::Writer { lanes: 2, keys_ttl_ms: 5 }).encode(&mut hello);
    let hello = &hello[FRAME_HEAD_BYTES..];
    let changed = |at: usize, byte: u8| {
        let mut bytes = hello.to_vec();
        bytes[at] = byte;
        told(1, &bytes)
    };
    assert!(changed(0, b'X').contains("does not begin as one of a wallet"));
    assert!(changed(8, 9).contains("protocol version 9; this daemon speaks version 7"));
    assert!(changed(12, 7).contains("role 7"));
    assert!(changed(15, 9).contains("2306 lanes"));
    assert!(told(4, &[0; 16]).contains("a lane batch of 0 bytes"));
    let mut directory = Vec::new();
    Reply::Directory { id: 1, path: b"var/ledger" }.encode(&mut directory);
    let told = Reply::decode(directory[4], &directory[FRAME_HEAD_BYTES..]).unwrap_err().0;
    assert!(told.contains("a path that is not absolute"), "{told}");

    let mut frames = Frames::new(100);
    frames.push(&[101, 0, 0, 0, 4, 0, 0, 0]);
    assert!(frames.take().unwrap_err().0.contains("101 bytes, and 100 are the most"));
    let mut frames = Frames::new(100);
    frames.push(&[1, 0, 0, 0, 4, 0, 1, 0]);
    assert!(frames.take().unwrap_err().0.contains("not zero"));
}
