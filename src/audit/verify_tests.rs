//! That each kind of damage to a stream is found, where it is, and that the ledger finds what is chained and untrue.
use super::*;
use crate::audit::sample::{check, report, Around, Ledger, LOG, NOW, SMALL};
use crate::audit::{Bounds, Chain};
use crate::domain::UnixMs;
use crate::ledger::MemoryStorage;
use crate::ledger::ReadLedger;
use std::ops::ControlFlow;

/// A stream of several files, with its ledger.
fn sample() -> (MemoryStorage, Ledger) {
    let (storage, ledger, around) = (MemoryStorage::new(), Ledger::with(40), Around::new());
    around.live(&storage, &ledger, SMALL).unwrap();
    assert!(check(&storage, &ledger).files > 3);
    (storage, ledger)
}

fn compared(storage: &MemoryStorage, ledger: &Ledger) -> Compared {
    let report = report(storage);
    let mut comparison = Comparison::new(storage.clone(), LOG, &report);
    ReadLedger::scan(&mut ledger.log.reader(), Seq(1), &mut |seq, _, entry| {
        comparison.entry(seq, &entry).unwrap();
        ControlFlow::Continue(())
    })
    .unwrap();
    comparison.end()
}

/// Where the lines of a file begin, and where it ends.
fn lines(bytes: &[u8]) -> Vec<usize> {
    std::iter::once(0).chain(bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1)).collect()
}

/// Changes one bit in a line.
fn flip(bytes: &mut [u8], line: usize) {
    let at = lines(bytes)[line] + 40;
    bytes[at] ^= 1;
}

#[test]
fn each_kind_of_damage_is_found_where_it_is() {
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change, &str); 7] = [
        ("a flipped bit", |bytes| flip(bytes, 3), "its hash does not fit"),
        ("a line that is gone", |bytes| drop(bytes.drain(lines(bytes)[2]..lines(bytes)[3])), "its hash does not fit"),
        (
            "a line twice",
            |bytes| {
                let twice = bytes[lines(bytes)[2]..lines(bytes)[3]].to_vec();
                let at = lines(bytes)[3];
                bytes.splice(at..at, twice);
            },
            "its hash does not fit",
        ),
        ("zeros", |bytes| bytes[700..900].fill(0), "its hash does not fit"),
        (
            "a first line that is gone",
            |bytes| drop(bytes.drain(..lines(bytes)[1])),
            "does not begin with a line of the kind begin",
        ),
        ("an end that is gone", |bytes| bytes.truncate(lines(bytes)[4]), "does not go on where the one before it ends"),
        ("an end that is torn", |bytes| bytes.truncate(lines(bytes)[4] - 9), "the line is cut short"),
    ];
    let (whole, ledger) = sample();
    for (name, change, expected) in changes {
        let storage = whole.fork();
        storage.tamper(&file_name(2), change);
        let found = report(&storage);
        assert!(!found.is_whole(), "{name}");
        let told = found.damages.iter().any(|damage| damage.what.contains(expected));
        assert!(told, "{name}: {:?}", found.damages);
        assert!(found.damages.iter().all(|damage| !damage.file.ends_with(&file_name(1))), "{name}: {:?}", found.damages);
    }
    let storage = whole.fork();
    storage.remove(&file_name(2)).unwrap();
    assert!(report(&storage).damages[0].what.contains("audit-0000000002.jsonl is missing"));
    assert!(compared(&storage, &ledger).differing > 0, "entries are missing");
    let newest = *files(&whole).unwrap().last().unwrap();
    let storage = whole.fork();
    storage.tamper(&file_name(newest), |bytes| bytes.extend_from_slice(b"{\"v\":1,\"n\""));
    let found = report(&storage);
    assert!(found.is_whole() && found.torn.is_some_and(|(_, _, bytes)| bytes == 10), "that is an interrupted write");
}

