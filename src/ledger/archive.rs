//! Moving sealed segments out of a ledger's directory into an archive.
//!
//! Invariant: at every moment, also after a crash at any of them, each segment is whole and durable in one of the two places under
//! its name. Nothing goes before all that is to go was checked, each up to the segment that follows it; a segment is removed only after
//! its copy was synced and read back. Nothing in the archive is ever replaced. Which segments may go is for the caller to know.
use super::backup::BackupError;
use super::layout::BLOCK_BYTES;
use super::storage::{aligned_start, segment_name, ReadFile, Storage, StorageFile, TEMPORARY_SUFFIX};
use super::walk::{SegmentFile, Walk};
use super::LedgerError;
use crate::domain::Root;
use std::io;

/// How much is copied or read back at once, in bytes; whole blocks.
const CHUNK_BYTES: usize = 1 << 20;
/// A file that is made in the archive for a moment, to see that it does not appear in the ledger.
const PROBE_NAME: &str = "archive-probe.tmp";

const _: () = assert!(CHUNK_BYTES % BLOCK_BYTES == 0);

/// A segment that is to go.
struct Going<'a> {
    segment: &'a SegmentFile,
    /// Of the whole file, when its chain had just been checked.
    digest: Root,
    /// The archive has the same file already.
    there: bool,
}

/// Moves the segments up to number `last` into the archive, the oldest first, and tells each that has gone. Returns how many.
///
/// What an earlier call has not finished, this one does. All of them are read and checked before the first one goes: nothing is moved if
/// one of them is damaged, if its name stands for something else in the archive, if the archive is the ledger's own directory, or if no
/// segment is behind `last`, because the newest one is being written.
///
/// # Errors
/// Besides these, if the disk of one of the two fails midway; then [`BackupError::Halfway`] says what has gone.
pub fn archive_segments<S: Storage, A: Storage>(
    ledger: &S,
    archive: &A,
    last: u64,
    each: &mut dyn FnMut(&SegmentFile),
) -> Result<u64, BackupError> {
    let walk = Walk::open(ledger.clone())?;
    refuse_own_directory(ledger, archive)?;
    let segments = walk.segments();
    if segments.last().is_some_and(|newest| newest.index <= last) {
        return Err(BackupError::Place(format!(
            "{} is the newest segment or not there yet, and only segments before the newest can go; no segment was moved",
            ledger.place(&segment_name(last))
        )));
    }
    let pairs = segments.iter().zip(segments.iter().skip(1)).take_while(|(segment, _)| segment.index <= last);
    let going = pairs.map(|(segment, next)| {
        let name = segment_name(segment.index);
        walk.sealed(segment, next)?;
        let digest = digest(ledger, &name).map_err(LedgerError::io(segment.file.as_str(), "read the segment"))?;
        Ok(Going { segment, digest, there: has(archive, &name, &digest)? })
    });
    let going = going.collect::<Result<Vec<_>, BackupError>>()?;
    let mut moved = 0;
    let mut through = "";
    for one in &going {
        move_one(ledger, archive, one).map_err(|cause| match moved {
            0 => cause,
            moved => BackupError::Halfway { moved, through: through.to_owned(), cause: Box::new(cause) },
        })?;
        moved += 1;
        through = &one.segment.file;
        each(one.segment);
    }
    Ok(moved)
}

/// Two names of one directory would make every segment its own copy.
fn refuse_own_directory<S: Storage, A: Storage>(ledger: &S, archive: &A) -> Result<(), BackupError> {
    let listed = || ledger.list().map_err(LedgerError::io(ledger.place(""), "list the directory"));
    let place = archive.place("");
    let before = listed()?.iter().any(|name| name == PROBE_NAME);
    archive.create(PROBE_NAME).map_err(LedgerError::io(place.as_str(), "write to the archive"))?;
    let after = listed()?.iter().any(|name| name == PROBE_NAME);
    archive.remove(PROBE_NAME).map_err(LedgerError::io(place.as_str(), "write to the archive"))?;
    if after || before {
        let what =
            format!("{place} is the directory of the ledger itself; no segment was moved; name another directory with --to");
        return Err(BackupError::Place(what));
    }
    Ok(())
}

