//! The shape of the service as it can be seen from the outside: a thread for each core on a CPU of its own, batches between cores, a start from
//! the environment alone, and a service that pays out as a client like any other.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use support::{eventually, free_port, request, Client, Process, Server};

/// The CPUs on which each thread of a process with this beginning of its name may run.
fn cpus_of(pid: i32, name: &str) -> Vec<String> {
    let mut cpus = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let Ok(status) = fs::read_to_string(task.unwrap().path().join("status")) else { continue };
        let field = |field: &str| status.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim().to_owned();
        if field("Name:").starts_with(name) {
            cpus.push(field("Cpus_allowed_list:"));
        }
    }
    cpus
}

#[test]
fn each_core_is_pinned_to_its_cpu_and_serves_its_own_accounts() {
    let server = Server::start();
    let cores = server.metric_reaches("wallet_cores", 1.0) as usize;
    let cpus = cpus_of(server.pid().as_raw_nonzero().get(), "core-");
    assert_eq!(cpus.len(), cores, "{cpus:?}");
    assert!(cpus.iter().all(|list| list.parse::<usize>().is_ok()), "each on one CPU: {cpus:?}");
    assert_eq!(cpus.iter().collect::<BTreeSet<_>>().len(), cores, "each on another one: {cpus:?}");
    let mut wallet = server.wallet();
    (0..40).for_each(|number| drop(wallet.issue(&format!("account-{number}"), 1)));
    let status = || {
        let mut ronctl = Command::new(env!("CARGO_BIN_EXE_ronctl"));
        ronctl.args(["--json", "--config", "svc-wallet.toml", "status"]).current_dir(server.directory());
        let told: Value = serde_json::from_slice(&ronctl.output().unwrap().stdout).unwrap();
        let cores = told["status"]["cores"].as_array().unwrap_or_else(|| panic!("{told}")).clone();
        cores.iter().map(|core| core["accounts"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let accounts =
        eventually("every account has its core", || Some(status()).filter(|accounts| accounts.iter().sum::<u64>() == 40));
    assert!(accounts.len() == cores && accounts.iter().all(|own| *own > 0), "all of them have some: {accounts:?}");
}

#[test]
fn what_belongs_to_another_core_goes_there_in_batches() {
    let server = Server::with(&[("runtime.cores", "2")]);
    let wallet = server.wallet();
    let questions: Vec<u8> =
        (0..64).flat_map(|number| wallet.read(&format!("/v1/balance?account=account-{number}&asset=roc")).bytes()).collect();
    let mut client = server.connect();
    eventually("more messages than batches", || {
        client.send(&questions);
        (0..64).for_each(|_| drop(client.reply().ok()));
        let batches = server.metric("wallet_forward_batches_total");
        (batches > 0.0 && server.metric("wallet_forwards_total") > batches).then_some(())
    });
    assert_eq!(server.metric("wallet_inbox_stalls_total"), 0.0);
}

#[test]
fn a_server_is_started_by_the_variables_of_its_environment() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let [http, control] = [free_port(), free_port()];
    fs::write(
        at("mine.toml"),
        format!(
            "[bind]\nhttp = \"127.0.0.1:{http}\"\nmetrics = \"127.0.0.1:{control}\"\n[ledger]\nsegment_bytes = \"8MiB\"\n\
             [deps]\nledger_sock = \"embedded:./none\"\naccounting_sock = \"embedded:./none\"\nregistry_url = \"file:./none\"\n\
             [security]\namnesia = \"on\"\npolicy_file = \"./none\"\nkeyring = \"./keyring\"\nrevocations = \"./revocations\"\n"
        ),
    )
    .unwrap();
    fs::write(at("policy.json"), r#"{"version": 7, "operations": ["issue"], "assets": {"roc": {}}}"#).unwrap();
    let topology =
        r#"{"version": 9, "cells": [{"name": "cell-1", "slots": [0, 16383], "addresses": ["http://127.0.0.1:8080"]}]}"#;
    fs::write(at("topology.json"), topology).unwrap();
    let variables = [
        ("RON_CONFIG", "./mine.toml"),
        ("AMNESIA", "off"),
        ("POLICY_FILE", "./policy.json"),
        ("REGISTRY_URL", "file:./topology.json"),
        ("LEDGER_SOCK", "embedded:./books"),
        ("ACCOUNTING_SOCK", "embedded:./counted"),
    ];
    let program = || {
        let mut program = Command::new(env!("CARGO_BIN_EXE_svc-wallet"));
        program.current_dir(place.path()).envs(variables);
        program
    };
    let checked = program().arg("--check-config").output().unwrap();
    let checked = String::from_utf8(checked.stdout).unwrap();
    for (name, value) in &variables[1..] {
        let said = checked.lines().any(|line| line.contains(name) && line.contains(value));
        assert!(said, "{name} is not said to be where {value} comes from:\n{checked}");
    }
    let mut server = Process::new("svc-wallet", at("server.log"));
    let ask = |page: &str| {
        Client::try_connect(([127, 0, 0, 1], control).into()).ok().map(|mut client| client.call(&request("GET", page)))
    };
    server.launch(program(), || ask("/readyz").is_some_and(|reply| reply.status == 200));
    let version = ask("/version").unwrap().json();
    assert_eq!((&version["policy_version"], &version["registry_version"]), (&7.into(), &9.into()), "{version}");
    assert_eq!(version["features"], Value::Array(Vec::new()), "without amnesia");
    server.stop();
    assert!(at("books").is_dir() && at("counted").is_dir() && !at("none").exists());
}

#[test]
fn who_pays_out_does_so_once_as_far_as_it_may_and_does_nothing_else() {
    let server = Server::start();
    let payout = r#"{"to":"winner-1","asset":"roc","amount_minor":"50"}"#;
    let maker = server.mint(|wanted| {
        wanted.scopes = vec!["wallet:issue".to_owned()];
        wanted.to = vec!["winner-*".to_owned()];
        wanted.max_amount = Some(50);
    });
    let mut maker = support::Wallet::new(server.connect(), maker);
    let first = maker.post("/v1/issue", "payout-1", payout).ok();
    let again = maker.post("/v1/issue", "payout-1", payout).ok();
    assert!(again.replayed() && again.body == first.body);
    maker.post("/v1/issue", "payout-2", &payout.replace("50", "51")).refused(403, "LIMITS_EXCEEDED");
    maker.post("/v1/issue", "payout-3", &payout.replace("winner-1", "maker")).refused(403, "FORBIDDEN");
    maker.spend("winner-1", "maker", 1, 1, "payout-4").refused(403, "FORBIDDEN");
    maker.get("/v1/balance?account=winner-1&asset=roc").refused(403, "FORBIDDEN");

    let mut treasury = server.wallet();
    treasury.issue("fund", 1_000);
    let payer = server.mint(|wanted| {
        wanted.scopes = vec!["wallet:spend".to_owned()];
        wanted.accounts = vec!["fund".to_owned()];
        wanted.budget = Some(60);
    });
    let mut payer = support::Wallet::new(server.connect(), payer);
    payer.spend("fund", "winner-1", 40, 1, "payout-5").ok();
    assert!(payer.spend("fund", "winner-1", 40, 1, "payout-5").ok().replayed());
    payer.spend("fund", "winner-1", 40, 2, "payout-6").refused(403, "LIMITS_EXCEEDED");
    payer.spend("winner-1", "payer", 1, 1, "payout-7").refused(403, "FORBIDDEN");
    assert_eq!((treasury.balance("winner-1"), treasury.balance("fund")), (90, 960));
}
