//! The server under test: the real binary in a temporary directory, on ports of its own, ended by its process id.
use super::daemon::after;
use super::{eventually, request, Client, Daemon, Reply, Wallet, PATIENCE};
use rustix::process::{kill_process, Pid, Signal};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use svc_wallet::access::{mint, Keyring, MintRequest};
use svc_wallet::domain::UnixMs;
use tempfile::TempDir;

pub const POLICY: &str = r#"{
  "version": 3,
  "operations": ["issue", "transfer", "burn", "hold", "capture", "release"],
  "assets": { "roc": { "amount_max": { "burn": "1000000" } }, "ron": {} }
}"#;
const REGISTRY: &str =
    r#"{ "version": 5, "cells": [ { "name": "cell-1", "slots": [0, 16383], "addresses": ["http://127.0.0.1:8080"] } ] }"#;

/// The variable that says where servers have their ledger, unless a test says it: `embedded` or `daemon`.
const LEDGER_VARIABLE: &str = "TEST_LEDGER";

fn is_on_a_daemon() -> bool {
    match std::env::var(LEDGER_VARIABLE).as_deref() {
        Err(_) | Ok("embedded") => false,
        Ok("daemon") => true,
        Ok(other) => panic!("{LEDGER_VARIABLE}={other}: write embedded or daemon"),
    }
}

/// A server and its directory, and its daemon if [`LEDGER_VARIABLE`] asks for one; the two are started and ended together. Dropping it ends the process, whatever the test came to.
pub struct Server {
    place: TempDir,
    settings: Vec<(String, String)>,
    /// What a shell does before it becomes the process.
    shell_first: Option<&'static str>,
    log_filter: &'static str,
    environment: Vec<(String, String)>,
    child: Option<Child>,
    /// Has the ledger, if it is not this process.
    daemon: Option<Daemon>,
    keyring: Keyring,
    token: String,
    /// Where the API listens.
    pub http: SocketAddr,
    /// Where the control plane listens.
    pub control: SocketAddr,
}

/// How a process ended.
#[derive(Debug)]
pub struct Exit {
    pub status: ExitStatus,
    /// Everything that it wrote to standard error.
    pub log: String,
}

