//! `ronctl ledger` with the socket of a daemon in the configuration: every command finds the directory by asking the daemon, a copy is of
//! everything that was acknowledged before, and without the daemon the command says what to do.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::process::{Command, Output, Stdio};
use support::{eventually, Daemon, Server};

/// A daemon, a wallet on it, and a file of configuration that names the socket.
struct Place {
    daemon: Daemon,
    server: Server,
}

impl Place {
    fn start() -> Self {
        let daemon = Daemon::start();
        let mut server = Server::prepared(&[("deps.ledger_sock", &daemon.sock())]);
        server.launch();
        let configuration = fs::read_to_string(server.path("svc-wallet.toml")).unwrap();
        let named = configuration.replace("embedded:./ledger", &daemon.sock());
        assert_ne!(named, configuration);
        fs::write(server.path("daemon.toml"), named).unwrap();
        Self { daemon, server }
    }

    fn ronctl(&self, arguments: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ronctl"));
        command.args(["--config", "daemon.toml"]).args(arguments.split(' '));
        command.current_dir(self.server.directory()).env_clear().stdin(Stdio::null()).output().unwrap()
    }

    /// Standard output of a command that does what it says.
    fn told(&self, arguments: &str) -> String {
        let output = self.ronctl(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command complains of that ends with this code.
    fn complaint(&self, arguments: &str, code: i32) -> String {
        let output = self.ronctl(arguments);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments}: {complaint}");
        complaint
    }

    /// Takes a copy and returns what is in it.
    fn copy(&self, name: &str) -> Value {
        serde_json::from_str(&self.told(&format!("--json ledger snapshot --out {name}"))).unwrap()
    }
}

#[test]
fn every_command_works_as_with_an_embedded_ledger() {
    let place = Place::start();
    let mut wallet = place.server.wallet();
    wallet.issue("a", 100);
    wallet.spend("a", "b", 1, 1, "k1").ok();
    let directory = place.daemon.path("ledger");
    for (command, part) in [
        ("ledger verify", "The ledger is whole."),
        ("ledger inspect --entry 2", "transfer"),
        ("ledger export --format csv --account b", "k1"),
        ("wallet seq --account a --from-ledger", "next nonce            2"),
        ("ledger snapshot --out ledger.snap", "through entry  2"),
    ] {
        let told = place.told(command);
        assert!(told.contains(part), "{command}: {part} is missing in\n{told}");
    }
    // Neither of these may change what a daemon has in use.
    let refused = place.complaint("ledger restore --from ledger.snap", 4);
    assert!(refused.contains(directory.to_str().unwrap()) && refused.contains("in use"), "{refused}");
    let refused = place.complaint("ledger archive --to archive", 4);
    assert!(refused.contains(directory.to_str().unwrap()) && refused.contains("in use"), "{refused}");
    assert_eq!(place.server.wallet().balance("b"), 1);
}

#[test]
fn a_copy_has_what_was_acknowledged_after_the_last_snapshot_and_its_exit_code_tells() {
    let place = Place::start();
    let mut wallet = place.server.wallet();
    wallet.issue("a", 100);
    place.daemon.signal(Signal::USR1);
    let snapshot = place.daemon.path("ledger/snapshot-00000000000000000001.snap");
    eventually("a snapshot after the first entry", || snapshot.exists().then_some(()));
    for nonce in 1..=20 {
        wallet.spend("a", "b", 2, nonce, &format!("k{nonce}")).ok();
        if nonce % 10 == 0 {
            let copy = place.copy(&format!("copy-{nonce}.snap"));
            assert_eq!((&copy["entry"], &copy["accounts"]), (&(nonce + 1).into(), &2.into()), "{copy}");
        }
    }
    let again = place.complaint("ledger snapshot --out copy-20.snap", 2);
    assert!(again.contains("is there already and was left alone"), "{again}");
    let nowhere = place.complaint("ledger snapshot --out gone/copy.snap", 2);
    assert!(nowhere.contains("there is no directory gone"), "{nowhere}");
    // What is restored is what was served when the copy was made.
    let Place { mut daemon, mut server } = place;
    server.stop();
    daemon.stop();
    fs::rename(daemon.path("ledger"), daemon.path("ledger.old")).unwrap();
    let place = Place { daemon, server };
    let restored = format!("ledger restore --from copy-20.snap --dir {}", place.daemon.path("ledger").display());
    place.told(&restored);
    let Place { mut daemon, mut server } = place;
    fs::remove_dir_all(server.path("accounting")).unwrap();
    daemon.launch();
    server.launch();
    let mut wallet = server.wallet();
    assert_eq!((wallet.balance("a"), wallet.balance("b"), wallet.seq("a")), (60, 40, (20, 21)));
}

#[test]
fn without_the_daemon_a_command_says_to_start_it_or_to_name_the_directory() {
    let mut place = Place::start();
    place.server.wallet().issue("a", 100);
    place.server.stop();
    place.daemon.stop();
    for command in ["ledger verify", "ledger snapshot --out ledger.snap", "ledger restore --from ledger.snap"] {
        let complaint = place.complaint(command, 3);
        for part in [place.daemon.socket().to_str().unwrap(), "once ron-ledger runs", "--dir DIR"] {
            assert!(complaint.contains(part), "{command}: {part} is missing in {complaint}");
        }
    }
    let directory = place.daemon.path("ledger");
    assert!(place.told(&format!("ledger verify --dir {}", directory.display())).contains("The ledger is whole."));
}

/// As in a container: the daemon goes on with the files that it has open, and under their path others are seen from here.
#[test]
fn a_directory_that_is_not_the_one_of_the_daemon_is_not_taken_for_it() {
    let mut place = Place::start();
    place.server.wallet().issue("a", 100);
    let (directory, moved) = (place.daemon.path("ledger"), place.daemon.path("moved"));
    place.told("ledger snapshot --out own.snap");
    let mut other = Server::start();
    other.wallet().issue("a", 7);
    other.stop();
    fs::rename(&directory, &moved).unwrap();
    let refused = |found: &str| {
        for command in
            ["ledger verify", "ledger inspect", "ledger restore --from own.snap", "wallet seq --account a --from-ledger"]
        {
            let complaint = place.complaint(command, 2);
            for part in [directory.to_str().unwrap(), found, "--dir DIR", "container"] {
                assert!(complaint.contains(part), "{command}: {part} is missing in {complaint}");
            }
        }
    };
    refused("there is no such directory");
    fs::create_dir(&directory).unwrap();
    refused("no ledger is there");
    // The daemon may have written to it meanwhile: it goes by the name.
    fs::remove_dir_all(&directory).unwrap();
    fs::rename(other.path("ledger"), &directory).unwrap();
    refused("another ledger is there");
    assert!(place.told(&format!("ledger verify --dir {}", moved.display())).contains("The ledger is whole."));
    fs::rename(&directory, other.path("ledger")).unwrap();
    fs::rename(&moved, &directory).unwrap();
    assert!(place.told("ledger verify").contains("The ledger is whole."));
    place.server.stop();
}

#[test]
fn a_daemon_that_hangs_is_told_from_one_that_does_not_run() {
    let place = Place::start();
    place.server.wallet().issue("a", 100);
    place.daemon.pause();
    let complaint = place.complaint("ledger verify", 3);
    place.daemon.signal(Signal::CONT);
    assert!(complaint.contains("connected, but it has not answered within 10 s: it hangs or is stopped"), "{complaint}");
    assert!(place.told("ledger verify").contains("The ledger is whole."));
}
