//! That `/metrics` shows every metric from the start, and every figure of every core under its name and labels.
use super::super::names::METRICS;
use super::super::stats::{MethodIndex, RouteIndex};
use super::*;
use crate::domain::UnixMs;

const LABELS: Labels = Labels {
    service: "svc-wallet",
    routes: &["/v1/transfer", "/v1/balance", "other"],
    methods: &["GET", "POST"],
    served: &[(RouteIndex(0), MethodIndex(1)), (RouteIndex(1), MethodIndex(0))],
};
const BUILD: BuildInfo = BuildInfo { version: "1.2.3", revision: "abc", driver: "epoll", cores: 2, started: UnixMs(1_500) };

fn recorded(value: u64) -> hdrhistogram::Histogram<u64> {
    let mut histogram = hdrhistogram::Histogram::new(3).unwrap();
    histogram.record(value).unwrap();
    histogram
}

fn publisher() -> Publisher {
    Publisher::new(LABELS, &BUILD, &[5.0, 10.0, 100.0]).unwrap()
}

/// The value of one line, found by its text before the value.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn every_metric_exists_from_the_start_with_its_help() {
    let text = publisher().render();
    for metric in METRICS {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        assert!(text.contains(&format!("# HELP {} {}\n", metric.name, metric.help)), "{}", metric.name);
        assert!(text.contains(&format!("# TYPE {} {kind}\n", metric.name)), "{}", metric.name);
    }
    for line in text.lines().filter(|line| line.contains("_total") && !line.starts_with('#')) {
        assert!(line.ends_with(" 0"), "{line}");
    }
    for reason in Reason::ALL {
        assert_eq!(value(&text, &format!("rejected_total{{reason=\"{}\"}}", reason.as_str())), Some(0.0));
    }
    let served = "http_requests_total{service=\"svc-wallet\",route=\"/v1/transfer\",method=\"POST\",status=\"503\"}";
    assert_eq!(value(&text, served), Some(0.0));
    assert!(!text.contains("route=\"/v1/transfer\",method=\"GET\""));
    assert_eq!(value(&text, "wallet_io_driver{driver=\"epoll\"}"), Some(1.0));
    assert_eq!(value(&text, "wallet_build_info{version=\"1.2.3\",revision=\"abc\"}"), Some(1.0));
    assert_eq!(value(&text, "process_start_time_seconds"), Some(1.5));
}

#[test]
fn counters_of_the_cores_add_up_and_states_are_summed_not_added() {
    let publisher = publisher();
    let mut stats = CoreStats::new(3, 2);
    for core in [0, 1, 0] {
        stats.reset();
        stats.answered(RouteIndex(0), MethodIndex(1), 200, 4_000);
        stats.answered(RouteIndex(0), MethodIndex(1), 200, 50_000);
        stats.answered(RouteIndex(2), MethodIndex(0), 418, 70_000_000);
        stats.rejected(Reason::Funds);
        stats.operation(Op::Transfer);
        stats.conflict();
        stats.replay();
        Tally::ALL.iter().for_each(|tally| stats.tally(*tally));
        stats.gauge(Gauge::Inflight, 7 + u64::from(core));
        publisher.absorb(CoreId(core), &stats);
    }
    let text = publisher.render();
    let pair = "service=\"svc-wallet\",route=\"/v1/transfer\",method=\"POST\"";
    let expected = [
        (format!("http_requests_total{{{pair},status=\"200\"}}"), 6.0),
        ("http_requests_total{service=\"svc-wallet\",route=\"other\",method=\"GET\",status=\"other\"}".to_owned(), 3.0),
        (format!("request_latency_seconds_bucket{{{pair},le=\"0.005\"}}"), 3.0),
        (format!("request_latency_seconds_bucket{{{pair},le=\"0.1\"}}"), 6.0),
        (format!("request_latency_seconds_bucket{{{pair},le=\"+Inf\"}}"), 6.0),
        (format!("request_latency_seconds_count{{{pair}}}"), 6.0),
        ("rejected_total{reason=\"funds\"}".to_owned(), 3.0),
        ("wallet_requests_total{op=\"transfer\"}".to_owned(), 3.0),
        ("wallet_conflicts_total".to_owned(), 3.0),
        ("wallet_idem_replays_total".to_owned(), 3.0),
        ("quota_exhaustions_total{scope=\"subject\"}".to_owned(), 3.0),
        ("wallet_slow_clients_total{cause=\"read\"}".to_owned(), 3.0),
        ("wallet_connections_closed_total{cause=\"write_timeout\"}".to_owned(), 3.0),
        ("wallet_token_cache_total{outcome=\"miss\"}".to_owned(), 3.0),
        ("inflight".to_owned(), 15.0),
    ];
    for (series, expected) in expected {
        assert_eq!(value(&text, &series), Some(expected), "{series}");
    }
    let sum = value(&text, &format!("request_latency_seconds_sum{{{pair}}}")).unwrap();
    assert!((sum - 0.162).abs() < 0.002, "{sum}");
    let figures = publisher.figures();
    assert_eq!((figures[0].answered, figures[1].answered, figures[1].inflight), (6, 3, 8));
}