/// Whether the archive has this file already; then it is durable there.
fn has<A: Storage>(archive: &A, name: &str, wanted: &Root) -> Result<bool, BackupError> {
    let place = archive.place(name);
    let names = archive.list().map_err(LedgerError::io(archive.place(""), "list the archive"))?;
    if !names.iter().any(|known| known == name) {
        return Ok(false);
    }
    // An earlier attempt may have ended before the name was durable.
    let file = archive.open(name).map_err(LedgerError::io(place.as_str(), "open the archived segment"))?;
    file.sync().map_err(LedgerError::io(place.as_str(), "sync the archived segment"))?;
    archive.sync_directory().map_err(LedgerError::io(archive.place(""), "sync the archive"))?;
    let found = digest(archive, name).map_err(LedgerError::io(place.as_str(), "read the archived segment"))?;
    if found != *wanted {
        return Err(BackupError::Place(format!(
            "{place} is another file than the segment of this name in the ledger, which is whole; no segment was moved; move that file \
             aside, or name another archive with --to"
        )));
    }
    Ok(true)
}

/// Makes the archive have a segment, durably, and removes it from the ledger.
fn move_one<S: Storage, A: Storage>(ledger: &S, archive: &A, going: &Going<'_>) -> Result<(), BackupError> {
    let name = segment_name(going.segment.index);
    if !going.there {
        copy(ledger, archive, &name, &going.digest)?;
    }
    let place = going.segment.file.as_str();
    ledger.remove(&name).map_err(LedgerError::io(place, "remove the archived segment"))?;
    Ok(ledger.sync_directory().map_err(LedgerError::io(ledger.place(""), "sync the directory"))?)
}

fn copy<S: Storage, A: Storage>(ledger: &S, archive: &A, name: &str, wanted: &Root) -> Result<(), BackupError> {
    let place = archive.place(name);
    let temporary = format!("{name}{TEMPORARY_SUFFIX}");
    copy_bytes(ledger, archive, name, &temporary)
        .map_err(LedgerError::io(place.as_str(), "copy the segment into the archive"))?;
    let found = digest(archive, &temporary).map_err(LedgerError::io(place.as_str(), "read the archived segment"))?;
    if found != *wanted {
        return Err(BackupError::Place(format!(
            "the copy for {place} does not read as the segment did when it was checked; that segment was kept; see whether one of the two \
             disks fails"
        )));
    }
    archive.rename(&temporary, name).map_err(LedgerError::io(place.as_str(), "name the archived segment"))?;
    Ok(archive.sync_directory().map_err(LedgerError::io(archive.place(""), "sync the archive"))?)
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

    fn archive_all(ledger: &MemoryStorage, archive: &MemoryStorage, last: u64) -> Result<u64, BackupError> {
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
        let told = archive_all(&ledger, &archive, 3).unwrap_err();
        let BackupError::Halfway { moved: 1, through, cause } = &told else { panic!("{told}") };
        assert!(*through == ledger.place(&segment_name(1)), "{told}");
        assert!(matches!(**cause, BackupError::Ledger(LedgerError::Io { .. })), "{told}");
        assert!(told.to_string().starts_with(&format!("1 segment, up to {through}, was moved")), "{told}");
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

        // What is wrong with the last one that is to go keeps the first one as well.
        let archive = MemoryStorage::new();
        let bad = ledger.fork();
        bad.tamper(&segment_name(3), |bytes| bytes[2 * BLOCK_BYTES + 200] ^= 1);
        let told = archive_all(&bad, &archive, 3).unwrap_err().to_string();
        assert!(told.contains(&segment_name(3)) && told.contains("nothing was changed"), "{told}");
        untouched(&bad);
        archive.create(&segment_name(3)).unwrap();
        let told = archive_all(&ledger, &archive, 3).unwrap_err().to_string();
        assert!(told.contains("another file") && told.contains("no segment was moved"), "{told}");
        untouched(&ledger);
        assert_eq!(archive.list().unwrap(), [segment_name(3)]);

        let taken = MemoryStorage::new();
        taken.create(&segment_name(1)).unwrap().write_at(b"mine", 0).unwrap();
        assert!(archive_all(&ledger, &taken, 2).unwrap_err().to_string().contains("is another file"));
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
