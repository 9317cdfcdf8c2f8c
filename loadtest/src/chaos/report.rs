//! The four criteria of the runbook, each with what was measured and a verdict: as JSON, and as tables for people.

use serde::Serialize;

use super::course::{Safety, Seen, READY_WITHIN};
use crate::{
    args::ChaosArgs,
    progress::grouped,
    report::{self, Phase, Report},
    tally::Tally,
};

/// How much of the error budget may be burnt afterwards, as a fraction.
const BURN_MAX: f64 = 0.05;

/// One criterion.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Criterion {
    /// What has to hold.
    pub criterion: String,
    /// What was measured.
    pub measured: String,
    /// Whether it holds.
    pub holds: bool,
}

/// Result of `chaos`.
#[derive(Clone, Debug, Serialize)]
pub struct ChaosReport {
    /// `chaos`.
    pub command: &'static str,
    /// Gives the same load again.
    pub seed: u64,
    /// Where the ledger was: `daemon` or `embedded`.
    pub ledger: &'static str,
    /// For how long it was observed afterwards.
    pub window_s: f64,
    /// What the 95th percentile has to be below afterwards, in milliseconds.
    pub p95_ms_max: f64,
    /// The error budget: which share of the requests may fail.
    pub budget: f64,
    /// Each fault, in the order in which they were injected.
    pub faults: Vec<Seen>,
    /// The load afterwards.
    pub afterwards: Phase,
    /// Of it, the requests that failed, or were not even sent in time.
    pub failed_afterwards: u64,
    /// What else was not as it should be.
    pub unexplained: u64,
    /// What was there in the end.
    pub safety: Safety,
    /// The criteria, in the order of the runbook.
    pub criteria: Vec<Criterion>,
    /// What was answered.
    pub tally: Tally,
    /// All criteria hold.
    pub ok: bool,
}

impl ChaosReport {
    /// The verdict over what was seen.
    pub fn new(
        args: &ChaosArgs,
        seed: u64,
        faults: Vec<Seen>,
        (afterwards, refused): (Phase, u64),
        safety: Safety,
        tally: Tally,
    ) -> ChaosReport {
        let failed_afterwards = refused + afterwards.lost + afterwards.unsent;
        let told: u64 = faults.iter().map(|seen| seen.otherwise + seen.resolved.wrong).sum();
        let unexplained = tally.unexpected_count().saturating_sub(told + refused + missing(&safety));
        let mut report = ChaosReport {
            command: "chaos",
            seed,
            ledger: if args.embedded { "embedded" } else { "daemon" },
            window_s: args.window.as_secs_f64(),
            p95_ms_max: args.p95_within.as_secs_f64() * 1e3,
            budget: args.budget.fraction(),
            faults,
            afterwards,
            failed_afterwards,
            unexplained,
            safety,
            criteria: Vec::new(),
            tally,
            ok: false,
        };
        report.criteria = vec![report.is_safe(), report.degrades(), report.recovers(), report.is_fast_again()];
        report.ok =
            report.criteria.iter().all(|criterion| criterion.holds) && report.faults.iter().all(|seen| seen.wrong.is_empty());
        report
    }

    fn is_safe(&self) -> Criterion {
        let books = || self.faults.iter().map(|seen| &seen.books);
        let negative: u64 = books().map(|books| books.negative).sum();
        let wrong: u64 = books().map(|books| books.wrong_balances + books.wrong_nonces + books.unreadable).sum();
        let unbalanced = books().filter(|books| !books.balanced()).count();
        let doubtful: u64 = self.faults.iter().map(|seen| seen.resolved.wrong).sum();
        let Safety { found, entries, entries_expected, audited, violations } = self.safety;
        let missing = missing(&self.safety);
        let whole = entries == entries_expected && audited == entries;
        Criterion {
            criterion: "0 economic safety violations".to_owned(),
            measured: format!(
                "{} of {} receipts found, {negative} negative balances, {wrong} wrong accounts, {doubtful} spends in doubt answered \
                 wrongly, {violations} violations told by the server, {} other findings; {} entries replayed, {} expected, {} in the audit stream",
                grouped(found.identical),
                grouped(found.asked),
                grouped(self.unexplained),
                grouped(entries),
                grouped(entries_expected),
                grouped(audited)
            ),
            holds: missing + negative + wrong + doubtful + violations + self.unexplained == 0 && unbalanced == 0 && whole && found.asked > 0,
        }
    }

