//! What a disk in memory can be made to do wrong: the kinds of faults, and the hook that decides on them case by case.
//!
//! Knows no dice: whoever implements [`Faults`] decides, and can therefore count what really fired.

/// What happens to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFault {
    /// Nothing of it is written, and the caller hears so.
    Error,
    /// Only so many bytes are written, and the caller hears that it failed.
    Short(usize),
}

/// What happens to a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncFault {
    /// It fails: the new bytes stay readable, the disk never gets them, and a later sync has nothing left to do.
    Error,
    /// The device reports success and writes nothing.
    Lost,
    /// The device reports success and writes everything to another place: to this file, so many bytes further on or, if
    /// negative, before. What would lie outside of the file is lost.
    Misdirected {
        /// The file that is hit.
        file: String,
        /// How far off.
        bytes: i64,
    },
}

/// What happens to a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFault {
    /// It fails.
    Error,
    /// It succeeds with what stands at another offset of the file.
    From(u64),
}

/// What becomes of a sector that was written and not synced when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The old bytes are there.
    Lost,
    /// The new bytes are there.
    Kept,
    /// So many new bytes, and old ones behind them.
    Shorn(usize),
    /// Bytes that nobody wrote: the new ones, each XOR this.
    Garbled(u8),
}

/// Decides what goes wrong; nothing does of what is not decided. The names are those of the files at that moment, empty if a file has none any more.
pub trait Faults: Send {
    /// A write of so many bytes at this offset is about to happen.
    fn write(&mut self, _file: &str, _offset: u64, _bytes: usize) -> Option<WriteFault> {
        None
    }

    /// A sync is about to happen.
    fn sync(&mut self, _file: &str) -> Option<SyncFault> {
        None
    }

    /// A read of so many bytes at this offset is about to happen.
    fn read(&mut self, _file: &str, _offset: u64, _bytes: usize) -> Option<ReadFault> {
        None
    }

    /// The files are about to be listed; whether that fails.
    fn list(&mut self) -> bool {
        false
    }
}
