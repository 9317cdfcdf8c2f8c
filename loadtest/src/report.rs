//! What a test found: as JSON, and as tables for people.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    args::TrafficArgs,
    books::Books,
    doubt::Resolved,
    engine::{Class, Outcome, Pace},
    fault::Fault,
    latency::Summary,
    progress::grouped,
    requests::ACCOUNTS_MAX,
    spread::Spread,
    tally::{Tally, Trouble},
};

/// A result that can be shown both ways and that decides the exit code.
pub trait Report: Serialize {
    /// Whether everything was as it should be.
    fn ok(&self) -> bool;
    /// For people.
    fn print(&self);
}

/// One measured stretch of load.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    /// What it was.
    pub name: String,
    /// Requests per second that were due; absent at `max`.
    pub rate_intended: Option<f64>,
    /// Replies per second.
    pub rate: f64,
    /// From the first request to the last reply.
    pub elapsed_s: f64,
    /// Requests written.
    pub sent: u64,
    /// Replies read.
    pub answered: u64,
    /// Requests without a reply, because their connection broke.
    pub lost: u64,
    /// Requests that were due and not sent any more at the end.
    pub unsent: u64,
    /// Connections that broke.
    pub disconnected: u64,
    /// Why the first did.
    pub first_break: Option<String>,
    /// Latencies of all replies, from the intended send time.
    pub all: Summary,
    /// By class, those that occurred.
    pub by_class: BTreeMap<&'static str, Summary>,
}

impl Phase {
    /// The figures of a drive.
    pub fn new(name: impl Into<String>, pace: Pace, outcome: &Outcome) -> Phase {
        let classes = [("spend", Class::Spend), ("read", Class::Read), ("repeat", Class::Repeat), ("refusal", Class::Refusal)];
        let by_class = classes.into_iter().map(|(name, class)| (name, outcome.latencies.of(class)));
        Phase {
            name: name.into(),
            rate_intended: match pace {
                Pace::Max => None,
                Pace::PerSecond(rate) => Some(rate),
            },
            rate: outcome.rate(),
            elapsed_s: outcome.elapsed.as_secs_f64(),
            sent: outcome.sent,
            answered: outcome.answered,
            lost: outcome.lost,
            unsent: outcome.unsent,
            disconnected: outcome.disconnected,
            first_break: outcome.first_break.clone(),
            all: outcome.latencies.all(),
            by_class: by_class.filter(|(_, summary)| summary.count > 0).collect(),
        }
    }

    /// No connection broke and every request was answered.
    pub fn complete(&self) -> bool {
        self.disconnected == 0 && self.lost == 0
    }
}

/// Result of `run`.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    /// `run`.
    pub command: &'static str,
    /// Gives the same run again.
    pub seed: u64,
    /// Connections of the load.
    pub connections: u64,
    /// Requests outstanding at most on each.
    pub pipeline: u64,
    /// Accounts loaded.
    pub accounts: u64,
    /// Shares of reads, repeats, refusals, and of the hot account.
    pub shares: BTreeMap<&'static str, f64>,
    /// CPUs of the server; empty for a server that ran already.
    pub server_cpus: Vec<usize>,
    /// CPU of the generator.
    pub generator_cpu: usize,
    /// Every measured stretch, in order.
    pub phases: Vec<Phase>,
    /// Median over the rounds of server / bare responder.
    pub ratio_to_responder: Option<Spread>,
    /// What is below its floor, or above its ceiling.
    pub below_floor: Option<String>,
    /// What was answered, warm-up included.
    pub tally: Tally,
    /// Spends without a known outcome, repeated.
    pub resolved: Option<Resolved>,
    /// Sampled receipts whose own hash was checked.
    pub receipt_hashes_checked: u64,
    /// The books at the end.
    pub books: Books,
    /// Everything was as it should be.
    pub ok: bool,
}

/// Result of `baseline`.
#[derive(Clone, Debug, Serialize)]
pub struct BaselineReport {
    /// `baseline`.
    pub command: &'static str,
    /// Gives the same run again.
    pub seed: u64,
    /// Connections of the load.
    pub connections: u64,
    /// Requests outstanding at most on each.
    pub pipeline: u64,
    /// CPUs of the responder.
    pub server_cpus: Vec<usize>,
    /// CPU of the generator.
    pub generator_cpu: usize,
    /// Every round.
    pub rounds: Vec<Phase>,
    /// Median of their rates.
    pub rate_median: f64,
    /// Replies other than 200.
    pub unexpected: BTreeMap<String, Trouble>,
}

impl Report for RunReport {
    fn ok(&self) -> bool {
        self.ok
    }

    fn print(&self) {
        println!(
            "{} connections x pipeline {}, {} accounts, server on CPU {:?}, generator on CPU {}, seed {}\n",
            self.connections,
            self.pipeline,
            grouped(self.accounts),
            self.server_cpus,
            self.generator_cpu,
            self.seed
        );
        print_phases(&self.phases);
        if let Some(ratio) = self.ratio_to_responder {
            println!("\nratio to the bare responder: {ratio}");
        }
        print_floors(&self.below_floor);
        println!();
        print_tally(&self.tally);
        if let Some(resolved) = &self.resolved {
            print_resolved(resolved);
        }
        println!("receipt hashes       {} sampled receipts checked", grouped(self.receipt_hashes_checked));
        print_books(&self.books);
        print_verdict(self.ok);
    }
}

impl Report for BaselineReport {
    fn ok(&self) -> bool {
        self.unexpected.is_empty() && self.rounds.iter().all(Phase::complete)
    }