    fn degrades(&self) -> Criterion {
        let judged = self.faults.iter().filter_map(|seen| Some((seen, seen.not_ready_within_ms?)));
        let told: Vec<String> = judged
            .clone()
            .map(|(seen, within)| {
                let after = seen.not_ready_after_ms.map_or("never".to_owned(), |ms| format!("after {ms} ms"));
                format!("{} {after} of {within} ms", seen.fault)
            })
            .collect();
        let in_time = judged.clone().all(|(seen, within)| seen.not_ready_after_ms.is_some_and(|after| after <= within));
        let otherwise: u64 = self.faults.iter().map(|seen| seen.otherwise).sum();
        let refused = self.faults.iter().filter(|seen| seen.has_to_refuse);
        let refuses = refused.clone().all(|seen| seen.unavailable + seen.busy > 0);
        let (unavailable, busy) = (self.tally.unavailable, self.tally.busy);
        Criterion {
            criterion: "readiness degrades within 2 s, writes fail with 429/503".to_owned(),
            measured: format!(
                "not ready: {}; {} writes told 503, {} told 429, {otherwise} requests told anything else",
                told.join(", "),
                grouped(unavailable),
                grouped(busy)
            ),
            holds: in_time && judged.count() > 0 && refuses && refused.count() > 0 && otherwise == 0,
        }
    }

    fn recovers(&self) -> Criterion {
        let slowest = self.faults.iter().max_by_key(|seen| seen.ready_after_ms.unwrap_or(u64::MAX));
        let most = READY_WITHIN.as_millis() as u64;
        let told = slowest.map_or("no fault".to_owned(), |seen| {
            let after = seen.ready_after_ms.map_or("not at all".to_owned(), |ms| format!("{ms} ms after its removal"));
            format!("slowest: {} {after}", seen.fault)
        });
        Criterion {
            criterion: "ready by itself within 5 min of the removal".to_owned(),
            measured: told,
            holds: slowest.is_some_and(|seen| seen.ready_after_ms.is_some_and(|after| after <= most)),
        }
    }

    fn is_fast_again(&self) -> Criterion {
        let (p95_ms, sent) = (self.afterwards.all.p95_us / 1e3, self.afterwards.sent + self.afterwards.unsent);
        let burn = self.failed_afterwards as f64 / (self.budget * sent.max(1) as f64);
        Criterion {
            criterion: format!("p95 < {} ms afterwards, error budget burn < 5%", self.p95_ms_max),
            measured: format!(
                "p95 {:.1} ms, {} of {} requests failed: {:.1}% of a budget of {}%; observed for {:.0} s",
                p95_ms,
                grouped(self.failed_afterwards),
                grouped(sent),
                100.0 * burn,
                100.0 * self.budget,
                self.window_s
            ),
            holds: p95_ms < self.p95_ms_max && burn < BURN_MAX && self.afterwards.answered > 0,
        }
    }
}

fn missing(safety: &Safety) -> u64 {
    safety.found.asked - safety.found.identical
}

/// One fault in a line.
pub fn line(seen: &Seen) -> String {
    let ms = |time: Option<u64>| time.map_or("-".to_owned(), |ms| format!("{} ms", grouped(ms)));
    format!(
        "{:<26} {:>12} {:>12} {:>12} {:>9} {:>9} {:>9} {:>9}",
        seen.fault,
        ms(seen.not_ready_after_ms),
        ms(seen.refused_after_ms),
        ms(seen.ready_after_ms),
        grouped(seen.unavailable),
        grouped(seen.busy),
        grouped(seen.otherwise),
        grouped(seen.resolved.in_doubt)
    )
}

impl Report for ChaosReport {
    fn ok(&self) -> bool {
        self.ok
    }

    fn print(&self) {
        println!(
            "ledger {}, seed {}, {:.0} requests per second\n",
            self.ledger,
            self.seed,
            self.afterwards.rate_intended.unwrap_or(0.0)
        );
        println!(
            "{:<26} {:>12} {:>12} {:>12} {:>9} {:>9} {:>9} {:>9}",
            "fault", "not ready", "refuses", "ready again", "503", "429", "otherwise", "in doubt"
        );
        for seen in &self.faults {
            println!("{}", line(seen));
            seen.wrong.iter().for_each(|wrong| println!("  WRONG: {wrong}"));
            seen.books.samples.iter().for_each(|sample| println!("  WRONG: {sample}"));
        }
        println!();
        report::print_phases(std::slice::from_ref(&self.afterwards));
        report::print_tally(&self.tally);
        println!();
        for criterion in &self.criteria {
            println!("{:<5} {}\n      {}", if criterion.holds { "yes" } else { "NO" }, criterion.criterion, criterion.measured);
        }
        report::print_verdict(self.ok);
    }
}

#[cfg(test)]
mod tests {
    //! A report over a course without a fault holds, and each thing that can be wrong breaks just the criterion that is about it.
    use super::*;
    use crate::{
        args::{Cli, Command},
        books::Books,
        doubt::Resolved,
        engine::{Outcome, Pace},
        latency::Latencies,
        receipts::Found,
    };
    use clap::Parser;
    use std::time::Duration;

