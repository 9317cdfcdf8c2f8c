//! A ledger without room for its next segment: writes are refused with UPSTREAM_UNAVAILABLE before anything is written, reads
//! are served, readiness says what is missing, and all of it ends by itself once there is room.
//!
//! The lack of room is a limit on the size of files that the process may write, set and lifted while it runs.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use rustix::process::{prlimit, Resource, Rlimit};
use support::{eventually, Server, Wallet};

const SEGMENT_BYTES: u64 = 8 << 20;

/// Spends with everything as long as it may be, 64 at a time, until one is refused; returns the first refusal and its request.
fn spend_until_refused(wallet: &mut Wallet, from: &str) -> (support::Reply, support::Request) {
    let (to, memo) = ("t".repeat(256), "m".repeat(256));
    let mut nonce = 0;
    for _ in 0..1000 {
        let requests: Vec<_> = (0..64)
            .map(|_| {
                nonce += 1;
                let body = support::body(from, &to, 1, nonce).replace('}', &format!(r#","memo":"{memo}"}}"#));
                wallet.write("/v1/transfer", &format!("{nonce:0>64}"), &body)
            })
            .collect();
        wallet.client.send(requests.iter().flat_map(|request| request.bytes()).collect::<Vec<u8>>());
        let replies = wallet.client.replies(requests.len());
        if let Some(index) = replies.iter().position(|reply| reply.status != 200) {
            return (replies[index].clone(), requests[index].clone());
        }
    }
    panic!("64,000 long entries fit into two segments");
}

#[test]
fn writes_are_refused_while_there_is_no_room_and_served_again_afterwards() {
    let mut server = Server::prepared(&[("runtime.cores", "1"), ("timeouts.write_ms", "1000")]);
    server.ignore("XFSZ");
    server.launch();
    let mut wallet = server.wallet();
    let from = "f".repeat(256);
    wallet.issue(&from, 1_000_000_000);
    let spare = server.path("ledger/spare.tmp");
    eventually("the spare segment is allocated", || {
        std::fs::metadata(&spare).ok().filter(|spare| spare.len() == SEGMENT_BYTES)
    });
    // The last block of a segment can no longer be written, so no further spare can be made. Two segments exist by now.
    let limit = Rlimit { current: Some(SEGMENT_BYTES - 4096), maximum: None };
    let before = prlimit(Some(server.pid()), Resource::Fsize, limit).unwrap();

    let (reply, request) = spend_until_refused(&mut wallet, &from);
    reply.clone().refused(503, "UPSTREAM_UNAVAILABLE");
    assert_eq!((reply.header("Retry-After"), reply.json()["retryable"].as_bool()), (Some("1"), Some(true)), "{reply}");

    let ready = server.page("/readyz");
    assert_eq!(ready.status, 503, "{ready}");
    let json = ready.json();
    assert_eq!(json["missing"], serde_json::json!(["ledger"]), "{ready}");
    assert_eq!((json["writes"].as_bool(), json["reads"].as_bool()), (Some(false), Some(true)), "{ready}");
    assert!(wallet.balance(&from) > 0, "reads are served");
    server.metric_reaches("rejected_total{reason=\"upstream\"}", 1.0);

    prlimit(Some(server.pid()), Resource::Fsize, before).unwrap();
    eventually("there is room again", || (server.page("/readyz").status == 200).then_some(()));
    let (confirmed, _) = wallet.seq(&from);
    let again = eventually("the refused request is served", || {
        let reply = wallet.client.call(&request);
        (reply.status == 200).then_some(reply)
    });
    // It was refused before anything was reserved, so the nonce it carries was the next one, and this is no replay.
    assert_eq!(again.json()["nonce"].as_u64(), Some(confirmed + 1), "{again}");
    assert!(!again.replayed(), "{again}");
    let sent = u128::from(confirmed + 1);
    assert_eq!((wallet.balance(&from), wallet.balance(&"t".repeat(256))), (1_000_000_000 - sent, sent));
    server.crash_and_restart();
    let mut wallet = server.wallet();
    assert_eq!(wallet.balance(&"t".repeat(256)), sent);
}
