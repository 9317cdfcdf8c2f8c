//! The life of a daemon's process, as all of them have it: arguments, log, run, exit code.
use crate::telemetry::logs::{self, LogGuard};
use std::process::ExitCode;

/// Exit code for arguments that cannot be used.
const EXIT_ARGUMENTS: u8 = 2;
/// Exit code for a daemon that could not start or end in order.
const EXIT_FAILED: u8 = 1;

/// Why a daemon has not ended in order: a sentence that says what to do.
#[derive(Debug)]
pub enum DaemonFault {
    /// Its arguments, or the file that they name, cannot be used.
    Arguments(String),
    /// It could not start, or not end in order.
    Failed(String),
}

impl From<String> for DaemonFault {
    fn from(what: String) -> Self {
        DaemonFault::Failed(what)
    }
}

/// Reads the arguments of this process, sets its log up under the name of the service, and runs.
pub fn daemon<A: clap::Parser>(service: &'static str, run: impl FnOnce(&A, &LogGuard) -> Result<(), DaemonFault>) -> ExitCode {
    let fail = |code: u8, what: &dyn std::fmt::Display| {
        logs::fatal(service, what);
        ExitCode::from(code)
    };
    let args = A::parse();
    let log = match logs::init(service, std::env::var("RUST_LOG").ok().as_deref()) {
        Ok(log) => log,
        Err(error) => {
            // If it is the filter, there is a log without it.
            let _log = logs::init(service, None);
            return fail(EXIT_ARGUMENTS, &error);
        }
    };
    let ended = run(&args, &log);
    log.flush();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(DaemonFault::Arguments(what)) => fail(EXIT_ARGUMENTS, &what),
        Err(DaemonFault::Failed(what)) => fail(EXIT_FAILED, &what),
    }
}
