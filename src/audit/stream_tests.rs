//! That each entry stands in the stream exactly once, whatever crashes and wherever; that refusals are bounded and what is dropped is counted;
//! that a full disk is caught up with.
use super::*;
use crate::audit::sample::{check, entry, report, text, Around, Ledger, LOG, MEMO, NOW, SMALL};
use crate::audit::{file_name, files, EventKind};
use crate::domain::{Code, Seq};
use crate::ledger::MemoryStorage;
use crate::telemetry::feed::REFUSALS_MAX;

#[test]
fn what_happens_stands_in_the_stream_once_over_restarts() {
    let (storage, mut ledger, mut around) = (MemoryStorage::new(), Ledger::with(3), Around::new());
    around.hold("alice \"a\"");
    around.refuse(Code::InsufficientFunds);
    assert_eq!(around.live(&storage, &ledger, SMALL).unwrap(), Recovered::default());
    ledger.grow(2);
    let again = around.live(&storage, &ledger, SMALL).unwrap();
    assert_eq!((again.through, again.torn, again.damaged), (Seq(3), 0, None));
    let report = check(&storage, &ledger);
    assert_eq!((report.totals.accepted, report.totals.refused, report.totals.dropped), (5, 1, 0));
    assert_eq!(report.checkpoint.unwrap().1, Seq(5), "an orderly end is behind a checkpoint");
    let text = text(&storage);
    assert_eq!(text.matches("\"event\":\"start\",\"ok\":true,\"cores\":\"2\"").count(), 2);
    assert_eq!(text.matches("\"subject\":\"alice \\\"a\\\"\"").count(), 7, "one token, one refusal, five entries: {text}");
    assert!(!text.contains(MEMO) && !text.contains("planted"), "{text}");
}

#[test]
fn whose_a_token_is_may_be_told_later() {
    let (storage, mut ledger, mut around) = (MemoryStorage::new(), Ledger::with(1), Around::new());
    around.live(&storage, &ledger, SMALL).unwrap();
    around.hold("alice");
    ledger.grow(1);
    around.live(&storage, &ledger, SMALL).unwrap();
    let text = text(&storage);
    let line = |wanted: &str| text.lines().find(|line| line.contains(wanted)).unwrap();
    assert!(line("\"seq\":1,").contains("\"subject\":null"));
    assert!(line("\"kind\":\"token\"").contains("\"subject\":\"alice\",\"key_id\":\"k-1\""));
    assert!(line("\"seq\":2,").contains("\"subject\":\"alice\""));
}

#[test]
fn a_tail_that_is_torn_at_any_byte_is_cut_and_the_stream_goes_on_there() {
    let (storage, ledger, around) = (MemoryStorage::new(), Ledger::with(2), Around::new());
    let whole = Bounds { rotate_bytes: 1 << 20, ..SMALL };
    around.live(&storage, &ledger, whole).unwrap();
    let mut synced = 0;
    storage.tamper(&file_name(1), |bytes| synced = bytes.len());
    // Three more entries, behind the last checkpoint.
    let mut grown = Ledger::with(5);
    let (mut stream, _) = around.open(&storage, whole).unwrap();
    around.run(&mut stream, &grown, NOW).unwrap();
    let before = storage.fork();
    let mut length = 0;
    before.tamper(&file_name(1), |bytes| length = bytes.len());
    assert!(length > synced + 600);
    grown.grow(1);
    for end in synced..length {
        for garbage in [&b""[..], b"\n", &[0; 300]] {
            let torn = before.fork();
            torn.tamper(&file_name(1), |bytes| {
                bytes.truncate(end);
                bytes.extend_from_slice(garbage);
            });
            let recovered = around.live(&torn, &grown, whole).unwrap();
            assert_eq!(recovered.damaged, None, "{end}");
            check(&torn, &grown);
            if end % 97 != 0 {
                break;
            }
        }
    }
}

/// Numbers that look random and are the same for the same seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn even(&mut self) -> bool {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) & 1 == 0
    }
}

