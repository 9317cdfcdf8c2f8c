//! How a test that could not be carried out is told: for people, or with `--json` as one JSON object in one line, of the form
//! that `ronctl` has: `{"error": {"exit": 2, "message": "...", "next": "..."}}`.
//!
//! Results go to standard output, this goes to standard error. It does not know what any command does.

use std::{ffi::OsString, io::Write};

use clap::error::ErrorKind;

use crate::fault::Fault;

/// Where a wrong command line is put right.
const HELP: &str = "see loadtest --help, or --help behind the command";

/// Writes a fault to standard error.
pub fn tell(json: bool, fault: &Fault) {
    let text = if json { object(fault.exit_code(), &fault.to_string(), "") } else { format!("loadtest: {fault}") };
    write(&text);
}

/// Writes what is wrong with the command line to standard error, as one JSON object.
pub fn tell_usage(fault: &clap::Error) {
    let (message, next) = usage(fault);
    write(&object(Fault::Usage(String::new()).exit_code(), &message, &next));
}

/// Whether `--json` is among arguments that may be wrong. Behind `--` it would be a value.
pub fn asks_for_json(arguments: &[OsString]) -> bool {
    arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json")
}

fn object(exit: u8, message: &str, next: &str) -> String {
    serde_json::json!({"error": {"exit": exit, "message": message, "next": next}}).to_string()
}

/// If standard error is gone, the exit code still tells.
fn write(text: &str) {
    let _nobody_reads = writeln!(std::io::stderr(), "{text}");
}

/// What clap says of a wrong command line and what to do next, without the layout that it has for people.
fn usage(fault: &clap::Error) -> (String, String) {
    if matches!(fault.kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand) {
        // Here clap shows the help, which says nothing of what is wrong.
        return ("a command is missing".into(), HELP.into());
    }
    let shown = fault.to_string();
    let before = |text: &str, end: &str| text.split(end).next().unwrap_or_default().to_owned();
    let said = before(&before(&shown, "\n\nUsage:"), "\n\nFor more information");
    let (said, tip) = said.split_once("\n\n  tip: ").unwrap_or((&said, ""));
    let in_one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let message = in_one_line(said.strip_prefix("error: ").unwrap_or(said));
    (message, if tip.is_empty() { HELP.into() } else { format!("{}; {HELP}", in_one_line(tip)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::Parser;

    #[test]
    fn a_fault_is_one_line_that_is_one_json_object() {
        let fault = Fault::Program { what: "svc-wallet".into(), cause: "ended; its log ends with:\n  \"x\"\n".into() };
        let text = object(fault.exit_code(), &fault.to_string(), "");
        assert!(!text.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["error"]["exit"], 3);
        assert_eq!(value["error"]["message"], fault.to_string());
    }

    #[test]
    fn a_wrong_command_line_is_told_without_the_layout_for_people() {
        let cases = [
            ("loadtest --json", "a command is missing"),
            ("loadtest nothing --json", "unrecognized subcommand 'nothing'"),
            ("loadtest crash --round 3 --json", "unexpected argument '--round' found"),
            (
                "loadtest --json crash --rounds x",
                "invalid value 'x' for '--rounds <ROUNDS>': \"x\" is not a whole number such as 100_000",
            ),
        ];
        for (line, expected) in cases {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert!(asks_for_json(&arguments), "{line}");
            let (message, next) = usage(&Cli::try_parse_from(&arguments).unwrap_err());
            assert_eq!(message, expected, "{line}");
            assert!(next.ends_with(HELP) && !next.contains('\n'), "{line}: {next}");
        }
        assert!(!asks_for_json(&["loadtest", "run", "--", "--json"].map(OsString::from)));
    }
}
