//! The accounting daemon under test: the real binary with a directory and a socket of its own.
use super::{Exit, Process};
use std::ops::{Deref, DerefMut};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// A daemon and its directory.
pub struct Accounting {
    process: Process,
    place: TempDir,
    arguments: Vec<String>,
}

impl Accounting {
    /// A daemon that listens.
    pub fn start() -> Self {
        let mut accounting = Self::prepared(&[]);
        accounting.launch();
        accounting
    }

    /// A directory for a daemon with these further arguments, and no process yet.
    pub fn prepared(arguments: &[&str]) -> Self {
        let place = tempfile::tempdir().unwrap();
        let process = Process::new("ron-accounting", place.path().join("accounting.log"));
        Self { process, place, arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect() }
    }

    /// Starts the process and waits until it listens.
    pub fn launch(&mut self) {
        let (command, socket) = (self.command(), self.socket());
        self.process.launch(command, || UnixStream::connect(&socket).is_ok());
    }

    /// Starts the process, which is to refuse, and returns how it ended.
    pub fn launch_refused(&mut self) -> Exit {
        let command = self.command();
        self.process.spawn(command);
        self.process.wait_exit()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ron-accounting"));
        command.arg("--dir").arg(self.path("counters")).arg("--sock").arg(self.sock()).args(&self.arguments);
        command
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("run/accounting.sock")
    }

    /// The value of `deps.accounting_sock` for its wallets.
    pub fn sock(&self) -> String {
        format!("unix://{}", self.socket().display())
    }
}

impl Deref for Accounting {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Accounting {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