/// A loopback port that nobody listens on, outside the range from which the system takes ports for outgoing connections.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_300;
    const SPAN: u32 = 22_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Binaries that run at the same time begin at different places.
    let start = std::process::id().wrapping_mul(37);
    loop {
        let port = (FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % SPAN) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

impl Server {
    /// A server with the settings of every test, started and ready.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// The same with other values for some keys of the configuration.
    pub fn with(settings: &[(&str, &str)]) -> Self {
        let mut server = Self::prepared(settings);
        server.launch();
        server
    }

    /// A directory with all that a server needs, and no process yet.
    pub fn prepared(settings: &[(&str, &str)]) -> Self {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("policy.json"), POLICY).unwrap();
        std::fs::write(place.path().join("registry.json"), REGISTRY).unwrap();
        let keyring = Keyring::open_or_create(&place.path().join("wallet.keyring")).unwrap();
        let everything = MintRequest { scopes: vec!["wallet:*".to_owned()], ..mint_request() };
        let token = mint(&keyring, &everything, unix_now()).unwrap();
        let [http, control] = [free_port(), free_port()].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let chosen = settings.iter().any(|(key, _)| *key == "deps.ledger_sock");
        let daemon = (!chosen && is_on_a_daemon()).then(|| Daemon::beside(place.path()));
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self {
            place,
            settings,
            shell_first: None,
            log_filter: "info",
            environment: Vec::new(),
            child: None,
            daemon,
            keyring,
            token,
            http,
            control,
        }
    }

    /// Starts the process and waits until it is ready. If somebody else was faster on a port, other ports are tried.
    pub fn launch(&mut self) {
        for _ in 0..5 {
            self.child = Some(self.spawn());
            match self.wait_ready() {
                Ok(()) => return,
                Err(exit) if exit.log.contains("cannot listen on") => {
                    self.http.set_port(free_port());
                    self.control.set_port(free_port());
                }
                Err(exit) => panic!("the server did not start: {:?}\n{}", exit.status, exit.log),
            }
        }
        panic!("no two ports could be had");
    }

    /// Starts the process and waits until its control port answers, ready or not.
    pub fn launch_unready(&mut self) {
        self.child = Some(self.spawn());
        eventually("the control port answers", || self.try_page("/readyz").ok());
    }

    /// Starts the process, which is to refuse, and returns how it ended.
    pub fn launch_refused(&mut self) -> Exit {
        self.child = Some(self.spawn());
        self.wait_exit()
    }

    fn spawn(&mut self) -> Child {
        std::fs::write(self.path("svc-wallet.toml"), self.configuration()).unwrap();
        let arguments = daemon_arguments(&self.settings);
        if let Some(daemon) = &mut self.daemon {
            daemon.launch_once(arguments, self.shell_first);
        }
        // What a shell does first is about the files of the ledger.
        let own_shell = self.shell_first.filter(|_| self.daemon.is_none());
        let mut command = after(own_shell, env!("CARGO_BIN_EXE_svc-wallet"));
        command.arg("--config").arg(self.path("svc-wallet.toml"));
        if let Some(daemon) = &self.daemon {
            command.arg("--set").arg(format!("deps.ledger_sock={}", daemon.sock()));
        }
        for (key, value) in &self.settings {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        for name in ["RON_CONFIG", "AMNESIA", "POLICY_FILE", "REGISTRY_URL", "LEDGER_SOCK", "ACCOUNTING_SOCK"] {
            command.env_remove(name);
        }
        let log = File::create(self.path("server.log")).unwrap();
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.place.path()).env("RUST_LOG", self.log_filter).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    /// Small segments, because each is written full of zeros at the start; and much patience with the disk, which many servers
    /// share while tests run.
    fn configuration(&self) -> String {
        format!(
            "[bind]\nhttp = \"{}\"\nmetrics = \"{}\"\nadmin = \"./admin.sock\"\n\
             [deps]\nledger_sock = \"embedded:./ledger\"\naccounting_sock = \"embedded:./accounting\"\n\
             registry_url = \"file:./registry.json\"\n\
             [security]\npolicy_file = \"./policy.json\"\nkeyring = \"./wallet.keyring\"\n\
             revocations = \"./wallet.revocations\"\n\
             [ledger]\nsegment_bytes = \"8MiB\"\n\
             [timeouts]\nwrite_ms = \"20s\"\n",
            self.http, self.control
        )
    }

    fn wait_ready(&mut self) -> Result<(), Exit> {
        eventually("the server is ready", || {
            if self.child.as_mut().expect("just spawned").try_wait().unwrap().is_some() {
                return Some(Err(self.wait_exit()));
            }
            let reply = self.try_page("/readyz").ok()?;
            (reply.status == 200).then_some(Ok(()))
        })
    }

    /// Waits for the process to end by itself.
    pub fn wait_exit(&mut self) -> Exit {
        let child = self.child.as_mut().expect("the server runs");
        let status = eventually("the server ends", || child.try_wait().unwrap());
        self.child = None;
        Exit { status, log: self.log() }
    }

    /// What a test has set.
    pub fn setting(&self, key: &str) -> Option<&str> {
        self.settings.iter().find(|(known, _)| known == key).map(|(_, value)| &**value)
    }

    /// Changes a setting for the next start.
    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value.to_owned()));
    }

    /// Replaces the policy for the next start.
    pub fn set_policy(&mut self, policy: &str) {
        std::fs::write(self.path("policy.json"), policy).unwrap();
    }

    /// Lets a shell run these commands before it becomes the process, from the next start on.
    pub fn shell_first(&mut self, commands: &'static str) {
        self.shell_first = Some(commands);
    }

    /// What the process logs from the next start on, as `RUST_LOG` says it.
    pub fn log_at(&mut self, filter: &'static str) {
        self.log_filter = filter;
    }

    /// Sets a variable of the environment of the process from the next start on.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// The process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("the server runs"))
    }

    /// The process id of whoever writes the ledger.
    pub fn ledger_pid(&self) -> Pid {
        self.daemon.as_ref().map_or_else(|| self.pid(), |daemon| daemon.pid())
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// SIGKILL, and waits until the process is gone; its daemon as well.
    pub fn kill(&mut self) -> Exit {
        self.signal(Signal::KILL);
        let exit = self.wait_exit();
        self.daemon.iter_mut().for_each(|daemon| daemon.kill());
        exit
    }

    /// SIGTERM, and fails unless the process ends in order.
    pub fn stop(&mut self) -> Exit {
        self.signal(Signal::TERM);
        let exit = self.wait_exit();
        assert_eq!(exit.status.code(), Some(0), "{}", exit.log);
        self.daemon.iter_mut().for_each(|daemon| daemon.stop());
        exit
    }

    /// SIGKILL and a new start on the same directory.
    pub fn crash_and_restart(&mut self) {
        self.kill();
        self.launch();
    }

    /// A file or directory of this server.
    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// The first segment of the ledger, the second and so on.
    pub fn segment(&self, number: u32) -> PathBuf {
        self.path(&format!("ledger/segment-{number:010}.log"))
    }

    pub fn directory(&self) -> &Path {
        self.place.path()
    }

    /// What the process has written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path("server.log")).unwrap_or_default()).into_owned()
    }

    /// A token that may do everything.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A token for less than everything: `change` starts from scope `wallet:*`, audience `svc-wallet` and 900 seconds.
    pub fn mint(&self, change: impl FnOnce(&mut MintRequest)) -> String {
        let mut wanted = MintRequest { scopes: vec!["wallet:*".to_owned()], ..mint_request() };
        change(&mut wanted);
        mint(&self.keyring, &wanted, unix_now()).unwrap()
    }

    /// A token that was minted so long ago that it has expired.
    pub fn mint_expired(&self) -> String {
        let wanted = MintRequest { scopes: vec!["wallet:*".to_owned()], ..mint_request() };
        mint(&self.keyring, &wanted, UnixMs(unix_now().0 - 86_400_000)).unwrap()
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.http)
    }

    /// A connection with a token that may do everything.
    pub fn wallet(&self) -> Wallet {
        Wallet::new(self.connect(), self.token.clone())
    }

    pub fn try_page(&self, path: &str) -> std::io::Result<Reply> {
        let mut client = Client::try_connect(self.control)?;
        client.try_send(&request("GET", path).bytes())?;
        client.try_reply(false)
    }

    /// A page of the control port.
    pub fn page(&self, path: &str) -> Reply {
        self.try_page(path).unwrap()
    }

    /// The present value of a series on `/metrics`; 0 if it is not there.
    pub fn metric(&self, series: &str) -> f64 {
        let page = String::from_utf8(self.page("/metrics").ok().body).unwrap();
        let line = page.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }

    /// Waits until a series has reached a value; figures are published about once a second.
    pub fn metric_reaches(&self, series: &str, at_least: f64) -> f64 {
        eventually(&format!("{series} reaches {at_least}"), || Some(self.metric(series)).filter(|value| *value >= at_least))
    }
}

