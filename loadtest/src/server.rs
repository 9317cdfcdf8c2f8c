//! A server of one's own: configuration, start, readiness, stop, kill and restart, in a temporary directory.
//!
//! It is stopped and its directory removed when this value is dropped, whatever happened before.

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rustix::process::Pid;
use tempfile::TempDir;

use crate::{
    args::ServerArgs,
    fault::Fault,
    machine,
    process::Process,
    tokens::{self, Token},
};

/// A start that takes longer has failed.
const READY_WAIT_MAX: Duration = Duration::from_secs(60);
/// Time between two looks at whether it is ready.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How to run the server.
#[derive(Clone, Debug)]
pub struct ServerPlan {
    /// The binary.
    pub program: PathBuf,
    /// CPUs of the server's cores.
    pub cpus: Vec<usize>,
    /// CPUs on which its other threads may run, as far as it leaves them there.
    pub usable: Vec<usize>,
    /// CPU to go back to after the start.
    pub own_cpu: usize,
    /// auto, io_uring or epoll.
    pub driver: String,
    /// `timeouts.read_ms` and `write_ms`.
    pub read_timeout: Duration,
    /// Connections that the server must hold.
    pub connections: u64,
    /// Socket of the ledger daemon; without one the ledger is embedded.
    pub ledger: Option<PathBuf>,
    /// Where the ledger is, if not beside what else the server or the daemon has.
    pub ledger_directory: Option<PathBuf>,
    /// The keyring, if it is not one of its own: wallets that replace each other have the same.
    pub keyring: Option<PathBuf>,
    /// Where the audit stream goes: `off`, or `file` for files beside the configuration.
    pub audit: &'static str,
    /// More lines of configuration.
    pub more: String,
    /// What is logged, whatever this shell has set; without it what this shell has set, or else warnings.
    pub log: Option<&'static str>,
    /// Where the directory is made.
    pub parent: Option<PathBuf>,
    /// Whether it stays.
    pub keep: bool,
}

impl ServerPlan {
    /// The plan that the arguments ask for. To be made before the generator is pinned: the server gets the CPUs of this moment.
    ///
    /// # Errors
    /// [`Fault::MissingProgram`], or [`Fault::Io`] if the CPUs are not known.
    pub fn new(args: &ServerArgs, own_cpu: usize) -> Result<ServerPlan, Fault> {
        Ok(ServerPlan {
            program: machine::server_program(args.server.clone())?,
            cpus: args.server_cpus.0.clone(),
            usable: machine::cpus_usable()?,
            own_cpu,
            driver: args.driver.clone(),
            read_timeout: Duration::from_secs(10),
            connections: 16_384,
            ledger: None,
            ledger_directory: None,
            keyring: None,
            audit: "off",
            more: String::new(),
            log: None,
            parent: args.directory.clone(),
            keep: args.keep,
        })
    }

    /// A new directory where the plan wants it.
    ///
    /// # Errors
    /// [`Fault::Io`].
    pub fn directory(&self) -> Result<TempDir, Fault> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("loadtest-");
        let made = match &self.parent {
            Some(parent) => builder.tempdir_in(parent),
            None => builder.tempdir(),
        };
        made.map_err(Fault::io("making a temporary directory"))
    }
}

/// A server and its directory.
pub struct Server {
    plan: ServerPlan,
    http: SocketAddr,
    metrics: SocketAddr,
    process: Option<Process>,
    directory: Option<TempDir>,
    path: PathBuf,
}

