//! What `ronctl` ends with: the exit codes, in this one place, and the failure that carries one to the top.
//!
//! A command returns [`Exit::Done`] or [`Exit::No`] when it has printed its answer itself, and a [`Failure`] when there is no
//! answer to print. Scripts branch on the code, people read the message and what to do next.
use std::fmt;

/// The exit codes of `ronctl`. The numbers are an interface and never change meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The command did what it says.
    Done = 0,
    /// The answer is "no": refused, not found, not ready, verification failed.
    No = 1,
    /// The command line or a file that it names is wrong.
    Usage = 2,
    /// The server does not answer.
    Unreachable = 3,
    /// Something that should not happen, or that the operating system does not let happen.
    Internal = 4,
}

/// The table of exit codes as `--help` prints it.
pub const HELP: &str = "\
Exit codes:
  0  done
  1  the answer is \"no\": refused, not found, not ready, verification failed
  2  the command line, the configuration or a file that it names is wrong
  3  the server does not answer
  4  internal error, or the operating system refuses something";

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command has no answer: what went wrong, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The code to end with.
    pub exit: Exit,
    /// What went wrong, and where. Never a secret or a token.
    pub message: String,
    /// What to do next; empty if there is nothing sensible to say.
    pub next: String,
}

impl Failure {
    /// The command line, the configuration or a file that it names is wrong.
    pub fn usage(message: impl Into<String>, next: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into(), next: next.into() }
    }

    /// The server does not answer.
    pub fn unreachable(message: impl Into<String>, next: impl Into<String>) -> Self {
        Self { exit: Exit::Unreachable, message: message.into(), next: next.into() }
    }

    /// Something that should not happen.
    pub fn internal(message: impl Into<String>, next: impl Into<String>) -> Self {
        Self { exit: Exit::Internal, message: message.into(), next: next.into() }
    }

    /// Standard output cannot be written.
    pub fn output(fault: &std::io::Error) -> Self {
        Self::internal(format!("cannot write to standard output: {fault}"), "")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.next.is_empty() {
            return Ok(());
        }
        write!(f, "\n  next: {}", self.next)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_lists_every_code_once() {
        for exit in [Exit::Done, Exit::No, Exit::Usage, Exit::Unreachable, Exit::Internal] {
            let line = format!("\n  {}  ", exit as u8);
            assert_eq!(HELP.matches(&line).count(), 1, "{exit:?}");
        }
        assert_eq!(HELP.lines().count(), 6);
    }

    #[test]
    fn a_failure_says_what_to_do_next_if_there_is_something_to_say() {
        let failure = Failure::unreachable("nothing listens on 127.0.0.1:8080", "start svc-wallet");
        assert_eq!(failure.to_string(), "nothing listens on 127.0.0.1:8080\n  next: start svc-wallet");
        assert_eq!(Failure::internal("no", "").to_string(), "no");
    }
}
