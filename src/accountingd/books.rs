//! The counters of all ledgers that this daemon keeps: a directory for each, with the name of the ledger.
use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::RandomState;

use crate::accounting::protocol::{Answer, Request};
use crate::accounting::{Bounds, Sink, SinkFault, Store};
use crate::domain::{bytes_of_hex, hex, LogId};

/// Most ledgers of one daemon: each holds two files open.
const LEDGERS_MAX: usize = 256;

/// What is open, each ledger under a lock of its own, so that one whose disk is slow holds up no other.
#[derive(Debug)]
pub(super) struct Books {
    directory: PathBuf,
    stores: Mutex<HashMap<LogId, Arc<Mutex<Store>>, RandomState>>,
}

impl Books {
    /// Opens the directory, made if there is none, and everything in it: what is damaged is told at the start.
    pub fn open(directory: &Path) -> Result<Self, SinkFault> {
        let fault = |what: &'static str| move |cause| SinkFault::Io { what, path: directory.to_owned(), cause };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(fault("make the directory"))?;
        let directory = std::path::absolute(directory).map_err(fault("find it"))?;
        let books = Self { directory: directory.clone(), stores: Mutex::default() };
        for found in fs::read_dir(&directory).map_err(fault("list it"))? {
            let name = found.map_err(fault("list it"))?.file_name();
            if let Some(log) = name.to_str().and_then(bytes_of_hex).map(LogId) {
                books.store(log)?;
            }
        }
        Ok(books)
    }

    /// The names of the ledgers, in order.
    pub fn logs(&self) -> Vec<String> {
        let mut logs: Vec<_> = locked(&self.stores).keys().map(|log| hex(&log.0)).collect();
        logs.sort_unstable();
        logs
    }

    /// Does what is asked.
    pub fn answer(&self, request: &Request, line: &str) -> Answer {
        let done = match request {
            Request::Files => {
                return Answer::Files { directory: self.directory.display().to_string(), logs: self.logs() };
            }
            Request::Through(log) => self.on(*log, |store| store.through(*log)),
            Request::SetAside(log) => self.on(*log, |store| store.set_aside(*log).and_then(|()| store.through(*log))),
            Request::Keep(kept) => {
                let stretch = kept.stretch();
                self.on(stretch.log, |store| store.append(stretch, line).map(|()| stretch.through))
            }
        };
        match done {
            Ok(through) => Answer::Through { through: through.0 },
            Err(fault) => {
                let (log, error) = (hex(&request.log().unwrap_or_default().0), fault.to_string());
                tracing::error!(
                    event = "accounting_refused",
                    log,
                    error,
                    "counters were not kept; their wallet has them in its ledger"
                );
                Answer::Error { error }
            }
        }
    }

    fn on<T>(&self, log: LogId, act: impl FnOnce(&mut Store) -> Result<T, SinkFault>) -> Result<T, SinkFault> {
        let store = self.store(log)?;
        let mut store = locked(&store);
        act(&mut store)
    }

    /// The files of this ledger, made if there are none.
    fn store(&self, log: LogId) -> Result<Arc<Mutex<Store>>, SinkFault> {
        let mut stores = locked(&self.stores);
        if let Some(store) = stores.get(&log) {
            return Ok(store.clone());
        }
        let directory = self.directory.join(hex(&log.0));
        if stores.len() >= LEDGERS_MAX {
            let cause = std::io::Error::other(format!("{LEDGERS_MAX} ledgers are counted already; start a second daemon"));
            return Err(SinkFault::Io { what: "count another ledger", path: directory, cause });
        }
        let store = Store::open(&directory, Bounds::default().file_bytes_max)?;
        let store = Arc::new(Mutex::new(store));
        stores.insert(log, store.clone());
        Ok(store)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
