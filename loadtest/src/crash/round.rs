//! One round: load, a strike, and then the question whether everything that was acknowledged is there, once.

use std::{
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    upkeep::Aim,
    variant::Variant,
    victim::{Connections, Recovery, Strike, Victim},
};
use crate::{
    args::{CrashArgs, Rate},
    books::{self, Books},
    doubt::{self, Resolved},
    engine::{Ending, Engine, Outcome, Pace, Plan},
    fault::Fault,
    memory::{Fingerprint, Journal},
    progress::Progress,
    receipts::{self, Found},
    rng::Random,
    run,
    workload::Workload,
};

/// The load ends at the latest so long after the strike began, whatever became of it.
const AFTER_STRIKE_MAX: Duration = Duration::from_secs(120);
/// A wallet that was replaced has closed its connections so long after it went on.
const HEAR_OUT_MAX: Duration = Duration::from_secs(30);

/// What a round has come to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Round {
    /// What was done.
    pub variant: Variant,
    /// From 1, over all variants.
    pub number: u64,
    /// When the strike was due after the load began.
    pub struck_after_ms: u64,
    /// What it then was to come close to.
    pub aim: Aim,
    /// Replies per second until the load ended.
    pub rate: f64,
    /// Receipts that were acknowledged in this round.
    pub acknowledged: u64,
    /// Requests refused because the ledger, or room in it, was not there.
    pub unavailable: u64,
    /// Until the first of them, from the moment on at which it was made so.
    pub refused_after_ms: Option<u64>,
    /// The longest that any request waited for any answer while it was so.
    pub answered_after_ms_max: Option<u64>,
    /// Receipts asked for afterwards: all of this ledger's life.
    pub found: Found,
    /// What became of the requests without a reply.
    pub resolved: Resolved,
    /// Receipts that a wallet gave after it was replaced; the ledger must have had them before.
    pub late_receipts: u64,
    /// Until the service was ready again.
    pub recovery_ms: u64,
    /// The whole round.
    pub elapsed_ms: u64,
    /// The books afterwards.
    pub books: Books,
    /// How a disk that lied was found out.
    pub detected: Option<String>,
    /// How a daemon ended by itself whose syncs failed.
    pub ended: Option<String>,
    /// Acknowledged receipts that were not found byte for byte.
    pub missing: u64,
    /// Spends in doubt with another answer than the one receipt, and accounts with another balance or nonce than their receipts
    /// add up to.
    pub doubled: u64,
    /// Accounts below zero.
    pub negative: u64,
    /// Everything else that should not have been.
    pub unexplained: u64,
    /// Nothing was found.
    pub ok: bool,
}

/// What does not change from round to round.
pub struct Scene<'a> {
    /// How the load is.
    pub args: &'a CrashArgs,
    /// What is done.
    pub variant: Variant,
    /// No progress.
    pub quiet: bool,
    /// Ctrl-C.
    pub stop: &'a Arc<AtomicBool>,
}