#[test]
fn figures_of_the_other_threads_show_up() {
    let publisher = publisher();
    publisher.ledger_committed(&recorded(700), &recorded(30));
    publisher.ledger_connect_errors(1);
    publisher.ledger_height(Seq(12));
    publisher.accounting_lag(2.5);
    publisher.accounting_flush(false);
    publisher.conservation_check(Check::Holds);
    publisher.scrubbed(UnixMs(7_500), [1, 2, 3]);
    publisher.newest_snapshot(UnixMs(8_500), 250);
    publisher.snapshots(true, 3);
    publisher.snapshots(false, 2);
    publisher.reload(Reload::Policy, true);
    publisher.policy_version(4);
    publisher.registry_version(5);
    publisher.registry(1.5, [1, 2, 3, 7]);
    publisher.readiness(true, [false, true, false, false, false, false, false]);
    publisher.log_lines_dropped(6);
    publisher.run_upkeep();
    let text = publisher.render();
    let expected = [
        ("ledger_commit_seconds_bucket{le=\"0.0005\"}", 0.0),
        ("ledger_commit_seconds_bucket{le=\"0.001\"}", 1.0),
        ("ledger_batch_entries_sum", 30.0),
        ("ledger_connect_errors_total", 1.0),
        ("wallet_ledger_height", 12.0),
        ("accounting_flush_lag_seconds", 2.5),
        ("wallet_accounting_flushes_total{outcome=\"failed\"}", 1.0),
        ("wallet_conservation_checks_total{outcome=\"ok\"}", 1.0),
        ("wallet_scrub_last_end_time_seconds", 7.5),
        ("wallet_scrub_damaged_files{kind=\"segment\"}", 1.0),
        ("wallet_scrub_damaged_files{kind=\"snapshot\"}", 3.0),
        ("ledger_snapshot_time_seconds", 8.5),
        ("ledger_snapshot_seconds", 0.25),
        ("ledger_snapshots_total{outcome=\"ok\"}", 3.0),
        ("ledger_snapshots_total{outcome=\"failed\"}", 2.0),
        ("wallet_reloads_total{what=\"policy\",outcome=\"ok\"}", 1.0),
        ("policy_version", 4.0),
        ("registry_version", 5.0),
        ("wallet_registry_age_seconds", 1.5),
        ("wallet_registry_questions_total{outcome=\"changed\"}", 1.0),
        ("wallet_registry_questions_total{outcome=\"refused\"}", 7.0),
        ("wallet_ready", 1.0),
        ("wallet_not_ready{reason=\"ledger\"}", 0.0),
        ("wallet_not_ready{reason=\"accounting\"}", 1.0),
        ("wallet_log_lines_dropped_total", 6.0),
    ];
    for (series, expected) in expected {
        assert_eq!(value(&text, series), Some(expected), "{series}");
    }
}

#[test]
fn a_core_is_busy_for_the_part_of_a_time_for_which_it_had_a_processor() {
    let second = Duration::from_secs(1);
    for (used_us, busy) in [(0, 0.0), (250_000, 0.25), (1_000_000, 1.0), (1_200_000, 1.0)] {
        assert_eq!(busy_ratio(used_us, second), busy);
    }
    assert_eq!(busy_ratio(0, Duration::ZERO), 0.0);
}

#[test]
fn buckets_that_no_histogram_can_have_are_refused() {
    for bad in [&[][..], &[0.0, 5.0], &[5.0, 5.0], &[10.0, 5.0]] {
        assert_eq!(Publisher::new(LABELS, &BUILD, bad).err(), Some(PublisherFault::Buckets), "{bad:?}");
    }
    let crowd = BuildInfo { cores: 300, ..BUILD };
    assert_eq!(Publisher::new(LABELS, &crowd, &[5.0]).err(), Some(PublisherFault::Cores(300)));
}
