//! What all rounds have come to: sums for each variant, as a table and as JSON.

use serde::Serialize;

use super::{round::Round, upkeep::Upkept, variant::Variant, victim::Closed};
use crate::{
    progress::grouped,
    receipts::Found,
    report::{self, Report},
    spread::{above, Spread},
    tally::Tally,
};

/// The rounds of one variant.
#[derive(Clone, Debug, Serialize)]
pub struct Sums {
    /// Which.
    pub variant: Variant,
    /// Rounds that took place.
    pub rounds: u64,
    /// Those with a SIGKILL, after which everything was there exactly once.
    pub kills_survived: u64,
    /// Ledgers whose life has ended and that were replayed.
    pub ledgers_verified: u64,
    /// Receipts acknowledged under load.
    pub acknowledged: u64,
    /// Requests refused because the ledger, or room in it, was not there.
    pub unavailable: u64,
    /// Spends that were sent and not answered, or answered with an unknown outcome.
    pub in_doubt: u64,
    /// Acknowledged receipts that were not found byte for byte, after a round or at the end of a ledger's life.
    pub missing: u64,
    /// Spends in doubt with another answer than the one receipt, accounts with another balance or nonce than their receipts add up
    /// to, and entries of a ledger for which there is no receipt.
    pub doubled: u64,
    /// Accounts below zero.
    pub negative: u64,
    /// Everything else that should not have been.
    pub unexplained: u64,
    /// Rounds in which a disk that lied was found out. If it was not, everything acknowledged must be there all the same.
    pub detected: u64,
    /// Rounds in which a daemon whose syncs failed ended by itself and said why, and everything was there exactly once.
    pub ended: u64,
    /// The longest time until the service was ready again.
    pub recovery_ms_max: u64,
    /// The longest time from the beginning of an outage until a write was refused.
    pub refused_after_ms_max: Option<u64>,
    /// The longest that any request waited for any answer while the ledger, or room in it, was not there.
    pub answered_after_ms_max: Option<u64>,
    /// Operations of the audit streams of these ledgers that are the entry of their ledger, byte for byte.
    pub audited: u64,
    /// Entries that no operation of their stream is.
    pub not_audited: u64,
    /// What its ledgers have done beside their commits.
    pub upkept: Upkept,
}

/// In so many rounds the ledgers of a variant must have left segments behind, taken snapshots and started at one.
const ROUNDS_ENOUGH: u64 = 20;

impl Sums {
    fn new(variant: Variant) -> Sums {
        Sums {
            variant,
            rounds: 0,
            kills_survived: 0,
            ledgers_verified: 0,
            acknowledged: 0,
            unavailable: 0,
            in_doubt: 0,
            missing: 0,
            doubled: 0,
            negative: 0,
            unexplained: 0,
            detected: 0,
            ended: 0,
            recovery_ms_max: 0,
            refused_after_ms_max: None,
            answered_after_ms_max: None,
            audited: 0,
            not_audited: 0,
            upkept: Upkept::default(),
        }
    }

    /// What strikes cannot have met in all these rounds, because it never took place.
    pub fn never(&self) -> Vec<&'static str> {
        if self.rounds < ROUNDS_ENOUGH || self.variant.ends_its_ledger() {
            return Vec::new();
        }
        let Upkept { rolls, snapshots, starts_at_a_snapshot, scrubs } = self.upkept;
        let starts = if self.variant.starts_again() { starts_at_a_snapshot } else { 1 };
        let all = [
            (rolls, "no segment was left behind"),
            (snapshots, "no snapshot was taken"),
            (starts, "no start began at a snapshot"),
            (scrubs, "no pass of scrubbing ended"),
        ];
        all.into_iter().filter(|(times, _)| *times == 0).map(|(_, what)| what).collect()
    }

    fn found_nothing(&self) -> bool {
        self.missing + self.doubled + self.negative + self.unexplained + self.not_audited == 0
    }
}

