//! A server of its own for the demonstration: a temporary directory, free loopback ports, one child process.
//!
//! Whatever happens, the child is ended by its process id and the directory removed when the sandbox is dropped. The child is
//! in a process group of its own, so that Ctrl-C reaches `ronctl` alone, which then ends it in good order.
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::domain::hex;
use crate::domain::limits::SEGMENT_BYTES_MIN;
use crate::operator::client::{Address, Client, Request};
use crate::operator::exit::{Exit, Failure};

/// How long the server may take to become ready; the runbook's own bound.
const READY_MS_MAX: u64 = 10_000;
/// How long it may take to end in good order: its write timeout of 3 s and time to spare.
const STOP_MS_MAX: u64 = 10_000;
/// Time between two looks at the server.
const POLL_MS: u64 = 20;
/// Last lines of the log that are shown when the server fails.
const LOG_LINES_SHOWN: usize = 15;
/// Most core workers: enough for spends that cross from one core to another, few enough for a busy laptop.
const CORES_MAX: usize = 2;
/// The policy and the topology that ship with the service.
const POLICY: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/configs/policy.json"));
const REGISTRY: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/configs/registry.json"));
/// Environment that would override the sandbox's own configuration.
const ENVIRONMENT: [&str; 6] = ["RON_CONFIG", "AMNESIA", "POLICY_FILE", "REGISTRY_URL", "LEDGER_SOCK", "ACCOUNTING_SOCK"];

/// The directory, the addresses and the child.
pub struct Sandbox {
    directory: PathBuf,
    server: PathBuf,
    http: SocketAddr,
    metrics: SocketAddr,
    child: Option<Child>,
    interrupted: Arc<AtomicBool>,
}

impl Sandbox {
    /// Makes the directory with all files; nothing runs yet.
    pub fn create(server: PathBuf, interrupted: Arc<AtomicBool>) -> Result<Self, Failure> {
        let (http, metrics) = free_addresses()?;
        let mut random = [0u8; 6];
        getrandom::fill(&mut random).map_err(|fault| Failure::internal(format!("no random numbers: {fault}"), ""))?;
        let directory = std::env::temp_dir().join(format!("ronctl-demo-{}", hex(&random)));
        DirBuilder::new().mode(0o700).create(&directory).map_err(|fault| {
            Failure::internal(
                format!("cannot make the directory {}: {fault}", directory.display()),
                "point TMPDIR to a writable place",
            )
        })?;
        let sandbox = Self { directory, server, http, metrics, child: None, interrupted };
        sandbox.write("policy.json", POLICY)?;
        sandbox.write("registry.json", REGISTRY)?;
        sandbox.write("svc-wallet.toml", &sandbox.config())?;
        Ok(sandbox)
    }

    fn config(&self) -> String {
        let directory = self.directory.display();
        let cores = std::thread::available_parallelism().map_or(1, |usable| usable.get().min(CORES_MAX));
        format!(
            "[bind]\nhttp = \"{http}\"\nmetrics = \"{metrics}\"\nadmin = \"unix://{directory}/admin.sock\"\n\n\
             [deps]\nledger_sock = \"embedded:{directory}/ledger\"\naccounting_sock = \"embedded:{directory}/accounting\"\n\
             registry_url = \"file:{directory}/registry.json\"\n\n\
             [security]\npolicy_file = \"{directory}/policy.json\"\nkeyring = \"{directory}/keyring\"\n\
             revocations = \"{directory}/revocations\"\n\n\
             [runtime]\ncores = {cores}\n\n[ledger]\nsegment_bytes = {SEGMENT_BYTES_MIN}\n",
            http = self.http,
            metrics = self.metrics,
        )
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Failure> {
        let path = self.directory.join(name);
        fs::write(&path, text).map_err(|fault| Failure::internal(format!("cannot write {}: {fault}", path.display()), ""))
    }

    /// A file or directory of the sandbox.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Where the wallet listens.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Starts the server and waits until it is ready; returns its process id and how long that took.
    pub fn start(&mut self) -> Result<(u32, Duration), Failure> {
        assert!(self.child.is_none(), "the server runs already");
        let started = Instant::now();
        let log = self.log_file()?;
        let mut command = Command::new(&self.server);
        command.arg("--config").arg(self.path("svc-wallet.toml"));
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(|fault| log_failure(&fault))?).stderr(log);
        command.current_dir(&self.directory).process_group(0);
        for name in ENVIRONMENT {
            command.env_remove(name);
        }
        let child = command.spawn().map_err(|fault| {
            Failure::usage(
                format!("cannot start {}: {fault}", self.server.display()),
                "build all programs with `cargo build --release`",
            )
        })?;
        let pid = child.id();
        self.child = Some(child);
        let mut control = Client::new(Address::Tcp(self.metrics), Duration::from_secs(1));
        while started.elapsed() < Duration::from_millis(READY_MS_MAX) {
            self.check_interrupt()?;
            if let Some(status) = self.child_status()? {
                self.child = None;
                return Err(self.with_log(&format!("the server ended at once ({status})")));
            }
            if control.exchange(&Request::get("/readyz")).is_ok_and(|reply| reply.status == 200) {
                return Ok((pid, started.elapsed()));
            }
            std::thread::sleep(Duration::from_millis(POLL_MS));
        }
        Err(self.with_log(&format!("the server was not ready within {} s", READY_MS_MAX / 1000)))
    }

