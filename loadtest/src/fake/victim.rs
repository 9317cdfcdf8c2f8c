//! What a crash test does to the small wallet in memory: every variant, survived as promised, or not.

use std::{
    net::{Shutdown, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::{Fake, Flaw, Shared, State};
use crate::{
    crash::{
        upkeep::Upkept,
        variant::Variant,
        victim::{pause, wait_for, Closed, Connections, Recovery, Strike, Victim},
    },
    fault::Fault,
};

/// How long its ledger is gone, or it does nothing.
const TROUBLE: Duration = Duration::from_millis(40);
/// What it waits for comes at once, or the test is wrong.
const PATIENCE: Duration = Duration::from_secs(60);
/// More requests than a test sends.
const NEVER_REACHED: u64 = 1 << 40;

impl Victim for Fake {
    fn address(&self) -> SocketAddr {
        Fake::address(self)
    }

    fn strike(&mut self, strike: &mut Strike, stop: &AtomicBool) -> Result<Connections, Fault> {
        let shared = &self.shared;
        *shared.older.lock().unwrap() = None;
        pause(strike.after, stop)?;
        match shared.variant {
            Variant::Embedded | Variant::Wallet | Variant::Both => {
                let state = shared.state.lock().unwrap();
                shared.killed.store(true, Ordering::SeqCst);
                shared.break_connections(false);
                drop(state);
                Ok(Connections::Broken)
            }
            Variant::Daemon
            | Variant::DiskFull
            | Variant::SmallDisk
            | Variant::SmallDiskEmbedded
            | Variant::LoseUnsynced
            | Variant::SyncError => {
                strike.begin_outage();
                let refused = shared.refused.load(Ordering::SeqCst);
                shared.outage.store(true, Ordering::SeqCst);
                pause(TROUBLE, stop)?;
                // Accounts with spends that were refused beforehand spend no more, so those may all be waiting.
                if shared.flaw != Flaw::RefusesBeforehand {
                    let noticed = wait_for(PATIENCE, stop, || shared.refused.load(Ordering::SeqCst) > refused)?;
                    assert!(noticed, "the load writes nothing more");
                }
                if shared.flaw == Flaw::BreaksInAnOutage {
                    shared.break_connections(false);
                }
                if shared.variant == Variant::SmallDiskEmbedded {
                    let state = shared.state.lock().unwrap();
                    shared.killed.store(true, Ordering::SeqCst);
                    shared.break_connections(false);
                    drop(state);
                    shared.outage.store(false, Ordering::SeqCst);
                    return Ok(Connections::Broken);
                }
                self.restart();
                self.shared.outage.store(false, Ordering::SeqCst);
                Ok(Connections::Kept)
            }
            Variant::Pause => {
                let state = shared.state.lock().unwrap();
                pause(TROUBLE, stop)?;
                drop(state);
                Ok(Connections::Kept)
            }
            Variant::Replace => {
                let state = shared.state.lock().unwrap();
                // No receipt that it could still make up is one that the new wallet gives.
                *shared.stale.lock().unwrap() = State { sequence: state.sequence + NEVER_REACHED, ..state.clone() };
                shared.generation.fetch_add(1, Ordering::SeqCst);
                drop(state);
                let held = wait_for(PATIENCE, stop, || shared.held.load(Ordering::SeqCst) > 0)?;
                assert!(held, "the load sends nothing more");
                Ok(Connections::Abandoned)
            }
            Variant::LyingSync => {
                shared.break_connections(false);
                Ok(Connections::Open)
            }
        }
    }

    fn recover(&mut self, _stop: &AtomicBool) -> Result<Recovery, Fault> {
        match self.shared.variant {
            Variant::LyingSync if !matches!(self.shared.flaw, Flaw::ServesAfterALie | Flaw::LosesNothingByALie) => {
                return Ok(Recovery::Detected("the fake ends".into()));
            }
            Variant::Embedded | Variant::Wallet | Variant::Both | Variant::SmallDiskEmbedded | Variant::LyingSync => {
                self.restart()
            }
            Variant::SyncError if self.shared.flaw != Flaw::PassesOverAFailedSync => {
                return Ok(Recovery::Ended("the fake ends".into(), Duration::from_millis(1)));
            }
            Variant::Daemon
            | Variant::DiskFull
            | Variant::SmallDisk
            | Variant::LoseUnsynced
            | Variant::Pause
            | Variant::Replace
            | Variant::SyncError => {}
        }
        self.shared.killed.store(false, Ordering::SeqCst);
        Ok(Recovery::Whole(Duration::from_millis(1)))
    }

    fn resume_replaced(&mut self) {
        self.shared.resumed.store(self.shared.generation.load(Ordering::SeqCst), Ordering::SeqCst);
        if self.shared.flaw == Flaw::AcknowledgesWhenReplaced {
            // It ends after a while, as a process does that is told by its ledger.
            let answered = || self.shared.held.load(Ordering::SeqCst) == 0;
            assert!(wait_for(PATIENCE, &AtomicBool::new(false), answered).unwrap(), "the fake hangs");
        }
        self.shared.break_connections(true);
    }

    fn replaced_has_ended(&mut self, _stop: &AtomicBool) -> Result<Option<String>, Fault> {
        Ok((self.shared.flaw == Flaw::DoesNotEndWhenReplaced).then(|| "the fake goes on".into()))
    }

    fn upkept(&self) -> Upkept {
        Upkept::default()
    }

    fn close(&mut self) -> Result<Closed, Fault> {
        let entries = self.shared.state.lock().unwrap().by_txid.len() as u64;
        let audited = entries - u64::from(self.shared.flaw == Flaw::AuditsOneLess);
        Ok(Closed { entries: entries + u64::from(self.shared.flaw == Flaw::HasAnEntryBesides), audited })
    }

    fn keep(&mut self) {}
}

impl Fake {
    /// What a restart of the wallet, or of its ledger, leaves.
    fn restart(&mut self) {
        let mut state = self.shared.state.lock().unwrap();
        let restart = self.shared.restarts.fetch_add(1, Ordering::SeqCst) + 1;
        match self.shared.flaw {
            Flaw::ForgetsOneForARound => {
                let mut mislaid = self.shared.mislaid.lock().unwrap();
                match restart {
                    1 => {
                        let first = state.by_txid.iter().filter(|(_, receipt)| receipt.contains("transfer")).min();
                        *mislaid = first.map(|(txid, receipt)| (txid.clone(), receipt.clone()));
                    }
                    2 => drop(state.by_txid.remove(&mislaid.as_ref().unwrap().0)),
                    _later => state.by_txid.extend(mislaid.take()),
                }
            }
            Flaw::ForgetsAtRestart | Flaw::ServesAfterALie => {
                if let Some(older) = self.shared.older.lock().unwrap().take() {
                    *state = older;
                }
            }
            Flaw::AltersReceiptsAtRestart => {
                state.by_txid.values_mut().for_each(|receipt| *receipt = receipt.replacen("accepted", "settled!", 1));
            }
            Flaw::ForgetsKeysAtRestart => state.by_key.clear(),
            _right_here => {}
        }
    }
}

impl Shared {
    /// Breaks every connection, or those that a wallet had which was replaced.
    fn break_connections(&self, of_the_replaced: bool) {
        let newest = self.generation.load(Ordering::SeqCst);
        self.open.lock().unwrap().retain(|(generation, stream)| {
            let stays = of_the_replaced && *generation == newest;
            if let Some(stream) = stream.upgrade().filter(|_| !stays) {
                let _already_closed = stream.shutdown(Shutdown::Both);
            }
            stays
        });
    }
}
