//! The cap on connections: it counts those of all cores together, and who comes over it is told so in a whole reply that can be
//! found in the metrics.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use support::{eventually, request, Client, Server};

#[test]
fn the_cap_counts_all_cores_together_and_its_refusal_can_be_read() {
    let server = Server::with(&[("limits.connections", "3"), ("runtime.cores", "2")]);
    let mut open: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    for client in &mut open {
        client.call(&request("GET", "/healthz")).ok();
    }
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let mut late = server.connect();
        late.send(request("GET", "/v1/balance?account=a&asset=roc").token(server.token()).bytes());
        let reply = late.reply().refused(503, "RETRY_LATER");
        assert_eq!((reply.header("Connection"), reply.header("Retry-After")), (Some("close"), Some("1")), "{reply}");
        assert_eq!(reply.json()["corr_id"].as_str(), reply.header("X-Corr-ID"), "{reply}");
        assert!(reply.header("Date").is_some() && reply.json()["retryable"] == true, "{reply}");
        assert!(seen.insert(reply.header("X-Corr-ID").unwrap().to_owned()), "each has an id of its own");
        assert_eq!(late.closed(), b"", "nothing follows");
    }
    server.metric_reaches("wallet_connections_refused_total", 4.0);
    server.metric_reaches("rejected_total{reason=\"not_ready\"}", 4.0);
    let counted = "http_requests_total{service=\"svc-wallet\",route=\"unknown\",method=\"other\",status=\"503\"}";
    assert_eq!(server.metric(counted), 4.0);
    drop(open.pop());
    let mut next = eventually("there is room again", || {
        let mut client = server.connect();
        client.try_send(&request("GET", "/healthz").bytes()).ok()?;
        let reply = client.try_reply(false).ok()?;
        (reply.status == 200).then_some(client)
    });
    next.call(&request("GET", "/healthz")).ok();
    open[0].call(&request("GET", "/healthz")).ok();
}
