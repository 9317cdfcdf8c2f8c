//! The order of an orderly shutdown, as a state machine without clock and without I/O.
//!
//! Serving -> Draining (readiness is off, so that balancers turn away) -> Closing (listeners close) -> Finishing (what was
//! admitted is answered) -> Syncing (the ledger takes what is left) -> Done. Invariants: no phase is skipped or run twice; each
//! phase ends at the latest when its window is over, so that the whole takes a bounded time; what was cut off is told.

/// How long each phase may take at most, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// From readiness off until the listeners close.
    pub draining_ms: u64,
    /// For the cores to confirm that their listeners are closed.
    pub closing_ms: u64,
    /// For the work that was admitted; `timeouts.write_ms` of the configuration.
    pub finishing_ms: u64,
    /// For the ledger to take and sync what is left.
    pub syncing_ms: u64,
}

/// Where the shutdown is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No shutdown was asked for.
    Serving,
    /// Readiness is off, connections are still accepted.
    Draining,
    /// Listeners are being closed.
    Closing,
    /// Admitted work is being finished.
    Finishing,
    /// The ledger is being synced.
    Syncing,
    /// The process can end.
    Done,
}

/// What the driver sees from outside, at each [`Drain::poll`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Listeners that are still open, over all cores.
    pub listeners: u64,
    /// Requests that are admitted and not answered, over all cores.
    pub inflight: u64,
    /// Whether the ledger has confirmed that everything is durable since it was asked.
    pub synced: bool,
}

/// What the driver must do now; each step is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Turn readiness off.
    DropReadiness,
    /// Tell every core to close its listeners.
    CloseListeners,
    /// Tell every core to answer what it has and to close idle connections.
    FinishInflight,
    /// Close what is left of the connections, then ask the ledger to sync. Says how many requests got no answer.
    SyncLedger {
        /// Requests whose outcome their clients have to ask for; repeating them is safe.
        unanswered: u64,
    },
    /// End the process with success if `clean`: everything was answered and is durable.
    Exit {
        /// Whether nothing was cut off.
        clean: bool,
    },
}

/// The shutdown of one process.
#[derive(Debug)]
pub struct Drain {
    windows: Windows,
    phase: Phase,
    /// When the phase began.
    since_ms: u64,
    cut_off: u64,
}

impl Drain {
    /// A service that serves.
    pub fn new(windows: Windows) -> Self {
        Self { windows, phase: Phase::Serving, since_ms: 0, cut_off: 0 }
    }

    /// Where the shutdown is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Begins the shutdown, once; a second call changes nothing. `now_ms` is any clock that does not go back.
    pub fn begin(&mut self, now_ms: u64) -> Option<Step> {
        (self.phase == Phase::Serving).then(|| self.enter(Phase::Draining, now_ms, Step::DropReadiness))
    }

    /// Says what to do now, if anything; to be called every few milliseconds until it says [`Step::Exit`].
    pub fn poll(&mut self, now_ms: u64, facts: Facts) -> Option<Step> {
        let elapsed_ms = now_ms.saturating_sub(self.since_ms);
        match self.phase {
            Phase::Serving | Phase::Done => None,
            Phase::Draining => {
                let over = elapsed_ms >= self.windows.draining_ms;
                over.then(|| self.enter(Phase::Closing, now_ms, Step::CloseListeners))
            }
            Phase::Closing => {
                let over = facts.listeners == 0 || elapsed_ms >= self.windows.closing_ms;
                over.then(|| self.enter(Phase::Finishing, now_ms, Step::FinishInflight))
            }
            Phase::Finishing => {
                let over = facts.inflight == 0 || elapsed_ms >= self.windows.finishing_ms;
                over.then(|| {
                    self.cut_off = facts.inflight;
                    self.enter(Phase::Syncing, now_ms, Step::SyncLedger { unanswered: facts.inflight })
                })
            }
            Phase::Syncing => {
                let over = facts.synced || elapsed_ms >= self.windows.syncing_ms;
                let clean = facts.synced && self.cut_off == 0;
                over.then(|| self.enter(Phase::Done, now_ms, Step::Exit { clean }))
            }
        }
    }

    fn enter(&mut self, phase: Phase, now_ms: u64, step: Step) -> Step {
        self.phase = phase;
        self.since_ms = now_ms;
        step
    }
}

#[cfg(test)]
mod tests {
    //! That the steps come in order, each once, early when nothing is left to wait for and late at the end of the window.
    use super::*;

    const WINDOWS: Windows = Windows { draining_ms: 100, closing_ms: 50, finishing_ms: 3_000, syncing_ms: 2_000 };

    fn steps(facts: impl Fn(u64, Phase) -> Facts) -> Vec<(u64, Step)> {
        let mut drain = Drain::new(WINDOWS);
        assert_eq!(drain.poll(0, Facts::default()), None);
        let mut steps = vec![(1_000, drain.begin(1_000).unwrap())];
        assert_eq!(drain.begin(1_000), None);
        for now in 1_000..10_000 {
            steps.extend(drain.poll(now, facts(now, drain.phase())).map(|step| (now, step)));
        }
        assert_eq!((drain.phase(), drain.begin(10_000)), (Phase::Done, None));
        steps
    }

    #[test]
    fn an_idle_service_is_down_right_after_its_drain() {
        let found = steps(|_, phase| Facts { listeners: 0, inflight: 0, synced: phase == Phase::Syncing });
        let expected = [
            (1_000, Step::DropReadiness),
            (1_100, Step::CloseListeners),
            (1_101, Step::FinishInflight),
            (1_102, Step::SyncLedger { unanswered: 0 }),
            (1_103, Step::Exit { clean: true }),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_stuck_service_is_down_when_the_windows_are_over_and_says_what_it_cut() {
        let found = steps(|_, _| Facts { listeners: 1, inflight: 7, synced: false });
        let expected = [
            (1_000, Step::DropReadiness),
            (1_100, Step::CloseListeners),
            (1_150, Step::FinishInflight),
            (4_150, Step::SyncLedger { unanswered: 7 }),
            (6_150, Step::Exit { clean: false }),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn work_that_ends_in_time_is_awaited_and_the_end_is_clean() {
        let found = steps(|now, _| Facts { listeners: 0, inflight: 2_000u64.saturating_sub(now), synced: now >= 2_500 });
        assert_eq!(found[3..], [(2_000, Step::SyncLedger { unanswered: 0 }), (2_500, Step::Exit { clean: true })]);
    }
}
