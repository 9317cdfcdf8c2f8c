//! The ledger daemon: arguments, settings, run.
use clap::Parser;
use std::process::ExitCode;
use svc_wallet::ledgerd::{run, Args, Settings, SERVICE};
use svc_wallet::telemetry;

/// Exit code for arguments that cannot be used.
const EXIT_ARGUMENTS: u8 = 2;
/// Exit code for a daemon that could not start or end in order.
const EXIT_FAILED: u8 = 1;

fn main() -> ExitCode {
    let fail = |code: u8, what: &dyn std::fmt::Display| {
        eprintln!("ron-ledger: {what}");
        ExitCode::from(code)
    };
    let settings = match Settings::of(&Args::parse()) {
        Ok(settings) => settings,
        Err(what) => return fail(EXIT_ARGUMENTS, &what),
    };
    let log = match telemetry::logs::init(SERVICE, std::env::var("RUST_LOG").ok().as_deref()) {
        Ok(log) => log,
        Err(error) => return fail(EXIT_ARGUMENTS, &error),
    };
    let ended = run(&settings, &log);
    log.flush();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => fail(EXIT_FAILED, &what),
    }
}