/// What a daemon is told of the settings of its wallet that are about the ledger.
fn daemon_arguments(settings: &[(String, String)]) -> Vec<String> {
    let mut arguments = Vec::new();
    let of_daemon = |key: &str| key.starts_with("ledger.") && key != "ledger.sign_roots_every";
    for (key, value) in settings.iter().filter(|(key, _)| of_daemon(key)) {
        let value = match value.strip_suffix("MiB") {
            Some(number) => (number.parse::<u64>().unwrap() << 20).to_string(),
            None => value.clone(),
        };
        arguments.extend([format!("--{}", key["ledger.".len()..].replace('_', "-")), value]);
    }
    if !arguments.iter().any(|argument| argument == "--segment-bytes") {
        arguments.extend(["--segment-bytes".to_owned(), "8388608".to_owned()]);
    }
    arguments
}

fn mint_request() -> MintRequest {
    MintRequest {
        subject: "tests".to_owned(),
        ttl: Duration::from_secs(900),
        audience: "svc-wallet".to_owned(),
        ..MintRequest::default()
    }
}

fn unix_now() -> UnixMs {
    UnixMs(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64)
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        // Before its directory goes.
        drop(self.daemon.take());
        if std::thread::panicking() {
            eprintln!("--- what the server wrote ---\n{}", self.log());
        }
    }
}

const _: () = assert!(PATIENCE.as_secs() < 60);
