//! Another engine than the local log in its place: three replicas in memory, of which two decide, behind a network that loses messages,
//! answers, and time. Chair and committer are the shipped ones. Whatever happens, what was acknowledged is in the log once and at its
//! place, nothing is in it twice or out of order, and a writer that was replaced commits nothing any more.
use super::chair::{Chair, Committed, Turned};
use super::peer::Peer;
use crate::domain::{Durable, LaneBatch, LogId, Root, Seq};
use crate::ledger::batch::Section;
use crate::ledger::committer::Committer;
use crate::ledger::engine::{Appended, Engine, ReadBatch, Tenure};
use crate::ledger::merge::Placed;
use crate::ledger::sample::{lane_batch, Dice};
use crate::ledger::writer::{Writer, Written};
use crate::ledger::LedgerError;
use crossbeam_channel::unbounded;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

const LOG: LogId = LogId([7; 16]);
const WALLET: Peer = Peer { pid: 11, uid: 1 };
/// Longer than anything takes; nothing is decided by it.
const SOON: Duration = Duration::from_secs(60);
/// How often an engine asks before it says that nobody answers.
const ASKED_MAX: u32 = 1_000;

/// A batch as a replica keeps it.
#[derive(Clone, Debug, PartialEq)]
struct Stored {
    first_seq: Seq,
    root: Root,
    count: u64,
    /// Lane, first number and count of entries, bytes.
    sections: Vec<(u16, u64, u32, Vec<u8>)>,
}

#[derive(Clone, Default)]
struct Replica {
    /// Writes of older epochs are refused.
    promised: u64,
    /// The number of the writer that it was promised to.
    promised_to: u64,
    /// The epoch whose writer wrote the log as it is.
    written_in: u64,
    log: Vec<Stored>,
}

impl Replica {
    /// Takes the log as the writer of this epoch has it; says what was promised to whom if that is another one.
    fn write(&mut self, epoch: u64, log: &[Stored]) -> Result<(), u64> {
        if epoch < self.promised {
            return Err(self.promised);
        }
        // What is late may have been overtaken by more of the same writer.
        if self.written_in < epoch || self.log.len() < log.len() {
            (self.promised, self.written_in, self.log) = (epoch, epoch, log.to_vec());
        }
        Ok(())
    }
}

/// What became of what was asked of the replicas.
#[derive(Debug, Default)]
struct Seen {
    unknown: u64,
    /// Batches of unknown fate that were found in the log afterwards.
    adopted: u64,
    late: u64,
    fenced: u64,
}

struct Cluster {
    replicas: [Replica; 3],
    /// How many writers there have been.
    writers: u64,
    dice: Dice,
    /// Of 100 messages, and of 100 answers, so many are lost.
    lost: u64,
    /// Writes that are still on their way.
    on_their_way: Vec<(usize, u64, Vec<Stored>)>,
    seen: Seen,
}

impl Cluster {
    fn new(seed: u64, lost: u64) -> Arc<Mutex<Self>> {
        let replicas = Default::default();
        Arc::new(Mutex::new(Self {
            replicas,
            writers: 0,
            dice: Dice(seed),
            lost,
            on_their_way: Vec::new(),
            seen: Seen::default(),
        }))
    }

    fn is_lost(&mut self) -> bool {
        self.dice.below(100) < self.lost
    }

    /// Sends a write; `None` if no answer came.
    fn write(&mut self, replica: usize, epoch: u64, log: &[Stored]) -> Option<Result<(), u64>> {
        if self.is_lost() {
            // Half of what is lost comes after all, when nobody waits for it.
            if self.dice.below(2) == 0 {
                self.on_their_way.push((replica, epoch, log.to_vec()));
            }
            return None;
        }
        let answer = self.replicas[replica].write(epoch, log);
        (!self.is_lost()).then_some(answer)
    }

    fn deliver_late(&mut self) {
        while !self.on_their_way.is_empty() && self.dice.below(2) == 0 {
            let at = self.dice.below(self.on_their_way.len() as u64) as usize;
            let (replica, epoch, log) = self.on_their_way.swap_remove(at);
            self.seen.late += u64::from(self.replicas[replica].write(epoch, &log).is_err());
        }
    }
}

/// One writer of the cluster.
struct Majority {
    cluster: Arc<Mutex<Cluster>>,
    number: u64,
    epoch: u64,
    log: Vec<Stored>,
    /// The batch whose fate is not known.
    in_doubt: Option<Root>,
}

