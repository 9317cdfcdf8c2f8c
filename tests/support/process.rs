//! A process under test whose life is the test's: started, signalled, ended by its process id, its log kept.
use super::{eventually, Exit};
use rustix::process::{kill_process, Pid, Signal};
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A process that may have several lives. Dropping it ends the one it has, whatever the test came to.
pub struct Process {
    name: &'static str,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// None yet; what it writes goes to this file.
    pub fn new(name: &'static str, log: PathBuf) -> Self {
        Self { name, log, child: None }
    }

    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    pub fn spawn(&mut self, mut command: Command) {
        let log = File::create(&self.log).unwrap();
        command.env_remove("RUST_LOG").stdin(Stdio::null());
        self.child = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    /// Starts it and waits until it answers.
    pub fn launch(&mut self, command: Command, answers: impl Fn() -> bool) {
        self.spawn(command);
        eventually("it listens", || {
            if self.child.as_mut().expect("just spawned").try_wait().unwrap().is_some() {
                panic!("{} did not start: {}", self.name, self.log());
            }
            answers().then_some(())
        });
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("the process runs"))
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// SIGSTOP, and waits until every thread stands still: what is sent from then on is not read.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.child.as_ref().expect("the process runs").id());
        let stands = |stat: String| stat.rsplit(") ").next().is_some_and(|state| state.starts_with('T'));
        eventually("it stands still", || {
            let mut stats =
                std::fs::read_dir(&tasks).unwrap().map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")));
            stats.all(|stat| stat.is_ok_and(stands)).then_some(())
        });
    }

    pub fn wait_exit(&mut self) -> Exit {
        let child = self.child.as_mut().expect("the process runs");
        let status = eventually("it ends", || child.try_wait().unwrap());
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
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- what {} wrote ---\n{}", self.name, self.log());
        }
    }
}
