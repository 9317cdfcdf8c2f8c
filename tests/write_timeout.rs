//! A spend that the ledger does not confirm within `timeouts.write_ms`: the client is told 503 UPSTREAM_UNAVAILABLE, and the
//! same request again is answered with the one receipt.
//!
//! The whole process is stopped for longer than the limit while spends are in flight. When it goes on, a core looks at its
//! connections before or after the ledger's acknowledgement arrives; after some rounds the former has been seen.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use rustix::process::Signal;
use std::time::Duration;
use support::{Reply, Request, Server};

/// Rounds until the limit must have been overrun once.
const ROUNDS_MAX: u64 = 300;
/// Spends in flight.
const SPENDS: u64 = 32;
/// Longer than the limit and the time between two looks at the connections.
const PAUSE: Duration = Duration::from_millis(90);

#[test]
fn a_spend_that_is_not_confirmed_in_time_is_answered_so_and_happens_once() {
    let server = Server::with(&[("timeouts.write_ms", "10")]);
    let mut wallet = server.wallet();
    wallet.issue("alice", 1_000_000);
    let mut next = 1;
    for round in 0..ROUNDS_MAX {
        let requests: Vec<Request> =
            (next..next + SPENDS).map(|nonce| wallet.transfer("alice", "bob", 1, nonce, &format!("spend-{nonce}"))).collect();
        let bytes: Vec<u8> = requests.iter().flat_map(Request::bytes).collect();
        wallet.client.send(bytes);
        // A little later in each round, to meet the commit wherever it is.
        std::thread::sleep(Duration::from_micros(round % 30 * 50));
        server.signal(Signal::STOP);
        std::thread::sleep(PAUSE);
        server.signal(Signal::CONT);
        let first: Vec<Reply> = wallet.client.replies(requests.len());
        let late = first.iter().filter(|reply| reply.status != 200).inspect(|reply| {
            (*reply).clone().refused(503, "UPSTREAM_UNAVAILABLE");
            assert_eq!(reply.header("Retry-After"), Some("1"), "{reply}");
        });
        let late = late.count();
        for (request, first) in requests.iter().zip(&first) {
            // The repeat may be too late as well: the limit is a short one.
            let receipt = support::eventually("the repeat is answered", || {
                let reply = wallet.client.call(request);
                (reply.status != 503).then_some(reply)
            })
            .ok();
            assert!(first.status != 200 || first.body == receipt.body, "{first}\n{receipt}");
        }
        next += SPENDS;
        if late > 0 {
            let spent = u128::from(next - 1);
            assert_eq!((wallet.balance("alice"), wallet.balance("bob")), (1_000_000 - spent, spent));
            assert_eq!(wallet.seq("alice"), (next - 1, next));
            server.metric_reaches("rejected_total{reason=\"upstream\"}", 1.0);
            return;
        }
    }
    panic!("no spend was ever late in {ROUNDS_MAX} rounds");
}
