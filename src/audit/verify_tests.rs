//! That each kind of damage to a stream is found, where it is, and that the ledger finds what is chained and untrue.
use super::*;
use crate::audit::sample::{check, check_signature, report, signed_report, Around, Ledger, LOG, NOW, SMALL};
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

/// Changes lines and chains everything behind anew, heads of checkpoints included, as whoever can write the files could do.
fn forge(storage: &MemoryStorage, change: &dyn Fn(String) -> String) {
    let mut head = [0; 32];
    for number in files(storage).unwrap() {
        storage.tamper(&file_name(number), |bytes| {
            let mut out = Vec::new();
            for (at, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
                let text = String::from_utf8(line.to_vec()).unwrap();
                let members = text.trim_end().strip_prefix("{\"v\":1").unwrap();
                let (members, _) = members.split_once(",\"hash\"").unwrap();
                let mut members = change(members.to_owned());
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
}

/// Takes the signature off a checkpoint.
fn unsigned(members: String) -> String {
    match members.split_once("\"signature\":{") {
        Some((before, _)) => format!("{before}\"signature\":null"),
        None => members,
    }
}

#[test]
fn a_forged_line_with_a_whole_chain_is_found_by_the_ledger() {
    let (whole, ledger) = sample();
    let storage = whole.fork();
    forge(&storage, &|members| members.replace("\"seq\":5,", "\"seq\":5,\"to_whom\":\"eve\","));
    assert_eq!(report(&storage).damages, [], "the chain does not tell");
    let found = compared(&storage, &ledger);
    assert_eq!((found.differing, found.equal), (1, 39));
    assert!(found.differences[0].contains("what entry 5 of the ledger does"), "{:?}", found.differences);
    assert_ne!(report(&storage).head, report(&whole).head, "whoever has kept the head of a checkpoint sees it");
}

#[test]
fn a_forged_line_with_a_whole_chain_is_found_by_the_signatures() {
    let (whole, _) = sample();
    let good = signed_report(&whole);
    let Signatures { signed, unsigned: without, last, bad, .. } = good.signatures.clone();
    assert!(signed > 3 && (without, bad, last) == (0, 0, good.checkpoint), "{:?}", good.signatures);
    assert_eq!(report(&whole).signatures, good.signatures);

    let storage = whole.fork();
    forge(&storage, &|members| members.replace("\"seq\":5,", "\"seq\":5,\"to_whom\":\"eve\","));
    let found = signed_report(&storage);
    assert_eq!((&*found.damages, found.signatures.signed), (&[][..], signed));
    // Those before the line are as good as ever; none behind it is.
    assert!(found.signatures.bad + 3 > signed && found.signatures.last < found.checkpoint, "{:?}", found.signatures);
    assert!(found.signatures.bad_ones[0].what.contains("it is of something else"), "{:?}", found.signatures.bad_ones);
    assert_eq!(report(&storage).signatures.bad, 0, "nobody was told how to check");

    // Without its signatures it is a stream as of an earlier version, and that is seen.
    forge(&storage, &unsigned);
    let found = signed_report(&storage).signatures;
    assert_eq!((found.signed, found.unsigned, found.last, found.bad), (0, signed, None, 0));
    assert!(found.lacking.is_some() && good.signatures.lacking.is_none());

    // Signatures of other lines do not do; nor is anything else a signature.
    let mut first = String::new();
    whole.tamper(&file_name(1), |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        first = text.split_once("\"signature\":").unwrap().1.split_once(",\"hash\"").unwrap().0.to_owned();
    });
    for (signature, damaged) in [(first.as_str(), false), ("7", true), ("{}", false)] {
        let storage = whole.fork();
        forge(&storage, &|members| match members.split_once("\"signature\":{") {
            Some((before, _)) => format!("{before}\"signature\":{signature}"),
            None => members,
        });
        let mut check = |signed: &[u8], found: &Map<String, Value>| match found.contains_key("of") {
            true => check_signature(signed, found),
            false => Err("it is none".to_owned()),
        };
        let found = verify(&storage, Expected { check: Some(&mut check), ..Expected::default() }, &mut |_| ()).unwrap();
        assert_eq!(!found.damages.is_empty(), damaged, "{signature}: {:?}", found.damages);
        assert!(damaged || found.signatures.bad >= signed - 1, "{signature}: {:?}", found.signatures);
    }
}

#[test]
fn a_stream_that_began_unsigned_goes_on_signed() {
    let (storage, mut around) = (MemoryStorage::new(), Around::new());
    around.signs = false;
    around.live(&storage, &Ledger::with(6), SMALL).unwrap();
    let before = signed_report(&storage).signatures;
    assert!(before.unsigned > 0 && (before.signed, before.last, before.bad) == (0, None, 0));
    around.signs = true;
    let ledger = Ledger::with(9);
    around.live(&storage, &ledger, SMALL).unwrap();
    check(&storage, &ledger);
    let after = signed_report(&storage);
    assert_eq!((after.signatures.unsigned, after.signatures.bad), (before.unsigned, 0));
    assert_eq!(after.signatures.last, after.checkpoint, "the newest is signed, and what is before it under its signature");
}

/// A first line of a later file that is no `begin` says of no ledger that it is its own.
#[test]
fn a_checkpoint_of_no_ledger_is_never_good() {
    let storage = MemoryStorage::new();
    let (mut chain, mut out) = (Chain { file: 1, ..Chain::BEGINNING }, Vec::new());
    chain.write_checkpoint(&mut out, NOW, Some("{\"of\":\"\"}"));
    storage.create(&file_name(2)).unwrap();
    storage.tamper(&file_name(2), |bytes| *bytes = out.clone());
    let found = signed_report(&storage);
    assert!(!found.is_whole() && found.signatures.last.is_none(), "{found:?}");
}

#[test]
fn what_is_signed_of_a_checkpoint_is_laid_out_as_the_vectors_say() {
    use crate::access::{PublicKey, WrittenSignature, AUDIT_CHECKPOINT};
    use base64::{engine::general_purpose::STANDARD, Engine};
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/signed.json");
    let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let public = |name: &str| STANDARD.decode(vectors["public_keys"][name].as_str().unwrap()).unwrap();
    let checkpoints = vectors["checkpoints"].as_array().unwrap();
    for vector in checkpoints {
        let number = |name: &str| vector[name].as_u64().unwrap();
        let chain = Chain {
            n: number("n") - 1,
            head: crate::domain::bytes_of_hex(vector["head"].as_str().unwrap()).unwrap(),
            through: Seq(number("through")),
            totals: Totals { accepted: number("accepted"), refused: number("refused"), dropped: number("dropped") },
            log: Some(LogId(crate::domain::bytes_of_hex(vector["log_id"].as_str().unwrap()).unwrap())),
            ..Chain::BEGINNING
        };
        let signature: WrittenSignature = serde_json::from_value(vector["signature"].clone()).unwrap();
        let signed = [b"audit checkpoint\0", &chain.signed().unwrap()[..], &signature.ts.to_le_bytes()].concat();
        assert_eq!(crate::domain::hex(&signed), vector["signed"].as_str().unwrap());
        let ml_dsa_65 = signature.ml_dsa_65.is_some().then(|| public("ml_dsa_65").into_boxed_slice().try_into().unwrap());
        let key = PublicKey { id: "k-1".to_owned(), ed25519: public("ed25519").try_into().unwrap(), ml_dsa_65 };
        assert_eq!(signature.verify(&key, AUDIT_CHECKPOINT, &chain.signed().unwrap()), Ok(()));
        for change in [
            |chain: &mut Chain| chain.n += 1,
            |chain: &mut Chain| chain.head[31] ^= 1,
            |chain: &mut Chain| chain.through.0 += 1,
            |chain: &mut Chain| chain.totals.accepted += 1,
            |chain: &mut Chain| chain.totals.refused += 1,
            |chain: &mut Chain| chain.totals.dropped += 1,
            |chain: &mut Chain| chain.log = Some(LogId([1; 16])),
        ] {
            let mut other = chain.clone();
            change(&mut other);
            assert!(signature.verify(&key, AUDIT_CHECKPOINT, &other.signed().unwrap()).is_err());
        }
    }
    assert!(checkpoints.len() >= 2 && Chain::BEGINNING.signed().is_none());
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
        told(&elsewhere, &|own, out| own.write_checkpoint(out, NOW, None)),
        told(&elsewhere, &|own, out| own.write_gap(out, NOW, Seq(3))),
        told(&begun, &|own, out| {
            own.through = Seq(7);
            own.write_rewind(out, NOW, Seq(3));
        }),
        told(&Chain { n: 9, ..begun.clone() }, &|own, out| own.write_checkpoint(out, NOW, None)),
        told(&begun, &|own, out| {
            own.file = 4;
            own.write_begin(out, UnixMs(1), LOG, crate::audit::write::After::Full);
        }),
    ];
    assert!(rules.iter().all(|fault| matches!(fault, Fault::Rule(_))), "{rules:?}");
    let other = first.iter().map(|byte| if *byte == b'1' { b'2' } else { *byte }).collect::<Vec<u8>>();
    assert_eq!(Chain::before(&other), Err(Fault::Version(2)));
}

#[test]
fn signatures_that_somebody_has_taken_away_are_missed_although_the_newest_checkpoint_has_one() {
    let (storage, mut ledger) = sample();
    forge(&storage, &unsigned);
    ledger.grow(4);
    Around::new().live(&storage, &ledger, SMALL).unwrap();
    check(&storage, &ledger);
    let found = signed_report(&storage);
    assert_eq!((found.signatures.last, found.signatures.bad), (found.checkpoint, 0), "{:?}", found.signatures);
    let (first, last) = found.signatures.lacking.unwrap();
    assert!(first.file.ends_with(&file_name(1)) && first.what.contains("is not signed"), "{first:?}");
    // Who knows that an earlier version wrote that far says so.
    let from = |signed_from| {
        let expected = Expected { check: Some(&mut check_signature), signed_from, ..Expected::default() };
        verify(&storage, expected, &mut |_| ()).unwrap().signatures.lacking
    };
    assert_eq!((from(last + 1), from(last).map(|(_, line)| line)), (None, Some(last)));
}

/// A stream with these entries, in which `between` writes something behind entry 3.
fn with_a_stretch(between: &dyn Fn(&mut Chain, &mut Vec<u8>), behind: std::ops::RangeInclusive<u64>) -> MemoryStorage {
    let (storage, mut chain, mut out) = (MemoryStorage::new(), Chain::BEGINNING, Vec::new());
    chain.write_begin(&mut out, NOW, LOG, crate::audit::write::After::Nothing);
    let entry = |seq: u64, chain: &mut Chain, out: &mut Vec<u8>| {
        let bytes = crate::audit::sample::entry(seq);
        chain.write_accepted(out, LOG, Seq(seq), &Entry::parse(&bytes).unwrap().0, None);
    };
    (1..=3).for_each(|seq| entry(seq, &mut chain, &mut out));
    between(&mut chain, &mut out);
    behind.for_each(|seq| entry(seq, &mut chain, &mut out));
    storage.create(&file_name(1)).unwrap();
    storage.tamper(&file_name(1), |bytes| *bytes = out.clone());
    storage
}

#[test]
fn entries_that_a_gap_leaves_out_are_counted_if_the_ledger_has_them() {
    let storage = with_a_stretch(&|chain, out| chain.write_gap(out, NOW, Seq(6)), 7..=9);
    let found = compared(&storage, &Ledger::with(9));
    assert_eq!((found.equal, found.differing, found.left_out, found.first_left_out), (6, 0, 3, Seq(4)));
    // What was taken back with a restore and written anew is in no gap any more.
    let taken_back = |chain: &mut Chain, out: &mut Vec<u8>| {
        chain.write_gap(out, NOW, Seq(6));
        chain.write_rewind(out, NOW, Seq(4));
    };
    let storage = with_a_stretch(&taken_back, 5..=9);
    let found = compared(&storage, &Ledger::with(9));
    assert_eq!((found.equal, found.differing, found.left_out, found.first_left_out), (8, 0, 1, Seq(4)));
    assert_eq!(report(&storage).gaps, [(Seq(4), Seq(4))]);
}

#[test]
fn a_line_that_a_server_is_just_writing_is_no_damage() {
    let (storage, ledger, around) = (MemoryStorage::new(), Ledger::with(1_500), Around::new());
    around.live(&storage, &ledger, Bounds { rotate_bytes: 4 << 20, ..SMALL }).unwrap();
    let mut has_grown = false;
    let found = verify(&storage, Expected::default(), &mut |_| {
        if !std::mem::replace(&mut has_grown, true) {
            storage.tamper(&file_name(1), |bytes| bytes.extend_from_slice(b"{\"v\":1,\"n\""));
        }
    });
    let found = found.unwrap();
    assert!(has_grown && found.is_whole(), "{:?}", found.damages);
    assert!(found.torn.is_some_and(|(_, _, bytes)| bytes == 10));
}

#[test]
fn a_line_that_was_seen_earlier_is_missed_when_the_stream_was_cut_back() {
    let (storage, ledger) = sample();
    let before = report(&storage);
    let anchored = |storage: &MemoryStorage, anchor| {
        verify(storage, Expected { anchor: Some(anchor), ..Expected::default() }, &mut |_| ()).unwrap().anchored
    };
    let (line, hash) = before.settled.unwrap();
    assert_eq!(line + 1, before.checkpoint.unwrap().0);
    assert_eq!((before.anchored, anchored(&storage, (line, hash))), (Anchored::Unasked, Anchored::Kept));
    assert_eq!(anchored(&storage, (line, [1; 32])), Anchored::Other);
    // Cut back to the end of an earlier file, all hashes and signatures as they were; then the server goes on there.
    let newest = *files(&storage).unwrap().last().unwrap();
    let cut = storage.fork();
    cut.remove(&file_name(newest)).unwrap();
    assert_eq!(anchored(&cut, (line, hash)), Anchored::Missing);
    Around::new().live(&cut, &ledger, SMALL).unwrap();
    Around::new().live(&cut, &ledger, SMALL).unwrap();
    check(&cut, &ledger);
    assert_eq!(signed_report(&cut).signatures.lacking, None, "nothing else tells");
    assert_eq!(anchored(&cut, (line, hash)), Anchored::Other);
    // The first line of a file knows the hash of the one before; older ones are not there any more.
    storage.remove(&file_name(1)).unwrap();
    let later = report(&storage);
    let mut first = Vec::new();
    storage.tamper(&file_name(2), |bytes| first = bytes[..lines(bytes)[1]].to_vec());
    let before_it = Chain::before(&first).unwrap();
    assert_eq!(anchored(&storage, (before_it.n, before_it.head)), Anchored::Kept);
    assert_eq!(anchored(&storage, (later.lines.0 - 2, hash)), Anchored::Removed);
}
