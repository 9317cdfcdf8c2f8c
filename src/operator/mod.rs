//! `ronctl`, the operator's command: everything that the runbook tells an operator to type, one file for each subcommand.
//!
//! Answers go to standard output, for people or (`--json`) for programs; remarks and failures go to standard error; the exit
//! code says yes or no ([`exit::Exit`]). Nothing here changes the ledger: whatever moves value goes through the API, with a
//! capability, like any client.
pub mod cap;
pub mod client;
pub mod context;
pub mod demo;
pub mod exit;
#[cfg(test)]
mod fake;
pub mod ledger;
pub mod members;
pub mod output;
pub mod status;
pub mod wallet;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;

use context::Context;
use exit::{Exit, Failure};
use output::Output;

/// The command line of `ronctl`.
#[derive(Debug, Parser)]
#[command(
    name = "ronctl",
    version,
    about = "Operate svc-wallet: capabilities, accounts, status, ledger",
    after_help = exit::HELP,
    after_long_help = format!(
        "Examples:\n  ronctl status\n  ronctl cap mint --subject alice --scopes 'wallet:*' --ttl 900s\n  \
         ronctl wallet balance --account alice --asset roc\n  ronctl ledger verify\n  ronctl demo\n\n{}",
        exit::HELP
    ),
    max_term_width = 110,
    propagate_version = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// The server's configuration file; otherwise RON_CONFIG, otherwise ./configs/svc-wallet.toml
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make and read capabilities
    #[command(subcommand)]
    Cap(cap::Cap),
    /// Ask for balances, nonces and receipts
    #[command(subcommand)]
    Wallet(wallet::Wallet),
    /// Show whether the server is ready, and why not
    Status(status::Status),
    /// Check the ledger on disk
    #[command(subcommand)]
    Ledger(ledger::Ledger),
    /// See a wallet at work on a server of its own, which is gone afterwards
    Demo(demo::Demo),
}

impl Command {
    fn run(&self, context: &Context) -> Result<Exit, Failure> {
        match self {
            Command::Cap(command) => command.run(context),
            Command::Wallet(command) => command.run(context),
            Command::Status(command) => command.run(context),
            Command::Ledger(command) => command.run(context),
            Command::Demo(command) => command.run(context),
        }
    }
}

/// Runs `ronctl` with these arguments, the program's name first, and says how to end.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(help_or_fault) => {
            // If the stream is gone there is nobody to tell.
            let _ = help_or_fault.print();
            return if help_or_fault.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    let context = Context { output: Output::detect(cli.json), config: cli.config };
    cli.command.run(&context).unwrap_or_else(|failure| {
        context.output.failure(&failure);
        failure.exit
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_of_the_runbook_is_understood() {
        for line in [
            "ronctl cap mint --subject alice --scopes wallet:* --ttl 900s",
            "ronctl cap mint --subject a --scopes wallet:spend,read --ttl 1h --account a,b* --to c --asset roc --max-amount 5 --daily-ceiling 9",
            "ronctl cap inspect MDAx",
            "ronctl wallet seq --account alice",
            "ronctl wallet balance --account alice --asset roc --json",
            "ronctl --json --config x.toml wallet tx tx_0 --token t",
            "ronctl status --config x.toml",
            "ronctl ledger verify --dir ./var/ledger",
            "ronctl demo",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        for line in ["ronctl", "ronctl wallet", "ronctl cap mint", "ronctl wallet seq", "ronctl nothing"] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn every_command_has_help_with_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path}");
            let groups = command.get_subcommands().filter(|inner| inner.get_name() != "help").count();
            if groups == 0 {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.starts_with("Examples:\n  ronctl"), "{path} has no example");
            }
            command.get_subcommands().filter(|inner| inner.get_name() != "help").for_each(|inner| check(inner, &path));
        }
        check(&Cli::command(), "");
    }
}
