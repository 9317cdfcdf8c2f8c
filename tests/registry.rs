//! The topology from a registry behind HTTP, with real processes: changes arrive, a registry that dies or lies costs nothing but
//! readiness, and what `svc-registry` answers.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use rustix::process::Signal;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::{eventually, request, topology, Client, Registry, Reply, Server};

/// A server that is to ask at this URL, often and with little patience.
fn prepared(url: &str) -> Server {
    Server::prepared(&[
        ("deps.registry_url", url),
        ("registry.poll_every", "1s"),
        ("registry.timeout", "1s"),
        ("registry.max_age", "2s"),
    ])
}

fn started(url: &str) -> Server {
    let mut server = prepared(url);
    server.launch();
    server
}

/// Waits until the topology, and nothing else, is what the server lacks for a reason with these words.
fn lacks_topology(server: &Server, words: &str) {
    eventually(words, || {
        let ready = server.page("/readyz").json();
        let missing = ready["missing"].as_array()?;
        let reason = ready["reasons"]["registry"].as_str()?;
        (missing.len() == 1 && missing[0] == "registry" && reason.contains(words)).then_some(())
    });
}

fn is_ready_again(server: &Server) {
    eventually("the server is ready", || (server.page("/readyz").status == 200).then_some(()));
}

fn version(server: &Server) -> Option<u64> {
    server.page("/version").json()["registry_version"].as_u64()
}

fn ronctl(server: &Server, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ronctl"));
    command.args(arguments).current_dir(server.directory()).env_clear().stdin(Stdio::null());
    command.env("RON_CONFIG", server.path("svc-wallet.toml")).output().unwrap()
}

#[test]
fn a_change_arrives_by_the_long_poll_and_not_by_the_clock() {
    let registry = Registry::start(&topology(7, "one"));
    let mut server = Server::prepared(&[("deps.registry_url", &registry.url()), ("registry.poll_every", "60s")]);
    server.launch();
    assert_eq!((version(&server), server.metric("registry_version")), (Some(7), 7.0));
    for next in [8, 9] {
        registry.set(&topology(next, "one"));
        let changed = Instant::now();
        eventually("the change arrives", || (version(&server) == Some(next)).then_some(()));
        // A second on an idle machine. Without the long poll it would be a minute.
        assert!(changed.elapsed() < Duration::from_secs(20), "{:?}", changed.elapsed());
    }
    server.metric_reaches("registry_version", 9.0);
    server.metric_reaches("wallet_registry_questions_total{outcome=\"changed\"}", 3.0);
    server.metric_reaches("wallet_reloads_total{what=\"registry\",outcome=\"ok\"}", 3.0);
    // Longer than a question may take that does not wait.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(server.metric("wallet_registry_questions_total{outcome=\"unreachable\"}"), 0.0, "{}", server.log());
    // A question that waits does not hold the end up.
    let stopped = Instant::now();
    server.stop();
    assert!(stopped.elapsed() < Duration::from_secs(20), "{:?}", stopped.elapsed());
}

#[test]
fn a_registry_that_dies_costs_readiness_alone_and_only_until_it_is_back() {
    let mut registry = Registry::start(&topology(7, "one"));
    let server = started(&registry.url());
    registry.kill();
    lacks_topology(&server, &format!("no good answer from {} for more than 2s: ", registry.url()));
    let ready = server.page("/readyz").json();
    assert_eq!((ready["writes"].as_bool(), ready["reads"].as_bool()), (Some(true), Some(true)), "{ready}");
    let mut wallet = server.wallet();
    wallet.issue("a", 100);
    wallet.spend("a", "b", 40, 1, "one").ok();
    assert_eq!((wallet.balance("b"), version(&server)), (40, Some(7)), "served by the topology before");
    assert!(server.metric_reaches("wallet_registry_age_seconds", 2.0) < 60.0);
    server.metric_reaches("wallet_registry_questions_total{outcome=\"unreachable\"}", 2.0);
    assert!(server.log().contains("\"event\":\"registry_reload_failed\""), "{}", server.log());
    registry.launch();
    is_ready_again(&server);
    eventually("the recovery is told", || server.log().contains("\"event\":\"registry_goes_on\"").then_some(()));
}

#[test]
fn a_server_that_comes_before_its_registry_waits_for_it() {
    let mut registry = Registry::prepared(&topology(7, "one"));
    let mut server = prepared(&registry.url());
    server.launch_unready();
    lacks_topology(&server, &format!("there is no topology yet from {}: Connection refused", registry.url()));
    assert_eq!((version(&server), server.metric("registry_version")), (None, 0.0));
    server.wallet().issue("a", 1);
    registry.launch();
    is_ready_again(&server);
    assert_eq!(version(&server), Some(7));
}

