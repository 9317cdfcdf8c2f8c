//! The accounting daemon: arguments, run.
use std::process::ExitCode;
use svc_wallet::accountingd::{run, Args, SERVICE};
use svc_wallet::control::daemon;

fn main() -> ExitCode {
    daemon(SERVICE, |args: &Args, _| Ok(run(args)?))
}
