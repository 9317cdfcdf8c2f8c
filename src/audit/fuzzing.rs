//! What must hold of a stream whatever stands in its files; `src/fuzzing.rs` feeds it.
use super::line::split;
use super::store::Store;
use super::write::After;
use super::{file_name, verify, Chain, Event, EventKind, Expected, Report};
use crate::domain::{LogId, UnixMs};
use crate::ledger::{RamStorage, ReadFile, Storage, StorageFile};

/// Room for one file of a stream.
const STORAGE_BYTES_MAX: u64 = 16 << 20;

/// A stream of one file.
fn stream(bytes: &[u8]) -> RamStorage {
    let storage = RamStorage::new(STORAGE_BYTES_MAX);
    let file = storage.create(&file_name(1)).expect("there is room");
    file.write_at(bytes, 0).expect("there is room");
    storage
}

fn report(storage: &RamStorage) -> Report {
    verify(storage, Expected::default(), &mut |_| ()).expect("memory can be read")
}

/// The same lines with their hashes made anew, as whoever has the files could.
fn chained(input: &[u8]) -> Vec<u8> {
    let (mut head, mut out) = ([0; 32], Vec::new());
    for line in input.split_inclusive(|byte| *byte == b'\n') {
        let content = split(line).map_or(line, |(content, _)| content);
        let content: Vec<u8> = content.iter().copied().filter(|byte| *byte != b'\n').collect();
        let hash = blake3::Hasher::new().update(&head).update(&content).finalize();
        out.extend_from_slice(&content);
        out.extend_from_slice(format!(",\"hash\":\"{}\"}}\n", hash.to_hex()).as_bytes());
        head = *hash.as_bytes();
    }
    out
}

/// Lines as they come, and with their hashes made anew: verifying ends and counts no line twice; what is whole is recovered to its end, and
/// what recovery leaves behind is whole unless it says that something is damaged.
pub(crate) fn lines(input: &[u8]) {
    if input.len() > 1 << 20 {
        return;
    }
    for bytes in [input.to_vec(), chained(input)] {
        let storage = stream(&bytes);
        let before = report(&storage);
        assert!(before.lines.1.saturating_sub(before.lines.0) <= bytes.iter().filter(|byte| **byte == b'\n').count() as u64);
        let mut store = Store::open(storage.clone()).expect("nobody else has it");
        let found = store.recover(&mut |_| ()).expect("memory can be read");
        if before.is_whole() && before.torn.is_none() && before.lines.1 > 0 {
            assert_eq!((found.chain.n, found.torn, found.damaged.as_ref()), (before.lines.1, 0, None));
        }
        // A file without a first line is begun anew.
        if found.damaged.is_none() && found.begun {
            let after = report(&storage);
            assert!(after.is_whole() && after.torn.is_none(), "{after:?}");
            let length = storage.open(&file_name(1)).and_then(|file| file.size()).unwrap_or(0);
            assert_eq!(length + found.torn, bytes.len() as u64, "nothing is cut off but what is said");
        }
    }
}

/// Inputs from which a fuzzer of [`lines`] begins: a stream of events, a torn one, and a changed one.
pub(crate) fn lines_seeds() -> Vec<Vec<u8>> {
    let mut chain = Chain::BEGINNING;
    let mut whole = Vec::new();
    chain.write_begin(&mut whole, UnixMs(1), LogId([7; 16]), After::Nothing);
    for number in 0..3u64 {
        let event = Event::new(EventKind::Reload, number != 1).with("what", "policy").with("version", number.to_string());
        chain.write_event(&mut whole, UnixMs(2 + number), &event);
    }
    chain.write_checkpoint(&mut whole, UnixMs(9), None);
    let torn = whole[..whole.len() - 40].to_vec();
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    vec![whole, torn, changed]
}