impl Majority {
    fn of(cluster: &Arc<Mutex<Cluster>>) -> Self {
        let mut held = Self::cluster(cluster);
        held.writers += 1;
        Self { cluster: Arc::clone(cluster), number: held.writers, epoch: 0, log: Vec::new(), in_doubt: None }
    }

    fn cluster(cluster: &Mutex<Cluster>) -> MutexGuard<'_, Cluster> {
        cluster.lock().unwrap()
    }

    fn tenure(&self) -> Tenure {
        let last = self.log.last();
        Tenure {
            epoch: self.epoch,
            head: last.map_or(Seq(0), |last| Seq(last.first_seq.0 + last.count - 1)),
            root: last.map_or([0; 32], |last| last.root),
        }
    }

    fn unreachable(&self) -> LedgerError {
        LedgerError::Unreachable { place: self.place(), what: "fewer than two replicas answer".into() }
    }
}

impl Engine for Majority {
    /// A promise of two replicas for a new epoch; then the newest of their logs is written to two in this epoch. Who wants to go on
    /// asks two first whether they have promised a newer one to somebody else.
    fn acquire(&mut self, held: Option<u64>) -> Result<Tenure, LedgerError> {
        let cluster = Arc::clone(&self.cluster);
        let mut cluster = Self::cluster(&cluster);
        for _ in 0..ASKED_MAX {
            cluster.deliver_late();
            if let Some(own) = held {
                let all = cluster.replicas.clone();
                let answers: Vec<Replica> = all.into_iter().filter(|_| !cluster.is_lost()).collect();
                let theirs = answers.iter().filter(|replica| replica.promised > own && replica.promised_to != self.number);
                if let Some(newer) = theirs.map(|replica| replica.promised).max() {
                    return Err(LedgerError::Fenced { place: self.place(), own, newer });
                }
                if answers.len() < 2 {
                    continue;
                }
            }
            let epoch = 1 + cluster.replicas.iter().map(|replica| replica.promised).max().unwrap();
            let mut promised = Vec::new();
            for replica in 0..3 {
                if !cluster.is_lost() {
                    (cluster.replicas[replica].promised, cluster.replicas[replica].promised_to) = (epoch, self.number);
                    if !cluster.is_lost() {
                        promised.push(replica);
                    }
                }
            }
            if promised.len() < 2 {
                continue;
            }
            let newest = promised.into_iter().map(|replica| &cluster.replicas[replica]);
            let log = newest.max_by_key(|replica| (replica.written_in, replica.log.len())).unwrap().log.clone();
            let written = (0..3).filter(|replica| cluster.write(*replica, epoch, &log) == Some(Ok(()))).count();
            if written < 2 {
                continue;
            }
            (self.epoch, self.log) = (epoch, log);
            let adopted = self.in_doubt.take().is_some_and(|root| self.log.last().is_some_and(|last| last.root == root));
            cluster.seen.adopted += u64::from(adopted);
            return Ok(self.tenure());
        }
        Err(self.unreachable())
    }

    fn append(&mut self, epoch: u64, first_seq: Seq, prev: Root, parts: &[LaneBatch]) -> Appended {
        let now = self.tenure();
        assert_eq!((epoch, first_seq, prev), (now.epoch, Seq(now.head.0 + 1), now.root));
        let mut hash = blake3::Hasher::new();
        hash.update(&prev);
        let (mut sections, mut count) = (Vec::new(), 0);
        for group in parts.chunk_by(|left, right| left.lane == right.lane) {
            let bytes: Vec<u8> = group.iter().flat_map(|part| part.bytes.iter().copied()).collect();
            hash.update(&bytes);
            let entries: u32 = group.iter().map(|part| part.count).sum();
            count += u64::from(entries);
            sections.push((group[0].lane, group[0].lane_first, entries, bytes));
        }
        let root = *hash.finalize().as_bytes();
        let mut log = self.log.clone();
        log.push(Stored { first_seq, root, count, sections });
        let cluster = Arc::clone(&self.cluster);
        let mut cluster = Self::cluster(&cluster);
        cluster.deliver_late();
        let answers: Vec<_> = (0..3).filter_map(|replica| cluster.write(replica, epoch, &log)).collect();
        if answers.iter().filter(|answer| answer.is_ok()).count() >= 2 {
            self.log = log;
            return Appended::Acked(Placed { first_seq, root });
        }
        let newer: Vec<u64> = answers.iter().filter_map(|answer| answer.err()).collect();
        if newer.len() >= 2 {
            cluster.seen.fenced += 1;
            return Appended::Fenced { epoch: newer.into_iter().max().unwrap() };
        }
        cluster.seen.unknown += 1;
        self.in_doubt = Some(root);
        Appended::Unknown(self.unreachable())
    }

