//! The ledger daemon under test: the real binary in a temporary directory, ended by its process id.
use super::{eventually, Exit};
use rustix::process::{kill_process, Pid, Signal};
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A daemon and its directory. Dropping it ends the process, whatever the test came to.
pub struct Daemon {
    directory: PathBuf,
    /// Removed with the daemon, unless the directory is somebody else's.
    _own: Option<TempDir>,
    arguments: Vec<String>,
    /// What a shell does before it becomes the process.
    shell_first: Option<&'static str>,
    child: Option<Child>,
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
        Self { directory: own.path().to_owned(), _own: Some(own), arguments, shell_first: None, child: None }
    }

    /// A daemon in the directory of its wallet, whose ledger is where an embedded one is; no process yet.
    pub fn beside(wallet: &Path) -> Self {
        Self { directory: wallet.to_owned(), _own: None, arguments: Vec::new(), shell_first: None, child: None }
    }

    /// Starts the process with these arguments if it does not run, behind what a shell does first.
    pub fn launch_once(&mut self, arguments: Vec<String>, shell_first: Option<&'static str>) {
        if self.child.is_none() {
            (self.arguments, self.shell_first) = (arguments, shell_first);
            self.launch();
        }
    }

    /// Starts the process and waits until it listens.
    pub fn launch(&mut self) {
        self.spawn();
        eventually("the daemon listens", || {
            if self.child.as_mut().expect("just spawned").try_wait().unwrap().is_some() {
                panic!("the daemon did not start: {}", self.log());
            }
            UnixStream::connect(self.socket()).is_ok().then_some(())
        });
    }

    /// Starts the process, which is to refuse, and returns how it ended.
    pub fn launch_refused(&mut self) -> Exit {
        self.spawn();
        self.wait_exit()
    }

    /// Takes over the ledger in this directory, whose wallet has ended.
    pub fn adopt(&self, ledger: &Path) {
        std::fs::rename(ledger, self.path("ledger")).unwrap();
    }

    fn spawn(&mut self) {
        let log = File::create(self.path("daemon.log")).unwrap();
        let mut command = after(self.shell_first, env!("CARGO_BIN_EXE_ron-ledger"));
        command.arg("--dir").arg(self.path("ledger")).arg("--sock").arg(self.sock());
        command.args(&self.arguments).env_remove("RUST_LOG").stdin(Stdio::null());
        self.child = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
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

    /// The process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("the daemon runs"))
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// SIGSTOP, and waits until every thread stands still: what is sent from then on is not read.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.child.as_ref().expect("the daemon runs").id());
        let stands = |stat: String| stat.rsplit(") ").next().is_some_and(|state| state.starts_with('T'));
        eventually("the daemon stands still", || {
            let mut stats =
                std::fs::read_dir(&tasks).unwrap().map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")));
            stats.all(|stat| stat.is_ok_and(stands)).then_some(())
        });
    }

    pub fn wait_exit(&mut self) -> Exit {
        let child = self.child.as_mut().expect("the daemon runs");
        let status = eventually("the daemon ends", || child.try_wait().unwrap());
        self.child = None;
        Exit { status, log: self.log() }
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait_exit();
    }

    /// SIGTERM, and fails unless the process ends in order.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let exit = self.wait_exit();
        assert_eq!(exit.status.code(), Some(0), "{}", exit.log);
    }

    /// What the process has written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path("daemon.log")).unwrap_or_default()).into_owned()
    }
}

/// A command that begins with what a shell does, if there is any.
pub(super) fn after(shell_first: Option<&str>, program: &str) -> Command {
    let Some(first) = shell_first else { return Command::new(program) };
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(format!("{first} && exec \"$0\" \"$@\"")).arg(program);
    shell
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- what the daemon wrote ---\n{}", self.log());
        }
    }
}
