//! That nothing is signed of which it is not known that it is on the disk; that a disk that fails costs no entry, and is told; that an
//! orderly end tells what it has, and ends, whatever the disk does.
use super::*;
use crate::audit::sample::{check, entry, sign, signed_report, text, Around, Ledger, LOG, NOW, SMALL};
use crate::audit::{file_name, files};
use crate::domain::Code;
use crate::ledger::MemoryStorage;

const LARGE: Bounds = Bounds { rotate_bytes: 1 << 20, ..SMALL };

fn later(ms: u64) -> UnixMs {
    UnixMs(NOW.0 + ms)
}

/// A stream of which a sync has failed ten seconds after it began, with five entries and a refusal.
fn unsynced(storage: &MemoryStorage, around: &Around) -> (Stream<MemoryStorage>, Ledger) {
    let mut ledger = Ledger::with(3);
    let (mut stream, _) = around.open(storage, LARGE).unwrap();
    around.run(&mut stream, &ledger, NOW).unwrap();
    around.refuse(Code::Forbidden);
    ledger.grow(2);
    storage.fail_syncs(true);
    let fault = around.run(&mut stream, &ledger, later(10_000)).unwrap_err();
    assert!(matches!(fault, AuditFault::Unsynced { .. }), "{fault}");
    storage.fail_syncs(false);
    (stream, ledger)
}

#[test]
fn after_a_sync_that_failed_nothing_is_signed_before_it_was_written_again() {
    let (storage, around) = (MemoryStorage::with_sectors(64), Around::new());
    let (mut stream, mut ledger) = unsynced(&storage, &around);
    let told = around.run(&mut stream, &ledger, later(10_100)).unwrap_err().to_string();
    assert!(told.contains("perhaps not on the disk") && told.contains("injected sync error"), "{told}");
    // Of a copy: looking at the text makes it durable.
    assert!(!text(&storage.fork()).contains("checkpoint"));
    ledger.grow(1);
    around.run(&mut stream, &ledger, later(11_000)).unwrap();
    around.run(&mut stream, &ledger, later(20_000)).unwrap();
    let signed = signed_report(&storage);
    assert_eq!((signed.signatures.signed, signed.checkpoint.unwrap().1), (1, Seq(6)));
    // What was signed is there when the power goes, and nothing else has to be.
    let crashed = storage.crash(&mut || false);
    let report = check(&crashed, &ledger);
    assert_eq!((report.totals.refused, report.lines.1), (1, signed.checkpoint.unwrap().0 - 1));
}

#[test]
fn a_sync_that_failed_before_a_restart_is_made_up_for() {
    let (storage, around) = (MemoryStorage::with_sectors(64), Around::new());
    let (stream, ledger) = unsynced(&storage, &around);
    drop(stream);
    let recovered = around.live(&storage, &ledger, LARGE).unwrap();
    assert_eq!((recovered.damaged, recovered.torn), (None, 0));
    let report = check(&storage.crash(&mut || false), &ledger);
    assert_eq!((report.totals.refused, report.entries.1), (1, Seq(5)));
}

#[test]
fn what_cannot_be_written_again_is_told_and_derived_from_the_ledger_once_more() {
    for is_begun_durably in [false, true] {
        let (storage, around) = (MemoryStorage::with_sectors(64), Around::new());
        let (mut stream, mut ledger) = (around.open(&storage, LARGE).unwrap().0, Ledger::with(3));
        around.run(&mut stream, &ledger, NOW).unwrap();
        if is_begun_durably {
            around.run(&mut stream, &ledger, later(10_000)).unwrap();
        }
        around.refuse(Code::Forbidden);
        ledger.grow(2);
        storage.fail_syncs(true);
        around.run(&mut stream, &ledger, later(20_000)).unwrap_err();
        storage.fail_syncs(false);
        storage.tamper(&file_name(1), |bytes| {
            let at = bytes.len() - 400;
            bytes[at..at + 100].fill(0);
        });
        around.run(&mut stream, &ledger, later(21_000)).unwrap();
        stream.close(later(21_100), None).unwrap();
        let report = check(&storage.crash(&mut || false), &ledger);
        assert_eq!((report.totals.accepted, report.totals.refused, report.totals.dropped), (5, 0, 1));
        assert_eq!(files(&storage).unwrap().len(), 1 + usize::from(is_begun_durably));
        let told = if is_begun_durably { "\"from_line\":\"5\"" } else { "\"from_line\":\"1\"" };
        let text = text(&storage);
        assert!(text.contains("\"event\":\"stream\",\"ok\":false,\"what\":\"lost\"") && text.contains(told), "{text}");
    }
}

