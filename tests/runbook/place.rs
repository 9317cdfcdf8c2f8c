//! A place of a reader: a copy of the shipped `configs/`, with free ports and with small files for the ledger, because each is written full
//! of zeros; and the programs of this build where the page has `./target/release/`.
//!
//! Four commands are not the machine's own. `pidof` knows only the servers of the place, so that nobody else's is ended; `systemctl`
//! starts, stops and shows them, each with the command line of the page and with its log in `var/`, from where `journalctl` has it; and
//! `timedatectl` says what it says on a machine whose clock is kept. The place begins with a ledger that the library has written, of small
//! segments, so that there is something to archive without writing for minutes.
use crate::page::{blocks, source, Mark};
use crate::support::{eventually, free_port, request, Client, Reply, Wallet};
use serde_json::Value;
use std::cell::RefCell;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use svc_wallet::access::{mint, Keyring, MintRequest};
use svc_wallet::domain::{Account, Amount, Asset, Draft, Key, LaneBatch, LogId, Nonce, Op, TokenId, UnixMs};
use svc_wallet::ledger::{DiskStorage, Log, Options};
use tempfile::TempDir;

/// The servers that blocks start.
const SERVERS: [(&str, &str); 4] = [
    ("svc-wallet", env!("CARGO_BIN_EXE_svc-wallet")),
    ("ron-ledger", env!("CARGO_BIN_EXE_ron-ledger")),
    ("ron-accounting", env!("CARGO_BIN_EXE_ron-accounting")),
    ("svc-registry", env!("CARGO_BIN_EXE_svc-registry")),
];
/// The start of the server and the wait for it, as every block has them that needs them.
pub const START: &str = "./target/release/svc-wallet --config ./configs/svc-wallet.toml 2>>./var/svc-wallet.log &\n\
                         until ./target/release/ronctl status; do sleep 1; done\n";
/// What the environment of a server may have.
const OWN_VARIABLES: [&str; 7] =
    ["RON_CONFIG", "AMNESIA", "POLICY_FILE", "REGISTRY_URL", "LEDGER_SOCK", "ACCOUNTING_SOCK", "RUST_LOG"];
/// How long a block may take. None is expected to come near.
const BLOCK_PATIENCE: Duration = Duration::from_secs(180);
/// Six batches of one block fit such a segment.
const SEGMENT: u64 = 8 * 4096;
/// Entries of the ledger with which a place begins.
const FIRST_ENTRIES: u64 = 11;

/// `systemctl VERB UNIT`: a unit is active when its program serves, as with `Type=notify`.
const SYSTEMCTL: &str = r#"
verb=$1; shift
pid() { pidof "$1" 2>/dev/null; }
up() {
    case $1 in
    svc-wallet) set -- "$1" --config ./configs/svc-wallet.toml && ready='./target/release/ronctl status' ;;
    ron-ledger) set -- "$1" --config ./configs/ron-ledger.toml && ready='test -S ./var/run/ledger.sock' ;;
    ron-accounting)
        socket=./var/run-accounting/accounting.sock
        set -- "$1" --dir ./var/counters --sock "unix://$PWD/$socket" && ready="test -S $socket" ;;
    *) echo "Unit $1.service not found." >&2; exit 5 ;;
    esac
    program=$1; shift
    "./target/release/$program" "$@" >>"./var/$program.log" 2>&1 &
    until $ready >/dev/null 2>&1; do sleep 0.05; done
}
down() { if kill "$(pid "$1")" 2>/dev/null; then while pid "$1" >/dev/null; do sleep 0.05; done; fi; }
for unit; do case $unit in
    -*) continue ;;
    *=* | *,*) continue ;;
esac; case $verb in
    start | enable) up "$unit" ;;
    stop) down "$unit" ;;
    restart) down "$unit"; up "$unit" ;;
    status) if pid "$unit" >/dev/null; then echo "$unit.service active (running)"; else echo "$unit.service inactive (dead)"; exit 3; fi ;;
    show) if pid "$unit" >/dev/null; then state=active; else state=inactive; fi; printf 'NRestarts=0\nExecMainStatus=0\nActiveState=%s\n' $state ;;
    *) echo "Unknown command verb $verb." >&2; exit 1 ;;
