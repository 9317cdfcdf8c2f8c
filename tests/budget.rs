//! A capability with a budget on a running server of two cores: whatever many connections spend at once over many accounts, they are
//! let through to the last unit of the budget and not beyond; also over a SIGKILL in between and over an orderly end with a snapshot.
//! Repeats get their receipts when nothing is left, and no narrower token has more.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use support::{body, eventually, request, Client, Reply, Request, Server};
use svc_wallet::access::{attenuate, MintRequest};
use svc_wallet::domain::UnixMs;

const SPENDERS: usize = 6;
const BUDGET: u128 = 2_000;
/// No divisor of the budget: the last debits are smaller.
const AMOUNT: u128 = 7;

/// Somebody who spends from an account of their own until nothing is left of the budget.
struct Spender {
    account: String,
    /// The debit that comes next, or is under way.
    nonce: u64,
    amount: u128,
    accepted: Vec<(Request, Reply, u128)>,
}

impl Spender {
    fn new(number: usize) -> Self {
        Self { account: format!("payer:{number}"), nonce: 1, amount: AMOUNT, accepted: Vec::new() }
    }

    fn request(&self, token: &str) -> Request {
        // Every operation that debits counts, in every asset.
        let Self { account, nonce, amount, .. } = self;
        let (path, body) = match nonce % 3 {
            0 => ("/v1/burn", format!(r#"{{"from":"{account}","asset":"ron","amount_minor":"{amount}","nonce":{nonce}}}"#)),
            1 => ("/wallet/spend", body(account, "shop", *amount, *nonce)),
            _ => ("/v1/hold", body(account, &format!("escrow:{account}"), *amount, *nonce)),
        };
        request("POST", path).token(token).key(&format!("k-{account}-{nonce}-{amount}")).json(body)
    }

    /// Spends until nothing is left, or the server is ending: then the same request is the first one the next time.
    fn spend(&mut self, mut client: Client, token: &str, done: &AtomicU64) {
        while self.amount > 0 {
            let request = self.request(token);
            client.send(request.bytes());
            let Ok(reply) = client.try_reply(false) else { return };
            if reply.status == 200 {
                self.accepted.push((request, reply, self.amount));
                self.nonce += 1;
                done.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            if reply.status == 503 {
                // It is just ending.
                return;
            }
            let reply = reply.refused(403, "LIMITS_EXCEEDED");
            assert!(reply.json()["message"].as_str().unwrap().contains("budget"), "{reply}");
            // One unit may be left; without even that it is over.
            self.amount = if self.amount == AMOUNT { 1 } else { 0 };
        }
    }
}

/// Lets all of them spend at once, beside `meanwhile`.
fn spend(server: &Server, token: &str, spenders: &mut [Spender], meanwhile: impl FnOnce(&AtomicU64)) {
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for spender in spenders {
            let (client, done) = (server.connect(), &done);
            scope.spawn(move || spender.spend(client, token, done));
        }
        meanwhile(&done);
    });
}

fn funded(server: &Server) -> Vec<Spender> {
    let mut admin = server.wallet();
    let spenders: Vec<Spender> = (0..SPENDERS).map(Spender::new).collect();
    for Spender { account, .. } in &spenders {
        admin.issue(account, BUDGET);
        let body = format!(r#"{{"to":"{account}","asset":"ron","amount_minor":"{BUDGET}"}}"#);
        admin.post("/v1/issue", &format!("ron-{account}"), &body).ok();
    }
    spenders
}

/// What was accepted is the budget, and nothing more is, under any token of the id; everything that was accepted is answered again.
fn assert_used_up(server: &Server, token: &str, spenders: &[Spender]) {
    let accepted = || spenders.iter().flat_map(|spender| &spender.accepted);
    assert_eq!(accepted().map(|(.., amount)| amount).sum::<u128>(), BUDGET);
    let cores: BTreeSet<_> = accepted().map(|(_, reply, _)| reply.header("X-Wallet-Core").unwrap().to_owned()).collect();
    assert_eq!(cores.len(), 2, "the accounts are on both cores");
    assert_eq!(server.metric_reaches("wallet_budgets", 1.0), 1.0);
    let narrower = |caveat: &str| attenuate(token, &MintRequest::default(), &[caveat.to_owned()], UnixMs(0)).unwrap();
    let tokens = [token.to_owned(), narrower("budget = 340282366920938463463374607431768211455"), narrower("scope = wallet:*")];
    for token in &tokens {
        let mut client = server.connect();
        for spender in spenders {
            let asked = Spender { account: spender.account.clone(), nonce: spender.nonce, amount: 1, accepted: Vec::new() };
            client.call(&asked.request(token)).refused(403, "LIMITS_EXCEEDED");
        }
        for (request, reply, _) in accepted().step_by(11) {
            let again = client.call(request).ok();
            assert!(again.replayed() && again.body == reply.body, "{again}");
        }
        let issue = r#"{"to":"shop","asset":"roc","amount_minor":"1"}"#;
        client.call(&request("POST", "/v1/issue").token(token).key("more").json(issue)).ok();
    }
    let mut other = server.wallet();
    let Spender { account, nonce, .. } = &spenders[0];
    other.spend(account, "shop", 1, *nonce, &format!("other-{nonce}")).ok();
}

/// The auditor's verdict, snapshots included; no server runs.
fn assert_verifies(server: &Server) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ronctl"));
    let verified = command.args(["ledger", "verify", "--dir"]).arg(server.path("ledger")).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}

#[test]
fn many_connections_spend_a_budget_over_many_accounts_to_its_last_unit() {
    let mut server = Server::with(&[("runtime.cores", "2")]);
    let token = server.mint(|wanted| wanted.budget = Some(BUDGET));
    let mut spenders = funded(&server);
    spend(&server, &token, &mut spenders, |_| ());
    assert_used_up(&server, &token, &spenders);
    // Once from a snapshot, once from entries alone.
    server.stop();
    let snapshots = std::fs::read_dir(server.path("ledger")).unwrap();
    assert!(snapshots.into_iter().any(|file| file.unwrap().path().extension().is_some_and(|extension| extension == "snap")));
    server.launch();
    spenders[0].nonce += 1;
    assert_used_up(&server, &token, &spenders);
    server.kill();
    assert_verifies(&server);
}

#[test]
fn a_budget_holds_over_a_kill_while_it_is_spent_and_over_an_orderly_end() {
    let mut server = Server::with(&[("runtime.cores", "2")]);
    let token = server.mint(|wanted| wanted.budget = Some(BUDGET));
    let mut spenders = funded(&server);
    let mut done = 0;
    for orderly in [false, true, false] {
        done += 40;
        let (pid, signal) = (server.pid(), if orderly { rustix::process::Signal::TERM } else { rustix::process::Signal::KILL });
        let before: usize = spenders.iter().map(|spender| spender.accepted.len()).sum();
        spend(&server, &token, &mut spenders, |accepted| {
            eventually("some spends", || (before as u64 + accepted.load(Ordering::Relaxed) >= done).then_some(()));
            rustix::process::kill_process(pid, signal).unwrap();
        });
        let exit = server.wait_exit();
        assert_eq!(exit.status.success(), orderly, "{}", exit.log);
        server.launch();
    }
    spend(&server, &token, &mut spenders, |_| ());
    assert_used_up(&server, &token, &spenders);
    server.stop();
    assert_verifies(&server);
}
