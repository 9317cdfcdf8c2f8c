//! The operator's command; everything is in [`svc_wallet::operator`].
use std::process::ExitCode;

fn main() -> ExitCode {
    svc_wallet::operator::run(std::env::args_os()).into()
}
