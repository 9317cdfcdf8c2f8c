//! A writer and an engine that loses its acknowledgements, as one behind a network does: whatever had happened before the loss,
//! each batch is in the log once and is acknowledged with its place. And the end of a writer that was replaced.
use super::engine::{Appended, Engine, ReadBatch, Tenure};
use super::sample::{lane_batch, open, Dice};
use super::writer::{Writer, Written};
use super::{Committer, GroupCommit, LanePlace, LedgerError, Log, MemoryStorage, Options, Placed, ReadFile, Standing, Storage};
use crate::domain::{Durable, LaneBatch, LogId, Root, Seq};
use crossbeam_channel::unbounded;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

const SEGMENT: u64 = 64 << 10;
const SOON: Duration = Duration::from_secs(20);

/// What the network does to an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Arrives,
    LostOnTheWay,
    LostOnTheWayBack,
    /// Another writer takes the log before the batch arrives.
    Overtaken,
    /// The same, and the batch is lost.
    OvertakenAndLost,
    /// The same, and the other one has written as many entries.
    OvertakenByWrites,
}

struct Lossy {
    log: Log<MemoryStorage>,
    fate: Box<dyn FnMut() -> Fate + Send>,
    lost: Arc<AtomicU64>,
}

fn options() -> Options {
    Options::for_simulation(SEGMENT, LogId([7; 16]))
}

fn unknown() -> Appended {
    Appended::Unknown(LedgerError::Unreachable { place: "test".into(), what: "the connection was lost".into() })
}

impl Engine for Lossy {
    fn acquire(&mut self, held: Option<u64>) -> Result<Tenure, LedgerError> {
        self.log.acquire(held)
    }

    fn append(&mut self, epoch: u64, first_seq: Seq, prev: Root, parts: &[LaneBatch]) -> Appended {
        match (self.fate)() {
            Fate::Arrives => return Engine::append(&mut self.log, epoch, first_seq, prev, parts),
            Fate::LostOnTheWay => {}
            Fate::LostOnTheWayBack => drop(Engine::append(&mut self.log, epoch, first_seq, prev, parts)),
            Fate::Overtaken => {
                self.log.acquire(None).unwrap();
                return Engine::append(&mut self.log, epoch, first_seq, prev, parts);
            }
            Fate::OvertakenAndLost => drop(self.log.acquire(None).unwrap()),
            Fate::OvertakenByWrites => {
                self.log.acquire(None).unwrap();
                Log::append(&mut self.log, &[lane_batch(7, 1, parts[0].count)]).unwrap();
            }
        }
        self.lost.fetch_add(1, Ordering::Relaxed);
        unknown()
    }

    fn note(&mut self) -> Result<(), LedgerError> {
        self.log.note()
    }

