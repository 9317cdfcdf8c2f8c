//! The history in histories: followed in steps of any size, cut by a power loss at any write, rotten. Every proof verifies; every root is
//! what it was before the crash, and later ones continue it.
use crate::rng::Rng;
use crate::snapshots::bytes;
use crate::world::World;
use svc_wallet::domain::{HistoryAnswer, HistoryQuestion, HistoryRoot, LogId, Proof, Seq, Unproven};
use svc_wallet::ledger::history::{verify_consistency, verify_inclusion, HISTORY_NAME};
use svc_wallet::ledger::Storage;

impl World {
    /// Asks for the root, for the proof of some entry, and how the root continues an earlier one; whether all of it was told.
    pub fn prove(&mut self, rng: &mut Rng) -> bool {
        if self.model.head() == 0 {
            return true;
        }
        let Some(HistoryAnswer::Root(Ok(root))) = self.ask(&HistoryQuestion::Root) else { return false };
        let whole = (self.model.commits.len() as u64, Seq(self.model.head()));
        assert_eq!((root.size, root.through), whole, "the history has every commit");
        self.note_root(root);
        let seq = Seq(1 + rng.below(self.model.head()));
        let batch = self.model.commits.partition_point(|last| *last < seq.0) as u64;
        let size = Some(batch + 1 + rng.below(root.size - batch)).filter(|_| rng.percent(60));
        let Some(HistoryAnswer::Proof(found, Ok(inclusion))) = self.ask(&HistoryQuestion::Proof { seq, size }) else {
            return false;
        };
        let placed = self.model.at(seq).expect("just chosen");
        assert_eq!((&*found.entry, found.root, inclusion.batch), (&*placed.entry, placed.root, batch), "the entry in its batch");
        assert_eq!(inclusion.root.size, size.unwrap_or(root.size), "an entry is proven under the root that was asked for");
        self.note_root(inclusion.root);
        let proof = Proof { log_id: LogId([7; 16]), found, inclusion };
        verify_inclusion(&proof).unwrap_or_else(|fault| panic!("a proof does not verify: {fault:?}"));
        self.coverage.count("history: entry proven");
        let earlier = *rng.pick(&self.roots.keys().copied().collect::<Vec<_>>());
        let question = HistoryQuestion::Consistency { from: earlier, to: root.size };
        let Some(HistoryAnswer::Consistency(Ok(proof))) = self.ask(&question) else { return false };
        assert_eq!((Some(&proof.from), proof.to), (self.roots.get(&earlier), root), "roots are what they were");
        verify_consistency(&proof).unwrap_or_else(|fault| panic!("a root does not continue an earlier one: {fault:?}"));
        self.coverage.count("history: earlier root continued");
        true
    }

    /// The root of a size is the same for ever.
    fn note_root(&mut self, root: HistoryRoot) {
        let known = *self.roots.entry(root.size).or_insert(root);
        assert_eq!(known, root, "the root of a size never changes");
    }

    fn ask(&mut self, question: &HistoryQuestion) -> Option<HistoryAnswer> {
        let told = self.faults().told;
        let answer = self.process().reader.history(question);
        let excused = self.lied().is_some() || self.failing || self.faults().told > told;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                assert!(excused, "the ledger cannot be read: {error}");
                return None;
            }
        };
        let unproven = match &answer {
            HistoryAnswer::NoEntry => panic!("the history has every entry: none to {question:?}"),
            HistoryAnswer::Proof(_, outcome) => outcome.as_ref().err(),
            HistoryAnswer::Root(outcome) => outcome.as_ref().err(),
            HistoryAnswer::Consistency(outcome) => outcome.as_ref().err(),
        };
        if let Some(unproven) = unproven {
            let excused = excused || self.history_rotten || self.full_until > 0;
            assert!(
                excused && *unproven == Unproven::Behind,
                "the history proves what was committed: {unproven:?} to {question:?}"
            );
            self.coverage.count("history: begun anew or behind");
            return None;
        }
        Some(answer)
    }

    /// Power loss somewhere while the history is written.
    pub fn crash_in_history(&mut self, rng: &mut Rng) {
        self.say(|| "power loss in the history".into());
        self.coverage.count("crash: in the history");
        // Where no index is to be made, the history is written at once.
        let changes = if rng.percent(50) { 3 } else { 12 };
        self.storage.fail_after(Some(rng.below(changes)));
        self.failing = true;
        self.prepare(rng);
        self.prove(rng);
        self.failing = false;
        self.lose_power(rng);
    }

    /// Some bits of the file of nodes flip.
    pub fn rot_history(&mut self, rng: &mut Rng) {
        if self.storage.open(HISTORY_NAME).is_err() {
            return;
        }
        let length = bytes(&self.storage, HISTORY_NAME).len() as u64;
        self.storage.rot(HISTORY_NAME, rng.below(length.max(1)), 1 << rng.below(8));
        self.say(|| "the history rots".into());
        self.coverage.count("history: bit rot");
        self.history_rotten = true;
    }

    /// At rest everything can be proven, at the latest once the history was made again.
    pub fn check_history(&mut self, rng: &mut Rng) {
        let proven = (0..4).any(|_| self.prove(rng));
        assert!(proven || self.lied().is_some(), "the history is made again where it was damaged");
    }
}
