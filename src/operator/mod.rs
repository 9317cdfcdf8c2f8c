//! `ronctl`, the operator's command: everything that the runbook tells an operator to type, one file for each subcommand.
//!
//! Answers go to standard output, for people or (`--json`) for programs; remarks and failures go to standard error; the exit
//! code says yes or no ([`exit::Exit`]). Nothing here changes the ledger: whatever moves value goes through the API, with a
//! capability, like any client.
pub mod accounting;
pub mod audit;
pub mod cap;
pub mod chaos;
pub mod client;
pub mod context;
pub mod demo;
pub mod drain;
pub mod dto;
pub mod exit;
#[cfg(test)]
mod fake;
mod kept_file;
pub mod kms;
pub mod ledger;
pub mod members;
pub mod migrate;
pub mod output;
pub mod policy;
pub mod proof;
pub mod public_keys;
pub mod registry;
pub mod shell;
pub mod status;
pub mod top;
pub mod wallet;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::Parser;

use context::Context;
use exit::{Exit, Failure};
use output::Output;

/// The command line of `ronctl`.
#[derive(Debug, Parser)]
#[command(
    name = "ronctl",
    version,
    about = "Operate svc-wallet: capabilities, keys, policy, accounts, status, ledger, audit",
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
    /// The server's configuration file; otherwise RON_CONFIG, else ./configs/svc-wallet.toml, else /etc/ron/svc-wallet.toml; root looks there first
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
    /// Make, read, narrow and revoke capabilities
    #[command(subcommand)]
    Cap(cap::Cap),
    /// Show and change the keyring in custody: its posture, its keys, how it is sealed
    #[command(subcommand)]
    Kms(kms::Kms),
    /// Check, show and reload the policy
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Ask for balances, entries, nonces, receipts and the sums of an asset
    #[command(subcommand)]
    Wallet(wallet::Wallet),
    /// Show the topology: which cell has which accounts, and where it answers
    #[command(subcommand)]
    Registry(registry::Registry),
    /// Show whether the server is ready, and why not
    Status(status::Status),
    /// Take the server out of rotation for a while, and put it back
    #[command(subcommand)]
    Drain(drain::Drain),
    /// Watch rates, latencies, cores, ledger, readiness and refusals in a terminal
    Top(top::Top),
    /// Check, show and export the ledger on disk
    #[command(subcommand)]
    Ledger(ledger::Ledger),
    /// Flush, show and reconcile the counters
    #[command(subcommand)]
    Accounting(accounting::Accounting),
    /// Check, show and search the audit stream
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Inject faults on purpose, show them and end them
    #[command(subcommand)]
    Chaos(chaos::Chaos),
    /// Fetch and verify proofs that a transaction is part of the ledger
    #[command(subcommand)]
    Proof(proof::Proof),
    /// Hold the shapes of requests and replies against what is written down about them
    #[command(subcommand)]
    Dto(dto::Dto),
    /// Bring files to the versions that this program reads, each with a backup
    Migrate(migrate::Migrate),
    /// See a wallet at work on a server of its own, which is gone afterwards
    Demo(demo::Demo),
    /// Print what a shell needs to complete this command
    Completions(shell::Completions),
    /// Write the pages of the manual
    Manual(shell::Manual),
}

impl Command {
    fn run(&self, context: &Context) -> Result<Exit, Failure> {
        match self {
            Command::Cap(command) => command.run(context),
            Command::Kms(command) => command.run(context),
            Command::Policy(command) => command.run(context),
            Command::Wallet(command) => command.run(context),
            Command::Registry(command) => command.run(context),
            Command::Status(command) => command.run(context),
            Command::Drain(command) => command.run(context),
            Command::Top(command) => command.run(context),
            Command::Ledger(command) => command.run(context),
            Command::Accounting(command) => command.run(context),
            Command::Audit(command) => command.run(context),
            Command::Chaos(command) => command.run(context),
            Command::Proof(command) => command.run(context),
            Command::Dto(command) => command.run(context),
            Command::Migrate(command) => command.run(context),
            Command::Demo(command) => command.run(context),
            Command::Completions(command) => command.run(),
            Command::Manual(command) => command.run(context),
        }
    }
}

/// Runs `ronctl` with these arguments, the program's name first, and says how to end.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(fault) if fault.use_stderr() && asks_for_json(&arguments) => {
            Output::detect(true).failure(&usage_failure(&fault));
            return Exit::Usage;
        }
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

/// Whether `--json` is among arguments that may be wrong. Behind `--` it would be a value.
fn asks_for_json(arguments: &[OsString]) -> bool {
    arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json")
}