    fn read(&mut self, from: Seq, each: &mut dyn FnMut(ReadBatch<'_>) -> ControlFlow<()>) -> Result<(), LedgerError> {
        self.log.read(from, each)
    }

    fn truncate_before(&mut self, seq: Seq) -> Result<(), LedgerError> {
        self.log.truncate_before(seq)
    }

    fn body_bytes_max(&self) -> usize {
        self.log.body_bytes_max()
    }

    fn place(&self) -> String {
        Engine::place(&self.log)
    }

    fn close(self) -> Result<(), LedgerError> {
        self.log.close()
    }
}

fn lossy(storage: &MemoryStorage, fate: impl FnMut() -> Fate + Send + 'static) -> (Lossy, Tenure, Arc<AtomicU64>) {
    let (log, _, _) = open(storage, SEGMENT).unwrap();
    let (tenure, lost) = (log.tenure(), Arc::default());
    (Lossy { log, fate: Box::new(fate), lost: Arc::clone(&lost) }, tenure, lost)
}

fn written(writer: &mut Writer<Lossy>, parts: &[LaneBatch]) -> Placed {
    match writer.append(parts) {
        Written::Placed(placed) => placed,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_batch_of_unknown_fate_is_in_the_log_once_whatever_had_happened() {
    for fate in [Fate::LostOnTheWay, Fate::LostOnTheWayBack] {
        let storage = MemoryStorage::new();
        let mut once = [Fate::Arrives, fate].into_iter();
        let (engine, tenure, lost) = lossy(&storage, move || once.next().unwrap_or(Fate::Arrives));
        let mut writer = Writer::new(engine, tenure);
        let parts = [lane_batch(0, 1, 2), lane_batch(0, 3, 1), lane_batch(1, 1, 4)];
        assert_eq!(written(&mut writer, &parts[..1]).first_seq, Seq(1));
        let placed = written(&mut writer, &parts[1..]);
        assert_eq!((placed.first_seq, lost.load(Ordering::Relaxed)), (Seq(3), 1), "{fate:?}");
        assert_eq!(writer.tenure().epoch, 2, "{fate:?}: nothing of the old tenure can arrive any more");
        assert_eq!((writer.tenure().head, writer.tenure().root), (Seq(7), placed.root), "{fate:?}");
        writer.close().unwrap();
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.bytes.clone()).collect();
        assert_eq!(open(&storage, SEGMENT).unwrap().2.concat(), bytes, "{fate:?}");
    }
}

#[test]
fn an_engine_that_never_tells_is_given_up_in_bounded_time() {
    let (engine, tenure, lost) = lossy(&MemoryStorage::new(), || Fate::LostOnTheWay);
    let mut writer = Writer::new(engine, tenure);
    assert!(matches!(writer.append(&[lane_batch(0, 1, 2)]), Written::Ended(LedgerError::Unreachable { .. })));
    assert_eq!(lost.load(Ordering::Relaxed), 8);
}

#[test]
fn a_writer_that_was_replaced_ends_and_says_by_whom() {
    for (fate, theirs) in [(Fate::Overtaken, 0), (Fate::OvertakenAndLost, 0), (Fate::OvertakenByWrites, 3)] {
        let storage = MemoryStorage::new();
        let (engine, tenure, _) = lossy(&storage, move || fate);
        let mut writer = Writer::new(engine, tenure);
        let ended = writer.append(&[lane_batch(0, 1, 3)]);
        let Written::Ended(error @ LedgerError::Fenced { own: 1, newer: 2, .. }) = ended else { panic!("{fate:?}: {ended:?}") };
        assert!(error.to_string().contains("another server has replaced it"), "{error}");
        let newest = writer.engine().log.tenure().epoch;
        assert_eq!(newest, 2, "{fate:?}: who was replaced takes nothing from the one that has replaced it");
        drop(writer);
        assert_eq!(open(&storage, SEGMENT).unwrap().2.len(), theirs, "{fate:?}: nothing of the replaced writer");
    }
}

#[test]
fn the_local_log_refuses_an_old_epoch_and_drops_nothing() {
    let storage = MemoryStorage::new();
    let (mut log, _, _) = open(&storage, SEGMENT).unwrap();
    let old = log.tenure();
    let new = log.acquire(None).unwrap();
    assert_eq!((old.epoch, new.epoch), (1, 2));
    let fenced = log.acquire(Some(old.epoch)).unwrap_err();
    assert!(matches!(fenced, LedgerError::Fenced { own: 1, newer: 2, .. }), "{fenced:?}");
    let parts = [lane_batch(0, 1, 2)];
    let refused = Engine::append(&mut log, old.epoch, Seq(1), old.root, &parts);
    assert!(matches!(refused, Appended::Fenced { epoch: 2 }), "{refused:?}");
    assert!(matches!(Engine::append(&mut log, new.epoch, Seq(1), new.root, &parts), Appended::Acked(_)));
    assert!((0..2).all(|seq| log.truncate_before(Seq(seq)).is_ok()), "there is nothing before the first entry");
    let declined = log.truncate_before(Seq(3)).unwrap_err().to_string();
    assert!(declined.contains("entries 1 to 2 stay") && declined.contains("ronctl ledger archive"), "{declined}");
    storage.fail_syncs(true);
    let root = log.tenure().root;
    let failed = Engine::append(&mut log, 2, Seq(3), root, &[lane_batch(0, 3, 1)]);
    assert!(matches!(failed, Appended::Unknown(_)), "{failed:?}");
    storage.fail_syncs(false);
    assert!(log.acquire(None).is_err(), "a log that failed is never written again");
}

/// Random losses under the committer; returns how many there were.
fn play(seed: u64) -> u64 {
    let mut dice = Dice(seed);
    let storage = MemoryStorage::new();
    let mut fates = Dice(dice.roll());
    let fate = move || match fates.below(5) {
        0 => Fate::LostOnTheWay,
        1 => Fate::LostOnTheWayBack,
        _ => Fate::Arrives,
    };
    let (engine, tenure, lost) = lossy(&storage, fate);
    let (acknowledge, acknowledged) = unbounded();
    let deliver = Box::new(move |durable| acknowledge.send(durable).expect("the test listens to the end"));
    let committer = Committer::spawn_with(engine, tenure, 2, deliver, Box::new(|error| panic!("{error}"))).unwrap();
    let (mut next, mut places) = ([1, 1], Vec::new());
    for _ in 0..20 {
        let together = 1 + dice.below(4);
        for _ in 0..together {
            let lane = dice.below(2) as u16;
            let batch = lane_batch(lane, next[usize::from(lane)], 1 + dice.below(20) as u32);
            next[usize::from(lane)] += u64::from(batch.count);
            committer.lane(lane).push(batch).unwrap();
        }
        places.extend((0..together).map(|_| acknowledged.recv_timeout(SOON).expect("every batch is acknowledged")));
    }
    committer.close().unwrap();
    let entries = open(&storage, SEGMENT).unwrap().2;
    assert_eq!(entries.len() as u64, next[0] + next[1] - 2, "seed {seed}");
    for Durable { batch, first_seq, .. } in places {
        let first = first_seq.0 as usize - 1;
        assert_eq!(entries[first..first + batch.count as usize].concat(), batch.bytes, "seed {seed}");
    }
    lost.load(Ordering::Relaxed)
}

#[test]
fn random_losses_of_acknowledgements_neither_lose_nor_double_an_entry() {
    let lost: u64 = (0..40).map(play).sum();
    assert!(lost > 100, "only {lost} losses");
}

#[test]
fn an_epoch_goes_on_after_an_opening_without_a_new_one_and_its_lanes_are_known() {
    let storage = MemoryStorage::new();
    let (mut log, _, _) = open(&storage, SEGMENT).unwrap();
    Log::append(&mut log, &[lane_batch(0, 1, 2), lane_batch(2, 1, 3)]).unwrap();
    let tenure = log.acquire(None).unwrap();
    let root = Log::append(&mut log, &[lane_batch(0, 1, 2), lane_batch(0, 3, 1), lane_batch(1, 1, 4)]).unwrap().root;
    drop(log);
    let storage = storage.crash(&mut || false);
    let (mut log, recovery) = Log::recover(storage.clone(), &options(), &mut |_, _, _| Ok(())).unwrap();
    assert_eq!(recovery.epoch, tenure.epoch);
    let place = |lane_first, count, first_seq| LanePlace { lane_first, count, first_seq: Seq(first_seq), root };
    let mut group = GroupCommit::resumed(&[2, 0, 0], 1 << 20);
    assert_eq!(group.through(), [2, 0, 0], "what was acknowledged is durable");
    assert!(group.note(0, place(1, 3, 6)) && group.note(1, place(1, 4, 9)));
    assert!(!group.note(2, place(2, 1, 13)), "a number is left out");
    assert!(!group.note(3, place(1, 1, 13)), "there is no such lane");
    assert_eq!(group.through(), [3, 4, 0]);
    assert_eq!(group.place_of(0, 3, 1), Some(Placed { first_seq: Seq(8), root }));
    assert_eq!(group.place_of(0, 3, 2), None);
    assert_eq!(group.standing(0, 1, 2), Standing::Repeat);
    assert_eq!((group.standing(0, 4, 9), group.standing(2, 1, 1)), (Standing::Next, Standing::Next));
    for (lane, first, count) in [(0, 3, 2), (0, 5, 1), (3, 1, 1), (0, 0, 1), (0, 4, 0), (0, u64::MAX, 2)] {
        assert_eq!(group.standing(lane, first, count), Standing::Misfit, "{lane} {first} {count}");
    }
    let tenure = log.tenure();
    let appended = Engine::append(&mut log, tenure.epoch, Seq(13), tenure.root, &[lane_batch(2, 1, 1)]);
    assert!(matches!(appended, Appended::Acked(Placed { first_seq: Seq(13), .. })), "{appended:?}");
}

#[test]
fn the_segment_that_a_resumed_epoch_writes_to_is_named_before_so_that_its_loss_shows() {
    let storage = MemoryStorage::new();
    let (mut log, _, _) = open(&storage, SEGMENT).unwrap();
    let room = SEGMENT / 4096 - 2;
    for number in 1..=room {
        Log::append(&mut log, &[lane_batch(0, number, 1)]).unwrap();
    }
    // The crash comes between the name of the second segment and the mark that names it.
    let before = storage.fork();
    Log::append(&mut log, &[lane_batch(0, room + 1, 1)]).unwrap();
    drop(log);
    let mark = |storage: &MemoryStorage| {
        let mut bytes = vec![0; 120];
        storage.open("epoch").unwrap().read_at(&mut bytes, 0).unwrap();
        bytes
    };
    let old = mark(&before);
    storage.tamper("epoch", |bytes| bytes.copy_from_slice(&old));
    let segment = |bytes: &[u8]| bytes[80];
    assert_eq!(segment(&mark(&storage)), 1);
    let (mut log, _) = Log::recover(storage.clone(), &options(), &mut |_, _, _| Ok(())).unwrap();
    assert_eq!(segment(&mark(&storage)), 1, "an opening alone writes nothing");
    Log::append(&mut log, &[lane_batch(0, room + 2, 1)]).unwrap();
    assert_eq!(segment(&mark(&storage)), 2);
}