/// Two lives, of which each change to the disk may be the last one before the power goes: what survives of it is what the dice say. A
/// third life then comes to the whole ledger, without a gap, a repeat or a line that does not fit.
#[test]
fn whenever_the_power_goes_no_entry_is_lost_and_none_is_repeated() {
    let ledger = Ledger::with(40);
    let half = Ledger::with(20);
    let mut ended = false;
    for changes in 0..400 {
        for seed in 0..4 {
            let (storage, around) = (MemoryStorage::with_sectors(64), Around::new());
            around.refuse(Code::Unauthorized);
            let tight = Bounds { rotate_bytes: 3_000, keep: Some(3), ..SMALL };
            storage.fail_after(Some(changes));
            ended = around.live(&storage, &half, tight).is_ok() && around.live(&storage, &ledger, tight).is_ok();
            let mut dice = Dice(changes * 7 + seed);
            let crashed = storage.crash(&mut || match seed {
                0 => true,
                1 => false,
                _ => dice.even(),
            });
            let around = Around::new();
            let recovered =
                around.live(&crashed, &ledger, tight).unwrap_or_else(|fault| panic!("change {changes}, seed {seed}: {fault}"));
            assert_eq!(recovered.damaged, None, "change {changes}, seed {seed}");
            check(&crashed, &ledger);
        }
        if ended {
            assert!(changes > 30, "two lives have more changes than that");
            return;
        }
    }
    panic!("two lives do not end");
}

#[test]
fn full_files_are_rotated_and_old_ones_removed_if_that_is_asked_for() {
    let (storage, ledger, around) = (MemoryStorage::new(), Ledger::with(60), Around::new());
    around.live(&storage, &ledger, SMALL).unwrap();
    let numbers = files(&storage).unwrap();
    assert!(numbers.len() > 4 && numbers[0] == 1, "{numbers:?}");
    check(&storage, &ledger);
    let storage = MemoryStorage::new();
    around.live(&storage, &ledger, Bounds { keep: Some(2), ..SMALL }).unwrap();
    let report = check(&storage, &ledger);
    assert!(report.files == 2 && report.lines.0 > 1 && report.entries.0 > Seq(0), "{report:?}");
    assert_eq!((report.totals.accepted, report.entries.1), (60, Seq(60)), "files say what was before them");
}

#[test]
fn a_new_day_begins_a_new_file() {
    let (storage, mut ledger, around) = (MemoryStorage::new(), Ledger::with(1), Around::new());
    let (mut stream, _) = around.open(&storage, Bounds { rotate_bytes: 1 << 20, ..SMALL }).unwrap();
    around.run(&mut stream, &ledger, NOW).unwrap();
    ledger.grow(1);
    around.run(&mut stream, &ledger, UnixMs(NOW.0 + DAY_MS)).unwrap();
    assert_eq!(files(&storage).unwrap(), [1, 2]);
    assert!(text(&storage).contains("\"after\":\"day\""));
    check(&storage, &ledger);
}

#[test]
fn a_full_disk_is_caught_up_with_and_meanwhile_memory_is_bounded() {
    let (storage, mut ledger, around) = (MemoryStorage::new(), Ledger::with(2), Around::new());
    let bounds = Bounds { rotate_bytes: 1 << 20, refusals_per_second: 1_000_000, ..SMALL };
    let (mut stream, _) = around.open(&storage, bounds).unwrap();
    around.run(&mut stream, &ledger, NOW).unwrap();
    storage.limit_bytes(Some(0));
    ledger.grow(50);
    let sent = 3 * REFUSALS_MAX as u64;
    for _ in 0..sent {
        around.refuse(Code::Forbidden);
    }
    for _ in 0..20 {
        assert!(matches!(around.run(&mut stream, &ledger, NOW), Err(AuditFault::Io { .. })));
    }
    assert!(stream.pending.len() < WRITE_BYTES + REFUSALS_MAX * 600, "{}", stream.pending.len());
    assert_eq!(around.figures.through(), Seq(2), "what is not written is not claimed");
    assert!(around.figures.lag_seconds(ledger.head(), UnixMs(NOW.0 + 5_000)) >= 5.0);
    storage.limit_bytes(None);
    around.run(&mut stream, &ledger, UnixMs(NOW.0 + 2_000)).unwrap();
    stream.close(NOW, None).unwrap();
    let report = check(&storage, &ledger);
    assert_eq!((report.totals.refused + report.totals.dropped, report.entries.1), (sent, Seq(52)));
    assert!(report.totals.dropped >= REFUSALS_MAX as u64);
    assert!(text(&storage).contains("\"by\":{\"policy\":"));
}

