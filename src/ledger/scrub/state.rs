//! What is kept of the passes in the file `scrub`: where the one under way has come, when the last one ended, which files are damaged.
//!
//! Nothing in it is the truth: without it, or if it is damaged or belongs to another ledger, the first pass begins again.
use crate::domain::{LogId, Seq, UnixMs};
use crate::ledger::layout::{array_at, u32_at, u64_at, FORMAT_VERSION};
use crate::ledger::snapshot::snapshot_seq;
use crate::ledger::storage::{index_number, replace, segment_number, ReadFile, Storage};
use std::collections::BTreeSet;
use std::io;

/// Name of the file.
pub const SCRUB_NAME: &str = "scrub";

const MAGIC: [u8; 8] = *b"RONSCRUB";
const LOG_AT: usize = 16;
const ENDED_AT: usize = LOG_AT + 16;
const BEGAN_AT: usize = ENDED_AT + 32;
const NAMES_AT: usize = BEGAN_AT + 48;
const CHECK_BYTES: usize = 32;
/// Longest file that is read. The name of a damaged file takes some 30 bytes.
const STATE_BYTES_MAX: usize = 1 << 20;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A segment that another one follows.
    Segment,
    /// The index of one.
    Index,
    /// A snapshot.
    Snapshot,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Segment, Kind::Index, Kind::Snapshot];

    /// The label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Segment => "segment",
            Kind::Index => "index",
            Kind::Snapshot => "snapshot",
        }
    }

    pub(super) fn of(name: &str) -> Self {
        if segment_number(name).is_some() {
            Kind::Segment
        } else if snapshot_seq(name).is_some() {
            Kind::Snapshot
        } else {
            Kind::Index
        }
    }
}

/// What others are told of the scrubbing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// When the last pass over everything ended; 0 if none has.
    pub last_end: UnixMs,
    /// Files that were damaged when they were read last, by kind in the order of [`Kind::ALL`].
    pub damaged: [u64; Kind::ALL.len()],
}

/// What a pass has read, and found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubPass {
    /// When it began, or ended.
    pub at: UnixMs,
    /// Files that were read.
    pub files: u64,
    /// How much that was, in bytes.
    pub bytes: u64,
    /// Files that it found damaged.
    pub damaged: u64,
}

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubState {
    /// The log that it belongs to.
    pub log_id: LogId,
    /// The last pass that came to its end, and when that was.
    pub last: Option<ScrubPass>,
    /// The pass under way, and when it began.
    pub pass: Option<ScrubPass>,
    /// The segment with which the pass goes on.
    pub next_segment: u64,
    /// The snapshot that it has read last; they come after the segments.
    pub last_snapshot: Seq,
    /// The names of files that were damaged when they were read last.
    pub damaged: BTreeSet<String>,
}

impl ScrubState {
    /// What others are told.
    pub fn figures(&self) -> Scrubbed {
        let count = |kind| self.damaged.iter().filter(|name| Kind::of(name) == kind).count() as u64;
        Scrubbed { last_end: self.last.map_or(UnixMs(0), |last| last.at), damaged: Kind::ALL.map(count) }
    }