/// Result of `crash`.
#[derive(Clone, Debug, Serialize)]
pub struct CrashReport {
    /// `crash`.
    pub command: &'static str,
    /// Gives the same load and the same moments again.
    pub seed: u64,
    /// Rounds that were asked for.
    pub rounds_asked: u64,
    /// Why no file system could be mounted, so that variants that need one were left out.
    pub left_out: Option<String>,
    /// The sums of each variant.
    pub variants: Vec<Sums>,
    /// Those that took place.
    pub rounds: Vec<Round>,
    /// Over the rounds in which a daemon died alone: the first refusal, in milliseconds.
    pub refused_after_ms: Spread,
    /// And the longest wait for any answer while it was away.
    pub answered_after_ms: Spread,
    /// The most that either may be.
    pub refused_within_ms: Option<u64>,
    /// What is above that.
    pub above: Vec<String>,
    /// All replies.
    pub tally: Tally,
    /// Everything was as it should be.
    pub ok: bool,
}

impl CrashReport {
    /// No round has taken place.
    pub fn new(seed: u64, rounds_asked: u64) -> CrashReport {
        let (variants, rounds) = (Vec::new(), Vec::new());
        CrashReport {
            command: "crash",
            seed,
            rounds_asked,
            left_out: None,
            variants,
            rounds,
            refused_after_ms: Spread::default(),
            answered_after_ms: Spread::default(),
            refused_within_ms: None,
            above: Vec::new(),
            tally: Tally::default(),
            ok: false,
        }
    }

    /// Adds a round.
    pub fn take_round(&mut self, round: Round) {
        let sums = self.sums(round.variant);
        sums.rounds += 1;
        sums.kills_survived += u64::from(round.variant.kills() && round.ok && round.detected.is_none());
        sums.acknowledged += round.acknowledged;
        sums.unavailable += round.unavailable;
        sums.in_doubt += round.resolved.in_doubt;
        sums.missing += round.missing;
        sums.doubled += round.doubled;
        sums.negative += round.negative;
        sums.unexplained += round.unexplained;
        sums.detected += u64::from(round.detected.is_some());
        sums.ended += u64::from(round.ok && round.ended.is_some());
        sums.recovery_ms_max = sums.recovery_ms_max.max(round.recovery_ms);
        sums.refused_after_ms_max = sums.refused_after_ms_max.max(round.refused_after_ms);
        sums.answered_after_ms_max = sums.answered_after_ms_max.max(round.answered_after_ms_max);
        self.rounds.push(round);
        self.judge();
    }

    /// Adds the end of a ledger's life: all its receipts once more, its entries and its audit stream, and how many entries it should have.
    pub fn take_end(&mut self, variant: Variant, found: Found, closed: Closed, expected: u64) {
        let Closed { entries, audited } = closed;
        let sums = self.sums(variant);
        sums.ledgers_verified += 1;
        sums.audited += audited;
        sums.not_audited += entries.saturating_sub(audited);
        sums.missing += found.asked - found.identical + expected.saturating_sub(entries);
        sums.doubled += entries.saturating_sub(expected);
        self.judge();
    }

    /// Adds what a ledger did in its life beside its commits.
    pub fn take_upkept(&mut self, variant: Variant, upkept: Upkept) {
        self.sums(variant).upkept += upkept;
        self.judge();
    }

    /// Adds what was answered in a ledger's life.
    pub fn take_tally(&mut self, tally: Tally) {
        self.tally.add(tally);
        self.judge();
    }

    /// Whether nothing was found yet.
    pub fn ok_so_far(&self) -> bool {
        self.rounds.iter().all(|round| round.ok)
            && self.variants.iter().all(Sums::found_nothing)
            && self.tally.unexpected_count() == 0
    }

    fn judge(&mut self) {
        let lost_daemons = || self.rounds.iter().filter(|round| matches!(round.variant, Variant::Daemon | Variant::LoseUnsynced));
        let in_ms = |time: Option<u64>| time.map(|ms| ms as f64);
        self.refused_after_ms = Spread::of(lost_daemons().filter_map(|round| in_ms(round.refused_after_ms)));
        self.answered_after_ms = Spread::of(lost_daemons().filter_map(|round| in_ms(round.answered_after_ms_max)));
        let most = in_ms(self.refused_within_ms);
        let slowest = [
            ("the slowest first refusal, in ms,", self.refused_after_ms.most),
            ("the longest wait for an answer while the ledger was away, in ms,", self.answered_after_ms.most),
        ];
        self.above = slowest.into_iter().filter_map(|(what, ms)| above(what, ms, most)).collect();
        if most.is_some() && self.refused_after_ms.rounds == 0 {
            self.above.push("no daemon died, so that nothing shows how soon writes are refused".into());
        }
        self.ok = self.above.is_empty()
            && self.ok_so_far()
            && self.rounds.len() as u64 == self.rounds_asked
            && self.variants.iter().all(|sums| sums.never().is_empty());
    }

