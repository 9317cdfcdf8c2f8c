//! The file of revocations under a running server: noticed when it has changed, put in force as a whole, and left in force when it
//! turns bad.
use super::PageReply;
use crate::access::{load_revocation_list, RevocationBoard, RevocationFault, Revocations, Revoked, Stamp};
use crate::audit::{Event, EventKind, EVENTS_MAX};
use crate::domain::hex;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time after which a bad file is tried again that does not look different.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Entries that came or went of which the audit stream is told one by one, at each change of the list.
const CHANGES_TOLD_MAX: usize = 32;
const _: () = assert!(CHANGES_TOLD_MAX < EVENTS_MAX, "a change of the list leaves room for other events");

/// The file and what became of it.
pub(super) struct RevocationWatch {
    path: PathBuf,
    board: Arc<RevocationBoard>,
    /// How the file looked when it was read last; none if it was not there.
    seen: Option<Stamp>,
    /// How many entries are in force.
    entries: usize,
    failed: Option<Failed>,
}

struct Failed {
    at: Instant,
    told: String,
}

/// What is another on the list in force.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// How many entries it has.
    pub entries: usize,
    /// What is revoked from now on.
    pub revoked: Vec<Revoked>,
    /// What is no longer.
    pub taken_back: Vec<Revoked>,
}

impl Change {
    /// What is another on the second list.
    pub fn between(before: &Revocations, list: &Revocations) -> Self {
        Self { entries: list.len(), revoked: list.beyond(before), taken_back: before.beyond(list) }
    }
}

/// What a look has found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// Nothing that was not told before.
    Unchanged,
    /// Another list is in force, or the same one was read again.
    Changed(Change),
    /// The file is bad, as this says, and the list before it stays in force.
    Failed(String),
}

impl RevocationWatch {
    /// Reads the file for the first time and puts it on the board. A file that never was there revokes nothing.
    ///
    /// # Errors
    /// If there is one and it is damaged or cannot be read, or if there has been one: nobody may think that nothing is revoked.
    pub fn open(path: PathBuf, board: Arc<RevocationBoard>) -> Result<Self, RevocationFault> {
        let mut watch = Self { path, board, seen: None, entries: 0, failed: None };
        let seen = Stamp::at(&watch.path);
        let list = load_revocation_list(&watch.path)?;
        watch.seen = seen.filter(|_| list.is_some());
        watch.put(list.unwrap_or_default());
        Ok(watch)
    }

    /// How many entries are in force.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// What tells the list in force from others, see [`Revocations::digest`].
    pub fn digest(&self) -> [u8; 32] {
        self.board.current().1.digest()
    }

    /// How the file looked when it was read last; none if it was not there.
    pub fn seen(&self) -> Option<Stamp> {
        self.seen
    }

    /// Reads the file again if it looks different than before, or in any case if that is asked for.
    pub fn look(&mut self, in_any_case: bool) -> Looked {
        // What is looked at first may change while it is read; it then looks different at the next look.
        let now = Stamp::at(&self.path);
        let again = self.failed.as_ref().is_some_and(|failed| failed.at.elapsed() >= RETRY_EVERY);
        if now == self.seen && !again && !in_any_case {
            return Looked::Unchanged;
        }
        let was_there = self.seen.is_some() || self.failed.is_some();
        let found = match load_revocation_list(&self.path) {
            // Without what says that there has been one, because somebody else than `ronctl` has put it there.
            Ok(None) if was_there => Err(RevocationFault::Gone { path: self.path.clone() }),
            found => found.map(Option::unwrap_or_default),
        };
        match found {
            Ok(list) => {
                self.seen = now;
                self.failed = None;
                Looked::Changed(self.put(list))
            }
            Err(fault) => {
                if now.is_some() {
                    self.seen = now;
                }
                let told = fault.to_string();
                let known = self.failed.replace(Failed { at: Instant::now(), told: told.clone() });
                if known.is_some_and(|known| known.told == told) && !in_any_case {
                    return Looked::Unchanged;
                }
                Looked::Failed(told)
            }
        }
    }

    fn put(&mut self, list: Revocations) -> Change {
        let change = Change::between(&self.board.current().1, &list);
        self.entries = list.len();
        self.board.put(list);
        change
    }
}

/// Which list is in force, for `ronctl`, which waits until it is the one that it has written; nulls while the service starts or stands by.
pub(super) fn revocations_page(board: Option<&Arc<RevocationBoard>>) -> PageReply {
    let list = board.map(|board| board.current().1);
    let (entries, digest) = (list.as_ref().map(|list| list.len()), list.as_ref().map(|list| hex(&list.digest())));
    PageReply::json(json!({"entries": entries, "digest": digest}).to_string())
}

