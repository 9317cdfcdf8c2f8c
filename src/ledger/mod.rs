//! The ledger: an append-only, hash-chained sequence of entries on disk, which is the truth about every balance.
//!
//! `docs/LEDGER.md` draws the files byte by byte and states the rules of recovery.
//!
//! | file | role |
//! |---|---|
//! | [`layout`], [`batch`] | headers and batches as bytes (pure) |
//! | `merge` | group commit: what goes into the next batch, what each lane is answered (pure) |
//! | `index_format` | index files as bytes (pure) |
//! | `places` | sparse directory from entry to batch (pure) |
//! | `books` | the auditor's books (pure) |
//! | `backoff` | pauses between attempts that fail (pure) |
//! | `clock` | the wall clock |
//! | `storage` | what is asked of a disk; `disk` is the real one, `ram` the memory of the process, `memory` a disk that can crash |
//! | `window`, `scan`, `mark`, `witness`, `recovery` | reading everything, telling a torn tail from damage, opening for writing |
//! | `log`, `spares` | one batch, one write, one sync; segments allocated ahead |
//! | [`engine`], `writer` | what a log must offer; appending once, also when the outcome of an append is unknown |
//! | `disturbance` | a ledger that is late or out of reach on purpose |
//! | `committer`, `bell`, `quiet`, `stats` | the thread that does so for all lanes |
//! | `handles` | what the service has in hand of a ledger, wherever that is |
//! | `cursor`, `reader`, `recent`, `index`, `index_file`, `desk` | finding entries, off the cores |
//! | [`snapshot`] | the state of all accounts after some entry, so that a start need not read everything |
//! | `audit` | replaying what was committed by rules of its own, sums, and the next snapshot |
//! | `auditor`, `schedule`, `comparison` | the thread around that, when it takes snapshots, and the comparison with what is served |
//! | `scrub` | reading again what is sealed, at a bounded rate |
//! | `scrub/plan` | when and how fast that is (pure) |
//! | `history/mmr`, `history/verify` | mountain ranges over entries and batches, and whether a proof holds (pure) |
//! | [`history`] | follows the durable head and proves |
//! | `protocol/mod`, `protocol/request`, `protocol/reply`, `protocol/answers`, `protocol/audit` | what a wallet and the ledger daemon say to each other (pure) |
//! | `daemon/session`, `remote/link` | the two ends of that as bytes in and bytes out (pure) |
//! | `daemon`, `remote` | the threads and sockets around them |
//! | `verify/` | replaying everything against every promise, and what a start would do |
//! | `walk` | reading a directory from any entry on, for people |
//! | `formats` | which version of its format each file has, and an index made anew |
//! | `archive`, `backup` | moving sealed segments elsewhere; copies of the state, and a ledger from one |
//!
//! The pure files know no clock, randomness, I/O or threads. Nothing in here knows HTTP, capabilities or what a core decides.
mod archive;
mod audit;
mod auditor;
mod backoff;
mod backup;
pub mod batch;
mod bell;
mod books;
mod clock;
mod committer;
mod comparison;
mod cursor;
mod daemon;
mod desk;
mod disk;
mod disturbance;
pub mod engine;
mod error;
mod formats;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod handles;
pub mod history;
mod index;
mod index_file;
mod index_format;
pub mod layout;
mod log;
mod mark;
mod memory;
mod merge;
mod places;
mod protocol;
mod quiet;
mod ram;
mod reader;
mod recent;
mod recovery;
mod remote;
mod scan;
mod schedule;
mod scrub;
pub mod snapshot;
mod spares;
mod stats;
mod storage;
mod verify;
mod walk;
mod window;
mod witness;
mod writer;

#[cfg(test)]
mod commit_tests;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod engine_tests;
#[cfg(test)]
mod history_base_tests;
#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod read_tests;
#[cfg(test)]
mod recovery_tests;
#[cfg(any(test, fuzzing))]
#[cfg_attr(not(test), allow(dead_code))] // Tests use all of it.
mod sample;

pub use archive::archive_segments;
pub use audit::{Audit, AuditWork, Findings};
pub use auditor::Auditor;
pub use backup::{archivable_through, back_up, restore, BackupError};
pub use books::{AccountBooks, AssetTotals, Books, Value};
pub use clock::unix_now;
pub use committer::{Committer, LaneSender, OnFatal, LANE_QUEUE_BATCHES_MAX};
pub use comparison::{Held, Holders, Live};
pub use daemon::{Admitted, Peer, Served, Server, SteppedDaemon, SteppedLine};
pub use desk::{Answer, LookupDesk, Told};
pub use disk::{DiskFile, DiskStorage};
pub use disturbance::{Disturbance, Disturbed, DisturbedWatch};
pub use error::LedgerError;
pub(crate) use error::{verify_beside, verify_in};
pub use formats::{formats, index_anew, FileFormat, FormatVersion, INDEX_KIND};
pub use handles::{AuditLedger, EachEntry, EachKeys, ReadLedger, WatchLedger};
pub(crate) use log::is_lack_of_room;
pub use log::{AppendError, Log, Options, Watch};
pub use mark::Mark;
pub use memory::{Fate, Faults, MemoryFile, MemoryStorage, ReadFault, SyncFault, WriteFault};
pub use merge::{GroupCommit, LanePlace, Placed, Standing};
pub use protocol::{Fault, Refused};
pub use ram::RamStorage;
pub use reader::Reader;
pub(crate) use recovery::entries_of;
pub use recovery::{Recovered, Recovery};
pub(crate) use remote::connect_to;
pub use remote::{
    answers, directory_behind, Begun, Heard, Link, Patience, RemoteAuditor, RemoteFile, RemoteReader, RemoteSnapshots,
    RemoteWatch, RemoteWriter,
};
pub use scan::Torn;
pub(crate) use scan::{log_of, SeenBatch};
pub use schedule::Schedule;
pub use scrub::{
    Kind as ScrubKind, Next as ScrubNext, ScrubPass, ScrubState, Scrubbed, Scrubbing, Work as ScrubWork, SCRUB_NAME,
};
pub use stats::CommitStats;
pub(crate) use storage::segment_number;
pub use storage::{segment_name, ReadFile, Storage, StorageFile};
pub use verify::{
    verify, verify_directory, Elsewhere, Extent, Progress, Refuted, Remark, Report, Rest, Start, Suspect, Verification, KEYS_TTL,
};
pub use walk::{Batch, SegmentFile, SegmentUse, Walk, WalkEnd};
pub use witness::WITNESS_NAME;
