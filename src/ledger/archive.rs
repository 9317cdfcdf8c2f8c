//! Moving sealed segments out of a ledger's directory into an archive.
//!
//! Invariant: at every moment, also after a crash at any of them, each segment is whole and durable in one of the two places under
//! its name. A segment is removed only after its chain was checked up to the segment that follows it, and its copy was synced and
//! read back. Nothing in the archive is ever replaced. Which segments may go is for the caller to know.
use super::layout::{SegmentHeader, BLOCK_BYTES};
use super::storage::{aligned_start, segment_name, ReadFile, Storage, StorageFile, TEMPORARY_SUFFIX};
use super::walk::{SegmentFile, Walk};
use super::LedgerError;
use crate::domain::Root;
use std::io;
use std::ops::ControlFlow;

/// How much is copied or read back at once, in bytes; whole blocks.
const CHUNK_BYTES: usize = 1 << 20;
/// A file that is made in the archive for a moment, to see that it does not appear in the ledger.
const PROBE_NAME: &str = "archive-probe.tmp";

const _: () = assert!(CHUNK_BYTES % BLOCK_BYTES == 0);

/// Moves the segments up to number `last` into the archive, the oldest first, and tells each that has gone. Returns how many.
///
/// What an earlier call has not finished, this one does. Refused, before anything is removed, are an archive that is the ledger's own
/// directory, and a `last` without a segment behind it: the newest segment is being written. A segment that is damaged, and one whose
/// name stands for something else in the archive, end the call; what went before stays archived.
pub fn archive_segments<S: Storage, A: Storage>(
    ledger: &S,
    archive: &A,
    last: u64,
    each: &mut dyn FnMut(&SegmentFile),
) -> Result<u64, LedgerError> {
    let walk = Walk::open(ledger.clone())?;
    refuse_own_directory(ledger, archive)?;
    let segments = walk.segments();
    if segments.last().is_some_and(|newest| newest.index <= last) {
        let what =
            format!("{} is the newest segment or not there yet, and only segments before the newest can go", segment_name(last));
        return Err(LedgerError::Incomplete { place: ledger.place(""), what });
    }
    let mut moved = 0;
    for (segment, next) in segments.iter().zip(segments.iter().skip(1)).take_while(|(segment, _)| segment.index <= last) {
        check_chain(&walk, segment, next)?;
        let name = segment_name(segment.index);
        copy(ledger, archive, &name)?;
        ledger.remove(&name).map_err(LedgerError::io(segment.file.as_str(), "remove the archived segment"))?;
        ledger.sync_directory().map_err(LedgerError::io(ledger.place(""), "sync the directory"))?;
        moved += 1;
        each(segment);
    }
    Ok(moved)
}

/// Two names of one directory would make every segment its own copy.
fn refuse_own_directory<S: Storage, A: Storage>(ledger: &S, archive: &A) -> Result<(), LedgerError> {
    let listed = || ledger.list().map_err(LedgerError::io(ledger.place(""), "list the directory"));
    let place = archive.place("");
    let before = listed()?.iter().any(|name| name == PROBE_NAME);
    archive.create(PROBE_NAME).map_err(LedgerError::io(place.as_str(), "write to the archive"))?;
    let after = listed()?.iter().any(|name| name == PROBE_NAME);
    archive.remove(PROBE_NAME).map_err(LedgerError::io(place.as_str(), "write to the archive"))?;
    if after || before {
        return Err(LedgerError::Incomplete { place, what: "the archive is the directory of the ledger itself".into() });
    }
    Ok(())
}

/// Reads the whole segment, which must end where the next one begins.
fn check_chain<S: Storage>(walk: &Walk<S>, segment: &SegmentFile, next: &SegmentFile) -> Result<(), LedgerError> {
    let damaged = |file: &SegmentFile, what: String| LedgerError::Incomplete { place: file.file.clone(), what };
    let header =
        |file: &SegmentFile| -> Result<SegmentHeader, LedgerError> { file.header.clone().map_err(|what| damaged(file, what)) };
    let (own, following) = (header(segment)?, header(next)?);
    let mut root: Root = own.prev;
    let end = walk.segment(segment, &mut |batch| {
        root = *batch.root();
        Ok(ControlFlow::Continue(()))
    })?;
    if end.torn.is_some() || (following.first_seq.0, following.prev) != (end.head.0 + 1, root) || following.log_id != own.log_id {
        return Err(damaged(next, "the segment does not continue the chain of the one before it".into()));
    }
    Ok(())
}

