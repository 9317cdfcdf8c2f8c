//! The registry under test: the real binary on a port and a file of its own, ended by its process id.
use super::{free_port, Client, Exit, Process};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// A registry and its directory.
pub struct Registry {
    process: Process,
    place: TempDir,
    /// Where it listens, in every life.
    pub address: SocketAddr,
}

/// A topology with one cell.
pub fn topology(version: u64, cell: &str) -> String {
    format!(r#"{{"version":{version},"cells":[{{"name":"{cell}","slots":[0,16383],"addresses":["http://127.0.0.1:8080"]}}]}}"#)
}

impl Registry {
    /// A registry that serves this topology.
    pub fn start(topology: &str) -> Self {
        let mut registry = Self::prepared(topology);
        registry.launch();
        registry
    }

    /// A file and an address, and no process yet.
    pub fn prepared(topology: &str) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let place = tempfile::tempdir().unwrap();
        let process = Process::new("the registry", place.path().join("registry.log"));
        let registry = Self { process, place, address };
        registry.set(topology);
        registry
    }

    /// Starts the process and waits until it answers.
    pub fn launch(&mut self) {
        let (command, address) = (self.command(), self.address);
        self.process.launch(command, || Client::try_connect(address).is_ok());
    }

    /// Starts the process, which is to refuse, and returns how it ended.
    pub fn launch_refused(&mut self) -> Exit {
        let command = self.command();
        self.process.spawn(command);
        self.process.wait_exit()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_svc-registry"));
        command.arg("--file").arg(self.path("registry.json")).arg("--listen").arg(self.address.to_string());
        command
    }

    /// Replaces the file as a whole.
    pub fn set(&self, topology: &str) {
        std::fs::write(self.path("new"), topology).unwrap();
        std::fs::rename(self.path("new"), self.path("registry.json")).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// The value of `deps.registry_url` for its wallets.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Deref for Registry {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Registry {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
