//! A ledger without room for its next segment: readiness goes when the present one is half full, writes are refused with
//! UPSTREAM_UNAVAILABLE before anything is written, reads are served, readiness says what is missing, and all of it ends by itself once
//! there is room.
//!
//! The lack of room is a limit on the size of files that the process may write: the segment in use is below it, the next one,
//! which is to be larger, is above. It is lifted while the process runs.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use rustix::process::{prlimit, Resource, Rlimit};
use support::{eventually, Reply, Request, Server, Wallet};

/// Spends with everything as long as it may be, 64 at a time, until one is refused; returns the first refusal and its request, and what
/// readiness was before.
fn spend_until_refused(server: &Server, wallet: &mut Wallet, from: &str, to: &str) -> (Reply, Request, Vec<Reply>) {
    let memo = "m".repeat(256);
    let (mut nonce, mut ready) = (0, Vec::new());
    for round in 0..200 {
        if round > 40 {
            // Readiness follows within a look.
            std::thread::sleep(std::time::Duration::from_millis(50));
            ready.push(server.page("/readyz"));
        }
        let requests: Vec<_> = (0..64)
            .map(|_| {
                nonce += 1;
                let body = support::body(from, to, 1, nonce).replace('}', &format!(r#","memo":"{memo}"}}"#));
                wallet.write("/v1/transfer", &format!("{nonce:0>64}"), &body)
            })
            .collect();
        wallet.client.send(requests.iter().flat_map(|request| request.bytes()).collect::<Vec<u8>>());
        let replies = wallet.client.replies(requests.len());
        if let Some(index) = replies.iter().position(|reply| reply.status != 200) {
            return (replies[index].clone(), requests[index].clone(), ready);
        }
    }
    panic!("12,800 long entries fit into a segment");
}

#[test]
fn writes_are_refused_while_there_is_no_room_and_served_again_afterwards() {
    let mut server = Server::start();
    let (from, to) = ("f".repeat(256), "t".repeat(256));
    server.wallet().issue(&from, 1_000_000_000);
    server.stop();
    // 10 MiB, or 20 where the shell counts in other blocks: between the first segment's size and the second's.
    server.set("ledger.segment_bytes", "32MiB");
    // A commit that takes long is no pressure here.
    server.set("ledger.commit_max", "60s");
    server.shell_first("trap '' XFSZ; ulimit -S -f 20480");
    server.launch();
    let mut wallet = server.wallet();

    let (reply, request, ready) = spend_until_refused(&server, &mut wallet, &from, &to);
    let pressed: Vec<_> = ready.iter().filter(|ready| ready.json()["pressure"] == true).collect();
    assert!(ready[0].status == 200 && !pressed.is_empty(), "ready while there is much room, and pressed before there is none");
    assert!(pressed[0].status == 503 && pressed[0].json()["writes"] == true, "{}", pressed[0]);
    assert!(pressed[0].json()["reasons"]["pressure"].to_string().contains("no room for the next segment"), "{}", pressed[0]);
    reply.clone().refused(503, "UPSTREAM_UNAVAILABLE");
    assert_eq!((reply.header("Retry-After"), reply.json()["retryable"].as_bool()), (Some("1"), Some(true)), "{reply}");

    for ready in [server.page("/readyz"), wallet.get("/readyz")] {
        let json = ready.json();
        assert_eq!((ready.status, json["degraded"].as_bool()), (503, Some(true)), "{ready}");
        assert_eq!(json["missing"], serde_json::json!(["ledger"]), "{ready}");
        assert_eq!((json["writes"].as_bool(), json["reads"].as_bool()), (Some(false), Some(true)), "{ready}");
        assert!(ready.header("Retry-After").is_some() && json["retry_after"].is_u64(), "{ready}");
    }
    let (confirmed, next) = wallet.seq(&from);
    assert_eq!(next, confirmed + 1, "the refused request reserved nothing");
    assert_eq!(wallet.balance(&to), u128::from(confirmed), "reads are served");
    server.metric_reaches("rejected_total{reason=\"upstream\"}", 1.0);
    server.metric_reaches("ledger_connect_errors_total", 1.0);
    wallet.client.call(&request).refused(503, "UPSTREAM_UNAVAILABLE");

    prlimit(Some(server.ledger_pid()), Resource::Fsize, Rlimit { current: None, maximum: None }).unwrap();
    eventually("there is room again", || (server.page("/readyz").status == 200).then_some(()));
    let again = wallet.client.call(&request).ok();
    assert_eq!((again.json()["nonce"].as_u64(), again.replayed()), (Some(confirmed + 1), false), "{again}");
    // The next start has the room as well.
    server.shell_first("true");
    server.crash_and_restart();
    let mut wallet = server.wallet();
    assert_eq!((wallet.balance(&to), wallet.seq(&from).0), (u128::from(confirmed) + 1, confirmed + 1));
    assert_eq!(wallet.tx(&again.txid()).ok().body, again.body);
}
