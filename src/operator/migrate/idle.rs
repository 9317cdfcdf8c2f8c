//! Nobody else uses the files: the locks of the directories are held for as long as the guard lives, and no server answers.
use crate::config::{AccountingDep, Config, LedgerDep};
use crate::ledger::{DiskStorage, LedgerError, Storage};
use crate::operator::client::Request;
use crate::operator::context::Context;
use crate::operator::exit::Failure;
use crate::operator::ledger::unreadable;
use rustix::fs::{flock, FlockOperation};
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The locks. They go with this value, and with the process.
#[derive(Debug)]
pub struct Idle {
    _locks: Vec<File>,
}

/// Takes the locks of everything that a server would use.
///
/// # Errors
/// If a server runs, with what to do.
pub fn take(context: &Context, config: &Config, ledger: Option<&Path>) -> Result<Idle, Failure> {
    let mut locks = Vec::new();
    let runs = |what: String| {
        Failure::internal(format!("{what}; nothing was changed"), "stop it in order (RUNBOOK.md, Stop), then repeat this command")
    };
    // A server of another user holds locks as well, but a wallet behind a daemon may hold none of these.
    let mut client = context.metrics(config);
    if client.exchange(&Request::get("/healthz")).is_ok_and(|reply| reply.json()["service"] == crate::control::SERVICE) {
        return Err(runs(format!("svc-wallet runs: it answers at {}", client.address())));
    }
    if let LedgerDep::Unix(socket) = &config.deps.ledger {
        if UnixStream::connect(socket).is_ok() {
            return Err(runs(format!("ron-ledger runs: it answers at unix://{}", socket.display())));
        }
    }
    let stream = config.audit_stream();
    for directory in ledger.into_iter().chain(stream.as_deref()).filter(|directory| directory.is_dir()) {
        let place = directory.display().to_string();
        let io = |doing| LedgerError::io(place.as_str(), doing);
        let storage = DiskStorage::create(directory).map_err(|fault| unreadable(&io("open it")(fault)))?;
        let lock = storage.lock().map_err(|fault| unreadable(&io("take its lock")(fault)))?;
        locks.push(lock.ok_or_else(|| unreadable(&LedgerError::InUse { place: place.clone() }))?);
    }
    if let AccountingDep::Embedded(directory) = &config.deps.accounting {
        if let Ok(file) = File::open(directory) {
            flock(&file, FlockOperation::NonBlockingLockExclusive)
                .map_err(|_| runs(format!("another process writes counters in {}", directory.display())))?;
            locks.push(file);
        }
    }
    Ok(Idle { _locks: locks })
}
