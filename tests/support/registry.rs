//! The registry under test: the real binary on a port and a file of its own, ended by its process id.
use super::{eventually, free_port, Client, Exit};
use rustix::process::{kill_process, Pid, Signal};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A registry and its directory. Dropping it ends the process, whatever the test came to.
pub struct Registry {
    place: TempDir,
    child: Option<Child>,
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
        let registry = Self { place: tempfile::tempdir().unwrap(), child: None, address };
        registry.set(topology);
        registry
    }

    /// Starts the process and waits until it answers.
    pub fn launch(&mut self) {
        self.spawn();
        eventually("the registry listens", || {
            if self.child.as_mut().expect("just spawned").try_wait().unwrap().is_some() {
                panic!("the registry did not start: {}", self.log());
            }
            Client::try_connect(self.address).ok()
        });
    }

    /// Starts the process, which is to refuse, and returns how it ended.
    pub fn launch_refused(&mut self) -> Exit {
        self.spawn();
        self.wait_exit()
    }

    fn spawn(&mut self) {
        let log = File::create(self.path("registry.log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_svc-registry"));
        command.arg("--file").arg(self.path("registry.json")).arg("--listen").arg(self.address.to_string());
        command.env_remove("RUST_LOG").stdin(Stdio::null());
        self.child = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
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

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().expect("the registry runs")), signal).unwrap();
    }

    fn wait_exit(&mut self) -> Exit {
        let child = self.child.as_mut().expect("the registry runs");
        let status = eventually("the registry ends", || child.try_wait().unwrap());
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
        String::from_utf8_lossy(&std::fs::read(self.path("registry.log")).unwrap_or_default()).into_owned()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- what the registry wrote ---\n{}", self.log());
        }
    }
}
