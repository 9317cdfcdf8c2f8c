//! The registry: arguments, run.
use std::process::ExitCode;
use svc_wallet::control::daemon;
use svc_wallet::registryd::{run, Args, SERVICE};

fn main() -> ExitCode {
    daemon(SERVICE, |args: &Args, _| Ok(run(args)?))
}