    fn print(&self) {
        println!(
            "bare responder: {} connections x pipeline {}, responder on CPU {:?}, generator on CPU {}\n",
            self.connections, self.pipeline, self.server_cpus, self.generator_cpu
        );
        print_phases(&self.rounds);
        println!("\nmedian {} replies/s", grouped(self.rate_median as u64));
        print_troubles(&self.unexpected);
    }
}

/// Tables of latencies.
pub fn print_phases(phases: &[Phase]) {
    println!(
        "{:<28} {:>11} {:>11} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "", "replies", "replies/s", "p50", "p90", "p99", "p99.9", "max"
    );
    for phase in phases {
        print_row(&phase.name, Some(phase.rate), &phase.all);
        if phase.by_class.len() > 1 {
            for (name, summary) in &phase.by_class {
                print_row(&format!("  {name}"), None, summary);
            }
        }
        if phase.unsent > 0 {
            println!("  fell behind: {} requests were due and not sent", grouped(phase.unsent));
        }
        if let Some(reason) = &phase.first_break {
            println!("  {} connections broke, {} requests lost: {reason}", phase.disconnected, grouped(phase.lost));
        }
    }
}

fn print_row(name: &str, rate: Option<f64>, summary: &Summary) {
    let time = |microseconds: f64| crate::progress::short_duration(std::time::Duration::from_secs_f64(microseconds / 1e6));
    println!(
        "{name:<28} {:>11} {:>11} {:>9} {:>9} {:>9} {:>9} {:>9}",
        grouped(summary.count),
        rate.map(|rate| grouped(rate as u64)).unwrap_or_default(),
        time(summary.p50_us),
        time(summary.p90_us),
        time(summary.p99_us),
        time(summary.p999_us),
        time(summary.max_us)
    );
}

/// Counts of replies.
pub fn print_tally(tally: &Tally) {
    println!("spends               {} acknowledged, each receipt that of its request", grouped(tally.spends));
    if tally.by_operation.len() > 1 {
        let each = tally.by_operation.iter().map(|(op, count)| format!("{} {}", op.name(), grouped(*count)));
        println!("                     {}", each.collect::<Vec<_>>().join(", "));
    }
    if tally.reads > 0 {
        println!("balance reads        {}", grouped(tally.reads));
    }
    if tally.repeats > 0 {
        println!("exact repeats        {} answered with the first receipt, byte for byte", grouped(tally.repeats));
    }
    if tally.intended_refusals > 0 {
        println!("intended refusals    {}", grouped(tally.intended_refusals));
    }
    if tally.busy > 0 {
        println!("busy                 {} refused with 429 while quotas were said to be used up", grouped(tally.busy));
    }
    if tally.unavailable > 0 {
        println!(
            "unavailable          {} refused with 503 while the ledger, or room in it, was not there",
            grouped(tally.unavailable)
        );
    }
    print_troubles(&tally.unexpected);
}

/// What does not keep its floor.
pub fn print_floors<'a>(broken: impl IntoIterator<Item = &'a String>) {
    broken.into_iter().for_each(|what| println!("FLOOR: {what}"));
}

/// Everything that should not have been.
pub fn print_troubles(unexpected: &BTreeMap<String, Trouble>) {
    for (kind, trouble) in unexpected {
        println!("UNEXPECTED           {} x {kind}", grouped(trouble.count));
        for sample in &trouble.samples {
            println!("                       {sample}");
        }
    }
}

/// Spends in doubt.
pub fn print_resolved(resolved: &Resolved) {
    println!(
        "in doubt             {}: {} had taken effect, {} took effect when repeated, {} wrong",
        grouped(resolved.in_doubt),
        grouped(resolved.had_taken_effect),
        grouped(resolved.took_effect_now),
        resolved.wrong
    );
}

/// The books.
pub fn print_books(books: &Books) {
    let verdict = if books.balanced() { "balanced" } else { "NOT BALANCED" };
    println!(
        "books                {verdict}: {} accounts hold {}, issued - burned is {}",
        grouped(books.accounts),
        books.sum_minor,
        books.issued_minor
    );
    if !books.balanced() {
        println!(
            "                       {} wrong balances, {} wrong nonces, {} negative, {} unreadable",
            books.wrong_balances, books.wrong_nonces, books.negative, books.unreadable
        );
        books.samples.iter().for_each(|sample| println!("                       {sample}"));
    }
}

/// The last line.
pub fn print_verdict(ok: bool) {
    println!("\n{}", if ok { "OK" } else { "FAILED: see above" });
}

/// The middle value; of an even number the mean of the two in the middle. 0 of none.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[count / 2],
        count => (values[count / 2 - 1] + values[count / 2]) / 2.0,
    }
}

/// Refuses traffic that cannot be made.
///
/// # Errors
/// [`Fault::Usage`].
pub fn check_traffic(traffic: &TrafficArgs) -> Result<(), Fault> {
    let refuse = |what: &str| Err(Fault::Usage(what.to_owned()));
    if traffic.connections == 0 || traffic.pipeline == 0 {
        return refuse("--connections and --pipeline are at least 1");
    }
    if traffic.pipeline > 64 {
        return refuse("--pipeline is at most 64: the server takes no more from one connection at a time");
    }
    if traffic.accounts < traffic.connections + 2 {
        return refuse("--accounts must be at least two more than --connections: each connection debits its own");
    }
    if traffic.accounts > u64::from(ACCOUNTS_MAX) {
        return refuse("--accounts is at most 99,999,999");
    }
    if traffic.fund < 1_000_000 {
        return refuse("--fund is at least 1_000_000 minor units, or accounts run dry");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert_eq!(median(std::iter::empty()), 0.0);
    }
}