/// A registry that answers each question with what a test has put here.
fn liar() -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::<Mutex<String>>::default();
    let now = answer.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.unwrap(), now.lock().unwrap().clone());
            std::thread::spawn(move || {
                let (mut head, mut reader) = (String::new(), BufReader::new(stream.try_clone().unwrap()));
                while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|read| read > 0) {}
                // Whatever the wallet makes of it: it may have gone.
                let _ = stream.write_all(answer.as_bytes());
                if answer.ends_with('{') {
                    std::thread::sleep(support::PATIENCE);
                }
            });
        }
    });
    (url, answer)
}

fn answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn a_registry_that_lies_changes_nothing_and_is_told() {
    let (url, said) = liar();
    *said.lock().unwrap() = answer(&topology(7, "one"));
    let server = started(&url);
    let huge = " ".repeat((1 << 20) + 1);
    let lies = [
        (answer("garbage"), "the registry is not of the form"),
        (answer(&topology(6, "one")), "the registry has version 6, but 7 is in force"),
        (answer(&topology(7, "other")), "the registry changed but still has version 7"),
        (answer(&topology(8, "one").replace("16383", "99")), "slot 100 of the registry belongs to no cell"),
        (answer(&huge), "its answer is too large"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{".to_owned(), "it does not answer within 1s"),
        ("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n".to_owned(), "it answers 302"),
    ];
    for (lie, told) in lies {
        *said.lock().unwrap() = lie;
        lacks_topology(&server, told);
        // Readiness looks at the registry by itself; the log is written with the next turn of the control thread.
        eventually("the lie in the log", || server.log().contains(told).then_some(()));
        assert_eq!(version(&server), Some(7), "{told}");
        server.wallet().get("/v1/balance?account=a&asset=roc").ok();
    }
    *said.lock().unwrap() = answer(&topology(8, "one"));
    is_ready_again(&server);
    eventually("the truth is taken", || (version(&server) == Some(8)).then_some(()));
}

#[test]
fn the_topology_is_shown_to_the_operator() {
    let mut registry = Registry::start(&topology(7, "one"));
    let mut server = started(&registry.url());
    let shown = ronctl(&server, &["registry", "show"]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert_eq!(shown.status.code(), Some(0), "{text}");
    for part in [&registry.url(), "version           7", "slots 0-16383", "http://127.0.0.1:8080"] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    let json = |arguments: &[&str], code: i32| {
        let output = ronctl(&server, arguments);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let told = json(&["--json", "registry", "show"], 0);
    assert_eq!((told["version"].as_u64(), told["cells"][0]["name"].as_str()), (Some(7), Some("one")), "{told}");
    // The server was given another place than its file names, which has another version.
    let told = json(&["--json", "registry", "show", "--source"], 0);
    assert_eq!((told["version"].as_u64(), told["source"].as_str()), (Some(5), Some("file:./registry.json")), "{told}");
    registry.kill();
    let trouble = eventually("the trouble is shown", || {
        let told: serde_json::Value = serde_json::from_slice(&ronctl(&server, &["--json", "registry", "show"]).stdout).unwrap();
        Some(told).filter(|told| told["trouble"].is_string())
    });
    assert_eq!(trouble["version"].as_u64(), Some(7), "{trouble}");
    assert_eq!(ronctl(&server, &["registry", "show"]).status.code(), Some(1));
    server.stop();
    let refused = ronctl(&server, &["registry", "show"]);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    std::fs::write(server.path("registry.json"), "{").unwrap();
    let refused = ronctl(&server, &["registry", "show", "--source"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8(refused.stderr).unwrap().contains("file:./registry.json: the registry is not of the form"));
}

#[test]
fn a_changed_file_is_noticed_without_a_signal() {
    let server = Server::start();
    std::fs::write(server.path("new"), topology(6, "one")).unwrap();
    std::fs::rename(server.path("new"), server.path("registry.json")).unwrap();
    eventually("the change arrives", || (version(&server) == Some(6)).then_some(()));
    server.metric_reaches("wallet_reloads_total{what=\"registry\",outcome=\"ok\"}", 1.0);
}

fn ask(registry: &Registry, line: &str, fields: &str) -> Reply {
    let mut client = Client::connect(registry.address);
    client.send(format!("{line} HTTP/1.1\r\nHost: r\r\n{fields}\r\n"));
    if line.starts_with("HEAD") {
        return client.reply_to_head();
    }
    client.reply()
}

#[test]
fn svc_registry_answers_by_its_protocol() {
    let registry = Registry::start(&topology(7, "one"));
    let first = ask(&registry, "GET /v1/topology", "").ok();
    let tag = first.header("ETag").unwrap().to_owned();
    assert_eq!(first.json(), serde_json::from_str::<serde_json::Value>(&topology(7, "one")).unwrap());
    let known = format!("If-None-Match: {tag}\r\n");
    for (line, fields) in
        [("GET /v1/topology", known.as_str()), ("GET /v1/topology?wait=1", &known), ("GET /v1/topology", "If-None-Match: *\r\n")]
    {
        let same = ask(&registry, line, fields);
        assert_eq!((same.status, same.header("ETag"), same.body.len()), (304, Some(tag.as_str()), 0), "{same}");
    }
    let at_once = ask(&registry, "GET /v1/topology?wait=60", "If-None-Match: \"other\"\r\n").ok();
    assert_eq!(at_once.body, first.body);
    let head = ask(&registry, "HEAD /v1/topology", "").ok();
    assert_eq!(head.header("Content-Length"), Some(first.body.len().to_string().as_str()));
    assert_eq!(ask(&registry, "GET /healthz", "").ok().json()["service"], "svc-registry");
    for (line, status, code) in [
        ("GET /", 404, "NOT_FOUND"),
        ("POST /v1/topology", 405, "METHOD_NOT_ALLOWED"),
        ("GET /v1/topology?wait=soon", 400, "BAD_REQUEST"),
        ("GET  nonsense", 400, "BAD_REQUEST"),
    ] {
        ask(&registry, line, "").refused(status, code);
    }
    let long = format!("X: {}\r\n", "x".repeat(9_000));
    ask(&registry, "GET /healthz", &long).refused(431, "BAD_REQUEST");
    // Who waits is answered by the change, and who is slow does not keep it from others.
    let mut slow = Client::connect(registry.address);
    slow.send("GET /v1");
    let mut waiting = Client::connect(registry.address);
    waiting.send(format!("GET /v1/topology?wait=60 HTTP/1.1\r\nHost: r\r\n{known}\r\n"));
    registry.set(&topology(8, "one"));
    let second = waiting.reply().ok();
    assert!(second.json()["version"] == 8 && second.header("ETag") != Some(&tag));
    slow.assert_closed("a head that does not end");
}

#[test]
fn svc_registry_serves_the_last_good_file_and_ends_in_order() {
    let mut registry = Registry::start(&topology(7, "one"));
    for (bad, told) in [
        ("{".to_owned(), "is not of the form"),
        (topology(6, "one"), "has version 6, but 7 is in force"),
        (topology(7, "other"), "still has version 7"),
    ] {
        registry.set(&bad);
        eventually(told, || registry.log().contains(told).then_some(()));
        assert_eq!(ask(&registry, "GET /v1/topology", "").ok().json()["cells"][0]["name"], "one");
    }
    registry.set(&topology(8, "two"));
    registry.signal(Signal::HUP);
    eventually("the mended file is served", || {
        (ask(&registry, "GET /v1/topology", "").ok().json()["version"] == 8).then_some(())
    });
    let tag = ask(&registry, "GET /v1/topology", "").header("ETag").unwrap().to_owned();
    let mut waiting = Client::connect(registry.address);
    waiting.send(request("GET", "/v1/topology?wait=60").header("If-None-Match", &tag).bytes());
    // It has been read once its reply to another one has come.
    ask(&registry, "GET /healthz", "").ok();
    registry.stop();
    assert!(waiting.try_reply(false).map_or(true, |reply| reply.status == 304));

    registry.set("{");
    let refused = registry.launch_refused();
    assert_eq!(refused.status.code(), Some(1), "{}", refused.log);
    assert!(refused.log.contains("registry.json: the registry is not of the form"), "{}", refused.log);
    registry.set(&topology(8, "two"));
    let taken = TcpListener::bind(registry.address).unwrap();
    let refused = registry.launch_refused();
    assert!(refused.status.code() == Some(1) && refused.log.contains("choose another address with --listen"), "{}", refused.log);
    drop(taken);
    let usage = Command::new(env!("CARGO_BIN_EXE_svc-registry")).arg("--help").output().unwrap();
    assert!(usage.status.success() && String::from_utf8(usage.stdout).unwrap().contains("Examples:\n  svc-registry --file"));
    assert_eq!(Command::new(env!("CARGO_BIN_EXE_svc-registry")).output().unwrap().status.code(), Some(2));
}

#[test]
fn more_connections_than_places_are_told_to_come_again() {
    let registry = Registry::start(&topology(7, "one"));
    let tag = ask(&registry, "GET /v1/topology", "").header("ETag").unwrap().to_owned();
    let wait = request("GET", "/v1/topology?wait=60").header("If-None-Match", &tag).bytes();
    let hold = || {
        let mut client = Client::connect(registry.address);
        client.send(&wait);
        client
    };
    let waiting: Vec<Client> = (0..512).map(|_| hold()).collect();
    eventually("a refusal", || {
        let mut client = Client::try_connect(registry.address).ok()?;
        client.try_send(&request("GET", "/healthz").bytes()).ok()?;
        client.try_reply(false).ok().filter(|reply| reply.status == 503)
    });
    // Who goes away while it waits gives its place back.
    drop(waiting);
    eventually("places are free again", || {
        let mut client = Client::try_connect(registry.address).ok()?;
        client.try_send(&request("GET", "/healthz").bytes()).ok()?;
        client.try_reply(false).ok().filter(|reply| reply.status == 200)
    });
}