esac; done
"#;

/// `journalctl -u UNIT [-n LINES]`: what is there, whatever else is wanted.
const JOURNALCTL: &str = r#"
lines=+1
while [ $# -gt 0 ]; do case $1 in
    -u) unit=$2; shift 2 ;;
    -n) lines=$2; shift 2 ;;
    -o) shift 2 ;;
    -f) shift ;;
    *) echo "unrecognized option '$1'" >&2; exit 1 ;;
esac; done
exec tail -n "$lines" "./var/$unit.log"
"#;

/// Writes down what one of several programs in `directory` is replaced by.
fn tool(directory: &Path, name: &str, commands: &str) {
    let path = directory.join(name);
    fs::write(&path, format!("#!/bin/sh\n{commands}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A directory as a reader has it. Dropping it ends the servers that blocks have started, by their process ids.
pub struct Place {
    directory: TempDir,
    http: SocketAddr,
    control: SocketAddr,
    registry: SocketAddr,
    token: String,
    /// What a reader who stays in one shell has exported there.
    exported: RefCell<String>,
    /// Names of the page and what they are here.
    stand_ins: RefCell<Vec<(String, String)>>,
}

/// A program in the foreground of a terminal of its own.
pub struct Foreground(Child);

impl Foreground {
    /// Waits until it has ended, and returns its exit code.
    pub fn ends(mut self) -> Option<i32> {
        eventually("the program in the foreground ends", || self.0.try_wait().unwrap()).code()
    }
}

impl Place {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["configs", "target/release", "tools", "var", "tmp"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        let [http, control, registry] = [free_port(), free_port(), free_port()];
        for file in fs::read_dir(source("configs")).unwrap() {
            let file = file.unwrap();
            let mut text = fs::read_to_string(file.path()).unwrap();
            let changes = match file.file_name().to_str().unwrap() {
                "svc-wallet.toml" => vec![
                    ("127.0.0.1:8080", format!("127.0.0.1:{http}")),
                    ("127.0.0.1:9090", format!("127.0.0.1:{control}")),
                    ("segment_bytes = \"64MiB\"", "segment_bytes = \"8MiB\"".to_owned()),
                ],
                "ron-ledger.toml" => vec![("64MiB", "8MiB".to_owned())],
                _ => vec![],
            };
            for (shipped, ours) in changes {
                assert_eq!(text.matches(shipped).count(), 1, "{shipped} in {:?}", file.path());
                text = text.replace(shipped, &ours);
            }
            fs::write(at("configs").join(file.file_name()), text).unwrap();
        }
        for (name, program) in SERVERS {
            let pid = at(name);
            let commands = format!("echo $$ > '{0}.pid' && exec '{program}' \"$@\"", pid.display());
            tool(&at("target/release"), name, &commands);
        }
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ronctl"), at("target/release/ronctl")).unwrap();
        // A process that has ended and that nobody has waited for has no program any more.
        let known = format!("pid=$(cat '{}'/\"$1\".pid)", directory.path().display());
        tool(&at("tools"), "pidof", &format!("{known} && readlink \"/proc/$pid/exe\" >&2 && echo \"$pid\""));
        tool(&at("tools"), "systemctl", SYSTEMCTL);
        tool(&at("tools"), "journalctl", JOURNALCTL);
        tool(&at("tools"), "timedatectl", "echo NTPSynchronized=yes");

        write_ledger(&at("var/ledger"));
        let keyring = Keyring::open_or_create(&at("var/wallet.keyring")).unwrap();
        let wanted = MintRequest {
            subject: "tests".to_owned(),
            scopes: vec!["wallet:*".to_owned()],
            ttl: Duration::from_secs(3600),
            audience: "svc-wallet".to_owned(),
            ..MintRequest::default()
        };
        let token = mint(&keyring, &wanted, now()).unwrap();
        let [http, control, registry] = [http, control, registry].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let stand_ins = [("127.0.0.1:9090", control), ("127.0.0.1:8500", registry)];
        let stand_ins = stand_ins.map(|(printed, ours)| (printed.to_owned(), ours.to_string())).to_vec();
        Self { directory, http, control, registry, token, exported: RefCell::default(), stand_ins: RefCell::new(stand_ins) }
    }

    /// A place whose server serves.
    pub fn serving() -> Self {
        let place = Self::new();
        place.run("start", START);
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Changes the text of a file, in which `old` stands once.
    pub fn edit(&self, name: &str, old: &str, new: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert_eq!(text.matches(old).count(), 1, "{old} in {name}");
        fs::write(self.path(name), text.replace(old, new)).unwrap();
    }

    /// Runs a block of the page as it is printed there, and returns what it wrote.
    pub fn block(&self, name: &str) -> String {
        self.block_ends(name, 0)
    }

    /// The same of a block whose last command is to say no.
    pub fn block_ends(&self, name: &str, code: i32) -> String {
        let commands = commands(name);
        let said = self.run_until(name, &format!("{}{commands}", self.exported.borrow()), code);
        let exports = commands.lines().filter(|line| line.starts_with("export "));
        exports.for_each(|line| self.export(line));
        said
    }

    /// Lets the shell of the reader have this line first, from now on.
    pub fn export(&self, line: &str) {
        self.exported.borrow_mut().push_str(&format!("{line}\n"));
    }

    /// Puts what is here in the place of a name that only the page has.
    pub fn stand_in(&self, printed: &str, ours: &str) {
        self.stand_ins.borrow_mut().push((printed.to_owned(), ours.to_owned()));
    }

    /// Starts a block whose program stays in the foreground, and waits until it is up.
    pub fn foreground(&self, name: &str, is_up: impl Fn() -> bool) -> Foreground {
        let commands = commands(name);
        let log = File::options().create(true).append(true).open(self.path(&format!("var/{name}.log"))).unwrap();
        let mut child = self.shell(&commands).stdout(log.try_clone().unwrap()).stderr(log).spawn().expect("bash is needed");
        eventually("the program in the foreground is up", || {
            let ended = child.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "block {name} ended: {}",
                fs::read_to_string(self.path(&format!("var/{name}.log"))).unwrap()
            );
            is_up().then_some(())
        });
        Foreground(child)
    }

    /// Runs commands as a shell does that stops at the first that fails, and returns what they wrote.
    pub fn run(&self, name: &str, commands: &str) -> String {
        self.run_until(name, commands, 0)
    }

    fn shell(&self, commands: &str) -> Command {
        let path = format!("{}:{}", self.path("tools").display(), std::env::var("PATH").unwrap());
        let mut commands = commands.to_owned();
        for (printed, ours) in self.stand_ins.borrow().iter() {
            commands = commands.replace(printed, ours);
        }
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", &commands]).current_dir(self.directory.path());
        shell.env("PATH", path).env("TMPDIR", self.path("tmp")).stdin(Stdio::null());
        for name in OWN_VARIABLES {
            shell.env_remove(name);
        }
        shell
    }

    fn run_until(&self, name: &str, commands: &str, code: i32) -> String {
        let said = self.path("said");
        let file = File::create(&said).unwrap();
        // A file and no pipe: servers that a block starts keep it open.
        let mut shell = self.shell(commands);
        let mut shell = shell.stdout(file.try_clone().unwrap()).stderr(file).spawn().expect("bash is needed");
        let began = Instant::now();
        let status = loop {
            if let Some(status) = shell.try_wait().unwrap() {
                break status;
            }
            if began.elapsed() > BLOCK_PATIENCE {
                shell.kill().unwrap();
                break shell.wait().unwrap();
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let said = String::from_utf8(fs::read(said).unwrap()).unwrap();
        assert_eq!(status.code(), Some(code), "block {name} ended with {status}:\n{said}\n{}", self.logs());
        said
    }

    /// Runs `ronctl` in the shell of the reader; it must succeed, and what it said to programs is returned.
    pub fn ronctl(&self, arguments: &str) -> Value {
        let commands = format!("{}./target/release/ronctl --json {arguments}", self.exported.borrow());
        serde_json::from_str(&self.run(arguments, &commands)).unwrap()
    }

    pub fn wallet(&self) -> Wallet {
        self.wallet_with(&self.token)
    }

    pub fn wallet_with(&self, token: &str) -> Wallet {
        Wallet::new(Client::connect(self.http), token.to_owned())
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    /// Where `svc-registry` of the page answers.
    pub fn registry(&self) -> SocketAddr {
        self.registry
    }

    /// Whether `/readyz` answers 200.
    pub fn is_ready(&self) -> bool {
        Client::try_connect(self.control).is_ok_and(|mut client| client.call(&request("GET", "/readyz")).status == 200)
    }

    /// Something, if one of the figures is this line.
    pub fn publishes(&self, line: &str) -> Option<()> {
        let page = Client::connect(self.control).call(&request("GET", "/metrics")).ok();
        String::from_utf8(page.body).unwrap().lines().any(|figure| figure == line).then_some(())
    }

    /// What `alice` and `bob` have, and the last and the next nonce of `alice`.
    pub fn state(&self) -> (u128, u128, (u64, u64)) {
        let mut wallet = self.wallet();
        (wallet.balance("alice"), wallet.balance("bob"), wallet.seq("alice"))
    }

    pub fn spend(&self, amount: u128, nonce: u64) -> Reply {
        self.wallet().spend("alice", "bob", amount, nonce, &format!("spend-{nonce}-{amount}"))
    }

    /// What the log of a server says so far.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("var/{name}.log"))).unwrap_or_default()
    }

    fn logs(&self) -> String {
        SERVERS.iter().map(|(name, _)| self.log(name)).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for (name, program) in SERVERS {
            let pid = fs::read_to_string(self.path(&format!("{name}.pid"))).ok();
            let Some(pid) = pid.and_then(|pid| pid.trim().parse().ok()) else { continue };
            if fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|running| running == Path::new(program)) {
                let pid = rustix::process::Pid::from_raw(pid).unwrap();
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// The commands of the block with this name.
fn commands(name: &str) -> String {
    let wanted = Some(Mark::Run(name.to_owned()));
    let page = fs::read_to_string(source("RUNBOOK.md")).unwrap();
    let block = blocks(&page).into_iter().find(|block| block.mark == wanted);
    block.unwrap_or_else(|| panic!("RUNBOOK.md has no block <!-- run: {name} -->")).commands
}

fn now() -> UnixMs {
    UnixMs(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64)
}

/// Entry 1 gives alice 1000; those after it send 1 to bob each, with nonces from 1 on. Two segments.
fn write_ledger(directory: &Path) {
    let options = Options::for_simulation(SEGMENT, LogId([9; 16]));
    let (mut log, _) = Log::open(DiskStorage::create(directory).unwrap(), &options, &mut |_, _, _| Ok(())).unwrap();
    for seq in 1..=FIRST_ENTRIES {
        let op = if seq == 1 { Op::Issue } else { Op::Transfer };
        let (mut bytes, key) = (Vec::new(), format!("first-{seq}"));
        let draft = Draft {
            op,
            from: op.debits().then(|| Account::new("alice").unwrap()),
            to: Some(Account::new(if seq == 1 { "alice" } else { "bob" }).unwrap()),
            asset: Asset::new("roc").unwrap(),
            amount: Amount::new(if seq == 1 { 1000 } else { 1 }).unwrap(),
            nonce: op.debits().then_some(Nonce(seq - 1)),
            key: Key::new(&key).unwrap(),
            memo: None,
            corr: "corr",
            token: TokenId([4; 16]),
            ceiling: false,
            budget: false,
            daily_max: false,
            // Their keys are over their time, so that segments of them may be archived.
            ts: UnixMs(now().0 - 2 * 86_400_000),
        };
        draft.encode(&mut bytes);
        log.append(&[LaneBatch { lane: 0, lane_first: seq, count: 1, bytes }]).unwrap();
    }
    log.close().unwrap();
}
