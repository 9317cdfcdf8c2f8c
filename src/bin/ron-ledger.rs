//! The ledger daemon: arguments, settings, run.
use std::process::ExitCode;
use svc_wallet::control::{daemon, DaemonFault};
use svc_wallet::ledgerd::{run, Args, Settings, SERVICE};

fn main() -> ExitCode {
    daemon(SERVICE, |args: &Args, log| {
        let settings = Settings::of(args).map_err(DaemonFault::Arguments)?;
        Ok(run(&settings, log)?)
    })
}