#[test]
fn a_flood_of_refusals_is_written_at_a_bounded_rate_and_the_rest_counted() {
    let (storage, ledger, around) = (MemoryStorage::new(), Ledger::with(1), Around::new());
    let (mut stream, _) = around.open(&storage, SMALL).unwrap();
    let mut sent = 0;
    for tenth in 0..30 {
        for _ in 0..50 {
            around.refuse(Code::Unauthorized);
            sent += 1;
        }
        around.run(&mut stream, &ledger, UnixMs(NOW.0 + tenth * 100)).unwrap();
    }
    stream.events_dropped(2);
    around.run(&mut stream, &ledger, UnixMs(NOW.0 + 10_000)).unwrap();
    stream.close(NOW, None).unwrap();
    let report = check(&storage, &ledger);
    assert_eq!(report.totals.refused, 3 * SMALL.refusals_per_second, "three seconds");
    assert_eq!(report.totals.dropped, sent - report.totals.refused + 2);
    assert_eq!(around.figures.dropped().iter().sum::<u64>(), report.totals.dropped);
    assert!(text(&storage).matches("\"kind\":\"dropped\"").count() <= 5, "told about once a second");
}

#[test]
fn a_ledger_that_was_taken_back_or_begins_later_is_told_and_another_one_refused() {
    let (storage, around) = (MemoryStorage::new(), Around::new());
    around.live(&storage, &Ledger::with(9), SMALL).unwrap();
    // Restored from a copy after entry 6, and gone on with.
    let mut back = Ledger::with(6);
    around.live(&storage, &back, SMALL).unwrap();
    back.append(entry(70));
    around.live(&storage, &back, SMALL).unwrap();
    let report = check(&storage, &back);
    assert_eq!((report.rewinds.len(), report.rewinds[0].1, report.totals.accepted), (1, Seq(6), 10));
    // A copy that went its own way before it was as long as the stream.
    let mut branch = Ledger::with(6);
    branch.append(entry(71));
    let fault = around.live(&storage, &branch, SMALL).unwrap_err();
    assert!(matches!(fault, AuditFault::OtherBranch { seq: Seq(7), .. }), "{fault}");
    assert_eq!(check(&storage, &back).entries.1, Seq(7), "nothing was written");
    let other = Stream::open(storage.clone(), LogId([8; 16]), SMALL, AuditFigures::default()).err().unwrap();
    assert!(matches!(other, AuditFault::OtherLedger { expected: LogId([8, ..]), found: LOG, .. }), "{other}");
    let held = Stream::open(storage.clone(), LOG, SMALL, AuditFigures::default()).unwrap();
    assert!(matches!(Stream::open(storage, LOG, SMALL, AuditFigures::default()), Err(AuditFault::InUse { .. })));
    drop(held);
}

#[test]
fn every_kind_of_event_has_its_name() {
    let (storage, ledger, around) = (MemoryStorage::new(), Ledger::with(1), Around::new());
    let (mut stream, _) = around.open(&storage, SMALL).unwrap();
    around.run(&mut stream, &ledger, NOW).unwrap();
    let kinds = [
        EventKind::Start,
        EventKind::Stop,
        EventKind::Reload,
        EventKind::KeyRotation,
        EventKind::Revocation,
        EventKind::Mint,
        EventKind::Counters,
        EventKind::FaultInjection,
    ];
    for kind in kinds {
        stream.note(NOW, &Event::new(kind, false).with("what", "x\u{7}".repeat(2_000)));
    }
    stream.close(NOW, None).unwrap();
    let text = text(&storage);
    for name in ["start", "stop", "reload", "key_rotation", "revocation", "fault_injection"] {
        let long = "x".repeat(512);
        assert!(text.contains(&format!("\"event\":\"{name}\",\"ok\":false,\"what\":\"{long}\"")), "{name}");
    }
    assert_eq!(report(&storage).damages, []);
}
