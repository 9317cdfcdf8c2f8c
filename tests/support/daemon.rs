//! The ledger daemon under test: the real binary in a temporary directory, ended by its process id.
use super::{Exit, Process};
use std::ops::{Deref, DerefMut};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A daemon and its directory.
pub struct Daemon {
    process: Process,
    directory: PathBuf,
    /// Removed with the daemon, unless the directory is somebody else's.
    _own: Option<TempDir>,
    arguments: Vec<String>,
    /// What a shell does before it becomes the process.
    shell_first: Option<&'static str>,
}

impl Daemon {
    /// A daemon that listens.
    pub fn start() -> Self {
        let mut daemon = Self::prepared(&[]);
        daemon.launch();
        daemon
    }

    /// A directory for a daemon with these further arguments, and no process yet.
    pub fn prepared(arguments: &[&str]) -> Self {
        let arguments = ["--segment-bytes", "8388608"].iter().chain(arguments).map(|argument| (*argument).to_owned()).collect();
        let own = tempfile::tempdir().unwrap();
        let directory = own.path().to_owned();
        Self { _own: Some(own), arguments, ..Self::beside(&directory) }
    }

    /// A daemon in the directory of its wallet, whose ledger is where an embedded one is; no process yet.
    pub fn beside(wallet: &Path) -> Self {
        let process = Process::new("the daemon", wallet.join("daemon.log"));
        Self { process, directory: wallet.to_owned(), _own: None, arguments: Vec::new(), shell_first: None }
    }

    /// Starts the process with these arguments if it does not run, behind what a shell does first.
    pub fn launch_once(&mut self, arguments: Vec<String>, shell_first: Option<&'static str>) {
        if !self.process.runs() {
            (self.arguments, self.shell_first) = (arguments, shell_first);
            self.launch();
        }
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

    /// Takes over the ledger in this directory, whose wallet has ended.
    pub fn adopt(&self, ledger: &Path) {
        std::fs::rename(ledger, self.path("ledger")).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = after(self.shell_first, env!("CARGO_BIN_EXE_ron-ledger"));
        command.arg("--dir").arg(self.path("ledger")).arg("--sock").arg(self.sock()).args(&self.arguments);
        command
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("run/ledger.sock")
    }

    /// The value of `deps.ledger_sock` for its wallets.
    pub fn sock(&self) -> String {
        format!("unix://{}", self.socket().display())
    }
}

impl Deref for Daemon {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Daemon {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// A command that begins with what a shell does, if there is any.
pub(super) fn after(shell_first: Option<&str>, program: &str) -> Command {
    let Some(first) = shell_first else { return Command::new(program) };
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(format!("{first} && exec \"$0\" \"$@\"")).arg(program);
    shell
}