/// Makes the archive have this file, durably, unless it has it already.
fn copy<S: Storage, A: Storage>(ledger: &S, archive: &A, name: &str) -> Result<(), LedgerError> {
    let place = archive.place(name);
    let wanted = digest(ledger, name).map_err(LedgerError::io(ledger.place(name), "read the segment"))?;
    let names = archive.list().map_err(LedgerError::io(archive.place(""), "list the archive"))?;
    if names.iter().any(|known| known == name) {
        // An earlier attempt may have ended before the name was durable.
        let file = archive.open(name).map_err(LedgerError::io(place.as_str(), "open the archived segment"))?;
        file.sync().map_err(LedgerError::io(place.as_str(), "sync the archived segment"))?;
        archive.sync_directory().map_err(LedgerError::io(archive.place(""), "sync the archive"))?;
        let found = digest(archive, name).map_err(LedgerError::io(place.as_str(), "read the archived segment"))?;
        if found != wanted {
            let what = "another file of this name is in the archive; neither of them was touched".into();
            return Err(LedgerError::Incomplete { place, what });
        }
        return Ok(());
    }
    let temporary = format!("{name}{TEMPORARY_SUFFIX}");
    copy_bytes(ledger, archive, name, &temporary)
        .map_err(LedgerError::io(place.as_str(), "copy the segment into the archive"))?;
    let found = digest(archive, &temporary).map_err(LedgerError::io(place.as_str(), "read the archived segment"))?;
    if found != wanted {
        let what = "the copy in the archive does not read as it was written; the segment was kept".into();
        return Err(LedgerError::Incomplete { place, what });
    }
    archive.rename(&temporary, name).map_err(LedgerError::io(place.as_str(), "name the archived segment"))?;
    archive.sync_directory().map_err(LedgerError::io(archive.place(""), "sync the archive"))
}

fn copy_bytes<S: Storage, A: Storage>(ledger: &S, archive: &A, name: &str, temporary: &str) -> io::Result<()> {
    let from = ledger.open(name)?;
    let to = archive.create(temporary)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    loop {
        let read = from.read_at(&mut chunk, offset)?;
        if read == 0 {
            return to.sync();
        }
        to.write_at(&chunk[..read], offset)?;
        offset += read as u64;
    }
}

/// BLAKE3 of a file, read past the cache of the system where that can be done: what the disk has is what counts.
fn digest<S: Storage>(storage: &S, name: &str) -> io::Result<Root> {
    let unbuffered = storage.open_unbuffered(name).and_then(|file| digest_of(&file));
    match unbuffered {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => digest_of(&storage.open(name)?),
        read => read,
    }
}

