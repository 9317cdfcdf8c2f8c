//! The control plane from the outside: the four pages on their ports, metrics that exist from the start and count every
//! refusal and every commit (I-8), the reload, the drivers, `--check-config`, and logs that tell no secrets (I-10).
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use rustix::process::Signal;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Output};
use support::{body, eventually, request, Client, Server};

#[test]
fn the_pages_are_those_of_the_contract_on_both_ports() {
    let server = Server::start();
    let mut client = server.connect();
    let health = client.call(&request("GET", "/healthz")).ok();
    assert_eq!(String::from_utf8_lossy(&health.body), r#"{"ok":true,"service":"svc-wallet"}"#);
    let ready = client.call(&request("GET", "/readyz")).ok();
    let start = r#"{"ready":true,"deps":["ledger","accounting","policy","registry"]"#;
    assert!(String::from_utf8_lossy(&ready.body).starts_with(start), "{ready}");
    assert_eq!((ready.json()["writes"].as_bool(), ready.json()["reads"].as_bool()), (Some(true), Some(true)), "{ready}");
    let version = client.call(&request("GET", "/version")).ok();
    let json = version.json();
    for field in ["name", "version", "git_revision", "features", "pq", "policy_version", "registry_version", "driver"] {
        assert!(json.get(field).is_some_and(|value| !value.is_null()), "{field}: {version}");
    }
    assert_eq!((json["name"].as_str(), json["version"].as_str()), (Some("svc-wallet"), Some(env!("CARGO_PKG_VERSION"))));
    assert_eq!((json["policy_version"].as_u64(), json["registry_version"].as_u64()), (Some(3), Some(5)), "{version}");
    let built_in = [(cfg!(feature = "arti"), "arti"), (cfg!(feature = "legacy_pay"), "legacy_pay")];
    let built_in: Vec<&str> = built_in.into_iter().filter_map(|(has, name)| has.then_some(name)).collect();
    assert_eq!(json["features"], serde_json::json!(built_in), "{version}");
    for (path, reply) in [("/healthz", &health), ("/readyz", &ready), ("/version", &version)] {
        let page = server.page(path);
        assert_eq!((page.status, &page.body), (200, &reply.body), "{path}");
        assert_eq!(page.header("Content-Type"), Some("application/json"), "{path}");
    }
    let metrics = server.page("/metrics").ok();
    assert!(metrics.header("Content-Type").unwrap().starts_with("text/plain; version=0.0.4"), "{metrics}");
    client.call(&request("GET", "/metrics")).refused(404, "NOT_FOUND");
    server.page("/v1/balance?account=a&asset=roc").refused(404, "NOT_FOUND");
    server.page("/status").refused(404, "NOT_FOUND");
}

#[test]
fn the_console_is_one_page_that_asks_nobody_else_and_only_reads() {
    let server = Server::start();
    let page = server.page("/console").ok();
    assert_eq!(page.header("Content-Type"), Some("text/html; charset=utf-8"));
    for (name, value) in
        [("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"), ("Cache-Control", "no-store")]
    {
        assert_eq!(page.header(name), Some(value), "{page}");
    }
    let policy = page.header("Content-Security-Policy").unwrap();
    for part in
        ["default-src 'none'; ", "connect-src 'self'; ", "base-uri 'none'; ", "form-action 'none'; ", "frame-ancestors 'none'"]
    {
        assert!(policy.contains(part), "{policy}");
    }
    // A script and a style run by their hashes alone.
    assert_eq!((policy.matches("'sha256-").count(), policy.contains("unsafe")), (2, false), "{policy}");
    let text = String::from_utf8(page.body.clone()).unwrap();
    assert!(text.starts_with("<!doctype html>") && text.contains("<html lang=\"en\">"), "{text:.200}");
    // Other pages have no such header, and the API port has no such page.
    assert_eq!(server.page("/metrics").header("Content-Security-Policy"), None);
    server.connect().call(&request("GET", "/console")).refused(404, "NOT_FOUND");
    let control = server.control;
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let reply = Client::connect(control).call(&request(method, "/console")).refused(405, "METHOD_NOT_ALLOWED");
        assert_eq!(reply.header("Allow"), Some("GET, HEAD, OPTIONS"), "{method}: {reply}");
    }
    let mut client = Client::connect(control);
    client.send(request("HEAD", "/console").bytes());
    let head = client.reply_to_head();
    assert_eq!((head.status, head.header("Content-Security-Policy")), (200, Some(policy)), "{head}");
    // What the page asks for is counted for each core from the start.
    let metrics = String::from_utf8(server.page("/metrics").body).unwrap();
    assert!(metrics.contains("\nwallet_core_answered_total{core=\"0\"} "), "{metrics}");
}

