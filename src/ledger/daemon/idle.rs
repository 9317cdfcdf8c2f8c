//! The thread that does in idle moments what later questions would have to wait for: indexes of sealed segments, and the history.
//!
//! Everybody else goes before it, and each step is bounded, so that commits hardly notice it.
use super::server::Site;
use crate::ledger::desk::{HISTORY_REST, IDLE};
use crate::ledger::handles::ReadLedger;
use crate::ledger::storage::Storage;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Priority of the thread: 0 is everybody's, 19 goes last.
const PREPARE_NICE: i32 = 10;

/// Starts the thread, which ends when the server does.
pub(super) fn spawn<S: Storage>(site: &Arc<Site<S>>) -> std::io::Result<JoinHandle<()>> {
    let site = Arc::clone(site);
    let run = move || {
        if let Err(error) = rustix::process::setpriority_process(None, PREPARE_NICE) {
            tracing::debug!(%error, "idle work is done with everybody's priority");
        }
        let mut reader = site.reader.clone();
        let mut wait = IDLE;
        loop {
            let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
            let mut stop = [PollFd::new(&site.stop, PollFlags::IN)];
            // A signal may end the wait early; then the next step is.
            let _ = poll(&mut stop, Some(&timeout));
            if !stop[0].revents().is_empty() {
                return;
            }
            wait = if ReadLedger::prepare(&mut reader) { HISTORY_REST } else { IDLE };
        }
    };
    std::thread::Builder::new().name("ledger-prepare".into()).spawn(run)
}
