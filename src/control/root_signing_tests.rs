//! Roots are signed when the ledger has grown, by the key in force, kept over restarts, and held against the ledger; whatever fails, the
//! next time goes on.
use super::*;
use crate::access::{Custody, Keyring};
use crate::control::sample::{issues, options};
use crate::domain::{LaneBatch, LogId};
use crate::ledger::{Log, MemoryStorage};
use crate::telemetry::{BuildInfo, Labels};
use std::path::Path;

const LOG: LogId = LogId([7; 16]);

struct Place {
    directory: tempfile::TempDir,
    custody: Custody,
    keyring: InForce,
    publisher: Arc<Publisher>,
    board: Arc<RootBoard>,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let custody = Custody::beside(&directory.path().join("keyring"));
        let keyring = InForce::new(Arc::new(custody.open_or_create().unwrap().0));
        let labels = Labels { service: "test", routes: &[], methods: &[], served: &[] };
        let build = BuildInfo { version: "1", revision: "r", driver: "none", cores: 1, started: UnixMs(0) };
        let publisher = Arc::new(Publisher::new(labels, &build, &[1.0]).unwrap());
        Self { directory, custody, keyring, publisher, board: Arc::default() }
    }

    fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("ledger.roots")
    }

    /// As after a start.
    fn signer(&mut self, log: &Log<MemoryStorage>) -> Signer {
        self.board = Arc::default();
        let (file, publisher) = (Some(self.file()), self.publisher.clone());
        Signer::new(Box::new(log.reader()), self.keyring.clone(), self.board.clone(), file, publisher)
    }

    fn sizes(&self) -> Vec<u64> {
        self.board.all().iter().map(|signed| signed.root.size).collect()
    }

    fn metric(&self, name: &str) -> String {
        let text = self.publisher.render();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} is missing"));
        line.rsplit_once(' ').unwrap().1.to_owned()
    }
}

fn open(storage: &MemoryStorage) -> Log<MemoryStorage> {
    Log::open(storage.clone(), &options(), &mut |_, _, _| Ok(())).unwrap().0
}

/// Appends batches of two entries.
fn grow(log: &mut Log<MemoryStorage>, lane: u16, batches: std::ops::Range<u64>) {
    for batch in batches {
        let lane_first = 2 * batch + 1;
        log.append(&[LaneBatch { lane, lane_first, count: 2, bytes: issues(lane_first..lane_first + 2) }]).unwrap();
    }
}

fn kept(path: &Path) -> Vec<u64> {
    RootFile::open(path.to_owned(), LOG).1.unwrap().roots.iter().map(|signed| signed.root.size).collect()
}

#[test]
fn a_ledger_that_has_grown_is_signed_by_the_key_in_force_and_what_was_signed_is_there_after_a_restart() {
    let (mut place, mut log) = (Place::new(), open(&MemoryStorage::new()));
    let mut signer = place.signer(&log);
    signer.round();
    assert_eq!((place.sizes(), place.file().exists()), (vec![], false), "nothing is there to be signed");
    for (batches, hybrid) in [(3, None), (5, Some(true)), (6, Some(false))] {
        if hybrid.is_some() {
            let (_, id) = place.custody.add_key(hybrid).unwrap();
            place.keyring.replace(Arc::new(place.custody.activate(&id).unwrap()));
        }
        let before = place.sizes().last().copied().unwrap_or(0);
        grow(&mut log, 0, before..batches);
        signer.round();
        signer.round();
        let newest = place.board.newest().unwrap();
        assert_eq!((newest.root.size, newest.root.through), (batches, Seq(2 * batches)));
        let keyring = place.keyring.get();
        let active = keyring.public_keys().unwrap().into_iter().find(|key| key.id == keyring.active_id()).unwrap();
        assert_eq!((newest.verify(&active, LOG), active.is_hybrid()), (Ok(()), hybrid == Some(true)));
    }
    assert_eq!((place.sizes(), kept(&place.file())), (vec![3, 5, 6], vec![3, 5, 6]));
    assert_eq!(place.metric("wallet_signed_root_height"), "12");
    assert_eq!(place.metric("wallet_root_signings_total{outcome=\"ok\"}"), "3");
    let seconds: f64 = place.metric("wallet_signed_root_time_seconds").parse().unwrap();
    assert!((seconds - unix_now().0 as f64 / 1e3).abs() < 600.0, "{seconds}");

    let all = place.board.all();
    let mut signer = place.signer(&log);
    assert_eq!(place.board.all(), all);
    signer.round();
    grow(&mut log, 0, 6..7);
    signer.round();
    assert_eq!((place.sizes(), kept(&place.file())), (vec![3, 5, 6, 7], vec![3, 5, 6, 7]));
}