impl Server {
    /// Writes configuration, policy and registry; starts nothing yet.
    ///
    /// # Errors
    /// [`Fault::Io`] if the directory or a port cannot be had.
    pub fn prepare(plan: ServerPlan) -> Result<Server, Fault> {
        let directory = plan.directory()?;
        let path = directory.path().to_owned();
        let (http, metrics) = free_addresses()?;
        let slots = format!(r#"{{"version":1,"cells":[{{"name":"cell-1","slots":[0,16383],"addresses":["http://{http}"]}}]}}"#);
        let policy =
            r#"{"version":1,"operations":["issue","transfer","burn","hold","capture","release"],"assets":{"roc":{},"ron":{}}}"#;
        for (name, content) in [
            ("svc-wallet.toml", config(&plan, &path, http, metrics)),
            ("policy.json", policy.to_owned()),
            ("registry.json", slots),
        ] {
            fs::write(path.join(name), content).map_err(Fault::io(format!("writing {name}")))?;
        }
        Ok(Server { plan, http, metrics, process: None, directory: Some(directory), path })
    }

    /// Starts the server and waits until it is ready.
    ///
    /// # Errors
    /// [`Fault::Program`] with the end of its log if it ends or does not become ready; [`Fault::Interrupted`].
    pub fn start(&mut self, stop: &AtomicBool) -> Result<Duration, Fault> {
        assert!(self.process.is_none(), "a server is started once at a time");
        let begin = Instant::now();
        let mut command = Command::new(&self.plan.program);
        command.arg("--config").arg(self.config_path()).current_dir(&self.path);
        command.envs(self.plan.log.map(|filter| ("RUST_LOG", filter)));
        machine::pin(&self.plan.usable)?;
        let started = Process::start(command, &self.path.join("server.log"));
        machine::pin(&[self.plan.own_cpu])?;
        self.process = Some(started?);
        self.wait_ready(true, stop)?;
        Ok(begin.elapsed())
    }

    /// Waits until it says that it is ready, or that it is not.
    ///
    /// # Errors
    /// [`Fault::Program`] with the end of its log if it ends or goes on saying the opposite; [`Fault::Interrupted`].
    pub fn wait_ready(&mut self, ready: bool, stop: &AtomicBool) -> Result<(), Fault> {
        let begin = Instant::now();
        while self.is_ready() != ready {
            let process = self.process.as_mut().expect("only a server that was started is waited for");
            if stop.load(Ordering::Relaxed) {
                return Err(Fault::Interrupted);
            }
            if let Some(status) = process.ended() {
                return Err(process.fault(format!("ended with {status} instead of becoming ready")));
            }
            if begin.elapsed() > READY_WAIT_MAX {
                let still = if ready { "not ready" } else { "ready" };
                return Err(process.fault(format!("was {still} after {} s", READY_WAIT_MAX.as_secs())));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Whether it says that it is ready.
    pub fn is_ready(&self) -> bool {
        is_ready(self.metrics)
    }

    /// Whether it is of the build that checks no capability, which its version tells.
    ///
    /// # Errors
    /// [`Fault::Io`] if it does not tell its version.
    pub fn is_unchecked(&self) -> Result<bool, Fault> {
        let version = page(self.metrics, "/version").map_err(Fault::io("asking the server for its version"))?;
        Ok(version.contains("\"unchecked_capabilities\""))
    }

    /// The value of a series on `/metrics`.
    ///
    /// # Errors
    /// [`Fault::Io`] if the page cannot be had, and [`Fault::Program`] if the series is not on it.
    pub fn metric(&self, series: &str) -> Result<f64, Fault> {
        let page = page(self.metrics, "/metrics").map_err(Fault::io("asking the server for its figures"))?;
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        line.ok_or_else(|| Fault::Program { what: "the server".into(), cause: format!("has no figure {series}") })
    }

    /// Mints the capability of the load.
    ///
    /// # Errors
    /// Those of [`tokens::mint`].
    pub fn token(&self) -> Result<Token, Fault> {
        tokens::mint(&self.plan.program.with_file_name("ronctl"), &self.config_path())
    }

    /// The binary that it runs.
    pub fn program(&self) -> &Path {
        &self.plan.program
    }

    /// Where the API is.
    pub fn address(&self) -> SocketAddr {
        self.http
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<Pid> {
        self.process.as_ref().map(Process::pid)
    }

    /// The process.
    ///
    /// # Panics
    /// If it has not been started, or its end has been waited for.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the server runs")
    }

    /// Waits for the end of a process that has been killed.
    ///
    /// # Errors
    /// [`Fault::Io`], or [`Fault::Program`] if it ended in any other way than by SIGKILL.
    pub fn reap_killed(&mut self) -> Result<(), Fault> {
        self.process.take().map_or(Ok(()), Process::reap_killed)
    }

    /// Stops the server as an operator would, and says how it ended.
    ///
    /// # Errors
    /// [`Fault::Program`] if it had to be killed, or did not end with exit code 0.
    pub fn stop(&mut self) -> Result<(), Fault> {
        self.process.take().map_or(Ok(()), Process::stop)
    }

    /// The directory of an embedded ledger.
    pub fn ledger_directory(&self) -> PathBuf {
        embedded_directory(&self.plan, &self.path)
    }

    /// The directory of the audit stream.
    pub fn audit_directory(&self) -> PathBuf {
        self.path.join("audit")
    }

    /// Its directory stays.
    pub fn keep(&mut self) {
        self.plan.keep = true;
    }

    /// The server's configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.path.join("svc-wallet.toml")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Before the directory that it writes to.
        self.process = None;
        if self.plan.keep {
            if let Some(directory) = self.directory.take() {
                eprintln!("kept: {}", directory.keep().display());
            }
        }
    }
}

/// Two loopback addresses with ports that nobody listens on. Both are held until both are known.
fn free_addresses() -> Result<(SocketAddr, SocketAddr), Fault> {
    let bind = || TcpListener::bind("127.0.0.1:0").and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (http, _held) = bind().map_err(Fault::io("finding a free port"))?;
    let (metrics, _held_too) = bind().map_err(Fault::io("finding a free port"))?;
    Ok((http, metrics))
}

fn is_ready(metrics: SocketAddr) -> bool {
    page(metrics, "/readyz").is_ok_and(|reply| reply.starts_with("HTTP/1.1 200"))
}

/// The whole reply to a request for a page of the control port.
fn page(metrics: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&metrics, Duration::from_millis(500))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {metrics}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    Ok(reply)
}

fn embedded_directory(plan: &ServerPlan, directory: &Path) -> PathBuf {
    plan.ledger_directory.clone().unwrap_or_else(|| directory.join("ledger"))
}

fn config(plan: &ServerPlan, directory: &Path, http: SocketAddr, metrics: SocketAddr) -> String {
    let timeout_ms = plan.read_timeout.as_millis();
    let path = directory.display();
    let ledger = match &plan.ledger {
        Some(socket) => format!("unix://{}", socket.display()),
        None => format!("embedded:{}", embedded_directory(plan, directory).display()),
    };
    let keyring = plan.keyring.clone().unwrap_or_else(|| directory.join("wallet.keyring"));
    format!(
        "[service]\nname = \"svc-wallet\"\nrole = \"wallet\"\n\n\
         [bind]\nhttp = \"{http}\"\nmetrics = \"{metrics}\"\nadmin = \"{path}/admin.sock\"\n\n\
         [timeouts]\nread_ms = {timeout_ms}\nwrite_ms = {timeout_ms}\nidle_ms = 600000\n\n\
         [limits]\ninflight = 65536\nbody_max_bytes = 1048576\ndecompress_max_ratio = 10\nconnections = {}\n\n\
         [runtime]\ncores = {:?}\ndriver = \"{}\"\n\n\
         [deps]\nledger_sock = \"{ledger}\"\naccounting_sock = \"embedded:{path}/accounting\"\n\
         registry_url = \"file:{path}/registry.json\"\n\n\
         [security]\namnesia = \"off\"\nrequire_caps = true\npolicy_file = \"{path}/policy.json\"\n\
         keyring = \"{}\"\nrevocations = \"{path}/wallet.revocations\"\n\n[audit]\nsink = \"{}\"\npath = \"{path}/audit\"\n{}",
        plan.connections,
        plan.cpus,
        plan.driver,
        keyring.display(),
        plan.audit,
        plan.more
    )
}
