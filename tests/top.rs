//! `ronctl top` against a real server: one frame for pipes and for programs, and the live view in a terminal of its own, which says that the server
//! is gone, goes on when it is back, and leaves the terminal as it was. The terminal is made by script(1), which every Linux has.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use serde_json::Value;
use std::io::{Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use support::{eventually, Server};

fn command(server: &Server, program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(server.directory())
        .env_clear()
        .env("RON_CONFIG", "svc-wallet.toml")
        .env("PATH", "/usr/bin:/bin")
        .env("TERM", "xterm");
    command
}

fn ronctl(server: &Server, arguments: &str, columns: &str) -> Output {
    let mut command = command(server, env!("CARGO_BIN_EXE_ronctl"));
    command.args(arguments.split(' ')).env("COLUMNS", columns).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn one_frame_has_what_the_server_says_and_fits() {
    let mut server = Server::with(&[("runtime.cores", "2")]);
    let mut wallet = server.wallet();
    wallet.issue("a", 100);
    wallet.spend("a", "b", 10, 1, "k").ok();
    wallet.transfer("a", "b", 1_000, 2, "l");
    wallet.spend("a", "b", 1_000, 2, "l").refused(409, "INSUFFICIENT_FUNDS");
    server.metric_reaches("wallet_ledger_height", 2.0);
    server.metric_reaches("rejected_total{reason=\"funds\"}", 1.0);
    let output = ronctl(&server, "top --once --interval 200ms", "60");
    let shown = text(&output.stdout);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    assert!(shown.starts_with(concat!("svc-wallet ", env!("CARGO_PKG_VERSION"), " ready at 127.0.0.1:")), "{shown}");
    let has = |name: &str, value: &str| {
        let fits = |line: &str| line.starts_with(name) && line.trim_end().ends_with(&format!(" {value}"));
        assert!(shown.lines().any(fits), "{name} {value} in\n{shown}");
    };
    for (name, value) in [
        ("sequence", "2"),
        ("connection", "connected"),
        ("writes", "served"),
        ("policy", "3"),
        ("registry", "5"),
        ("funds", "1"),
        ("cap", "0"),
    ] {
        has(name, value);
    }
    assert!(shown.contains("core 0") && shown.contains("core 1") && !shown.contains('\x1b'), "{shown}");
    let narrow = text(&ronctl(&server, "top --once --interval 200ms", "30").stdout);
    assert!(narrow.lines().all(|line| line.chars().count() <= 30), "{narrow}");

    let output = ronctl(&server, "--json top --once --interval 200ms", "80");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), &told["gone"], &told["figures"]["readiness"]["ready"]),
        (Some(0), &Value::Null, &true.into())
    );
    assert_eq!(
        (&told["figures"]["ledger"]["height"], told["figures"]["cores"].as_array().unwrap().len()),
        (&2.0.into(), 2),
        "{told}"
    );

    let piped = ronctl(&server, "top", "80");
    assert_eq!(piped.status.code(), Some(2));
    assert!(
        text(&piped.stderr).contains("standard output is no terminal") && text(&piped.stderr).contains("--once"),
        "{}",
        text(&piped.stderr)
    );
    server.stop();
    let gone = ronctl(&server, "top --once", "80");
    assert_eq!((gone.status.code(), text(&gone.stdout)), (Some(3), String::new()));
    assert!(text(&gone.stderr).contains("cannot connect to"), "{}", text(&gone.stderr));
}

/// A live view in a terminal, and all that it has written.
struct Live {
    child: Child,
    written: Arc<Mutex<String>>,
}

impl Live {
    fn start(server: &Server) -> Self {
        let line = format!(
            "stty cols 80 rows 60; {} top --interval 200ms; echo \"ended with $?\"; stty -a",
            env!("CARGO_BIN_EXE_ronctl")
        );
        let mut command = command(server, "script");
        command.args(["-q", "-f", "-c", &line, "/dev/null"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (mut output, written) = (child.stdout.take().unwrap(), Arc::new(Mutex::new(String::new())));
        let to = Arc::clone(&written);
        std::thread::spawn(move || {
            let mut buffer = [0u8; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                to.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Self { child, written }
    }

    /// Waits for a text in what is written from now on.
    fn shows(&self, part: &str) {
        let from = self.written.lock().unwrap().len();
        eventually(&format!("the screen shows {part}"), || self.written.lock().unwrap()[from..].contains(part).then_some(()));
    }

    fn press(&mut self, key: &[u8]) {
        self.child.stdin.as_mut().unwrap().write_all(key).unwrap();
    }

    /// Waits for the end, and looks at what is left of the terminal.
    fn ends(mut self) -> String {
        eventually("the view ends", || self.written.lock().unwrap().contains("ended with ").then_some(()));
        eventually("the terminal ends", || self.child.try_wait().unwrap());
        let written = eventually("all is read", || {
            let written = self.written.lock().unwrap().clone();
            written.contains("icanon").then_some(written)
        });
        let (screen, after) = written.split_once("ended with ").unwrap();
        assert_eq!((screen.matches("\x1b[?1049h").count(), screen.matches("\x1b[?1049l").count()), (1, 1), "{after}");
        assert!(screen.trim_end().ends_with("\x1b[?25h\x1b[?1049l"), "nothing is written behind it: {screen:?}");
        for mode in ["icanon", "isig", "echo"] {
            assert!(after.split_whitespace().any(|word| word == mode), "{mode}: {after}");
        }
        after.split_whitespace().next().unwrap().to_owned()
    }
}

#[test]
fn the_live_view_follows_the_server_and_leaves_the_terminal_as_it_was() {
    let mut server = Server::start();
    let mut live = Live::start(&server);
    live.shows("mready\x1b[0m");
    let mut wallet = server.wallet();
    wallet.issue("a", 100);
    live.shows("sequence");
    server.kill();
    live.shows("no answer since ");
    server.launch();
    live.shows("mready\x1b[0m");
    live.press(b"x");
    live.shows("REQUESTS");
    live.press(b"q");
    assert_eq!(live.ends(), "0");
}

/// The process of this name that descends from another one.
fn below(ancestor: u32, name: &str) -> i32 {
    let processes =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok());
    // Number, name in brackets, state, number of the parent (proc(5)).
    let of = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (before, behind) = stat.rsplit_once(") ")?;
        Some((before.split_once('(')?.1.to_owned(), behind.split(' ').nth(1)?.parse::<u32>().ok()?))
    };
    let descends = |pid: u32| {
        let mut line = std::iter::successors(Some(pid), |pid| of(*pid).map(|(_, parent)| parent).filter(|parent| *parent > 1));
        line.any(|pid| pid == ancestor)
    };
    let mut found = processes.filter(|pid| of(*pid).is_some_and(|(known, _)| known == name) && descends(*pid));
    i32::try_from(found.next().expect("it runs")).unwrap()
}

#[test]
fn ctrl_c_and_a_signal_end_it_in_order() {
    let server = Server::start();
    let mut live = Live::start(&server);
    live.shows("REQUESTS");
    live.press(&[3]);
    assert_eq!(live.ends(), "0");
    let live = Live::start(&server);
    live.shows("REQUESTS");
    // As when the terminal hangs up, or the machine goes down.
    let pid = rustix::process::Pid::from_raw(below(live.child.id(), "ronctl")).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(live.ends(), "0");
}
