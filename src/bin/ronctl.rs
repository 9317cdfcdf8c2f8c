//! The operator's command; everything is in [`svc_wallet::operator`].
use std::process::ExitCode;

fn main() -> ExitCode {
    // Where the system refuses it, a command that opens the keyring for a moment is no reason to do nothing.
    let _ = svc_wallet::access::forbid_core_dumps();
    svc_wallet::operator::run(std::env::args_os()).into()
}
