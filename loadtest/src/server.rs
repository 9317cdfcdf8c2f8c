//! A server of one's own: configuration, start, readiness, stop, kill and restart, in a temporary directory.
//!
//! The process is only ever addressed by the id of the child that was started here, and it is stopped and its directory
//! removed when this value is dropped, whatever happened before.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rustix::process::{kill_process, Pid, Signal};
use tempfile::TempDir;

use crate::{
    args::ServerArgs,
    fault::Fault,
    machine,
    tokens::{self, Token},
};

/// A start that takes longer has failed.
const READY_WAIT_MAX: Duration = Duration::from_secs(60);
/// A stop that takes longer is ended with SIGKILL.
const STOP_WAIT_MAX: Duration = Duration::from_secs(60);
/// Lines of the server's log that are shown when it does not do what it should.
const LOG_LINES: usize = 12;

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
    /// More lines of configuration.
    pub more: String,
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
            more: String::new(),
            parent: args.directory.clone(),
            keep: args.keep,
        })
    }
}

/// A server and its directory.
pub struct Server {
    plan: ServerPlan,
    http: SocketAddr,
    metrics: SocketAddr,
    child: Option<Child>,
    directory: Option<TempDir>,
    path: PathBuf,
}

impl Server {
    /// Writes configuration, policy and registry; starts nothing yet.
    ///
    /// # Errors
    /// [`Fault::Io`] if the directory or a port cannot be had.
    pub fn prepare(plan: ServerPlan) -> Result<Server, Fault> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("loadtest-");
        let made = match &plan.parent {
            Some(parent) => builder.tempdir_in(parent),
            None => builder.tempdir(),
        };
        let directory = made.map_err(Fault::io("making a temporary directory"))?;
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
        Ok(Server { plan, http, metrics, child: None, directory: Some(directory), path })
    }

    /// Starts the server and waits until it is ready.
    ///
    /// # Errors
    /// [`Fault::Program`] with the end of its log if it ends or does not become ready; [`Fault::Interrupted`].
    pub fn start(&mut self, stop: &AtomicBool) -> Result<Duration, Fault> {
        assert!(self.child.is_none(), "a server is started once at a time");
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_path());
        let log = log.map_err(Fault::io("opening the server's log"))?;
        let errors = log.try_clone().map_err(Fault::io("opening the server's log"))?;
        let begin = Instant::now();
        let mut command = Command::new(&self.plan.program);
        command.arg("--config").arg(self.config_path()).current_dir(&self.path);
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        // What this shell has set for another server must not reach this one.
        for name in ["RON_CONFIG", "AMNESIA", "POLICY_FILE", "REGISTRY_URL", "LEDGER_SOCK", "ACCOUNTING_SOCK"] {
            command.env_remove(name);
        }
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "warn");
        }
        machine::pin(&self.plan.usable)?;
        let spawned = command.spawn();
        machine::pin(&[self.plan.own_cpu])?;
        self.child = Some(spawned.map_err(Fault::io(format!("starting {}", self.plan.program.display())))?);
        while !is_ready(self.metrics) {
            if stop.load(Ordering::Relaxed) {
                return Err(Fault::Interrupted);
            }
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                self.child = None;
                return Err(self.program_fault(format!("ended with {status} instead of becoming ready")));
            }
            if begin.elapsed() > READY_WAIT_MAX {
                return Err(self.program_fault(format!("was not ready after {} s", READY_WAIT_MAX.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(begin.elapsed())
    }

    /// Mints the capability of the load.
    ///
    /// # Errors
    /// Those of [`tokens::mint`].
    pub fn token(&self) -> Result<Token, Fault> {
        tokens::mint(&self.plan.program.with_file_name("ronctl"), &self.config_path())
    }

    /// Where the API is.
    pub fn address(&self) -> SocketAddr {
        self.http
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<Pid> {
        self.child.as_ref().map(Child::id).and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
    }

    /// Waits for the end of a process that has been killed.
    ///
    /// # Errors
    /// [`Fault::Io`], or [`Fault::Program`] if it ended in any other way than by SIGKILL.
    pub fn reap_killed(&mut self) -> Result<(), Fault> {
        use std::os::unix::process::ExitStatusExt;
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let status = child.wait().map_err(Fault::io("waiting for the killed server"))?;
        if status.signal() == Some(Signal::KILL.as_raw()) {
            Ok(())
        } else {
            Err(self.program_fault(format!("was to be killed, but ended with {status}")))
        }
    }

    /// Stops the server as an operator would, and says how it ended.
    ///
    /// # Errors
    /// [`Fault::Program`] if it had to be killed, or did not end with exit code 0.
    pub fn stop(&mut self) -> Result<(), Fault> {
        match end(&mut self.child) {
            Ended::NotRunning | Ended::Well => Ok(()),
            Ended::Badly(how) => Err(self.program_fault(how)),
        }
    }

    /// The server's configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.path.join("svc-wallet.toml")
    }

    fn log_path(&self) -> PathBuf {
        self.path.join("server.log")
    }

    fn program_fault(&self, how: String) -> Fault {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n  ");
        Fault::Program { what: self.plan.program.display().to_string(), cause: format!("{how}; its log ends with:\n  {tail}") }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // How it ended was reported by `stop`; here only nothing may be left running.
        let _reported_elsewhere = end(&mut self.child);
        if self.plan.keep {
            if let Some(directory) = self.directory.take() {
                eprintln!("kept: {}", directory.keep().display());
            }
        }
    }
}

enum Ended {
    NotRunning,
    Well,
    Badly(String),
}

fn end(child: &mut Option<Child>) -> Ended {
    let Some(mut child) = child.take() else { return Ended::NotRunning };
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let asked = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
    let begin = Instant::now();
    while asked && begin.elapsed() < STOP_WAIT_MAX {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ended::Well,
            Ok(Some(status)) => return Ended::Badly(format!("ended with {status} after SIGTERM")),
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Err(_) => break,
        }
    }
    let _already_gone = child.kill().and_then(|()| child.wait().map(|_| ()));
    Ended::Badly(format!("did not end within {} s of SIGTERM and was killed", STOP_WAIT_MAX.as_secs()))
}

/// Two loopback addresses with ports that nobody listens on. Both are held until both are known.
fn free_addresses() -> Result<(SocketAddr, SocketAddr), Fault> {
    let bind = || TcpListener::bind("127.0.0.1:0").and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (http, _held) = bind().map_err(Fault::io("finding a free port"))?;
    let (metrics, _held_too) = bind().map_err(Fault::io("finding a free port"))?;
    Ok((http, metrics))
}

fn is_ready(metrics: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&metrics, Duration::from_millis(500)) else { return false };
    let limited = stream.set_read_timeout(Some(Duration::from_secs(2)));
    let asked = stream.write_all(format!("GET /readyz HTTP/1.1\r\nHost: {metrics}\r\nConnection: close\r\n\r\n").as_bytes());
    let mut head = [0; 12];
    limited.is_ok() && asked.is_ok() && stream.read_exact(&mut head).is_ok() && &head == b"HTTP/1.1 200"
}

