//! The accounting daemon: arguments, run.
use clap::Parser;
use std::process::ExitCode;
use svc_wallet::accountingd::{run, Args, SERVICE};
use svc_wallet::telemetry::logs;

/// Exit code for arguments that cannot be used.
const EXIT_ARGUMENTS: u8 = 2;
/// Exit code for a daemon that could not start.
const EXIT_FAILED: u8 = 1;

fn main() -> ExitCode {
    let fail = |code: u8, what: &dyn std::fmt::Display| {
        logs::fatal(SERVICE, what);
        ExitCode::from(code)
    };
    let args = Args::parse();
    let log = match logs::init(SERVICE, std::env::var("RUST_LOG").ok().as_deref()) {
        Ok(log) => log,
        Err(error) => {
            // If it is the filter, there is a log without it.
            let _log = logs::init(SERVICE, None);
            return fail(EXIT_ARGUMENTS, &error);
        }
    };
    let ended = run(&args);
    log.flush();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => fail(EXIT_FAILED, &what),
    }
}