#[test]
fn an_orderly_end_gives_up_where_no_file_can_be_begun() {
    let stop = Event::new(EventKind::Stop, true);
    // The first file, and one behind a full one.
    for entries in [0, 60] {
        let (storage, around, ledger) = (MemoryStorage::new(), Around::new(), Ledger::with(60));
        let (mut stream, _) = around.open(&storage, SMALL).unwrap();
        around.run(&mut stream, &Ledger::with(entries), NOW).unwrap();
        if entries == 0 {
            assert_eq!(files(&storage).unwrap(), [1]);
            storage.remove(&file_name(1)).unwrap();
            drop(stream);
            stream = around.open(&storage, SMALL).unwrap().0;
        }
        stream.begin = stream.begin.or(Some(After::Full));
        storage.refuse_files(true);
        around.run(&mut stream, &ledger, NOW).unwrap_err();
        for _ in 0..2 {
            let fault = stream.close(NOW, Some(&stop)).unwrap_err();
            assert!(fault.to_string().contains("begin a file of the stream"), "{fault}");
        }
        storage.refuse_files(false);
        stream.close(NOW, Some(&stop)).unwrap();
        assert_eq!(text(&storage).matches("\"event\":\"stop\"").count(), 1);
    }
}

#[test]
fn an_orderly_end_tells_what_was_dropped_a_moment_ago() {
    let (storage, ledger, around) = (MemoryStorage::new(), Ledger::with(1), Around::new());
    let (mut stream, _) = around.open(&storage, SMALL).unwrap();
    stream.events_dropped(3);
    around.run(&mut stream, &ledger, NOW).unwrap();
    stream.events_dropped(2);
    around.run(&mut stream, &ledger, later(100)).unwrap();
    stream.close(later(200), None).unwrap();
    let report = check(&storage, &ledger);
    assert_eq!((report.totals.dropped, report.checkpoint.map(|(line, _)| line)), (5, Some(report.lines.1)));
}

#[test]
fn a_checkpoint_that_cannot_be_signed_is_not_written() {
    let (storage, ledger) = (MemoryStorage::new(), Ledger::with(2));
    let around = Around::new();
    let stream = Stream::open(storage.clone(), LOG, LARGE, around.figures.clone()).unwrap();
    let sign = |signed: &[u8], now: UnixMs| (now > later(15_000)).then(|| sign(signed, now)).flatten();
    let mut stream = stream.signed_by(Signer { sign: Box::new(sign), check: Box::new(|_, _| Ok(())) });
    stream.recover(NOW).unwrap();
    around.run(&mut stream, &ledger, later(10_000)).unwrap();
    assert!(!text(&storage).contains("checkpoint"), "{}", text(&storage));
    around.run(&mut stream, &ledger, later(20_000)).unwrap();
    let signatures = signed_report(&storage).signatures;
    assert_eq!((signatures.signed, signatures.unsigned), (1, 0));
}

/// Also if the newest file has no checkpoint yet: then it was begun behind one.
#[test]
fn a_last_checkpoint_that_this_server_has_not_signed_is_told_in_the_stream() {
    for is_ended in [true, false] {
        let (storage, mut around, mut ledger) = (MemoryStorage::new(), Around::new(), Ledger::with(60));
        around.signs = false;
        let (mut stream, _) = around.open(&storage, SMALL).unwrap();
        around.run(&mut stream, &ledger, NOW).unwrap();
        if is_ended {
            stream.close(NOW, None).unwrap();
        } else {
            while !stream.chain.at_checkpoint && stream.store.length() > 1_000 {
                ledger.append(entry(100 + ledger.head().0));
                around.run(&mut stream, &ledger, NOW).unwrap();
            }
        }
        drop(stream);
        around.signs = true;
        let distrusted = around.live(&storage, &ledger, SMALL).unwrap().distrusted.unwrap();
        assert!(distrusted.ends_with("it is not signed"), "{distrusted}");
        let text = text(&storage);
        assert_eq!(text.matches("\"event\":\"stream\",\"ok\":false,\"what\":\"checkpoint\"").count(), 1, "{text}");
        assert_eq!(around.live(&storage, &ledger, SMALL).unwrap().distrusted, None, "what it has signed itself is good");
        check(&storage, &ledger);
    }
}