    fn args() -> ChaosArgs {
        match Cli::parse_from(["loadtest", "chaos"]).command {
            Command::Chaos(args) => args,
            _other => unreachable!("the line says chaos"),
        }
    }

    fn phase(latency: Duration) -> Phase {
        let mut latencies = Latencies::new();
        (0..10_000).for_each(|_| latencies.record(crate::engine::Class::Spend, latency));
        let outcome = Outcome {
            sent: 10_000,
            answered: 10_000,
            lost: 0,
            disconnected: 0,
            unsent: 0,
            elapsed: Duration::from_secs(10),
            first_break: None,
            latencies,
        };
        Phase::new("afterwards", Pace::PerSecond(1_000.0), &outcome)
    }

    fn seen(fault: &str) -> Seen {
        Seen {
            fault: fault.to_owned(),
            load: phase(Duration::from_millis(1)),
            not_ready_after_ms: Some(80),
            not_ready_within_ms: Some(2_000),
            refused_after_ms: Some(90),
            has_to_refuse: true,
            unavailable: 700,
            busy: 0,
            otherwise: 0,
            ready_after_ms: Some(500),
            resolved: Resolved::default(),
            books: Books { sum_minor: "9".into(), issued_minor: "9".into(), ..Books::default() },
            wrong: Vec::new(),
        }
    }

    fn safety() -> Safety {
        let found = Found { asked: 90, identical: 90 };
        Safety { found, entries: 100, entries_expected: 100, audited: 100, violations: 0 }
    }

    fn judged(change: impl FnOnce(&mut Seen, &mut (Phase, u64), &mut Safety, &mut Tally)) -> ChaosReport {
        let (mut one, mut afterwards) = (seen("disconnect ron-ledger"), (phase(Duration::from_millis(2)), 0));
        let mut safety = safety();
        let mut tally = Tally { unavailable: 700, ..Tally::default() };
        change(&mut one, &mut afterwards, &mut safety, &mut tally);
        ChaosReport::new(&args(), 1, vec![one], afterwards, safety, tally)
    }

    #[test]
    fn what_is_as_it_should_be_holds() {
        let report = judged(|_, _, _, _| {});
        assert!(report.ok, "{:?}", report.criteria);
        let last = &report.criteria[3];
        assert!(last.criterion.starts_with("p95 < 150 ms") && last.measured.contains("observed for 30 s"), "{last:?}");
    }

    #[test]
    fn each_wrong_thing_breaks_its_criterion() {
        type Change = fn(&mut Seen, &mut (Phase, u64), &mut Safety, &mut Tally);
        let cases: [(usize, Change); 16] = [
            (0, |_, _, safety, tally| {
                safety.found.identical = 89;
                tally.trouble("an acknowledged receipt came back different", String::new);
            }),
            (0, |_, _, safety, _| safety.entries = 101),
            (0, |_, _, safety, _| safety.audited = 99),
            (0, |_, _, safety, _| safety.violations = 1),
            (0, |seen, _, _, _| seen.books.negative = 1),
            (0, |seen, _, _, _| seen.books.sum_minor = "8".into()),
            (0, |seen, _, _, tally| {
                seen.resolved.wrong = 1;
                tally.trouble("a spend in doubt, repeated", String::new);
            }),
            (1, |seen, _, _, _| seen.not_ready_after_ms = Some(2_001)),
            (1, |seen, _, _, _| seen.not_ready_after_ms = None),
            (1, |seen, _, _, _| seen.unavailable = 0),
            (1, |seen, _, _, tally| {
                seen.otherwise = 1;
                tally.trouble("spend: 500 INTERNAL_ERROR", String::new);
            }),
            (2, |seen, _, _, _| seen.ready_after_ms = None),
            (2, |seen, _, _, _| seen.ready_after_ms = Some(300_001)),
            (0, |_, _, _, tally| tally.trouble("spends do not settle", String::new)),
            (3, |_, afterwards, _, _| afterwards.0 = phase(Duration::from_millis(151))),
            (3, |_, afterwards, _, _| afterwards.1 = 6),
        ];
        for (number, (broken, change)) in cases.into_iter().enumerate() {
            let report = judged(change);
            let holds: Vec<bool> = report.criteria.iter().map(|criterion| criterion.holds).collect();
            let expected: Vec<bool> = (0..4).map(|criterion| criterion != broken).collect();
            assert_eq!((holds, report.ok), (expected, false), "case {number}: {:?}", report.criteria);
        }
        assert!(!judged(|seen, _, _, _| seen.wrong.push("the policy was read again".into())).ok);
        // A few failures are within the budget.
        assert!(judged(|_, afterwards, _, _| afterwards.1 = 4).ok);
    }
}