    /// Tells nothing more of segments before the first that the log has, and of their indexes: they were archived, and what was found then
    /// is of files that are elsewhere. Whether there were any.
    pub fn forget_archived(&mut self, first_segment: u64) -> bool {
        let before = self.damaged.len();
        self.damaged.retain(|name| segment_number(name).or_else(|| index_number(name)).map_or(true, |of| of >= first_segment));
        self.damaged.len() < before
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(NAMES_AT + CHECK_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.log_id.0);
        for pass in [self.last, self.pass] {
            let ScrubPass { at, files, bytes: read, damaged } = pass.unwrap_or_default();
            [at.0, files, read, damaged].iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
        }
        bytes.extend_from_slice(&self.next_segment.to_le_bytes());
        bytes.extend_from_slice(&self.last_snapshot.0.to_le_bytes());
        for name in &self.damaged {
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(b'\n');
        }
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (content, hash) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_BYTES)?)?;
        if blake3::hash(content).as_bytes() != hash || content.len() < NAMES_AT || content[..8] != MAGIC {
            return None;
        }
        if u32_at(content, 8) != FORMAT_VERSION {
            return None;
        }
        let pass = |from: usize| {
            let [at, files, bytes, damaged] = [0, 8, 16, 24].map(|at| u64_at(content, from + at));
            Some(ScrubPass { at: UnixMs(at), files, bytes, damaged }).filter(|pass| pass.at > UnixMs(0))
        };
        let names = std::str::from_utf8(&content[NAMES_AT..]).ok()?;
        Some(Self {
            log_id: LogId(array_at(content, LOG_AT)),
            last: pass(ENDED_AT),
            pass: pass(BEGAN_AT),
            next_segment: u64_at(content, BEGAN_AT + 32),
            last_snapshot: Seq(u64_at(content, BEGAN_AT + 40)),
            damaged: names.lines().map(str::to_owned).collect(),
        })
    }

    /// Reads the file of a ledger; `None` if there is none, or none that can be used.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub fn read<S: Storage>(storage: &S) -> io::Result<Option<Self>> {
        let file = match storage.open(SCRUB_NAME) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = vec![0; usize::try_from(file.size()?).unwrap_or(usize::MAX).min(STATE_BYTES_MAX)];
        let read = file.read_at(&mut bytes, 0)?;
        Ok(Self::decode(&bytes[..read]))
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// If it cannot be written; the old one is there then.
    pub fn write<S: Storage>(&self, storage: &S) -> io::Result<()> {
        replace(storage, SCRUB_NAME, &self.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::MemoryStorage;

    fn state() -> ScrubState {
        let pass = |at| ScrubPass { at: UnixMs(at), files: 2, bytes: 3, damaged: 1 };
        ScrubState {
            log_id: LogId([7; 16]),
            last: Some(pass(11)),
            pass: Some(pass(22)),
            next_segment: 5,
            last_snapshot: Seq(6),
            damaged: [crate::ledger::segment_name(3), "index-0000000004.idx".into(), "index-0000000009.idx".into()].into(),
        }
    }

    #[test]
    fn it_is_read_as_written_and_damage_is_never_believed() {
        let storage = MemoryStorage::new();
        assert_eq!(ScrubState::read(&storage).unwrap(), None);
        for state in [state(), ScrubState { last: None, pass: None, damaged: BTreeSet::new(), ..state() }] {
            state.write(&storage).unwrap();
            assert_eq!(ScrubState::read(&storage.crash(&mut || false)).unwrap(), Some(state));
        }
        state().write(&storage).unwrap();
        let bytes = state().encode().len();
        for byte in 0..bytes {
            let bad = storage.fork();
            bad.tamper(SCRUB_NAME, |bytes| bytes[byte] ^= 1);
            assert_eq!(ScrubState::read(&bad).unwrap(), None, "byte {byte}");
            bad.tamper(SCRUB_NAME, |bytes| bytes.truncate(byte));
            assert_eq!(ScrubState::read(&bad).unwrap(), None, "{byte} bytes");
        }
    }

    #[test]
    fn of_what_was_archived_nothing_is_told_and_of_all_else_everything() {
        let mut state = state();
        let snapshot = crate::ledger::snapshot::snapshot_name(Seq(1));
        state.damaged.insert(snapshot.clone());
        let all = state.damaged.clone();
        assert!(!state.forget_archived(1) && !state.forget_archived(3) && state.damaged == all);
        assert!(state.forget_archived(5));
        assert_eq!(state.damaged, ["index-0000000009.idx".into(), snapshot].into());
    }

    #[test]
    fn damaged_files_are_counted_by_kind() {
        let mut state = state();
        state.damaged.insert(crate::ledger::snapshot::snapshot_name(Seq(8)));
        assert_eq!(state.figures(), Scrubbed { last_end: UnixMs(11), damaged: [1, 2, 1] });
        assert_eq!(ScrubState::default().figures(), Scrubbed::default());
    }
}