#[test]
fn roots_that_the_ledger_does_not_continue_are_put_aside() {
    let (mut place, storage) = (Place::new(), MemoryStorage::new());
    let mut log = open(&storage);
    let mut signer = place.signer(&log);
    let mut copy = None;
    for batches in 1..=4 {
        grow(&mut log, 0, batches - 1..batches);
        signer.round();
        if batches == 2 {
            copy = Some(storage.fork());
        }
    }
    assert_eq!(place.sizes(), [1, 2, 3, 4]);
    drop((signer, log));
    // An older copy, which went on in another way: once it is shorter, once longer than what was signed.
    for further in [1, 5] {
        let mut log = open(&copy.as_ref().unwrap().fork());
        grow(&mut log, 1, 0..further);
        let (file, aside) = (place.file(), place.directory.path().join("ledger.roots.other"));
        let before = std::fs::read(&file).unwrap();
        let mut signer = place.signer(&log);
        assert_eq!(place.sizes(), [1, 2, 3, 4]);
        signer.round();
        assert_eq!((place.sizes(), kept(&file)), (vec![1, 2, 2 + further], vec![1, 2, 2 + further]));
        assert_eq!(std::fs::read(&aside).unwrap(), before, "what was signed is evidence");
        signer.round();
        assert_eq!(place.sizes().len(), 3);
        std::fs::write(&file, before).unwrap();
        std::fs::remove_file(aside).unwrap();
    }
}

#[test]
fn a_file_that_cannot_be_written_is_told_and_written_later() {
    let (mut place, mut log) = (Place::new(), open(&MemoryStorage::new()));
    std::fs::create_dir(place.file()).unwrap();
    grow(&mut log, 0, 0..1);
    let mut signer = place.signer(&log);
    signer.round();
    assert_eq!(place.sizes(), [1], "whoever asks gets it all the same");
    assert!(signer.told.as_ref().is_some_and(|told| told.contains("cannot write the signed root")), "{:?}", signer.told);
    assert_eq!(place.metric("wallet_root_signings_total{outcome=\"failed\"}"), "1");
    std::fs::remove_dir(place.file()).unwrap();
    signer.round();
    assert_eq!((kept(&place.file()), &signer.told), (vec![1], &None));
    assert_eq!(place.metric("wallet_root_signings_total{outcome=\"ok\"}"), "1");
    // A file that was lost is made anew by the next start that signs, and one that is damaged as well.
    std::fs::write(place.file(), b"nonsense\n{").unwrap();
    let mut signer = place.signer(&log);
    assert!(place.sizes().is_empty());
    signer.round();
    assert_eq!((place.sizes(), kept(&place.file())), (vec![1], vec![1]));
}

#[test]
fn without_a_file_roots_are_signed_and_nothing_is_written() {
    let (place, mut log) = (Place::new(), open(&MemoryStorage::new()));
    grow(&mut log, 0, 0..2);
    let board = Arc::<RootBoard>::default();
    let keyring = InForce::new(Arc::new(Keyring::open(&place.directory.path().join("keyring")).unwrap()));
    let mut signer = Signer::new(Box::new(log.reader()), keyring, board.clone(), None, place.publisher.clone());
    signer.round();
    assert_eq!((board.newest().unwrap().root.size, place.file().exists()), (2, false));
}
