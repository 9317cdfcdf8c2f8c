//! The chair and the session one by one: who may sit down, who is turned away, what a malformed connection is told.
use super::chair::{Chair, Committed, Seat, Turned, SILENCE_MAX};
use super::peer::Peer;
use super::server::{Admitted, Server};
use super::session::{Session, Wanted};
use super::stepped::{SteppedDaemon, SteppedLine};
use crate::domain::{LogId, Root, Seq};
use crate::ledger::engine::Tenure;
use crate::ledger::layout::BLOCK_BYTES;
use crate::ledger::protocol::{Fault, Frames, Refused, Reply, Request, Role, Tenant, FRAME_HEAD_BYTES, REPLY_BODY_BYTES_MAX};
use crate::ledger::sample::{lane_batch, open};
use crate::ledger::{back_up, restore, Heard, LedgerError, Link, Log, MemoryStorage, Options, Schedule, Storage};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

const SEGMENT: u64 = 64 << 10;
const ALICE: Peer = Peer { pid: 11, uid: 1 };
const BOB: Peer = Peer { pid: 22, uid: 1 };
const LOG: LogId = LogId([7; 16]);

fn chair(storage: &MemoryStorage) -> Chair<Log<MemoryStorage>> {
    let options = Options::for_simulation(SEGMENT, LOG);
    let (log, _) = Log::recover(storage.clone(), &options, &mut |_, _, _| Ok(())).unwrap();
    let tenure = log.tenure();
    Chair::new(log, tenure, LOG)
}

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn away<T: std::fmt::Debug>(outcome: Result<T, Turned>) -> Fault {
    match outcome {
        Err(Turned::Away(fault)) => fault,
        other => panic!("{other:?}"),
    }
}

