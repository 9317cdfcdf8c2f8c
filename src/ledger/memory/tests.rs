//! The disk in memory forgets, tears and lies as it is told to.
use super::*;

#[test]
fn a_crash_forgets_what_was_not_synced_and_nothing_else() {
    let storage = MemoryStorage::new();
    let file = storage.create("a").unwrap();
    file.write_at(&[1; 1024], 0).unwrap();
    file.sync().unwrap();
    assert_eq!(storage.crash(&mut || false).list().unwrap(), Vec::<String>::new());
    storage.sync_directory().unwrap();
    file.write_at(&[2; 1024], 0).unwrap();
    storage.rename("a", "b").unwrap();
    let read = |storage: &MemoryStorage, name: &str| {
        let mut bytes = [0; 1024];
        storage.open(name).unwrap().read_at(&mut bytes, 0).unwrap();
        (bytes[0], bytes[1023])
    };
    assert_eq!(read(&storage, "b"), (2, 2));
    assert_eq!(read(&storage.crash(&mut || false), "a"), (1, 1));
    assert_eq!(read(&storage.crash(&mut || true), "b"), (2, 2));
    let mut first = true;
    assert_eq!(read(&storage.crash(&mut || std::mem::take(&mut first)), "a"), (2, 1));
}

#[test]
fn a_failed_sync_leaves_the_new_bytes_readable_and_the_old_ones_on_disk() {
    let storage = MemoryStorage::new();
    let file = storage.create("a").unwrap();
    file.write_at(&[1; 512], 0).unwrap();
    file.sync().unwrap();
    file.write_at(&[2; 512], 0).unwrap();
    storage.fail_syncs(true);
    assert!(file.sync().is_err());
    storage.fail_syncs(false);
    file.sync().unwrap();
    let first = |file: MemoryFile| {
        let mut byte = [0];
        file.read_at(&mut byte, 0).unwrap();
        byte[0]
    };
    assert_eq!((first(storage.open("a").unwrap()), first(storage.open_unbuffered("a").unwrap())), (2, 1));
}

/// Does one thing wrong, once.
struct Once<T>(Option<T>);

impl Faults for Once<SyncFault> {
    fn sync(&mut self, _: &str) -> Option<SyncFault> {
        self.0.take()
    }
}

#[test]
fn a_lost_and_a_misdirected_write_are_reported_as_done_and_are_not_where_they_belong() {
    for (fault, expected) in [
        (SyncFault::Lost, [1, 1, 1]),
        (SyncFault::Misdirected { file: "a".into(), bytes: 1024 }, [1, 1, 2]),
        (SyncFault::Misdirected { file: "a".into(), bytes: 2048 }, [1, 1, 1]),
    ] {
        let storage = MemoryStorage::new();
        let file = storage.create("a").unwrap();
        file.write_at(&[1; 1536], 0).unwrap();
        file.sync().unwrap();
        storage.sync_directory().unwrap();
        storage.set_faults(Arc::new(Mutex::new(Once(Some(fault)))));
        file.write_at(&[2; 512], 0).unwrap();
        file.sync().unwrap();
        assert!(storage.is_synced("a"));
        let mut bytes = [0; 1536];
        storage.crash(&mut || true).open("a").unwrap().read_at(&mut bytes, 0).unwrap();
        assert_eq!([bytes[0], bytes[512], bytes[1024]], expected);
    }
}

#[test]
fn a_sector_may_be_shorn_or_garbled_by_a_crash() {
    let storage = MemoryStorage::with_sectors(4096);
    let file = storage.create("a").unwrap();
    file.write_at(&[1; 8192], 0).unwrap();
    file.sync().unwrap();
    storage.sync_directory().unwrap();
    file.write_at(&[2; 8192], 0).unwrap();
    assert!(!storage.is_synced("a"));
    let mut fates = [Fate::Garbled(0x10), Fate::Shorn(600)].into_iter().cycle();
    let mut bytes = [0; 8192];
    let after = storage.crash_with(&mut || fates.next().unwrap());
    after.open("a").unwrap().read_at(&mut bytes, 0).unwrap();
    assert_eq!([bytes[0], bytes[4095], bytes[4096], bytes[4695], bytes[4696]], [0x12, 0x12, 2, 2, 1]);
    after.rot("a", 4096, 1);
    after.open_unbuffered("a").unwrap().read_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes[4096], 3);
}

#[test]
fn the_lock_is_exclusive_and_goes_with_its_holder() {
    let storage = MemoryStorage::new();
    let lock = storage.lock().unwrap();
    assert!(lock.is_some() && storage.clone().lock().unwrap().is_none());
    drop(lock);
    assert!(storage.lock().unwrap().is_some());
}