/// What clap says of a wrong command line, without the layout that it has for people.
fn usage_failure(fault: &clap::Error) -> Failure {
    let help = "see ronctl --help, or --help behind the command";
    if matches!(fault.kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand) {
        // Here clap shows the help, which says nothing of what is wrong.
        return Failure::usage("a command is missing", help);
    }
    let shown = fault.to_string();
    let before = |text: &str, end: &str| text.split(end).next().unwrap_or_default().to_owned();
    let said = before(&before(&shown, "\n\nUsage:"), "\n\nFor more information");
    let (said, tip) = said.split_once("\n\n  tip: ").unwrap_or((&said, ""));
    let in_one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let message = in_one_line(said.strip_prefix("error: ").unwrap_or(said));
    Failure::usage(message, if tip.is_empty() { help.to_owned() } else { format!("{}; {help}", in_one_line(tip)) })
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
            "ronctl cap mint --subject a --scopes wallet:spend,read --ttl 1h --account a,b* --to c --asset roc --max-amount 5 --daily-ceiling 9 --budget 99",
            "ronctl cap inspect MDAx",
            "ronctl cap attenuate --token-file t --scopes read --ttl 1m --to a,b* --max-amount 5 --not-before 2027-01-15T08:00:00Z",
            "ronctl cap attenuate --caveat asset=roc --caveat to=b",
            "ronctl cap revoke --token-id 00112233445566778899aabbccddeeff --reason lost",
            "ronctl cap revoke --undo --subject alice",
            "ronctl cap revocations --json",
            "ronctl kms status",
            "ronctl kms status --expect sealed=on,version=3",
            "ronctl kms rotate",
            "ronctl kms rotate --hybrid on",
            "ronctl kms status --expect hybrid=on",
            "ronctl kms rotate --add-only",
            "ronctl kms rotate --activate k-1",
            "ronctl kms retire k-1",
            "ronctl kms export --out keys.json",
            "ronctl kms seal --under credential:wallet.key",
            "ronctl wallet seq --account alice",
            "ronctl wallet balance --account alice --asset roc --json",
            "ronctl --json --config x.toml wallet tx tx_0 --token t",
            "ronctl wallet totals --asset roc --token t",
            "ronctl registry show",
            "ronctl registry show --source --json",
            "ronctl status --config x.toml",
            "ronctl ledger verify --dir ./var/ledger",
            "ronctl ledger snapshot --out /tmp/ledger.snap",
            "ronctl ledger restore --from /tmp/ledger.snap --dir ./var/ledger",
            "ronctl ledger archive --to /mnt/archive",
            "ronctl ledger inspect --segment 1 --json",
            "ronctl ledger export --format csv --from 1 --to 9 --account a --account b --out x.csv --force",
            "ronctl wallet seq --account alice --from-ledger",
            "ronctl accounting flush",
            "ronctl accounting show --account a --json",
            "ronctl accounting reconcile --snapshot /tmp/ledger.snap --repair",
            "ronctl audit verify --dir ./var/audit --ledger ./var/ledger --up-to-date",
            "ronctl audit verify --no-ledger --json",
            "ronctl audit tail -n 5 -f",
            "ronctl audit search --account a --token-id ab --subject s --corr-id c --txid tx_0 --outcome refused --since 2026-11-24T16:30:00Z",
            "ronctl chaos inject --target svc-wallet --fault=latency",
            "ronctl chaos inject --target svc-wallet --fault=disconnect --dep=ron-ledger",
            "ronctl chaos inject --target svc-wallet --fault=quota_storm",
            "ronctl chaos inject --fault latency --dep registry --for 5m --ms 10 --rate 0.5",
            "ronctl chaos list --json",
            "ronctl chaos clear f-1",
            "ronctl proof get --tx tx_0 --size 3 --out proof.json",
            "ronctl proof get --from 1 --to 2",
            "ronctl proof root --token t",
            "ronctl proof root --out root.json --force",
            "ronctl proof verify --proof - --root ab --size 3 --receipt r.json --consistency c.json",
            "ronctl proof consistency --from a --to b --proof c.json",
            "ronctl demo",
            "ronctl top",
            "ronctl top --interval 500ms --once --json",
            "ronctl migrate svc-wallet",
            "ronctl migrate svc-wallet --dry-run --ledger-dir ./var/ledger --json",
            "ronctl dto lint svc-wallet",
            "ronctl dto lint svc-wallet --openapi gateway/openapi.yaml --vectors gateway/vectors --json",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        for line in [
            "ronctl",
            "ronctl wallet",
            "ronctl cap mint",
            "ronctl cap attenuate MDAx",
            "ronctl cap revoke",
            "ronctl cap revoke --subject a --key-id k",
            "ronctl wallet seq",
            "ronctl nothing",
            "ronctl kms status --expect hybrid",
            "ronctl kms status --expect nothing=on",
            "ronctl kms rotate --add-only --activate k-1",
            "ronctl kms rotate --hybrid maybe",
            "ronctl kms retire",
            "ronctl kms seal --under vault",
            "ronctl registry",
            "ronctl accounting reconcile --snapshot x --entries",
            "ronctl chaos inject",
            "ronctl chaos inject --fault flood",
            "ronctl chaos inject --fault latency --dep disk",
            "ronctl chaos inject --target ron-ledger --fault latency",
            "ronctl chaos inject --fault latency --for ever",
            "ronctl top --interval 1ms",
            "ronctl migrate",
            "ronctl proof get",
            "ronctl proof get --from 1",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn a_wrong_command_line_is_told_in_one_sentence_for_programs() {
        let cases = [
            ("ronctl --json", "a command is missing"),
            ("ronctl --json wallet", "a command is missing"),
            (
                "ronctl --json wallet balance",
                "the following required arguments were not provided: --account <ACCOUNT> --asset <ASSET>",
            ),
            ("ronctl nothing --json", "unrecognized subcommand 'nothing'"),
            ("ronctl wallet seq --acount a --json", "unexpected argument '--acount' found"),
            (
                "ronctl --json cap mint --subject a --scopes wallet:read --ttl soon",
                "invalid value 'soon' for '--ttl <DURATION>': expected number at 0",
            ),
        ];
        for (line, expected) in cases {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert!(asks_for_json(&arguments), "{line}");
            let fault = Cli::try_parse_from(&arguments).expect_err(line);
            assert!(fault.use_stderr(), "{line}");
            let failure = usage_failure(&fault);
            assert_eq!((failure.message.as_str(), failure.exit), (expected, Exit::Usage), "{line}");
            let tip = if expected.contains("--acount") { "a similar argument exists: '--account'; see " } else { "see " };
            assert!(failure.next.starts_with(tip), "{line}: {failure}");
        }
        assert!(!asks_for_json(&["ronctl", "wallet", "tx", "--", "--json"].map(OsString::from)));
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