fn epoch_of((seat, granted): (Seat, Reply<'static>)) -> (Seat, u64, Vec<u64>) {
    let Reply::Granted { epoch, through, .. } = granted else { panic!("{granted:?}") };
    (seat, epoch, through)
}

#[test]
fn a_wallet_that_is_heard_keeps_the_ledger_and_a_silent_or_gone_one_is_replaced_for_ever() {
    let storage = MemoryStorage::new();
    let mut chair = chair(&storage);
    let (first, epoch, through) = epoch_of(chair.acquire(ALICE, 2, at(0)).unwrap());
    assert_eq!((epoch, through), (1, vec![0, 0]));
    chair.heard(first, at(1_000)).unwrap();
    let fault = away(chair.acquire(BOB, 2, at(1_000) + SILENCE_MAX - at(1)));
    assert_eq!(fault.refused, Refused::InUse);
    assert!(fault.text.contains("process 11 of user 1"), "{}", fault.text);
    assert_eq!(chair.admit(first, lane_batch(0, 1, 2)).unwrap(), Ok(None));
    assert!(matches!(chair.commit(first).unwrap(), Committed::Durable(_)));

    let (second, epoch, _) = epoch_of(chair.acquire(BOB, 1, at(1_000) + SILENCE_MAX).unwrap());
    assert_eq!(epoch, 2);
    for outcome in
        [chair.heard(first, at(4_000)), chair.admit(first, lane_batch(0, 3, 1)).map(drop), chair.commit(first).map(drop)]
    {
        let fault = away(outcome);
        assert_eq!((fault.refused, fault.epoch), (Refused::Fenced, 2));
    }
    let known = (Seq(2), [0; 32]);
    let fault = away(chair.resume(ALICE, &tenant(LOG, 1, known, Seq(0), [0, 0]), at(4_000)));
    assert_eq!((fault.refused, fault.epoch), (Refused::Fenced, 2), "{}", fault.text);
    assert!(matches!(chair.commit(second).unwrap(), Committed::Nothing));
    chair.leave(first);
    assert_eq!(away(chair.acquire(ALICE, 2, at(4_000))).refused, Refused::InUse, "what a replaced one does changes nothing");
    chair.leave(second);
    assert_eq!(epoch_of(chair.acquire(ALICE, 2, at(4_000)).unwrap()).1, 3, "who is gone is replaced at once");
    chair.close().unwrap();
    assert_eq!(open(&storage, SEGMENT).unwrap().2.concat(), lane_batch(0, 1, 2).bytes);
}

#[test]
fn wallets_whose_processes_the_daemon_cannot_see_are_not_taken_for_one() {
    let mut chair = chair(&MemoryStorage::new());
    let unseen = Peer { pid: 0, uid: 1 };
    let (first, ..) = epoch_of(chair.acquire(unseen, 1, at(0)).unwrap());
    let fault = away(chair.acquire(unseen, 1, at(1)));
    assert_eq!(fault.refused, Refused::InUse);
    assert!(fault.text.starts_with("a process of user 1 in another PID namespace has the ledger"), "{}", fault.text);
    chair.leave(first);
    assert_eq!(epoch_of(chair.acquire(unseen, 1, at(1)).unwrap()).1, 2);
    assert_eq!(epoch_of(chair.acquire(unseen, 1, at(1) + SILENCE_MAX).unwrap()).1, 3);
    assert_eq!(epoch_of(chair.acquire(ALICE, 1, at(2) + 2 * SILENCE_MAX).unwrap()).1, 4);
    assert_eq!(epoch_of(chair.acquire(ALICE, 1, at(2) + 2 * SILENCE_MAX).unwrap()).1, 5, "its grant was lost");
}

#[test]
fn a_wallet_goes_on_with_its_epoch_on_the_same_ledger_only() {
    let storage = MemoryStorage::new();
    let mut first = chair(&storage);
    let (seat, ..) = epoch_of(first.acquire(ALICE, 2, at(0)).unwrap());
    assert_eq!(first.admit(seat, lane_batch(1, 1, 3)).unwrap(), Ok(None));
    let Committed::Durable(told) = first.commit(seat).unwrap() else { panic!("nothing was committed") };
    let known = (Seq(3), told[0].root);
    assert_eq!(first.admit(seat, lane_batch(1, 4, 1)).unwrap(), Ok(None));
    // What was admitted and not committed is as if it had never come, on a new connection and after a crash alike.
    let (seat, epoch, through) = epoch_of(first.resume(ALICE, &tenant(LOG, 1, known, Seq(3), [0, 3]), at(1)).unwrap());
    assert_eq!((epoch, through), (1, vec![0, 3]));
    assert_eq!(first.admit(seat, lane_batch(1, 1, 3)).unwrap(), Ok(Some(told[0])), "a repeat gets its old place");
    drop(first);
    let storage = storage.crash(&mut || false);
    let mut second = chair(&storage);
    for (log_id, epoch, known) in
        [(LogId([8; 16]), 1, known), (LOG, 2, known), (LOG, 1, (Seq(4), known.1)), (LOG, 1, (Seq(3), [9; 32]))]
    {
        let fault = away(second.resume(ALICE, &tenant(log_id, epoch, known, Seq(0), [0, 0]), at(2)));
        assert_eq!(fault.refused, Refused::Foreign, "{}", fault.text);
    }
    // More settled than known is no state of any wallet.
    assert_eq!(away(second.resume(ALICE, &tenant(LOG, 1, known, Seq(4), [0, 0]), at(2))).refused, Refused::Foreign);
    let (seat, epoch, through) = epoch_of(second.resume(ALICE, &tenant(LOG, 1, known, Seq(0), [0, 0]), at(2)).unwrap());
    assert_eq!((epoch, through), (1, vec![0, 3]), "no new epoch after a restart of the daemon");
    assert_eq!(second.place(seat, 1, 1, 3).unwrap(), told[0]);
    for batch in [lane_batch(1, 3, 2), lane_batch(1, 5, 1), lane_batch(2, 1, 1)] {
        assert_eq!(away(second.admit(seat, batch)).refused, Refused::Malformed);
    }
    assert_eq!(away(second.place(seat, 0, 1, 1)).refused, Refused::Malformed);
}

/// The end and the chain hash of an entry that the wallet knows, where `fits` says whether the ledger has them.
fn check_resume(chair: &mut Chair<Log<MemoryStorage>>, through: &[u64], cases: &[(u64, Root, bool)]) {
    for (seq, root, fits) in cases {
        let resumed = chair.resume(ALICE, &tenant(LOG, 2, (Seq(*seq), *root), Seq(3), [0, 0]), at(1));
        match fits {
            true => assert_eq!(epoch_of(resumed.unwrap()).2, through, "entry {seq}"),
            false => assert_eq!(away(resumed).refused, Refused::Foreign, "entry {seq}"),
        }
    }
}

#[test]
fn a_wallet_goes_on_with_its_epoch_on_a_restored_ledger_before_and_after_its_first_commit() {
    let (source, elsewhere, storage) = (MemoryStorage::new(), MemoryStorage::new(), MemoryStorage::new());
    open(&source, SEGMENT).unwrap().0.append(&[lane_batch(0, 1, 3)]).unwrap();
    back_up(&source, &elsewhere, "ledger.snap", &mut |_| {}).unwrap();
    restore(&elsewhere, "ledger.snap", &storage, SEGMENT).unwrap();
    let started = |storage: &MemoryStorage| {
        let options = Options::for_simulation(SEGMENT, LOG);
        let (log, ..) = Log::recover_from_snapshot(storage.clone(), &options, &mut |_| Ok(())).unwrap();
        assert_eq!(log.reader().first(), Seq(4), "what was restored begins behind the snapshot");
        let tenure = log.tenure();
        Chair::new(log, tenure, LOG)
    };
    let mut chair = started(&storage);
    let (_, Reply::Granted { epoch: 2, head: Seq(3), root: restored, .. }) = chair.acquire(ALICE, 2, at(0)).unwrap() else {
        panic!("the first epoch of the restored ledger is another one")
    };
    let nothing = [(3, restored, true), (3, [9; 32], false)];
    check_resume(&mut chair, &[0, 0], &nothing);
    drop(chair);
    let storage = storage.crash(&mut || false);
    let mut chair = started(&storage);
    check_resume(&mut chair, &[0, 0], &nothing);

    // Both lanes get into one batch, and nothing or only a part of that has reached the wallet.
    let (seat, ..) = epoch_of(chair.resume(ALICE, &tenant(LOG, 2, (Seq(3), restored), Seq(3), [0, 0]), at(1)).unwrap());
    for batch in [lane_batch(0, 1, 2), lane_batch(1, 1, 2)] {
        assert_eq!(chair.admit(seat, batch).unwrap(), Ok(None));
    }
    let Committed::Durable(told) = chair.commit(seat).unwrap() else { panic!("nothing was committed") };
    let root = told[0].root;
    let something =
        [(3, restored, true), (3, root, false), (5, root, true), (5, restored, false), (7, root, true), (7, restored, false)];
    check_resume(&mut chair, &[2, 2], &something);
    drop(chair);
    check_resume(&mut started(&storage.crash(&mut || false)), &[2, 2], &something);
}

/// What the wallet hears once everything on its way has arrived.
pub(super) fn exchange(
    link: &mut Link,
    daemon: &mut SteppedDaemon<MemoryStorage>,
    line: &mut SteppedLine,
    now: Duration,
) -> Vec<Heard> {
    let mut heard = Vec::new();
    for _ in 0..3 {
        line.arrive(link.output());
        link.output().clear();
        daemon.serve(line, now).unwrap();
        link.input().push(line.output());
        line.output().clear();
        while let Some(next) = link.next().unwrap() {
            heard.push(next);
        }
    }
    heard
}

#[test]
fn an_older_connection_that_is_served_late_costs_a_wallet_its_connection_and_not_its_epoch() {
    let options = Options::for_simulation(SEGMENT, LOG);
    let (log, _) = Log::recover(MemoryStorage::new(), &options, &mut |_, _, _| Ok(())).unwrap();
    let (mut daemon, mut link) = (SteppedDaemon::new(log), Link::new(1, 1000));
    let connect = |link: &mut Link, daemon: &mut SteppedDaemon<MemoryStorage>, pid| {
        link.connected();
        daemon.accept(pid)
    };
    let mut line = connect(&mut link, &mut daemon, 11);
    assert!(matches!(exchange(&mut link, &mut daemon, &mut line, at(0))[..], [Heard::Granted(Tenure { epoch: 1, .. }), ..]));
    // It connects again, and asks for its ledger; that is lost on the way, or so it seems.
    let mut late = connect(&mut link, &mut daemon, 11);
    late.arrive(link.output());
    link.output().clear();
    daemon.serve(&mut late, at(0)).unwrap();
    link.input().push(late.output());
    assert_eq!(link.next().unwrap(), None, "it asks to go on once it is welcome");
    let asked = link.output().clone();
    let mut line = connect(&mut link, &mut daemon, 11);
    assert!(matches!(exchange(&mut link, &mut daemon, &mut line, at(0))[..], [Heard::Granted(Tenure { epoch: 1, .. }), ..]));
    late.arrive(&asked);
    daemon.serve(&mut late, at(0)).unwrap();
    link.push(lane_batch(0, 1, 2));
    let heard = exchange(&mut link, &mut daemon, &mut line, at(0));
    let [Heard::Fault(fault)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((fault.refused, fault.epoch, link.is_replaced(fault)), (Refused::Fenced, 1, false), "{}", fault.text);
    let mut line = connect(&mut link, &mut daemon, 11);
    let heard = exchange(&mut link, &mut daemon, &mut line, at(0));
    assert!(heard.iter().any(|heard| matches!(heard, Heard::Durable(durable) if durable.first_seq == Seq(1))), "{heard:?}");
    // And another that takes its place; the daemon knows them by their process.
    let mut other = Link::new(1, 1000);
    let mut its = connect(&mut other, &mut daemon, 11);
    assert!(matches!(exchange(&mut other, &mut daemon, &mut its, at(0))[..], [Heard::Granted(Tenure { epoch: 2, .. }), ..]));
    link.beat();
    let heard = exchange(&mut link, &mut daemon, &mut line, at(0));
    let Some(Heard::Fault(fault)) = heard.last() else { panic!("{heard:?}") };
    assert!(link.is_replaced(fault), "{}", fault.text);
}

fn tenant(log_id: LogId, epoch: u64, (head, root): (Seq, Root), settled: Seq, acknowledged: [u64; 2]) -> Tenant {
    Tenant { log_id, epoch, head, root, settled, acknowledged: acknowledged.to_vec() }
}

#[test]
fn after_a_restart_only_what_is_behind_the_settled_entry_is_read_and_a_wallet_that_tells_too_little_is_refused() {
    let storage = MemoryStorage::new();
    let mut first = chair(&storage);
    let (seat, ..) = epoch_of(first.acquire(ALICE, 2, at(0)).unwrap());
    let mut known = (Seq(0), [0; 32]);
    for batch in [lane_batch(0, 1, 2), lane_batch(1, 1, 3), lane_batch(0, 3, 4)] {
        assert_eq!(first.admit(seat, batch).unwrap(), Ok(None));
        let Committed::Durable(told) = first.commit(seat).unwrap() else { panic!("nothing was committed") };
        known = (Seq(told[0].first_seq.0 + u64::from(told[0].count) - 1), told[0].root);
    }
    drop(first);
    let storage = storage.crash(&mut || false);
    for (settled, acknowledged, expected) in
        [(5, [2, 3], Some(vec![6, 3])), (2, [2, 0], Some(vec![6, 3])), (5, [1, 3], None), (0, [0, 0], Some(vec![6, 3]))]
    {
        let resumed = chair(&storage).resume(ALICE, &tenant(LOG, 1, known, Seq(settled), acknowledged), at(2));
        match expected {
            Some(expected) => assert_eq!(epoch_of(resumed.unwrap()).2, expected),
            None => assert!(away(resumed).text.contains("entry 3 of lane 0 in the ledger does not follow")),
        }
    }
}

fn session() -> Session {
    Session::new(LOG, Seq(9), Seq(1))
}

fn say(session: &mut Session, requests: &[Request<'_>]) {
    let mut bytes = Vec::new();
    requests.iter().for_each(|request| request.encode(&mut bytes));
    session.input().push(&bytes);
}

/// The text of the fault with which the session ends.
fn ended(session: &mut Session) -> String {
    assert_eq!(session.next(), None);
    assert!(session.ended());
    let output = session.output();
    let mut at = 0;
    loop {
        let length = u32::from_le_bytes(output[at..at + 4].try_into().unwrap()) as usize;
        let reply = Reply::decode(output[at + 4], &output[at + FRAME_HEAD_BYTES..][..length]).unwrap();
        if let Reply::Fault(fault) = reply {
            assert_eq!(fault.refused, Refused::Malformed);
            return fault.text;
        }
        at += FRAME_HEAD_BYTES + length;
    }
}

#[test]
fn a_session_takes_what_belongs_to_its_role_and_says_what_is_wrong_with_the_rest() {
    let batch = lane_batch(0, 1, 2);
    let as_request = Request::Batch { lane: 0, lane_first: 1, count: 2, entries: &batch.bytes };
    let mut writer = session();
    say(&mut writer, &[Request::Hello(Role::Writer { lanes: 2, keys_ttl_ms: 5 }), Request::Acquire]);
    assert_eq!(writer.next(), Some(Wanted::Acquire { lanes: 2 }));
    writer.grant(&Reply::Granted { epoch: 1, head: Seq(0), root: [0; 32], through: vec![0, 0] });
    say(&mut writer, &[as_request.clone(), Request::Heartbeat]);
    assert_eq!(writer.next(), Some(Wanted::Batch(lane_batch(0, 1, 2))));
    assert_eq!(writer.next(), Some(Wanted::Heartbeat));
    say(&mut writer, &[Request::Read { from: Seq(1) }]);
    assert!(ended(&mut writer).contains("does not belong here"));

    let mut early = session();
    say(&mut early, &[Request::Acquire]);
    assert!(ended(&mut early).contains("begins with HELLO"));
    let mut hasty = session();
    say(&mut hasty, &[Request::Hello(Role::Writer { lanes: 2, keys_ttl_ms: 5 }), as_request]);
    assert!(ended(&mut hasty).contains("asks for the ledger first"));
    let mut reader = session();
    say(&mut reader, &[Request::Hello(Role::Reader), Request::Acquire]);
    assert!(ended(&mut reader).contains("a reader asks and reads"));
    let mut stranger = session();
    stranger.input().push(b"GET / HTTP/1.1\r\n\r\n");
    assert!(ended(&mut stranger).contains("not zero where they must be"));
}

#[test]
fn a_writer_is_owed_word_of_each_change_and_nobody_else_is() {
    let state = |(writable, scarce)| Reply::State { head: Seq(0), writable, scarce, failed_allocations: 0 };
    let rooms = [(true, false), (true, true), (false, true), (false, false)];
    let mut writer = session();
    let owed = |session: &Session| rooms.map(|(writable, scarce)| session.owes_state(writable, scarce));
    assert_eq!(owed(&writer), [false; 4], "nobody is known yet");
    say(&mut writer, &[Request::Hello(Role::Writer { lanes: 1, keys_ttl_ms: 5 }), Request::Acquire]);
    writer.next();
    assert_eq!(owed(&writer), [false; 4], "it has not got the ledger");
    writer.grant(&Reply::Granted { epoch: 1, head: Seq(0), root: [0; 32], through: vec![0] });
    assert_eq!(owed(&writer), [true; 4], "it was told nothing yet");
    for told in rooms {
        writer.reply(&state(told));
        assert_eq!(owed(&writer), rooms.map(|room| room != told));
    }
    writer.end(Fault { refused: Refused::Unavailable, epoch: 0, text: String::new() });
    assert_eq!(owed(&writer), [false; 4], "it has ended");
    let mut reader = session();
    say(&mut reader, &[Request::Hello(Role::Reader)]);
    reader.next();
    assert_eq!(owed(&reader), [false; 4]);
}

/// A writing wallet that asks for nothing by itself.
pub(super) struct Silent {
    stream: UnixStream,
    frames: Frames,
}

/// A daemon that admits this user.
pub(super) fn serve(log: Log<MemoryStorage>, socket: &Path) -> Server<MemoryStorage> {
    let listener = UnixListener::bind(socket).unwrap();
    let user = rustix::process::geteuid().as_raw();
    let fatal = Box::new(|error: &LedgerError| panic!("{error}"));
    Server::start(log, None, Schedule::no_snapshots(), listener, Admitted(vec![user]), fatal).unwrap()
}

impl Silent {
    /// Asks for the ledger.
    pub(super) fn writer(socket: &Path) -> Self {
        let mut wallet = Self::connect(socket);
        wallet.say(&[Request::Hello(Role::Writer { lanes: 1, keys_ttl_ms: 5 }), Request::Acquire]);
        wallet
    }

    fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        // Only a test that has failed waits for so long.
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { stream, frames: Frames::new(REPLY_BODY_BYTES_MAX) }
    }

    pub(super) fn say(&mut self, requests: &[Request<'_>]) {
        let mut bytes = Vec::new();
        requests.iter().for_each(|request| request.encode(&mut bytes));
        self.stream.write_all(&bytes).unwrap();
    }

    /// Reads replies up to the first one of which something is wanted.
    fn hear<T>(&mut self, mut wanted: impl FnMut(Reply<'_>) -> Option<T>) -> T {
        loop {
            while let Some((kind, body)) = self.frames.take().unwrap() {
                if let Some(found) = wanted(Reply::decode(kind, body).unwrap()) {
                    return found;
                }
            }
            let mut bytes = [0; 4096];
            let count = self.stream.read(&mut bytes).expect("the daemon says something");
            assert!(count > 0, "the daemon has hung up");
            self.frames.push(&bytes[..count]);
        }
    }

    pub(super) fn hear_writable(&mut self) -> bool {
        self.hear(|reply| if let Reply::State { writable, .. } = reply { Some(writable) } else { None })
    }
}

#[test]
fn a_writer_that_does_not_ask_hears_of_a_full_disk_before_anything_waits_and_of_room() {
    let storage = MemoryStorage::new();
    let (log, ..) = open(&storage, SEGMENT).unwrap();
    storage.limit_bytes(Some(SEGMENT + 2 * BLOCK_BYTES as u64));
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("l.sock");
    let server = serve(log, &socket);
    let mut wallet = Silent::writer(&socket);
    assert!(wallet.hear_writable(), "there is much room in the segment");
    // Three quarters of the segment, a block each: there is room for all of it.
    let mut writable = true;
    for number in 1..=SEGMENT / BLOCK_BYTES as u64 * 3 / 4 {
        let batch = lane_batch(0, number, 1);
        wallet.say(&[Request::Batch { lane: 0, lane_first: number, count: 1, entries: &batch.bytes }]);
        wallet.hear(|reply| {
            if let Reply::State { writable: now, .. } = reply {
                writable = now;
            }
            matches!(reply, Reply::Durable { .. }).then_some(())
        });
    }
    assert!(!writable || !wallet.hear_writable(), "the disk is full, and nothing waits");
    storage.limit_bytes(None);
    assert!(wallet.hear_writable(), "there is room again, and nothing was sent meanwhile");
    server.stop().unwrap();
}

#[test]
fn entries_that_could_not_be_read_back_are_never_taken() {
    let good = lane_batch(0, 1, 2);
    let mut cut = good.bytes.clone();
    cut.pop();
    let mut operation = good.bytes.clone();
    operation[2] = 99;
    for (count, entries, told) in [
        (2, &cut, "entry 2 of a lane batch of 2"),
        (3, &good.bytes, "entry 3"),
        (1, &good.bytes, "behind its 1 entries"),
        (2, &operation, "entry 1"),
    ] {
        let mut writer = session();
        say(&mut writer, &[Request::Hello(Role::Writer { lanes: 1, keys_ttl_ms: 5 }), Request::Acquire]);
        writer.next();
        writer.grant(&Reply::Granted { epoch: 1, head: Seq(0), root: [0; 32], through: vec![0] });
        say(&mut writer, &[Request::Batch { lane: 0, lane_first: 1, count, entries }]);
        let text = ended(&mut writer);
        assert!(text.contains(told), "{text}");
    }
}

#[test]
fn sealed_segments_are_indexed_and_the_history_follows_although_nobody_asks() {
    let storage = MemoryStorage::new();
    let options = Options::for_simulation(SEGMENT, LOG);
    let (mut log, _) = Log::open(storage.clone(), &options, &mut |_, _, _| Ok(())).unwrap();
    for number in 0..60 {
        log.append(&[lane_batch(0, 1 + number * 20, 20)]).unwrap();
    }
    let place = tempfile::tempdir().unwrap();
    let listener = std::os::unix::net::UnixListener::bind(place.path().join("l.sock")).unwrap();
    let schedule = Schedule::no_snapshots();
    let server = Server::start(log, None, schedule, listener, Admitted(Vec::new()), Box::new(|error| panic!("{error}"))).unwrap();
    let has = |name: &str| storage.list().unwrap().iter().any(|found| found == name);
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while !(has("index-0000000001.idx") && has("history.mmr")) {
        assert!(std::time::Instant::now() < until, "{:?}", storage.list());
        std::thread::sleep(Duration::from_millis(5));
    }
    server.stop().unwrap();
}