impl Scene<'_> {
    /// One round; gives the receipts that it added, those of the repeats included. `history` are all earlier ones of this ledger.
    ///
    /// # Errors
    /// Any [`Fault`]; among them a service that does not come back.
    pub fn round(
        &self,
        victim: &mut dyn Victim,
        workload: &mut Workload,
        number: u64,
        history: &[Fingerprint],
        mut random: Random,
    ) -> Result<(Round, Vec<Fingerprint>), Fault> {
        let begin = Instant::now();
        let traffic = &self.args.traffic;
        let (troubles_before, unavailable_before) = (workload.tally.unexpected_count(), workload.tally.unavailable);
        let span = self.args.kill_after_max - self.args.kill_after_min;
        let after = self.args.kill_after_min + span.mul_f64(random.below(1_000_001) as f64 / 1e6);
        workload.reset_lanes();
        workload.outage.end();
        let aim = Aim::draw(&mut random);
        let strike = Strike { after, aim, outage: Arc::clone(&workload.outage), random };
        let (connections, pipeline) = (traffic.connections as usize, traffic.pipeline as usize);
        let mut engine = Engine::connect(victim.address(), connections, pipeline, traffic.patience, self.stop)?;
        let (outcome, left) = self.load(victim, workload, &mut engine, strike, number)?;
        judge_connections(workload, left, &outcome, engine.connections() as u64);

        let answers = workload.outage.take_answers();
        let in_ms = |after: Duration| after.as_millis() as u64;
        let mut round = Round {
            variant: self.variant,
            number,
            struck_after_ms: after.as_millis() as u64,
            aim,
            rate: outcome.rate(),
            unavailable: workload.tally.unavailable - unavailable_before,
            refused_after_ms: answers.refused_after.map(in_ms),
            // Without a refusal nobody is promised an answer: a wallet that was killed as well gives none, and one that is paused none soon.
            answered_after_ms_max: answers
                .refused_after
                .and(answers.slowest)
                .filter(|_| self.variant != Variant::Pause)
                .map(in_ms),
            ..Round::default()
        };
        let recovery = victim.recover(self.stop)?;
        let mut receipts = take_journal(workload);
        round.acknowledged = receipts.len() as u64;
        match recovery {
            Recovery::Whole(after) => round.recovery_ms = in_ms(after),
            Recovery::Ended(how, after) => (round.ended, round.recovery_ms) = (Some(how), in_ms(after)),
            Recovery::Detected(how) => round.detected = Some(how),
        }
        if round.detected.is_none() {
            // Nothing of it is an outage any more.
            workload.outage.end();
            if self.variant == Variant::SyncError && round.ended.is_none() {
                workload.tally.trouble("a sync that failed was passed over", || "the daemon goes on".into());
            }
            self.look(victim, workload, &mut round, history, &mut receipts, engine)?;
            // A lie whose batch was never acknowledged costs nothing: the wallet has it, and sends it again.
            if self.variant.ends_its_ledger() && round.found.identical < round.found.asked {
                workload.tally.trouble("what a disk had lost was not noticed", || "the wallet goes on serving".into());
            }
        }
        let troubles = workload.tally.unexpected_count() - troubles_before;
        let Resolved { in_doubt, had_taken_effect, took_effect_now, wrong } = round.resolved;
        round.missing = round.found.asked - round.found.identical;
        round.doubled = wrong + round.books.wrong_balances + round.books.wrong_nonces;
        round.negative = round.books.negative;
        let unanswered = in_doubt.saturating_sub(had_taken_effect + took_effect_now + wrong);
        round.unexplained = troubles.saturating_sub(round.missing + wrong) + round.books.unreadable + unanswered;
        let may_be_detected = self.variant.ends_its_ledger() || round.detected.is_none();
        round.ok = may_be_detected && troubles == 0 && round.missing + round.doubled + round.negative + round.unexplained == 0;
        round.ok &= round.detected.is_some() || round.books.balanced();
        round.elapsed_ms = begin.elapsed().as_millis() as u64;
        Ok((round, receipts))
    }

    /// The load, and the strike beside it.
    fn load(
        &self,
        victim: &mut dyn Victim,
        workload: &mut Workload,
        engine: &mut Engine,
        mut strike: Strike,
        number: u64,
    ) -> Result<(Outcome, Connections), Fault> {
        let pace = match self.args.rate {
            Rate::PerSecond(rate) => Pace::PerSecond(rate),
            Rate::Max | Rate::OfMax(_) => Pace::Max,
        };
        let ending = Ending { flag: Arc::default(), abandon: self.variant == Variant::Replace };
        let (over, stop) = (Arc::clone(&ending.flag), self.stop);
        let plan = Plan { pace, duration: Some(strike.after + AFTER_STRIKE_MAX), requests: None, ending: Some(ending) };
        let mut progress = Progress::new(self.label(number, "load"), None, self.quiet);
        let (driven, struck) = std::thread::scope(|scope| {
            let striking = scope.spawn(move || {
                let struck = victim.strike(&mut strike, stop);
                // A load whose connections all break ends by itself, and is to see each of them break.
                if !matches!(struck, Ok(Connections::Broken)) {
                    over.store(true, Ordering::Release);
                }
                struck
            });
            let driven = engine.drive(workload, &plan, &mut progress);
            (driven, striking.join())
        });
        let struck = struck.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((driven?, struck))
    }

    /// Looks for every receipt, repeats what is in doubt, and compares the books.
    fn look(
        &self,
        victim: &mut dyn Victim,
        workload: &mut Workload,
        round: &mut Round,
        history: &[Fingerprint],
        receipts: &mut Vec<Fingerprint>,
        mut engine: Engine,
    ) -> Result<(), Fault> {
        let traffic = &self.args.traffic;
        let mut reader = run::preparation_engine(traffic, victim.address(), self.stop)?;
        let wanted = [history, receipts].concat();
        let mut progress = Progress::new(self.label(round.number, "finding receipts"), Some(wanted.len() as u64), self.quiet);
        round.found = receipts::fetch(&mut reader, &workload.requests, &wanted, &mut workload.tally, &mut progress)?;
        round.resolved = doubt::resolve(&mut reader, workload, self.quiet)?;
        receipts.extend(take_journal(workload));
        if self.variant == Variant::Replace {
            let late = self.hear_the_replaced(victim, workload, &mut engine)?;
            let found =
                receipts::fetch(&mut reader, &workload.requests, &late, &mut workload.tally, &mut Progress::new("", None, true))?;
            round.late_receipts = found.asked;
            round.found.asked += found.asked;
            round.found.identical += found.identical;
        }
        let mut progress = Progress::new(self.label(round.number, "checking the books"), Some(2 * traffic.accounts), self.quiet);
        round.books = books::check(&mut reader, &workload.requests, &workload.model, &mut progress)?;
        Ok(())
    }

    /// What was in flight has been repeated on the new wallet; now the old one goes on, with all of that still in its sockets. It may
    /// hand out receipts that the ledger had before it was replaced, and nothing else, and has to end.
    fn hear_the_replaced(
        &self,
        victim: &mut dyn Victim,
        workload: &mut Workload,
        engine: &mut Engine,
    ) -> Result<Vec<Fingerprint>, Fault> {
        victim.resume_replaced();
        let mut late = Vec::new();
        let closed = engine.hear_out(HEAR_OUT_MAX, &mut |reply| {
            if reply.status == 200 && is_receipt(reply.body) {
                late.extend(Fingerprint::of(reply.body));
            }
        })?;
        if !closed {
            workload.tally.trouble("a wallet that was replaced keeps its connections", || "they are open".into());
        }
        if let Some(wrong) = victim.replaced_has_ended(self.stop)? {
            workload.tally.trouble("a wallet that was replaced has not ended as it must", || wrong);
        }
        Ok(late)
    }

    fn label(&self, number: u64, what: &str) -> String {
        format!("{number} {}: {what}", self.variant.name())
    }
}

fn is_receipt(body: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(body).is_ok_and(|body| body.get("txid").is_some())
}

fn judge_connections(workload: &mut Workload, left: Connections, outcome: &Outcome, connections: u64) {
    let broken = outcome.disconnected;
    let wrong = match left {
        Connections::Broken => (broken < connections).then_some("connections outlived the kill"),
        Connections::Kept => (broken > 0).then_some("connections broke although their wallet went on"),
        Connections::Abandoned | Connections::Open => None,
    };
    if let Some(kind) = wrong {
        let why = outcome.first_break.as_deref().unwrap_or("none");
        workload.tally.trouble(kind, || format!("{broken} of {connections} broke, the first: {why}"));
    }
}

/// The receipts since the last call.
pub fn take_journal(workload: &mut Workload) -> Vec<Fingerprint> {
    workload.journal.as_mut().map(Journal::take_fingerprints).unwrap_or_default()
}