/// What the audit stream is told of a change: each entry that came or went, so many of them, and how the list is then.
pub(super) fn revocation_events(change: &Change, digest: &str) -> Vec<Event> {
    let Change { entries, revoked, taken_back } = change;
    let one = |(what, change): (&Revoked, &'static str)| {
        Event::new(EventKind::Revocation, true).with("change", change).with("what", what.kind()).with("name", what.name())
    };
    let all = revoked.iter().map(|what| (what, "revoked")).chain(taken_back.iter().map(|what| (what, "taken_back")));
    let mut events: Vec<Event> = all.take(CHANGES_TOLD_MAX).map(one).collect();
    let left_out = revoked.len() + taken_back.len() - events.len();
    let list = Event::new(EventKind::Revocation, true).with("entries", entries.to_string());
    let list = list.with("revoked", revoked.len().to_string()).with("taken_back", taken_back.len().to_string());
    events.push(list.with("left_out", left_out.to_string()).with("digest", digest));
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{change_revocations, Revocation};
    use crate::domain::UnixMs;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn revoke(path: &std::path::Path, subject: &str) {
        let what = Revoked::subject(subject).unwrap();
        let entry = Revocation { what, at: UnixMs(0), reason: String::new() };
        change_revocations(path, |entries| (entries.push(entry), true)).unwrap();
    }

    /// A look that has found so many entries, these of them new, and these gone.
    fn changed(entries: usize, revoked: &[&str], taken_back: &[&str]) -> Looked {
        let subjects = |names: &[&str]| names.iter().map(|name| Revoked::subject(name).unwrap()).collect();
        Looked::Changed(Change { entries, revoked: subjects(revoked), taken_back: subjects(taken_back) })
    }

    #[test]
    fn changes_are_noticed_and_a_bad_file_leaves_the_list_in_force() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("wallet.revocations");
        let board = Arc::<RevocationBoard>::default();
        let in_force = || board.current().1.len();
        let mut watch = RevocationWatch::open(path.clone(), board.clone()).unwrap();
        assert_eq!((watch.look(false), watch.entries()), (Looked::Unchanged, 0));
        assert_eq!(watch.look(true), changed(0, &[], &[]), "a file that never was there may be missing for ever");
        revoke(&path, "a");
        assert_eq!((watch.look(false), watch.look(false), in_force()), (changed(1, &["a"], &[]), Looked::Unchanged, 1));
        let good = fs::read(&path).unwrap();
        for bad in [&good[..good.len() / 2], b"", b"{}"] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(watch.look(false), Looked::Failed(_)), "{}", bad.len());
            assert_eq!((watch.look(false), in_force(), watch.entries()), (Looked::Unchanged, 1, 1));
        }
        assert!(matches!(watch.look(true), Looked::Failed(_)), "who asks is told again");
        fs::remove_file(&path).unwrap();
        let Looked::Failed(told) = watch.look(false) else { panic!("a file that has gone is no empty list") };
        assert!(told.contains("not there any more"), "{told}");
        assert_eq!((watch.look(false), in_force()), (Looked::Unchanged, 1));
        fs::write(&path, &good).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(watch.look(false), Looked::Failed(_)), "others can read it");
        fs::remove_file(&path).unwrap();
        fs::remove_file(place.path().join("wallet.revocations.known")).unwrap();
        revoke(&path, "b");
        revoke(&path, "c");
        assert_eq!((watch.look(false), in_force()), (changed(2, &["b", "c"], &["a"]), 2));
        // What cannot be read is tried again although it looks the same.
        watch.failed = Some(Failed { at: Instant::now() - RETRY_EVERY, told: "an error of the disk".to_owned() });
        assert_eq!(watch.look(false), changed(2, &[], &[]));
    }

    #[test]
    fn the_audit_stream_is_told_each_entry_that_came_or_went_up_to_a_bound() {
        let Looked::Changed(change) = changed(7, &["a"], &["b"]) else { unreachable!() };
        let event = || Event::new(EventKind::Revocation, true);
        let one = |change: &str, name: &str| event().with("change", change).with("what", "subject").with("name", name);
        let list = event().with("entries", "7").with("revoked", "1").with("taken_back", "1").with("left_out", "0");
        let told = [one("revoked", "a"), one("taken_back", "b"), list.with("digest", "d1")];
        assert_eq!(revocation_events(&change, "d1"), told);
        let many = (0..100).map(|number| Revoked::subject(&format!("s-{number}")).unwrap()).collect();
        let told = revocation_events(&Change { entries: 100, revoked: many, taken_back: Vec::new() }, "d2");
        let list = event().with("entries", "100").with("revoked", "100").with("taken_back", "0").with("left_out", "68");
        assert_eq!((told.len(), told.last()), (33, Some(&list.with("digest", "d2"))));
    }

    #[test]
    fn a_damaged_file_refuses_the_start_and_so_does_one_that_has_gone() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("wallet.revocations");
        revoke(&path, "a");
        let good = fs::read(&path).unwrap();
        fs::write(&path, &good[1..]).unwrap();
        let open = || RevocationWatch::open(path.clone(), Arc::default());
        assert!(matches!(open(), Err(RevocationFault::Malformed { .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(open(), Err(RevocationFault::Gone { .. })));
    }
}