#[test]
fn a_forged_line_with_a_whole_chain_is_found_by_the_ledger() {
    let (whole, ledger) = sample();
    // Everything is chained anew behind the change, as whoever can write the files could do.
    let (storage, mut head) = (whole.fork(), [0; 32]);
    for number in files(&whole).unwrap() {
        storage.tamper(&file_name(number), |bytes| {
            let mut out = Vec::new();
            for (at, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
                let text = String::from_utf8(line.to_vec()).unwrap();
                let members = text.trim_end().strip_prefix("{\"v\":1").unwrap();
                let (members, _) = members.split_once(",\"hash\"").unwrap();
                let members = members.replace("\"seq\":5,", "\"seq\":5,\"to_whom\":\"eve\",");
                let mut members = members.to_owned();
                for name in ["prev", "head"] {
                    if let Some(place) = members.find(&format!("\"{name}\":\"")) {
                        let start = place + name.len() + 4;
                        members.replace_range(start..start + 64, &crate::domain::hex(&head));
                    }
                }
                let content = format!("{{\"v\":1{members}");
                let hash = blake3::Hasher::new().update(&head).update(content.as_bytes()).finalize();
                head = *hash.as_bytes();
                assert!(number > 1 || at > 0 || content.contains("begin"));
                out.extend_from_slice(format!("{content},\"hash\":\"{}\"}}\n", hash.to_hex()).as_bytes());
            }
            *bytes = out;
        });
    }
    assert_eq!(report(&storage).damages, [], "the chain does not tell");
    let found = compared(&storage, &ledger);
    assert_eq!((found.differing, found.equal), (1, 39));
    assert!(found.differences[0].contains("what entry 5 of the ledger does"), "{:?}", found.differences);
    assert_ne!(report(&storage).head, report(&whole).head, "whoever has kept the head of a checkpoint sees it");
}

#[test]
fn damage_before_a_checkpoint_is_left_as_evidence_and_the_stream_goes_on_behind_it() {
    let (storage, around) = (MemoryStorage::new(), Around::new());
    let bounds = Bounds { rotate_bytes: 1 << 20, ..SMALL };
    around.live(&storage, &Ledger::with(6), bounds).unwrap();
    storage.tamper(&file_name(1), |bytes| flip(bytes, 4));
    let mut evidence = Vec::new();
    storage.tamper(&file_name(1), |bytes| evidence = bytes.clone());
    let ledger = Ledger::with(8);
    let recovered = around.live(&storage, &ledger, bounds).unwrap();
    assert!(recovered.damaged.unwrap().contains("audit-0000000001.jsonl at byte "));
    storage.tamper(&file_name(1), |bytes| assert_eq!(*bytes, evidence));
    let found = report(&storage);
    assert_eq!((found.files, found.damages.len(), found.entries.1), (2, 1, Seq(8)), "{:?}", found.damages);
    assert!(found.damages[0].file.ends_with(&file_name(1)) && found.damages[0].what.contains("its hash does not fit"));
    // And so on, whole, in the file behind it.
    let again = around.live(&storage, &ledger, bounds).unwrap();
    assert_eq!((again.damaged, again.through), (None, Seq(8)));
}

#[test]
fn the_rules_are_checked_beyond_the_hashes() {
    let mut chain = Chain::BEGINNING;
    let mut out = Vec::new();
    chain.write_begin(&mut out, NOW, LOG, crate::audit::write::After::Nothing);
    let begun = chain.clone();
    let first = std::mem::take(&mut out);
    assert_eq!(Chain::BEGINNING.clone().follow(&first).map(|line| line.n), Ok(1));
    let told = |chain: &Chain, write: &dyn Fn(&mut Chain, &mut Vec<u8>)| {
        let (mut own, mut line) = (begun.clone(), Vec::new());
        write(&mut own, &mut line);
        chain.clone().follow(&line).map(drop).unwrap_err()
    };
    let elsewhere = Chain { through: Seq(5), ..begun.clone() };
    let entry = crate::audit::sample::entry(1);
    let entry = crate::domain::Entry::parse(&entry).unwrap().0;
    let rules = [
        told(&elsewhere, &|own, out| own.write_accepted(out, LOG, Seq(1), &entry, None)),
        told(&elsewhere, &|own, out| own.write_checkpoint(out, NOW)),
        told(&elsewhere, &|own, out| own.write_gap(out, NOW, Seq(3))),
        told(&begun, &|own, out| {
            own.through = Seq(7);
            own.write_rewind(out, NOW, Seq(3));
        }),
        told(&Chain { n: 9, ..begun.clone() }, &|own, out| own.write_checkpoint(out, NOW)),
        told(&begun, &|own, out| {
            own.file = 4;
            own.write_begin(out, UnixMs(1), LOG, crate::audit::write::After::Full);
        }),
    ];
    assert!(rules.iter().all(|fault| matches!(fault, Fault::Rule(_))), "{rules:?}");
    let other = first.iter().map(|byte| if *byte == b'1' { b'2' } else { *byte }).collect::<Vec<u8>>();
    assert_eq!(Chain::before(&other), Err(Fault::Version(2)));
}