fn digest_of(file: &impl StorageFile) -> io::Result<Root> {
    let mut room = vec![0; CHUNK_BYTES + BLOCK_BYTES];
    let start = aligned_start(&room);
    let chunk = &mut room[start..][..CHUNK_BYTES];
    let mut hasher = blake3::Hasher::new();
    let mut offset = 0;
    loop {
        let read = file.read_at(chunk, offset)?;
        hasher.update(&chunk[..read]);
        offset += read as u64;
        if read < CHUNK_BYTES {
            return Ok(*hasher.finalize().as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::disk::DiskStorage;
    use crate::ledger::memory::MemoryStorage;
    use crate::ledger::sample::{lane_batch, open};

    const SEGMENT: u64 = 4 * BLOCK_BYTES as u64;

    /// Two batches a segment, four segments, with whatever else a ledger has.
    fn written() -> MemoryStorage {
        let storage = MemoryStorage::new();
        let (mut log, _, _) = open(&storage, SEGMENT).unwrap();
        (0..8).for_each(|batch| assert!(log.append(&[lane_batch(1, 1 + 3 * batch, 3)]).is_ok()));
        log.close().unwrap();
        storage
    }

    fn content<S: Storage>(storage: &S, index: u64) -> Option<Vec<u8>> {
        let file = storage.open(&segment_name(index)).ok()?;
        let mut bytes = vec![0; SEGMENT as usize];
        let read = file.read_at(&mut bytes, 0).unwrap();
        bytes.truncate(read);
        Some(bytes)
    }

    fn archive_all(ledger: &MemoryStorage, archive: &MemoryStorage, last: u64) -> Result<u64, LedgerError> {
        archive_segments(ledger, archive, last, &mut |_| ())
    }

    #[test]
    fn sealed_segments_move_byte_for_byte_and_the_others_stay() {
        let (ledger, archive) = (written(), MemoryStorage::new());
        let before: Vec<_> = (1..=4).map(|index| content(&ledger, index)).collect();
        let mut told = Vec::new();
        assert_eq!(archive_segments(&ledger, &archive, 2, &mut |segment| told.push(segment.index)).unwrap(), 2);
        assert_eq!(told, [1, 2]);
        for index in 1..=4u64 {
            let (gone, stays) = if index <= 2 { (&archive, &ledger) } else { (&ledger, &archive) };
            assert_eq!(content(gone, index), before[index as usize - 1], "segment {index}");
            assert_eq!(content(stays, index), None, "segment {index}");
        }
        assert_eq!(archive_all(&ledger, &archive, 2).unwrap(), 0, "there is nothing left to do");
        assert_eq!(archive.list().unwrap(), [segment_name(1), segment_name(2)]);
    }

    #[test]
    fn a_crash_at_any_change_loses_no_segment_and_the_next_call_finishes() {
        let original = written();
        let whole: Vec<_> = (1..=4).map(|index| content(&original, index)).collect();
        let mut fired = 0;
        for changes in 0.. {
            let mut survivors = 0;
            for (in_ledger, keep_every) in [(true, 0), (true, 1), (true, 3), (false, 0), (false, 1), (false, 2), (false, 3)] {
                let (ledger, archive) = (original.fork(), MemoryStorage::new());
                if in_ledger { &ledger } else { &archive }.fail_after(Some(changes));
                survivors += u32::from(archive_all(&ledger, &archive, 3).is_ok());
                let mut count = 0u64;
                let mut keep = || {
                    count += 1;
                    keep_every > 0 && count % keep_every == 0
                };
                let (ledger, archive) = (ledger.crash(&mut keep), archive.crash(&mut keep));
                for index in 1..=4 {
                    let expected = &whole[index as usize - 1];
                    let either = [content(&ledger, index), content(&archive, index)];
                    assert!(either.contains(expected), "segment {index}, change {changes}, kept every {keep_every}");
                }
                archive_all(&ledger, &archive, 3).unwrap();
                assert_eq!([1, 2, 3].map(|index| content(&archive, index)), [0, 1, 2].map(|at| whole[at].clone()));
                assert_eq!((content(&ledger, 3), content(&ledger, 4)), (None, whole[3].clone()));
            }
            if survivors == 7 {
                break;
            }
            fired += 1;
        }
        assert!(fired > 15, "only {fired} changes were cut off");
    }

    #[test]
    fn a_full_archive_keeps_what_does_not_fit_in_the_ledger() {
        let (ledger, archive) = (written(), MemoryStorage::new());
        archive.limit_bytes(Some(SEGMENT + 100));
        assert!(matches!(archive_all(&ledger, &archive, 3), Err(LedgerError::Io { .. })));
        assert_eq!([1, 2, 3].map(|index| content(&ledger, index).is_some()), [false, true, true]);
        archive.limit_bytes(None);
        assert_eq!(archive_all(&ledger, &archive, 3).unwrap(), 2);
    }

    #[test]
    fn a_sync_of_the_archive_that_fails_keeps_the_segment() {
        let (ledger, archive) = (written(), MemoryStorage::new());
        archive.fail_syncs(true);
        assert!(archive_all(&ledger, &archive, 3).is_err());
        assert!(content(&ledger, 1).is_some());
    }

    #[test]
    fn what_must_not_go_is_refused() {
        let ledger = written();
        let untouched = |ledger: &MemoryStorage| assert!((1..=4).all(|index| content(ledger, index).is_some()));
        for (last, expected) in [(4, "newest"), (9, "newest")] {
            assert!(archive_all(&ledger, &MemoryStorage::new(), last).unwrap_err().to_string().contains(expected));
        }
        assert!(archive_all(&ledger, &ledger, 2).unwrap_err().to_string().contains("the ledger itself"));
        untouched(&ledger);

        let taken = MemoryStorage::new();
        taken.create(&segment_name(1)).unwrap().write_at(b"mine", 0).unwrap();
        assert!(archive_all(&ledger, &taken, 2).unwrap_err().to_string().contains("another file of this name"));
        assert_eq!(content(&taken, 1).unwrap(), b"mine");
        untouched(&ledger);

        // A body, and both copies of the header of the segment behind it.
        for (segment, places) in [(1, vec![2 * BLOCK_BYTES + 200]), (2, vec![10, BLOCK_BYTES + 10])] {
            let bad = ledger.fork();
            bad.tamper(&segment_name(segment), |bytes| places.iter().for_each(|at| bytes[*at] ^= 1));
            assert!(archive_all(&bad, &MemoryStorage::new(), 1).is_err(), "segment {segment}");
            untouched(&bad);
        }
    }

    #[test]
    fn it_works_on_a_real_disk() {
        let place = tempfile::tempdir().unwrap();
        let ledger = DiskStorage::create(&place.path().join("ledger")).unwrap();
        let source = written();
        for index in 1..=4 {
            ledger.create(&segment_name(index)).unwrap().write_at(&content(&source, index).unwrap(), 0).unwrap();
        }
        let archive = DiskStorage::create(&place.path().join("archive")).unwrap();
        std::os::unix::fs::symlink(place.path().join("ledger"), place.path().join("same")).unwrap();
        let same = DiskStorage::create(&place.path().join("same")).unwrap();
        assert!(archive_segments(&ledger, &same, 3, &mut |_| ()).is_err());
        assert_eq!(archive_segments(&ledger, &archive, 3, &mut |_| ()).unwrap(), 3);
        assert_eq!(content(&archive, 3), content(&source, 3));
        assert_eq!(content(&ledger, 3), None);
    }
}