    /// SIGKILL, as from a power cut: the server has no chance to say goodbye.
    pub fn kill(&mut self) -> Result<(), Failure> {
        let mut child = self.child.take().expect("the script kills only a server that it started");
        let ended = child.kill().and_then(|()| child.wait());
        ended.map(drop).map_err(|fault| Failure::internal(format!("cannot kill process {}: {fault}", child.id()), ""))
    }

    /// SIGTERM, and waits for the end; returns how the server ended and how long that took.
    pub fn stop(&mut self) -> Result<(ExitStatus, Duration), Failure> {
        let started = Instant::now();
        let pid =
            self.child.as_ref().map(rustix::process::Pid::from_child).expect("the script stops only a server that it started");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .map_err(|fault| Failure::internal(format!("cannot send SIGTERM: {fault}"), ""))?;
        while started.elapsed() < Duration::from_millis(STOP_MS_MAX) {
            if let Some(status) = self.child_status()? {
                self.child = None;
                return Ok((status, started.elapsed()));
            }
            self.check_interrupt()?;
            std::thread::sleep(Duration::from_millis(POLL_MS));
        }
        Err(self.with_log(&format!("the server did not end within {} s of SIGTERM", STOP_MS_MAX / 1000)))
    }

    /// Fails once Ctrl-C was pressed, so that the sandbox is dropped and with it the server.
    pub fn check_interrupt(&self) -> Result<(), Failure> {
        if !self.interrupted.load(Ordering::Relaxed) {
            return Ok(());
        }
        let message = "interrupted; the server was stopped and its directory removed".to_owned();
        Err(Failure { exit: Exit::No, message, next: String::new() })
    }

    fn child_status(&mut self) -> Result<Option<ExitStatus>, Failure> {
        let Some(child) = &mut self.child else { return Ok(Some(ExitStatus::from_raw(0))) };
        child.try_wait().map_err(|fault| Failure::internal(format!("cannot look at the server: {fault}"), ""))
    }

    fn log_file(&self) -> Result<File, Failure> {
        OpenOptions::new().create(true).append(true).open(self.path("server.log")).map_err(|fault| log_failure(&fault))
    }

    /// A failure of the server, with the end of its log.
    pub fn with_log(&self, message: &str) -> Failure {
        Failure::internal(format!("{message}; its log ends with:\n{}", last_lines(&self.path("server.log"))), "")
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Both fail only if the child has ended already, which is what they are for.
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Err(fault) = fs::remove_dir_all(&self.directory) {
            eprintln!("ronctl: cannot remove {}: {fault}", self.directory.display());
        }
    }
}

fn log_failure(fault: &std::io::Error) -> Failure {
    Failure::internal(format!("cannot write the server's log: {fault}"), "")
}

fn last_lines(path: &Path) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let shown = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n  ");
    if shown.is_empty() {
        "  (nothing)".to_owned()
    } else {
        format!("  {}", crate::operator::output::printable(&shown))
    }
}

/// Two loopback addresses that nobody listens on. Both are held until both are known, so that they differ.
fn free_addresses() -> Result<(SocketAddr, SocketAddr), Failure> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let pair = bind().and_then(|first| bind().and_then(|second| Ok((first.local_addr()?, second.local_addr()?))));
    pair.map_err(|fault| Failure::internal(format!("no free loopback port: {fault}"), ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(server: &str) -> Sandbox {
        Sandbox::create(PathBuf::from(server), Arc::new(AtomicBool::new(false))).unwrap()
    }

    #[test]
    fn the_directory_is_private_and_goes_with_the_sandbox() {
        use std::os::unix::fs::PermissionsExt;
        let sandbox = sandbox("/bin/false");
        let directory = sandbox.path("");
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
        assert_ne!(sandbox.http, sandbox.metrics);
        drop(sandbox);
        assert!(!directory.exists());
    }

    #[test]
    fn a_server_that_ends_at_once_is_reported_with_its_log() {
        let mut sandbox = sandbox("/bin/ls");
        let failure = sandbox.start().unwrap_err();
        assert_eq!(failure.exit, Exit::Internal);
        assert!(failure.message.contains("ended at once") && failure.message.contains("config"), "{failure}");
    }

    #[test]
    fn a_missing_server_says_how_to_build_it() {
        let failure = sandbox("/nonexistent/svc-wallet").start().unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.next.contains("cargo build"), "{failure}");
    }

    #[test]
    fn ctrl_c_ends_the_wait_for_a_server_that_does_not_get_ready() {
        let mut sandbox = sandbox("/bin/false");
        sandbox.interrupted.store(true, Ordering::Relaxed);
        let failure = sandbox.start().unwrap_err();
        assert_eq!(failure.exit, Exit::No, "{failure}");
    }

    #[test]
    fn a_running_child_is_ended_when_the_sandbox_goes() {
        let mut sandbox = sandbox("/bin/sleep");
        let child = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        sandbox.child = Some(child);
        drop(sandbox);
        assert!(rustix::process::test_kill_process(pid).is_err());
    }
}
