//! Frames from two samples: what is shown, in every width, and what is said when something is wrong.
use super::super::sample::{Between, Sample};
use super::*;
use serde_json::json;
use std::time::{Duration, Instant};

const PLAIN: Output = Output { json: false, colour: false, hints: false };
const COLOURED: Output = Output { json: false, colour: true, hints: false };

/// Metrics with so many replies of each of two cores.
fn text(answered: [u64; 2], commits: u64, faults: u64) -> String {
    let [one, two] = answered;
    let all = one + two;
    format!(
        "process_start_time_seconds 1000\ninflight 7\nwallet_connections 64\nwallet_ledger_height {all}\nwallet_audited_height {one}\n\
         wallet_requests_total{{op=\"transfer\"}} {all}\nwallet_requests_total{{op=\"issue\"}} 3\n\
         http_requests_total{{service=\"svc-wallet\",route=\"transfer\",method=\"POST\",status=\"200\"}} {all}\n\
         http_requests_total{{service=\"svc-wallet\",route=\"balance\",method=\"GET\",status=\"200\"}} {one}\n\
         http_requests_total{{service=\"svc-wallet\",route=\"healthz\",method=\"GET\",status=\"503\"}} 0\n\
         wallet_core_answered_total{{core=\"0\"}} {one}\nwallet_core_answered_total{{core=\"1\"}} {two}\n\
         wallet_core_busy_ratio{{core=\"0\"}} 0.25\nwallet_core_busy_ratio{{core=\"1\"}} 0.75\n\
         rejected_total{{reason=\"funds\"}} {commits}\nledger_commit_seconds_count {commits}\nledger_batch_entries_sum {all}\n\
         request_latency_seconds_bucket{{route=\"transfer\",le=\"0.1\"}} 0\n\
         request_latency_seconds_bucket{{route=\"transfer\",le=\"0.2\"}} {all}\nrequest_latency_seconds_bucket{{route=\"transfer\",le=\"+Inf\"}} {all}\n\
         policy_version 3\nregistry_version 5\nkeyring_version 1\nwallet_faults_active {faults}\n"
    )
}

fn figures(readiness: Value, faults: u64) -> Figures {
    let at = Instant::now();
    let samples =
        [Sample::read(&text([100, 0], 10, 0), at), Sample::read(&text([1_100, 3_000], 110, faults), at + Duration::from_secs(2))];
    let between = Between::last(&samples, Duration::from_secs(5)).unwrap();
    let version = json!({"name": "svc-wallet", "version": "1.2.3"});
    Figures::of("127.0.0.1:9090", &between, &readiness, &version, 5_000.0)
}

fn ready() -> Value {
    json!({"ready": true, "reads": true, "writes": true, "draining": false, "pressure": false})
}

/// The value behind a name, wherever it stands in the frame.
fn value_of<'l>(lines: &'l [String], name: &str) -> Vec<&'l str> {
    let behind = |line: &'l String| line.split_once(name).map(|(_, rest)| rest.split_whitespace().next().unwrap_or(""));
    lines.iter().filter_map(behind).collect()
}

#[test]
fn two_samples_come_to_rates_latencies_cores_and_ledger() {
    let figures = figures(ready(), 0);
    let lines = frame(&PLAIN, Some(&figures), None, 60);
    assert_eq!(lines[0], "svc-wallet 1.2.3 ready at 127.0.0.1:9090, up 1 h 6 min");
    for (name, value) in [
        ("all a second", "2_500"),
        ("transfer", "2_000"),
        ("issue", "0"),
        ("reads", "500"),
        ("in flight", "7"),
        ("connections", "64"),
        ("p50", "150.0"),
        ("p95", "195.0"),
        ("sequence", "4_100"),
        ("audited through", "1_100"),
        ("commits a second", "50"),
        ("entries in a commit", "40"),
        ("connection ", "connected"),
        ("funds", "50"),
        ("policy ", "there"),
    ] {
        assert_eq!(value_of(&lines, name).first(), Some(&value), "{name} in\n{}", lines.join("\n"));
    }
    let text = lines.join("\n");
    assert!(
        text.contains("core 0")
            && text.contains("[###.........]  25%       500")
            && text.contains("[#########...]  75%     1_500"),
        "{text}"
    );
    assert!(!text.contains('\x1b') && !text.contains("missing"), "{text}");
    let told = serde_json::to_value(&figures).unwrap();
    assert_eq!((&told["requests_per_second"], &told["cores"][1]["per_second"]), (&json!(2500.0), &json!(1500.0)), "{told}");
    assert_eq!((&told["refusals"][4]["name"], &told["refusals"][4]["total"]), (&json!("funds"), &json!(110.0)), "{told}");
}

#[test]
fn a_frame_fits_into_every_width() {
    let figures = figures(ready(), 0);
    let tall = frame(&PLAIN, Some(&figures), None, 40).len();
    for width in [1, 8, 20, 40, 79, 80, 120, 140, 200, 500] {
        let lines = frame(&PLAIN, Some(&figures), Some("the server does not answer, and is asked again"), width);
        assert!(lines.iter().all(|line| line.chars().count() <= width.max(9)), "{width}:\n{}", lines.join("\n"));
        // Every name is there once, however many columns there are.
        if width >= 40 {
            assert_eq!(lines.iter().filter(|line| line.contains("entries in a commit")).count(), 1, "{width}");
        }
    }
    let (two, three) = (frame(&PLAIN, Some(&figures), None, 100).len(), frame(&PLAIN, Some(&figures), None, 150).len());
    assert!(tall > two && two > three, "{tall} {two} {three}");
    let painted = frame(&COLOURED, Some(&figures), None, 100);
    let bare = |line: &String| {
        let parts = line.split('\x1b').enumerate();
        parts.map(|(index, part)| if index == 0 { part } else { part.split_once('m').unwrap().1 }).collect::<String>()
    };
    assert_eq!(painted.iter().map(bare).collect::<Vec<_>>(), frame(&PLAIN, Some(&figures), None, 100), "colours take no room");
    assert!(painted[0].contains("\x1b[32mready\x1b[0m"), "{}", painted[0]);
}

#[test]
fn what_is_wrong_is_said_first() {
    let readiness = json!({"ready": false, "reads": true, "writes": false, "missing": ["ledger"], "reasons": {"ledger": "no \u{1b}[2J room"},
        "draining": false, "pressure": true});
    let lines = frame(&PLAIN, Some(&figures(readiness, 1)), None, 80);
    assert_eq!(
        lines[..5],
        [
            "svc-wallet 1.2.3 not ready at 127.0.0.1:9090, up 1 h 6 min",
            "not ready: reads are served, writes are not",
            "ledger is missing: no \u{fffd}[2J room",
            "under pressure: more work arrives than is done",
            "faults are injected on purpose: 1 active",
        ]
    );
    assert!(value_of(&lines, "connection ").contains(&"missing") && value_of(&lines, "writes").contains(&"refused"), "{lines:?}");
    let gone = frame(&PLAIN, Some(&figures(ready(), 0)), Some("no answer since 12:00:00"), 80);
    assert!(gone[0].starts_with("svc-wallet 1.2.3 no answer at") && gone[1] == "no answer since 12:00:00", "{gone:?}");
    assert!(gone.iter().any(|line| line.contains("sequence")), "what was last known stays");
    assert_eq!(frame(&PLAIN, None, Some("cannot connect"), 80), ["svc-wallet", "cannot connect"]);
}
