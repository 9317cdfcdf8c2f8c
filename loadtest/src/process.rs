//! One child process: its log, signals to it, and its end.
//!
//! It is only ever addressed by the id of the child that was started here, which stays its own until it has been waited for; and it is
//! ended when this value is dropped, whatever happened before. What it serves is not known here.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rustix::process::{kill_process, Pid, Signal};

use crate::fault::Fault;

/// A stop that takes longer is ended with SIGKILL: as long as the units in the runbook give, for the snapshot of many accounts.
const STOP_WAIT_MAX: Duration = Duration::from_secs(300);
/// Time between two looks at whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Lines of its log that are shown when it does not do what it should.
const LOG_LINES: usize = 12;

/// A process that was started and has not been waited for.
pub struct Process {
    child: Child,
    program: PathBuf,
    log: PathBuf,
    /// How long the log was when it began, in bytes.
    log_from: u64,
    /// Stopped by SIGSTOP: only SIGKILL or SIGCONT reaches it.
    paused: bool,
}

impl Process {
    /// Starts a command whose output is appended to this file.
    ///
    /// # Errors
    /// [`Fault::Io`].
    pub fn start(mut command: Command, log: &Path) -> Result<Process, Fault> {
        let output = fs::OpenOptions::new().create(true).append(true).open(log);
        let output = output.map_err(Fault::io(format!("opening {}", log.display())))?;
        let log_from = output.metadata().map_err(Fault::io(format!("looking at {}", log.display())))?.len();
        let errors = output.try_clone().map_err(Fault::io(format!("opening {}", log.display())))?;
        // What this shell has set for another server must not reach this one.
        for name in ["RON_CONFIG", "AMNESIA", "POLICY_FILE", "REGISTRY_URL", "LEDGER_SOCK", "ACCOUNTING_SOCK"] {
            command.env_remove(name);
        }
        let own_filter = command.get_envs().any(|(name, _)| name == "RUST_LOG");
        if !own_filter && std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "warn");
        }
        let program = PathBuf::from(command.get_program());
        let spawned = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        let child = spawned.map_err(Fault::io(format!("starting {}", program.display())))?;
        Ok(Process { child, program, log: log.to_owned(), log_from, paused: false })
    }

    /// Its id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends it a signal; one that has ended already does not mind.
    pub fn signal(&mut self, signal: Signal) {
        // It has not been waited for, so the id cannot have passed to another process.
        let _seen_when_it_is_waited_for = kill_process(self.pid(), signal);
        self.paused = if signal == Signal::STOP { true } else { self.paused && signal != Signal::CONT };
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until it has ended by itself; `None` if it has not after so long.
    ///
    /// # Errors
    /// [`Fault::Interrupted`].
    pub fn wait_end(&mut self, most: Duration, stop: &AtomicBool) -> Result<Option<ExitStatus>, Fault> {
        let begin = Instant::now();
        while begin.elapsed() < most {
            if let Some(status) = self.ended() {
                return Ok(Some(status));
            }
            if stop.load(Ordering::Relaxed) {
                return Err(Fault::Interrupted);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(self.ended())
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// [`Fault::Io`], or [`Fault::Program`] if it had ended in any other way before.
    pub fn kill(mut self) -> Result<(), Fault> {
        self.signal(Signal::KILL);
        self.reap_killed()
    }

    /// Waits for the end of a process that has been killed.
    ///
    /// # Errors
    /// [`Fault::Io`], or [`Fault::Program`] if it ended in any other way than by SIGKILL.
    pub fn reap_killed(mut self) -> Result<(), Fault> {
        use std::os::unix::process::ExitStatusExt;
        let status = self.child.wait().map_err(Fault::io("waiting for a process that was killed"))?;
        if status.signal() == Some(Signal::KILL.as_raw()) {
            Ok(())
        } else {
            Err(self.fault(format!("was to be killed, but ended with {status}")))
        }
    }

    /// Stops it as an operator would.
    ///
    /// # Errors
    /// [`Fault::Program`] if it had to be killed, or did not end with exit code 0.
    pub fn stop(mut self) -> Result<(), Fault> {
        self.end().map_err(|how| self.fault(how))
    }

    fn end(&mut self) -> Result<(), String> {
        self.signal(Signal::TERM);
        let begin = Instant::now();
        while !self.paused && begin.elapsed() < STOP_WAIT_MAX {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(format!("ended with {status} after SIGTERM")),
                Ok(None) => std::thread::sleep(LOOK_EVERY),
                Err(_) => break,
            }
        }
        let _already_gone = self.child.kill().and_then(|()| self.child.wait().map(|_| ()));
        Err(format!("did not end within {} s of SIGTERM and was killed", STOP_WAIT_MAX.as_secs()))
    }

    /// What it has written; not what others wrote to the same file before it.
    pub fn log(&self) -> String {
        let all = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(all.get(self.log_from as usize..).unwrap_or_default()).into_owned()
    }

    /// That it did not do what it should, with the end of its log.
    pub fn fault(&self, how: String) -> Fault {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n  ");
        Fault::Program { what: self.program.display().to_string(), cause: format!("{how}; its log ends with:\n  {tail}") }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // How it ended was told by `stop` and the others; here only nothing may be left running.
        if self.ended().is_none() {
            let _told_elsewhere = self.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(place: &tempfile::TempDir) -> Process {
        let mut command = Command::new("sleep");
        command.arg("600");
        Process::start(command, &place.path().join("log")).unwrap()
    }

    #[test]
    fn a_process_ends_with_its_value_also_if_it_is_paused() {
        let place = tempfile::tempdir().unwrap();
        for paused in [false, true] {
            let mut process = sleeper(&place);
            let pid = process.pid();
            if paused {
                process.signal(Signal::STOP);
            }
            let begin = Instant::now();
            drop(process);
            assert!(begin.elapsed() < STOP_WAIT_MAX / 2, "nobody waits for a signal that a paused process does not get");
            assert!(rustix::process::test_kill_process(pid).is_err(), "it is gone and was waited for");
        }
    }

    #[test]
    fn a_log_is_what_this_process_has_written_and_not_the_one_before_it() {
        let place = tempfile::tempdir().unwrap();
        for word in ["one", "two"] {
            let mut command = Command::new("echo");
            command.arg(word);
            let mut process = Process::start(command, &place.path().join("log")).unwrap();
            assert!(process.wait_end(Duration::from_secs(20), &AtomicBool::new(false)).unwrap().is_some());
            assert_eq!(process.log(), format!("{word}\n"));
        }
    }

    #[test]
    fn an_end_that_is_not_the_expected_one_is_told() {
        let place = tempfile::tempdir().unwrap();
        sleeper(&place).kill().unwrap();
        let told = sleeper(&place).stop().unwrap_err().to_string();
        assert!(told.contains("after SIGTERM"), "{told}");
        let mut process = Process::start(Command::new("false"), &place.path().join("log")).unwrap();
        let never = AtomicBool::new(false);
        let status = process.wait_end(Duration::from_secs(20), &never).unwrap().unwrap();
        assert_eq!(status.code(), Some(1));
        assert!(process.kill().unwrap_err().to_string().contains("was to be killed, but ended with"));
        assert!(matches!(sleeper(&place).wait_end(Duration::from_secs(20), &AtomicBool::new(true)), Err(Fault::Interrupted)));
        assert!(sleeper(&place).wait_end(Duration::ZERO, &never).unwrap().is_none());
    }
}
