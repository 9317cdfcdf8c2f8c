//! The snapshots of a ledger behind a socket, read in pieces as they are asked for.
use super::reader::RemoteReader;
use crate::domain::Seq;
use crate::ledger::protocol::PIECE_BYTES_MAX;
use crate::ledger::snapshot::{snapshot_name, Snapshot, SnapshotFault, SnapshotSource};
use crate::ledger::storage::ReadFile;
use crate::ledger::LedgerError;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the daemon has of snapshots.
pub struct RemoteSnapshots {
    place: String,
    line: Arc<Mutex<Line>>,
}

/// The connection, and what became of it.
struct Line {
    reader: RemoteReader,
    /// That it was out of reach, until somebody asks.
    lost: Option<String>,
}

impl Line {
    fn ask<T>(&mut self, act: impl FnOnce(&mut RemoteReader) -> Result<T, LedgerError>) -> io::Result<T> {
        act(&mut self.reader).map_err(|error| {
            let unreachable = matches!(error, LedgerError::Unreachable { .. });
            if unreachable {
                self.lost = Some(error.to_string());
            }
            io::Error::new(if unreachable { io::ErrorKind::NotConnected } else { io::ErrorKind::Other }, error)
        })
    }
}

fn locked(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RemoteSnapshots {
    pub(super) fn new(place: String, reader: RemoteReader) -> Self {
        Self { place, line: Arc::new(Mutex::new(Line { reader, lost: None })) }
    }

    /// The file of the snapshot after this entry.
    pub(super) fn file(&self, snapshot: Seq) -> io::Result<RemoteFile> {
        let size = locked(&self.line).ask(|reader| reader.piece(snapshot, 0, 0, &mut |_| ()))?;
        Ok(RemoteFile { line: Arc::clone(&self.line), snapshot, size })
    }
}

impl SnapshotSource for RemoteSnapshots {
    type File = RemoteFile;

    fn snapshots(&self) -> io::Result<Vec<Seq>> {
        locked(&self.line).ask(RemoteReader::snapshots)
    }

    fn open_snapshot(&self, seq: Seq) -> Result<Snapshot<RemoteFile>, SnapshotFault> {
        Snapshot::read_from(self.file(seq), false, format!("{} of {}", snapshot_name(seq), self.place))
    }

    fn reached(&self) -> io::Result<()> {
        match locked(&self.line).lost.take() {
            Some(what) => Err(io::Error::new(io::ErrorKind::NotConnected, what)),
            None => Ok(()),
        }
    }
}

/// One of them.
#[derive(Clone)]
pub struct RemoteFile {
    line: Arc<Mutex<Line>>,
    snapshot: Seq,
    size: u64,
}

impl ReadFile for RemoteFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let room = &mut buffer[filled..];
            let length = room.len().min(PIECE_BYTES_MAX);
            let mut taken = 0;
            let take = &mut |bytes: &[u8]| {
                room[..bytes.len()].copy_from_slice(bytes);
                taken = bytes.len();
            };
            let size =
                locked(&self.line).ask(|reader| reader.piece(self.snapshot, offset + filled as u64, length as u32, take))?;
            if size != self.size {
                return Err(io::Error::other(format!("it had {} bytes and has {size}", self.size)));
            }
            if taken == 0 {
                break;
            }
            filled += taken;
        }
        Ok(filled)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }
}
