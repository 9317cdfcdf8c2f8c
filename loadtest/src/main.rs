//! Load, crash and connection tests for svc-wallet: arguments to commands, results to reports, findings to exit codes.

mod args;
mod baseline;
mod books;
mod chaos;
mod compare;
mod connection;
mod crash;
mod daemon;
mod doubt;
mod engine;
mod failure;
mod fault;
mod faulty;
mod flood;
mod funding;
mod idle;
mod latency;
mod machine;
mod memory;
mod model;
mod operations;
mod outage;
mod process;
mod progress;
mod receipts;
mod reply;
mod report;
mod requests;
mod responder;
mod rng;
mod run;
mod server;
mod slow;
mod spread;
mod startup;
mod tally;
mod tokens;
mod workload;
mod written;

#[cfg(test)]
mod checks;
#[cfg(test)]
mod fake;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::Parser;
use fault::Fault;
use report::Report;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(fault) if fault.use_stderr() && failure::asks_for_json(&arguments) => {
            failure::tell_usage(&fault);
            return ExitCode::from(2);
        }
        Err(help_or_fault) => help_or_fault.exit(),
    };
    match execute(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(fault) => {
            failure::tell(cli.json, &fault);
            ExitCode::from(fault.exit_code())
        }
    }
}

fn execute(cli: &Cli) -> Result<bool, Fault> {
    if let Command::Responder(args) = &cli.command {
        machine::pin(&args.cpus.0)?;
        return responder::run().map(|()| true);
    }
    if let Command::FaultyLedger(args) = &cli.command {
        return faulty::run(args).map(|()| true);
    }
    let stop = machine::stop_flag()?;
    // Whoever reads standard error for the one object must not have to look for it among progress.
    let quiet = cli.quiet || cli.json;
    match &cli.command {
        Command::Run(args) => show(cli, run::run(args, quiet, &stop)?),
        Command::Baseline(args) => show(cli, baseline::run(args, quiet, &stop)?),
        Command::Chaos(args) => show(cli, chaos::run(args, quiet, &stop)?),
        Command::Crash(args) => show(cli, crash::run(args, quiet, &stop)?),
        Command::Idle(args) => show(cli, idle::run(args, quiet, &stop)?),
        Command::Compare(args) => show(cli, compare::run(args, quiet, &stop)?),
        Command::Startup(args) => show(cli, startup::run(args, quiet, &stop)?),
        Command::Responder(_) | Command::FaultyLedger(_) => unreachable!("these have been started above"),
    }
}

fn show(cli: &Cli, report: impl Report) -> Result<bool, Fault> {
    if cli.json {
        println!("{}", serde_json::to_string_pretty(&report).expect("a report is made of plain values"));
    } else {
        report.print();
    }
    Ok(report.ok())
}
