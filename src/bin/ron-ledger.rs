//! The ledger daemon: arguments, settings, run.
use clap::Parser;
use std::process::ExitCode;
use svc_wallet::ledgerd::{run, Args, Settings, SERVICE};
use svc_wallet::telemetry::logs;

/// Exit code for arguments that cannot be used.
const EXIT_ARGUMENTS: u8 = 2;
/// Exit code for a daemon that could not start or end in order.
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
    let settings = match Settings::of(&args) {
        Ok(settings) => settings,
        Err(what) => return fail(EXIT_ARGUMENTS, &what),
    };
    let ended = run(&settings, &log);
    log.flush();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => fail(EXIT_FAILED, &what),
    }
}