fn config(plan: &ServerPlan, directory: &Path, http: SocketAddr, metrics: SocketAddr) -> String {
    let timeout_ms = plan.read_timeout.as_millis();
    let path = directory.display();
    format!(
        "[service]\nname = \"svc-wallet\"\nrole = \"wallet\"\n\n\
         [bind]\nhttp = \"{http}\"\nmetrics = \"{metrics}\"\nadmin = \"{path}/admin.sock\"\n\n\
         [timeouts]\nread_ms = {timeout_ms}\nwrite_ms = {timeout_ms}\nidle_ms = 600000\n\n\
         [limits]\ninflight = 65536\nbody_max_bytes = 1048576\ndecompress_max_ratio = 10\nconnections = {}\n\n\
         [runtime]\ncores = {:?}\ndriver = \"{}\"\n\n\
         [deps]\nledger_sock = \"embedded:{path}/ledger\"\naccounting_sock = \"embedded:{path}/accounting\"\n\
         registry_url = \"file:{path}/registry.json\"\n\n\
         [security]\namnesia = \"off\"\nrequire_caps = true\npolicy_file = \"{path}/policy.json\"\n\
         keyring = \"{path}/wallet.keyring\"\n{}",
        plan.connections, plan.cpus, plan.driver, plan.more
    )
}