#[test]
fn the_admin_socket_is_for_its_owner_and_shows_the_status() {
    let server = Server::start();
    server.wallet().issue("a", 5);
    let path = server.path("admin.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(server.path("wallet.keyring")).unwrap().permissions().mode() & 0o777, 0o600);
    let status = eventually("the status is collected", || {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(b"GET /status HTTP/1.1\r\nHost: admin\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let json: serde_json::Value = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
        (json["ledger"]["height"].as_u64() == Some(1) && !json["audit"].is_null()).then_some(json)
    });
    assert_eq!((status["ready"].as_bool(), status["service"].as_str()), (Some(true), Some("svc-wallet")), "{status}");
    assert_eq!((&status["audit"]["broken"], &status["audit"]["reads_failed"]), (&serde_json::Value::Null, &0.into()), "{status}");
    for kind in ["damaged_segments", "damaged_indexes", "damaged_snapshots"] {
        assert_eq!(status["scrub"][kind], 0, "{status}");
    }
}

#[test]
fn every_metric_of_the_contract_is_there_from_the_start() {
    let server = Server::start();
    let page = String::from_utf8(server.page("/metrics").ok().body).unwrap();
    for (name, kind) in [
        ("request_latency_seconds", "histogram"),
        ("http_requests_total", "counter"),
        ("inflight", "gauge"),
        ("rejected_total", "counter"),
        ("wallet_requests_total", "counter"),
        ("wallet_conflicts_total", "counter"),
        ("wallet_idem_replays_total", "counter"),
        ("quota_exhaustions_total", "counter"),
        ("ledger_connect_errors_total", "counter"),
        ("ledger_commit_seconds", "histogram"),
        ("ledger_batch_entries", "histogram"),
        ("accounting_flush_lag_seconds", "gauge"),
        ("wallet_conservation_checks_total", "counter"),
        ("policy_version", "gauge"),
        ("registry_version", "gauge"),
        ("wallet_ready", "gauge"),
    ] {
        assert!(page.contains(&format!("# TYPE {name} {kind}\n")), "{name} is not there as a {kind}");
        assert!(page.contains(&format!("# HELP {name} ")), "{name} does not say what it is");
        let has_series = page.lines().any(|line| !line.starts_with('#') && line.starts_with(name));
        assert!(has_series, "{name} has no series");
    }
    for reason in ["cap", "policy", "bad_request", "limits", "funds", "conflict", "busy", "not_ready", "upstream"] {
        assert!(page.contains(&format!("rejected_total{{reason=\"{reason}\"}} 0\n")), "{reason}");
    }
    for op in ["issue", "transfer", "burn", "hold", "capture", "release"] {
        assert!(page.contains(&format!("wallet_requests_total{{op=\"{op}\"}} 0\n")), "{op}");
    }
    let series = "http_requests_total{service=\"svc-wallet\",route=\"transfer\",method=\"POST\",status=\"200\"}";
    assert!(page.contains(&format!("{series} 0\n")), "{series}");
    assert!(
        page.contains("request_latency_seconds_bucket{service=\"svc-wallet\",route=\"transfer\",method=\"POST\",le=\"0.15\"}")
    );
    assert_eq!((server.metric("policy_version"), server.metric("registry_version")), (3.0, 5.0));
    server.metric_reaches("wallet_ready", 1.0);
}

#[test]
fn every_refusal_and_every_commit_is_counted_under_its_name() {
    let server = Server::start();
    let mut wallet = server.wallet();
    wallet.issue("a", 100);
    wallet.spend("a", "b", 10, 1, "one").ok();
    wallet.spend("a", "b", 10, 1, "one").ok();
    wallet.post("/v1/hold", "two", &body("a", "escrow", 10, 2)).ok();
    let reader = server.mint(|wanted| wanted.scopes = vec!["wallet:read".to_owned()]);
    let small = server.mint(|wanted| wanted.max_amount = Some(1));
    let spend = |token: &str, key: &str, text: String| request("POST", "/v1/transfer").token(token).key(key).json(text);
    let all = server.token();
    for (reason, request) in [
        ("cap", request("POST", "/v1/transfer")),
        ("cap", spend("nonsense", "k", body("a", "b", 1, 3))),
        ("cap", spend(&reader, "k", body("a", "b", 1, 3))),
        ("policy", spend(all, "k", body("a", "b", 1, 3).replace("roc", "usd"))),
        ("bad_request", spend(all, "k", "{".to_owned())),
        ("bad_request", spend(all, "a b", body("a", "b", 1, 3))),
        ("limits", spend(&small, "k", body("a", "b", 2, 3))),
        ("funds", spend(all, "k", body("a", "b", 1_000, 3))),
        ("conflict", spend(all, "k", body("a", "b", 1, 9))),
        ("conflict", spend(all, "one", body("a", "b", 1, 3))),
        ("none", request("GET", "/nowhere")),
        ("none", request("PUT", "/v1/transfer")),
    ] {
        let reply = wallet.client.call(&request);
        assert!(reply.status >= 400, "{reason}: {reply}");
    }
    for request in ["POST /v1/transfer HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"] {
        let mut client = server.connect();
        client.send(request);
        client.closed();
    }
    let transfer = |status: u16| {
        format!("http_requests_total{{service=\"svc-wallet\",route=\"transfer\",method=\"POST\",status=\"{status}\"}}")
    };
    let reason = |reason: &str| format!("rejected_total{{reason=\"{reason}\"}}");
    let op = |op: &str| format!("wallet_requests_total{{op=\"{op}\"}}");
    let expected = [
        (reason("cap"), 3.0),
        (reason("policy"), 1.0),
        (reason("bad_request"), 3.0),
        (reason("limits"), 2.0),
        (reason("funds"), 1.0),
        (reason("conflict"), 2.0),
        (reason("busy"), 0.0),
        (reason("not_ready"), 0.0),
        (reason("upstream"), 0.0),
        (transfer(200), 2.0),
        (transfer(400), 2.0),
        (transfer(401), 2.0),
        (transfer(403), 3.0),
        (transfer(409), 3.0),
        (op("issue"), 1.0),
        (op("transfer"), 5.0),
        (op("hold"), 1.0),
        ("wallet_conflicts_total".to_owned(), 2.0),
        ("wallet_idem_replays_total".to_owned(), 1.0),
        ("wallet_ledger_height".to_owned(), 3.0),
        ("ledger_batch_entries_sum".to_owned(), 3.0),
        ("ledger_batch_entries_count".to_owned(), 3.0),
        ("ledger_commit_seconds_count".to_owned(), 3.0),
        ("inflight".to_owned(), 0.0),
    ];
    for (series, value) in &expected {
        server.metric_reaches(series, *value);
    }
    for (series, value) in &expected {
        assert_eq!(server.metric(series), *value, "{series}");
    }
    // Whatever came in was counted once, and has one latency.
    let page = String::from_utf8(server.page("/metrics").ok().body).unwrap();
    let sum = |prefix: &str| -> f64 {
        let lines = page.lines().filter(|line| line.starts_with(prefix));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    assert_eq!(sum("http_requests_total{"), 18.0);
    assert_eq!(sum("request_latency_seconds_count{"), 18.0);
    for secret in ["one", "escrow", "tx_"] {
        assert!(!page.contains(&format!("\"{secret}")), "a label holds {secret}");
    }
}

#[test]
fn the_topology_is_read_again_on_sighup_and_a_bad_one_changes_nothing() {
    let server = Server::start();
    let registry = server.path("registry.json");
    let good = std::fs::read_to_string(&registry).unwrap();
    std::fs::write(&registry, "{").unwrap();
    server.signal(Signal::HUP);
    server.metric_reaches("wallet_reloads_total{what=\"registry\",outcome=\"failed\"}", 1.0);
    assert_eq!(server.metric("registry_version"), 5.0);
    std::fs::write(&registry, good.replace("\"version\": 5", "\"version\": 6")).unwrap();
    server.signal(Signal::HUP);
    server.metric_reaches("registry_version", 6.0);
    assert_eq!(server.page("/readyz").status, 200);
    for reply in [server.page("/version"), server.connect().call(&request("GET", "/version"))] {
        assert_eq!(reply.json()["registry_version"].as_u64(), Some(6), "{reply}");
    }
}

#[test]
fn figures_are_published_until_the_cores_have_ended() {
    let mut server = Server::with(&[("timeouts.read_ms", "20s")]);
    server.metric_reaches("wallet_ready", 1.0);
    // Two clients in the middle of a request keep the cores from ending.
    let (mut first, mut second) = (server.connect(), server.connect());
    for client in [&mut first, &mut second] {
        client.send("GET /healthz HTTP/1.1\r\nHost: a\r\n");
    }
    server.metric_reaches("wallet_connections", 2.0);
    server.signal(Signal::TERM);
    eventually("readiness drops", || (server.page("/readyz").status == 503).then_some(()));
    eventually("the gauge drops with it", || (server.metric("wallet_ready") == 0.0).then_some(()));
    eventually("the listeners close", || Client::try_connect(server.http).is_err().then_some(()));
    let ended = "wallet_connections_closed_total{cause=\"error\"}";
    assert_eq!(server.metric(ended), 0.0);
    drop(first);
    server.metric_reaches(ended, 1.0);
    eventually("the gauges follow", || (server.metric("wallet_connections") == 1.0).then_some(()));
    drop(second);
    let exit = server.wait_exit();
    assert_eq!(exit.status.code(), Some(0), "{}", exit.log);
    assert!(exit.log.contains("\"event\":\"stopped\"") && exit.log.contains("\"unanswered\":0"), "{}", exit.log);
}

#[test]
fn the_server_runs_on_epoll_if_it_is_told_to() {
    let mut server = Server::with(&[("runtime.driver", "epoll")]);
    let mut wallet = server.wallet();
    wallet.issue("a", 1_000);
    let spends: Vec<u8> =
        (1..=200).flat_map(|nonce| wallet.transfer("a", "b", 1, nonce, &format!("k-{nonce}")).bytes()).collect();
    wallet.client.send(spends);
    let receipts = wallet.client.replies(200);
    assert!(receipts.iter().all(|reply| reply.status == 200));
    assert_eq!((wallet.balance("a"), wallet.balance("b")), (800, 200));
    assert_eq!(server.page("/version").json()["driver"].as_str(), Some("epoll"));
    assert_eq!(server.metric("wallet_io_driver{driver=\"epoll\"}"), 1.0);
    let mut slow = server.connect();
    slow.send("GET");
    drop(slow);
    assert!(server.stop().log.contains("\"driver\":\"epoll\""));
    server.set("runtime.driver", "auto");
    server.launch();
    let version = server.page("/version").json();
    let driver = version["driver"].as_str().unwrap().to_owned();
    // Where io_uring is not to be had, the reason and the cure are told.
    assert!(driver == "io_uring" || (driver == "epoll" && version["driver_note"].is_string()), "{version}");
    assert_eq!(server.wallet().tx(&receipts[199].txid()).ok().body, receipts[199].body);
}

#[test]
fn logs_are_json_and_tell_no_secrets_at_any_level() {
    let mut server = Server::prepared(&[]);
    server.log_at("trace");
    server.launch();
    let mut wallet = server.wallet();
    wallet.issue("a", 5);
    wallet.spend("a", "b", 1, 1, "k").ok();
    let over = wallet.transfer("a", "b", 100, 2, "l").header("X-Corr-ID", "corr-of-the-refused");
    wallet.client.call(&over).refused(409, "INSUFFICIENT_FUNDS");
    wallet.client.call(&request("GET", "/v1/seq?account=a").token("wrong-token-with-some-length")).refused(401, "UNAUTHORIZED");
    let token = server.token().to_owned();
    let opening_key = std::fs::read_to_string(server.path("wallet.keyring.key")).unwrap();
    let secret = opening_key.trim().strip_prefix("key:").unwrap().to_owned();
    let log = server.stop().log;
    let mut lines = 0;
    for line in log.lines() {
        let json: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(json["service"].as_str(), Some("svc-wallet"), "{line}");
        assert!(json["ts"].is_string() && json["level"].is_string(), "{line}");
        lines += 1;
    }
    assert!(lines >= 4, "{log}");
    // Whoever looks for a correlation id finds what became of the request.
    let told = log.lines().find(|line| line.contains("corr-of-the-refused")).expect("a refusal is logged at debug");
    let told: serde_json::Value = serde_json::from_str(told).unwrap();
    assert_eq!((told["corr_id"].as_str(), told["reason"].as_str()), (Some("corr-of-the-refused"), Some("funds")), "{told}");
    // The end of a token is its signature.
    for secret in [token.as_str(), &token[token.len() - 30..], &secret, "wrong-token"] {
        assert!(!log.contains(secret), "a secret is in the log");
    }
}

/// Runs the binary to its end with the configuration of a prepared server.
fn run(server: &Server, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_svc-wallet"));
    command.current_dir(server.directory()).env_remove("RON_CONFIG").args(arguments);
    command.envs(environment.iter().copied());
    command.output().unwrap()
}

/// Who starts a server for the first time reads its log to learn whether all is well: nothing in it may sound like a fault.
#[test]
fn the_log_of_a_first_start_has_nothing_that_reads_like_a_fault() {
    let mut server = Server::start();
    // The history is looked for in an idle moment, or when a question comes; and at each further start once more. The first two rounds
    // begin with an empty ledger, of which nothing can be scrubbed; the second leaves a snapshot, which the third scrubs.
    for round in 0..3 {
        server.wallet().get("/v1/ledger/root");
        eventually("the history was looked for", || server.path("ledger/history.mmr").exists().then_some(()));
        if round == 1 {
            server.wallet().issue("a", 100);
            server.wallet().spend("a", "b", 1, 1, "k1").ok();
        }
        if round == 2 {
            eventually("the snapshot is scrubbed", || server.log().contains("\"scrub_ended\"").then_some(()));
        }
        assert_eq!(server.stop().status.code(), Some(0));
        assert!(server.path("ledger/scrub").exists(), "round {round}: the end writes down where scrubbing is");
        let log = server.log();
        let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.iter().any(|line| line["event"] == "started"), "{log}");
        // What the machine lacks is told wherever that is so.
        let of_the_machine = ["driver_fallback", "few_files", "pin_failed"];
        for line in lines.iter().filter(|line| !of_the_machine.iter().any(|event| line["event"] == **event)) {
            let text = line.to_string();
            assert_eq!(line["level"], "INFO", "round {round}: {text}");
            for word in ["cannot", "could not", "No such file", "os error", "fail", "missing", "covers nothing", "lost"] {
                assert!(!text.contains(word), "round {round}: {word:?} in {text}");
            }
        }
        if round < 2 {
            server.launch();
        }
    }
}

#[test]
fn check_config_shows_every_value_and_its_origin_and_starts_nothing() {
    let server = Server::prepared(&[]);
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/svc-wallet.toml");
    // The shipped configuration names its files from the directory of the sources.
    std::fs::create_dir(server.path("configs")).unwrap();
    for (file, place) in
        [("policy.json", "other.json"), ("policy.json", "configs/policy.json"), ("registry.json", "configs/registry.json")]
    {
        std::fs::copy(server.path(file), server.path(place)).unwrap();
    }
    let told = ["--config", shipped, "--check-config", "--set", "limits.inflight=77"];
    let output = run(&server, &told, &[("POLICY_FILE", "./other.json")]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    for (key, value, origin) in [
        ("limits.inflight", "77", "--set"),
        ("security.policy_file", "./other.json", "POLICY_FILE"),
        ("bind.http", "127.0.0.1:8080", "svc-wallet.toml"),
        ("timeouts.read_ms", "3", "svc-wallet.toml"),
    ] {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key} is missing:\n{text}"));
        assert!(line.contains(value) && line.contains(origin), "{line}");
    }
    let output = run(&server, &[&told[..], &["--json"]].concat(), &[]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let inflight = json["values"].as_array().unwrap().iter().find(|value| value["key"] == "limits.inflight").unwrap();
    assert_eq!((json["ok"].as_bool(), inflight["value"].as_u64()), (Some(true), Some(77)), "{json}");
    // A mistake is answered with its name, the nearest right one and an exit code of its own; and so is a start.
    for arguments in [&["--check-config"][..], &[]] {
        let output = run(&server, &[&["--config", shipped, "--set", "limits.inflihgt=1"], arguments].concat(), &[]);
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("limits.inflihgt") && text.contains("limits.inflight"), "{text}");
    }
    assert!(!server.path("ledger").exists() && !server.path("var").exists(), "nothing was started");
}

#[test]
fn check_config_tells_what_stands_in_the_way_around_the_configuration() {
    let mut server = Server::start();
    let check = |server: &Server, more: &[&str]| {
        let file = server.path("svc-wallet.toml");
        let output = run(server, &[&["--config", file.to_str().unwrap(), "--check-config", "--json"], more].concat(), &[]);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let problems: Vec<(String, String)> = json["problems"]
            .as_array()
            .unwrap()
            .iter()
            .map(|problem| (problem["subject"].as_str().unwrap().to_owned(), problem["message"].as_str().unwrap().to_owned()))
            .collect();
        assert_eq!(output.status.code(), Some(if problems.is_empty() { 0 } else { 2 }), "{json}");
        assert_eq!(json["ok"].as_bool(), Some(problems.is_empty()));
        problems
    };
    // A server that runs with this very configuration is not in the way, and serves on.
    assert_eq!(check(&server, &[]), []);
    server.wallet().issue("a", 1);
    for (setting, message) in [
        ("runtime.cores=1000-1000", "CPU 1000 is not among those that this process may use"),
        ("runtime.cores=256", "256 cores are asked for, but this process may use only"),
        ("security.policy_file=./nowhere.json", "policy ./nowhere.json: cannot be read: No such file"),
        ("security.keyring=./registry.json", "keyring ./registry.json: "),
        ("security.kms=file:./policy.json", "security.kms file:./policy.json: mode 0644"),
        ("security.kms=env:NOWHERE_SET", "security.kms env:NOWHERE_SET: there is no such variable"),
        ("security.kms=credential:none", "security.kms credential:none: CREDENTIALS_DIRECTORY is not set"),
        ("deps.registry_url=file:./policy.json", "registry ./policy.json: "),
        ("bind.http=192.0.2.1:8080", "cannot listen on 192.0.2.1:8080: Cannot assign requested address"),
        ("bind.metrics=192.0.2.1:9090", "cannot listen on 192.0.2.1:9090: Cannot assign requested address"),
        ("bind.admin=./policy.json", "./policy.json: this is no socket"),
    ] {
        let problems = check(&server, &["--set", setting]);
        assert_eq!(problems.len(), 1, "{setting}: {problems:?}");
        assert_eq!(problems[0].0, setting.split_once('=').unwrap().0, "{problems:?}");
        assert!(problems[0].1.starts_with(message), "{setting}: {problems:?}");
    }
    // A keyring that is not there is made at the first start, and not by a check.
    assert_eq!(check(&server, &["--set", "security.keyring=./new.keyring"]), []);
    assert!(!server.path("new.keyring").exists() && !server.path("new.keyring.key").exists());
    server.stop();
}

#[test]
fn a_server_that_cannot_start_says_which_file_is_to_blame() {
    for (file, content, parts) in [
        ("policy.json", "{", ["policy.json", "line 1"]),
        ("registry.json", "{", ["registry.json", "line 1"]),
        ("wallet.keyring", "{", ["wallet.keyring", "line 1"]),
    ] {
        let mut server = Server::prepared(&[]);
        std::fs::write(server.path(file), content).unwrap();
        let exit = server.launch_refused();
        assert_eq!(exit.status.code(), Some(1), "{file}: {}", exit.log);
        for part in parts {
            assert!(exit.log.contains(part), "{file}: {part:?} is missing: {}", exit.log);
        }
        assert!(!server.path("ledger").exists(), "{file}: the ledger was touched");
    }
    let mut server = Server::prepared(&[]);
    std::fs::set_permissions(server.path("wallet.keyring"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let exit = server.launch_refused();
    assert!(exit.status.code() == Some(1) && exit.log.contains("wallet.keyring") && exit.log.contains("644"), "{}", exit.log);
}