    fn sums(&mut self, variant: Variant) -> &mut Sums {
        let at = self.variants.iter().position(|sums| sums.variant == variant).unwrap_or_else(|| {
            self.variants.push(Sums::new(variant));
            self.variants.len() - 1
        });
        &mut self.variants[at]
    }
}

impl CrashReport {
    /// What the rounds were: a paused process or a disk that lied is no kill that was survived.
    fn tell_kills(&self) -> String {
        let rounds = |of: &dyn Fn(&Sums) -> u64| self.variants.iter().map(of).sum::<u64>();
        let harmless = self.rounds.iter().filter(|round| round.variant.ends_its_ledger() && round.ok && round.detected.is_none());
        let harmless = match harmless.count() {
            0 => String::new(),
            some => format!(" ({some} had cost nothing that was acknowledged)"),
        };
        let others = |variant| rounds(&|sums| if sums.variant == variant { sums.rounds } else { 0 });
        format!(
            "{} kills (SIGKILL) after each of which everything was there exactly once; besides, {} rounds with a pause, {} with a wallet \
             that was replaced, {} of {} disks that lied found out{harmless}, and {} of {} daemons that ended by themselves when a sync failed",
            grouped(rounds(&|sums| sums.kills_survived)),
            others(Variant::Pause),
            others(Variant::Replace),
            rounds(&|sums| sums.detected),
            others(Variant::LyingSync),
            rounds(&|sums| sums.ended),
            others(Variant::SyncError),
        )
    }

    fn print_upkept(&self) {
        println!(
            "\n{:<19} {:>14} {:>10} {:>21} {:>7}",
            "variant", "segments left", "snapshots", "starts at a snapshot", "scrubs"
        );
        for sums in &self.variants {
            let Upkept { rolls, snapshots, starts_at_a_snapshot, scrubs } = sums.upkept;
            let name = sums.variant.name();
            println!("{name:<19} {rolls:>14} {snapshots:>10} {starts_at_a_snapshot:>21} {scrubs:>7}");
        }
        for sums in &self.variants {
            for what in sums.never() {
                println!("{}: {what} in {} rounds; give each ledger more rounds, or more load", sums.variant.name(), sums.rounds);
            }
        }
    }
}

/// A round in one line.
pub fn line(round: &Round) -> String {
    let verdict = if round.ok { "ok" } else { "FAILED" };
    let begin = format!(
        "{:>5} {:<19} struck after {:>5} ms at {:>7}/s {:>7} acknowledged",
        round.number,
        round.variant.name(),
        round.struck_after_ms,
        grouped(round.rate as u64),
        grouped(round.acknowledged),
    );
    if round.detected.is_some() {
        return format!("{begin}  and lost by the disk: detected  {verdict}");
    }
    format!(
        "{begin} {:>7} of {:>7} found  in doubt {:>4} = {:>4} + {:>4}  back after {:>5} ms  books {}  {verdict}",
        grouped(round.found.identical),
        grouped(round.found.asked),
        round.resolved.in_doubt,
        round.resolved.had_taken_effect,
        round.resolved.took_effect_now,
        round.recovery_ms,
        if round.books.balanced() { "balanced" } else { "NOT BALANCED" },
    )
}

fn in_ms(time: Option<u64>) -> String {
    time.map_or_else(|| "-".into(), |time| format!("{time} ms"))
}

/// Rounds that are shown one by one on standard output.
const ROUNDS_SHOWN_MAX: usize = 40;

impl Report for CrashReport {
    fn ok(&self) -> bool {
        self.ok
    }

