//! The ledger daemon of a test: as it is shipped, or on a faulty disk; its directory, its socket, its process.

use std::{
    fs,
    os::unix::{fs::DirBuilderExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::atomic::AtomicBool,
    time::Duration,
};

use crate::{
    crash::{upkeep::Upkeep, victim::wait_for},
    fault::Fault,
    faulty::Switches,
    machine,
    process::Process,
    server::ServerPlan,
};

/// A start that takes longer has failed.
const LISTEN_WAIT_MAX: Duration = Duration::from_secs(60);

/// Which daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// That of the machine, below the daemon as it is shipped; kept like this, if not as usual.
    Real(Option<Upkeep>),
    /// One that fails as it is told to; the seed decides what it writes early.
    Faulty(u64),
}

/// What a start has come to.
#[derive(Debug)]
pub enum Started {
    /// It listens.
    Listens,
    /// It has ended, and said this.
    Refused(String),
}

/// A daemon and its directory, which is somebody else's to remove.
pub struct Daemon {
    disk: Disk,
    place: PathBuf,
    ledger: PathBuf,
    plan: ServerPlan,
    process: Option<Process>,
    starts: u64,
}

impl Daemon {
    /// A daemon below this directory, beside the server of this plan; not started yet.
    ///
    /// # Errors
    /// [`Fault::Io`] if the directories cannot be made.
    pub fn prepare(disk: Disk, place: &Path, plan: &ServerPlan) -> Result<Daemon, Fault> {
        for name in ["run", "switches"] {
            let made = fs::DirBuilder::new().mode(0o700).create(place.join(name));
            made.map_err(Fault::io(format!("making {}", place.join(name).display())))?;
        }
        let ledger = plan.ledger_directory.clone().unwrap_or_else(|| place.join("ledger"));
        Ok(Daemon { disk, place: place.to_owned(), ledger, plan: plan.clone(), process: None, starts: 0 })
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.place.join("run/ledger.sock")
    }

    /// The directory of its ledger.
    pub fn directory(&self) -> PathBuf {
        self.ledger.clone()
    }

    /// What a faulty disk is switched by.
    pub fn switches(&self) -> Switches {
        Switches::in_directory(&self.place.join("switches"))
    }

    /// Starts it and waits until it listens or ends.
    ///
    /// # Errors
    /// [`Fault::Program`] if it does neither; [`Fault::Interrupted`].
    pub fn start(&mut self, stop: &AtomicBool) -> Result<Started, Fault> {
        assert!(self.process.is_none(), "a daemon is started once at a time");
        self.starts += 1;
        let mut command = match self.disk {
            Disk::Real(upkeep) => {
                let mut command = Command::new(self.plan.program.with_file_name("ron-ledger"));
                command.arg("--sock").arg(format!("unix://{}", self.socket().display()));
                command.args(upkeep.iter().flat_map(Upkeep::arguments));
                command
            }
            Disk::Faulty(seed) => {
                let mut command = Command::new(std::env::current_exe().map_err(Fault::io("finding this program"))?);
                command.arg("faulty-ledger").arg("--seed").arg(seed.wrapping_add(self.starts).to_string());
                command.arg("--switches").arg(self.place.join("switches")).arg("--sock").arg(self.socket());
                command
            }
        };
        command.arg("--dir").arg(self.directory());
        command.envs(self.plan.log.map(|filter| ("RUST_LOG", filter)));
        machine::pin(&self.plan.usable)?;
        let started = Process::start(command, &self.place.join("daemon.log"));
        machine::pin(&[self.plan.own_cpu])?;
        let process = self.process.insert(started?);
        let socket = self.place.join("run/ledger.sock");
        let mut ended = None;
        let settled = wait_for(LISTEN_WAIT_MAX, stop, || {
            ended = process.ended();
            ended.is_some() || UnixStream::connect(&socket).is_ok()
        })?;
        match ended {
            Some(status) => {
                let refused = Started::Refused(process.fault(format!("ended with {status} instead of listening")).to_string());
                self.process = None;
                Ok(refused)
            }
            None if settled => Ok(Started::Listens),
            None => Err(process.fault(format!("did not listen after {} s", LISTEN_WAIT_MAX.as_secs()))),
        }
    }

    /// As [`Daemon::start`], for a daemon that has no reason to refuse.
    ///
    /// # Errors
    /// Those of [`Daemon::start`]; and [`Fault::Program`] if it refuses.
    pub fn start_well(&mut self, stop: &AtomicBool) -> Result<(), Fault> {
        match self.start(stop)? {
            Started::Listens => Ok(()),
            Started::Refused(cause) => Err(Fault::Program { what: "the ledger daemon".into(), cause }),
        }
    }

    /// The process.
    ///
    /// # Panics
    /// If it does not run.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the daemon runs")
    }

    /// Waits until it has ended by itself. Gives how, and everything that it has logged; `None` if it goes on.
    ///
    /// # Errors
    /// [`Fault::Interrupted`].
    pub fn wait_end(&mut self, most: Duration, stop: &AtomicBool) -> Result<Option<(ExitStatus, String)>, Fault> {
        let Some(status) = self.process().wait_end(most, stop)? else { return Ok(None) };
        Ok(self.process.take().map(|process| (status, process.log())))
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// Those of [`Process::kill`].
    pub fn kill(&mut self) -> Result<(), Fault> {
        self.process.take().map_or(Ok(()), Process::kill)
    }

    /// Ends it as an operator would.
    ///
    /// # Errors
    /// Those of [`Process::stop`].
    pub fn stop(&mut self) -> Result<(), Fault> {
        self.process.take().map_or(Ok(()), Process::stop)
    }
}
