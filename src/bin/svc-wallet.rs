//! The wallet server: arguments, configuration, run.
use clap::Parser;
use std::process::ExitCode;
use svc_wallet::config::{check, Config, Flags, Sources};
use svc_wallet::control;
use svc_wallet::telemetry::logs;

/// Exit code for a configuration that cannot be used.
const EXIT_CONFIG: u8 = 2;
/// Exit code for a service that could not start or end in order.
const EXIT_FAILED: u8 = 1;

/// Decides at very high rate whether a holder may spend an amount now, and makes the answer durable before giving it.
#[derive(Parser)]
#[command(version, after_help = control::AFTER_HELP)]
struct Args {
    #[command(flatten)]
    flags: Flags,
    /// Print the effective configuration, where each value came from and what stands in the way of a start, then exit.
    #[arg(long)]
    check_config: bool,
    /// With --check-config: print JSON.
    #[arg(long, requires = "check_config")]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let sources = Sources::of_process(args.flags);
    let fail = |code: u8, what: &dyn std::fmt::Display| {
        logs::fatal(control::SERVICE, what);
        ExitCode::from(code)
    };
    if args.check_config {
        let report = check::check(&sources, args.json, &control::findings);
        let code = ExitCode::from(if report.ok { 0 } else { EXIT_CONFIG });
        return report.print().map_or_else(|error| fail(EXIT_FAILED, &error), |()| code);
    }
    let log = match logs::init(control::SERVICE, std::env::var("RUST_LOG").ok().as_deref()) {
        Ok(log) => log,
        Err(error) => {
            // If it is the filter, there is a log without it.
            let _log = logs::init(control::SERVICE, None);
            return fail(EXIT_CONFIG, &error);
        }
    };
    let loaded = Config::load(&sources).and_then(|config| config.supported().map(|()| config));
    let config = match loaded {
        Ok(config) => config,
        Err(error) => return fail(EXIT_CONFIG, &error),
    };
    let ended = control::run(&config, &log);
    log.flush();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(EXIT_FAILED, &error),
    }
}
