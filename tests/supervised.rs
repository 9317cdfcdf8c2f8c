//! Wallet and daemon under a supervisor of the kind of systemd, which the test plays with a socket: they are ready when they serve and not
//! before, give signs of life as long as they are asked for, and say when they end.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.

mod support;

use rustix::process::{kill_process, Pid, Signal};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::Command;
use support::{Server, PATIENCE};

fn listen(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The next message.
fn hear(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 512];
    let length = socket.recv(&mut bytes).unwrap_or_else(|error| panic!("nothing was told: {error}"));
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

/// The next message that is no sign of life.
fn first_but_life(socket: &UnixDatagram) -> String {
    std::iter::repeat_with(|| hear(socket)).find(|told| told != "WATCHDOG=1").unwrap()
}

#[test]
fn a_wallet_says_that_it_is_ready_that_it_lives_and_that_it_ends() {
    let mut server = Server::prepared(&[]);
    let socket = listen(&server.path("notify"));
    server.set_env("NOTIFY_SOCKET", server.path("notify").to_str().unwrap());
    // A sign of life is due every tenth of a second.
    server.set_env("WATCHDOG_USEC", "200000");
    server.launch();
    assert_eq!(hear(&socket), "STATUS=reading the ledger");
    assert_eq!(hear(&socket), "READY=1\nSTATUS=serving");
    // The first cores are heard within a second or two; then it goes on.
    for _ in 0..5 {
        assert_eq!(hear(&socket), "WATCHDOG=1");
    }
    server.signal(Signal::TERM);
    let ending = first_but_life(&socket);
    assert_eq!(ending, "STOPPING=1\nSTATUS=draining, then closing the ledger\nWATCHDOG_USEC=86400000000");
    assert_eq!(server.wait_exit().status.code(), Some(0));
}

#[test]
fn a_daemon_says_that_it_is_ready_when_it_listens_that_it_lives_and_that_it_ends() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    let socket = listen(&path("notify"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_ron-ledger"));
    command.arg("--dir").arg(path("ledger")).arg("--sock").arg(path("run/ledger.sock")).args(["--segment-bytes", "8388608"]);
    // Nobody but user 4294967294 is admitted: the daemon answers itself all the same.
    command.args(["--allow-uid", "4294967294"]);
    let mut child = command.env("NOTIFY_SOCKET", path("notify")).env("WATCHDOG_USEC", "20000").spawn().unwrap();
    let told = [hear(&socket), hear(&socket), hear(&socket), hear(&socket)];
    let listens = UnixStream::connect(path("run/ledger.sock"));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let ending = first_but_life(&socket);
    let status = child.wait().unwrap();
    assert_eq!(told, ["STATUS=reading the ledger", "READY=1\nSTATUS=serving the ledger", "WATCHDOG=1", "WATCHDOG=1"]);
    listens.unwrap();
    assert!(ending.starts_with("STOPPING=1\nSTATUS=closing the ledger"), "{ending}");
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_daemon_that_has_no_room_for_another_connection_lives() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    let socket = listen(&path("notify"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_ron-ledger"));
    command.arg("--dir").arg(path("ledger")).arg("--sock").arg(path("run/ledger.sock")).args(["--segment-bytes", "8388608"]);
    let mut child = command.env("NOTIFY_SOCKET", path("notify")).env("WATCHDOG_USEC", "20000").spawn().unwrap();
    let ready = std::iter::repeat_with(|| hear(&socket)).find(|told| told.starts_with("READY=1"));
    let taken: Vec<_> = (0..32).map(|_| UnixStream::connect(path("run/ledger.sock")).unwrap()).collect();
    // More than can wait to be heard: some of them are told behind that.
    let told: Vec<String> = (0..50).map(|_| hear(&socket)).collect();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    first_but_life(&socket);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(ready.is_some() && told.iter().all(|told| told == "WATCHDOG=1"), "{told:?}");
    drop(taken);
}

#[test]
fn the_daemon_of_the_counters_and_the_registry_say_when_they_are_ready_that_they_live_and_that_they_end() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    std::fs::write(path("registry.json"), support::topology(1, "one")).unwrap();
    let mut accounting = Command::new(env!("CARGO_BIN_EXE_ron-accounting"));
    accounting.arg("--dir").arg(path("counters")).arg("--sock").arg(path("run/accounting.sock"));
    let mut registry = Command::new(env!("CARGO_BIN_EXE_svc-registry"));
    registry.arg("--file").arg(path("registry.json")).arg("--listen").arg(format!("127.0.0.1:{}", support::free_port()));
    for (mut command, status, name) in [(accounting, "keeping counters", "a"), (registry, "serving the topology", "r")] {
        let socket = listen(&path(name));
        let mut child = command.env("NOTIFY_SOCKET", path(name)).env("WATCHDOG_USEC", "20000").spawn().unwrap();
        let [told, first, second] = [hear(&socket), hear(&socket), hear(&socket)];
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let ending = first_but_life(&socket);
        let status_of_exit = child.wait().unwrap();
        assert_eq!(told, format!("READY=1\nSTATUS={status}"));
        assert_eq!([first, second], ["WATCHDOG=1"; 2]);
        assert!(ending.starts_with("STOPPING=1\nSTATUS=ending"), "{ending}");
        assert_eq!(status_of_exit.code(), Some(0));
    }
}