    fn print(&self) {
        if self.rounds.len() <= ROUNDS_SHOWN_MAX {
            println!("in doubt = had taken effect + took effect when repeated; each answered exactly once\n");
            self.rounds.iter().for_each(|round| println!("{}", line(round)));
            println!();
        } else {
            self.rounds.iter().filter(|round| !round.ok).for_each(|round| println!("{}", line(round)));
        }
        println!(
            "{:<19} {:>6} {:>6} {:>12} {:>9} {:>8} {:>8} {:>8} {:>11} {:>8} {:>6} {:>8} {:>9} {:>11} {:>10}",
            "variant",
            "rounds",
            "kills",
            "acknowledged",
            "in doubt",
            "missing",
            "doubled",
            "negative",
            "unexplained",
            "detected",
            "ended",
            "ledgers",
            "back max",
            "refused max",
            "waited max"
        );
        for sums in &self.variants {
            println!(
                "{:<19} {:>6} {:>6} {:>12} {:>9} {:>8} {:>8} {:>8} {:>11} {:>8} {:>6} {:>8} {:>6} ms {:>11} {:>10}",
                sums.variant.name(),
                sums.rounds,
                sums.kills_survived,
                grouped(sums.acknowledged),
                grouped(sums.in_doubt),
                sums.missing,
                sums.doubled,
                sums.negative,
                sums.unexplained,
                sums.detected,
                sums.ended,
                sums.ledgers_verified,
                sums.recovery_ms_max,
                in_ms(sums.refused_after_ms_max),
                in_ms(sums.answered_after_ms_max)
            );
        }
        self.print_upkept();
        if let Some(why) = &self.left_out {
            println!("\nleft out, full disks are only injected: small-disk, small-disk-embedded ({why})");
        }
        println!("\n{}", self.tell_kills());
        println!(
            "{} of {} rounds; after each, every receipt of its ledger was looked for; {} ledgers replayed, with an entry for each \
             receipt and none besides, and audit streams with {} operations, {} less than entries; seed {}",
            self.rounds.len(),
            self.rounds_asked,
            self.variants.iter().map(|sums| sums.ledgers_verified).sum::<u64>(),
            grouped(self.variants.iter().map(|sums| sums.audited).sum()),
            self.variants.iter().map(|sums| sums.not_audited).sum::<u64>(),
            self.seed
        );
        if self.refused_after_ms.rounds > 0 {
            println!("first refusal after the death of a daemon, ms: {}", self.refused_after_ms);
            println!("longest wait for any answer while it was away, ms: {}", self.answered_after_ms);
        }
        report::print_floors(&self.above);
        report::print_tally(&self.tally);
        let detected = self.rounds.iter().filter_map(|round| round.detected.as_ref());
        for how in detected.collect::<std::collections::BTreeSet<_>>().into_iter().take(3) {
            println!("detected: {how}");
        }
        if let Some(how) = self.rounds.iter().find_map(|round| round.ended.as_ref()) {
            println!("ended by itself: {how}");
        }
        self.rounds
            .iter()
            .filter(|round| round.detected.is_none() && !round.books.balanced())
            .for_each(|round| report::print_books(&round.books));
        report::print_verdict(self.ok);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_whose_ledgers_only_committed_is_a_failed_run_in_enough_rounds() {
        let all = Upkept { rolls: 1, snapshots: 1, starts_at_a_snapshot: 1, scrubs: 1 };
        let sums = |variant, rounds, upkept| Sums { rounds, upkept, ..Sums::new(variant) };
        assert_eq!(sums(Variant::Daemon, ROUNDS_ENOUGH, Upkept::default()).never().len(), 4);
        assert!(sums(Variant::Daemon, ROUNDS_ENOUGH - 1, Upkept::default()).never().is_empty());
        assert!(sums(Variant::Daemon, ROUNDS_ENOUGH, all).never().is_empty());
        let none_rolled = Upkept { rolls: 0, ..all };
        assert_eq!(sums(Variant::Embedded, ROUNDS_ENOUGH, none_rolled).never(), ["no segment was left behind"]);
        let no_starts = Upkept { starts_at_a_snapshot: 0, ..all };
        assert!(sums(Variant::Pause, ROUNDS_ENOUGH, no_starts).never().is_empty(), "nothing starts again in it");
        let mut report = CrashReport::new(1, 0);
        report.variants.push(sums(Variant::Embedded, ROUNDS_ENOUGH, all));
        report.judge();
        assert!(report.ok);
        report.variants.push(sums(Variant::Both, ROUNDS_ENOUGH, none_rolled));
        report.judge();
        assert!(!report.ok);
    }
}