    fn note(&mut self) -> Result<(), LedgerError> {
        Ok(())
    }

    fn read(&mut self, from: Seq, each: &mut dyn FnMut(ReadBatch<'_>) -> ControlFlow<()>) -> Result<(), LedgerError> {
        let before = std::iter::once([0; 32]).chain(self.log.iter().map(|stored| stored.root));
        for (stored, prev) in self.log.iter().zip(before).filter(|(stored, _)| stored.first_seq.0 + stored.count > from.0) {
            let sections = stored.sections.iter();
            let sections = sections.map(|(lane, lane_first, count, bytes)| Section {
                lane: *lane,
                lane_first: *lane_first,
                count: *count,
                bytes,
            });
            let Stored { first_seq, root, .. } = *stored;
            if each(ReadBatch { first_seq, prev, root, sections: sections.collect() }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn truncate_before(&mut self, seq: Seq) -> Result<(), LedgerError> {
        assert_eq!(seq, Seq(1), "nobody asks for that here");
        Ok(())
    }

    fn body_bytes_max(&self) -> usize {
        1 << 20
    }

    fn place(&self) -> String {
        "three replicas".into()
    }

    fn close(self) -> Result<(), LedgerError> {
        Ok(())
    }
}

/// Where each acknowledged batch is: by lane and first number, the count, the first entry and the chain hash.
type Acknowledged = BTreeMap<(u16, u64), (u32, Seq, Root)>;

/// Another writer takes the log and writes to it, if it is to; returns what.
fn replace_writer(cluster: &Arc<Mutex<Cluster>>, writes: bool) -> Vec<u8> {
    let mut engine = Majority::of(cluster);
    let tenure = engine.acquire(None).unwrap();
    if !writes {
        return Vec::new();
    }
    let batch = [lane_batch(2, 1, 2)];
    let written = Writer::new(engine, tenure).append(&batch);
    assert!(matches!(written, Written::Placed(_)), "{written:?}");
    batch[0].bytes.clone()
}

/// The log holds every acknowledged batch at its place, each lane's entries once and in order, and no more of them than were sent.
fn check_log(cluster: &Arc<Mutex<Cluster>>, lanes: &[(u64, Vec<u8>)], acknowledged: &Acknowledged) {
    let mut reader = Majority::of(cluster);
    reader.acquire(None).unwrap();
    let (mut next, mut found) = (Seq(1), Vec::new());
    let mut read: Vec<(u64, Vec<u8>)> = lanes.iter().map(|_| (1, Vec::new())).collect();
    reader
        .read(Seq(1), &mut |batch| {
            assert_eq!(batch.first_seq, next, "entries are numbered densely");
            for section in &batch.sections {
                let (expected, bytes) = &mut read[usize::from(section.lane)];
                assert_eq!(section.lane_first, *expected, "each entry of a lane once and in order");
                *expected += u64::from(section.count);
                bytes.extend_from_slice(section.bytes);
                found.push((section.lane, section.lane_first, section.count, next, batch.root));
                next = Seq(next.0 + u64::from(section.count));
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    for ((lane, first), (count, seq, root)) in acknowledged {
        // Several batches of a lane may have become one section.
        let holds = found.iter().any(|(of, lane_first, entries, at, hash)| {
            let into = first.checked_sub(*lane_first);
            let within = into.is_some_and(|into| into + u64::from(*count) <= u64::from(*entries) && at.0 + into == seq.0);
            of == lane && within && hash == root
        });
        assert!(holds, "batch {first} of lane {lane} was acknowledged at entry {}", seq.0);
    }
    for ((_, sent), (_, bytes)) in lanes.iter().zip(&read) {
        assert!(sent.starts_with(bytes), "nothing is there that was not sent");
    }
}

#[test]
fn a_chair_on_three_replicas_loses_and_doubles_nothing_whatever_the_network_does() {
    let (mut unknown, mut adopted, mut late, mut fenced) = (0, 0, 0, 0);
    for seed in 0..60 {
        let cluster = Cluster::new(seed, 20);
        let mut engine = Majority::of(&cluster);
        let tenure = engine.acquire(None).unwrap();
        let mut chair = Chair::new(engine, tenure, LOG);
        let (seat, _) = chair.acquire(WALLET, 2, Duration::ZERO).unwrap();
        // The last one is that of another writer.
        let mut lanes = [(1, Vec::new()), (1, Vec::new()), (1, Vec::new())];
        let (mut acknowledged, mut dice) = (Acknowledged::new(), Dice(1_000 + seed));
        for round in 0..60 {
            if round == 50 && seed % 3 == 0 {
                // Another writer takes the log, and nothing of this one arrives any more, also if the other one has written nothing yet.
                lanes[2].1 = replace_writer(&cluster, seed % 2 == 0);
            }
            for _ in 0..1 + dice.below(3) {
                let (lane, count) = (dice.below(2) as u16, 1 + dice.below(4) as u32);
                let (next, sent) = &mut lanes[usize::from(lane)];
                let batch = lane_batch(lane, *next, count);
                *next += u64::from(count);
                sent.extend_from_slice(&batch.bytes);
                assert!(matches!(chair.admit(seat, batch), Ok(Ok(None))), "seed {seed}");
            }
            match chair.commit(seat) {
                Ok(Committed::Durable(batches)) => {
                    assert!(round < 50 || seed % 3 != 0, "seed {seed}: a writer that was replaced has committed");
                    for place in batches {
                        let known =
                            acknowledged.insert((place.lane, place.lane_first), (place.count, place.first_seq, place.root));
                        assert_eq!(known, None, "seed {seed}: acknowledged twice");
                    }
                }
                Err(Turned::Fatal(LedgerError::Fenced { .. })) => {
                    assert!(round >= 50 && seed % 3 == 0, "seed {seed}: nobody has replaced it");
                    fenced += 1;
                    break;
                }
                other => panic!("seed {seed}: {other:?}"),
            }
        }
        let all: u64 = acknowledged.values().map(|(count, ..)| u64::from(*count)).sum();
        let sent: u64 = lanes[..2].iter().map(|(next, _)| next - 1).sum();
        assert!(all == sent || seed % 3 == 0, "seed {seed}: {all} of {sent} entries were acknowledged");
        check_log(&cluster, &lanes, &acknowledged);
        let seen = &Majority::cluster(&cluster).seen;
        unknown += seen.unknown;
        adopted += seen.adopted;
        late += seen.late;
    }
    assert!(fenced > 0 && late > 0, "{fenced} {late}");
    assert!(adopted > 0 && unknown > adopted, "{adopted} of {unknown} were there: both happen");
}

#[test]
fn a_committer_on_three_replicas_acknowledges_everything_once_and_ends_when_it_is_replaced() {
    let cluster = Cluster::new(7, 20);
    let mut engine = Majority::of(&cluster);
    let tenure = engine.acquire(None).unwrap();
    let (deliver, delivered) = unbounded::<Durable>();
    let (end, ended) = unbounded();
    let deliver = Box::new(move |durable| deliver.send(durable).unwrap());
    let on_fatal = Box::new(move |error: &LedgerError| end.send(error.to_string()).unwrap());
    let committer = Committer::spawn_with(engine, tenure, 2, deliver, on_fatal).unwrap();
    // The last one is that of another writer.
    let mut lanes = [(1, Vec::new()), (1, Vec::new()), (1, Vec::new())];
    let mut acknowledged = Acknowledged::new();
    for number in 0..400u64 {
        let lane = (number % 2) as u16;
        let (next, sent) = &mut lanes[usize::from(lane)];
        let batch = lane_batch(lane, *next, 3);
        *next += 3;
        sent.extend_from_slice(&batch.bytes);
        committer.lane(lane).push(batch).unwrap();
        let durable = delivered.recv_timeout(SOON).unwrap();
        let LaneBatch { lane, lane_first, count, .. } = durable.batch;
        let known = acknowledged.insert((lane, lane_first), (count, durable.first_seq, durable.root));
        assert_eq!(known, None, "acknowledged twice");
    }
    assert!(Majority::cluster(&cluster).seen.unknown > 0);
    lanes[2].1 = replace_writer(&cluster, true);
    committer.lane(0).push(lane_batch(0, lanes[0].0, 1)).unwrap();
    let told = ended.recv_timeout(SOON).unwrap();
    assert!(told.contains("another server has replaced it"), "{told}");
    assert!(committer.close().is_err());
    assert!(delivered.try_recv().is_err(), "nothing is acknowledged any more");
    check_log(&cluster, &lanes, &acknowledged);
}
