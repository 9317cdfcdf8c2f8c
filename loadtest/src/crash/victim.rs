//! What a round does something to: a service that can be struck under load and has to be whole again afterwards.

use std::{
    net::SocketAddr,
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
    time::{Duration, Instant},
};

use super::upkeep::{Aim, Upkept};
use crate::{fault::Fault, outage::Outage, rng::Random};

/// However long a wait is, Ctrl-C ends it after so long.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// When and how a round strikes.
pub struct Strike {
    /// So long after the load began.
    pub after: Duration,
    /// To be raised before the service may say that it cannot write.
    pub outage: Arc<Outage>,
    /// What it is to come close to.
    pub aim: Aim,
    /// Decides whatever else is left open.
    pub random: Random,
}

impl Strike {
    /// From now on the service may refuse writes.
    pub fn begin_outage(&self) {
        self.outage.begin();
    }

    /// A time between these two.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        least + (most - least).mul_f64(self.random.below(1_000_001) as f64 / 1e6)
    }
}

/// What must have become of the connections of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// Their wallet is gone: all are broken.
    Broken,
    /// Their wallet goes on: none is broken.
    Kept,
    /// Nothing of them is waited for; they are looked at again once the wallet that was replaced goes on.
    Abandoned,
    /// Either: what counts is whether the service serves.
    Open,
}

/// How the service is after a strike.
#[derive(Debug)]
pub enum Recovery {
    /// It serves again; this is how long it took.
    Whole(Duration),
    /// A part of it has ended by itself, as it must when its disk fails, and was started again; so it ended, and after so long it
    /// served again.
    Ended(String, Duration),
    /// It has found that its disk has lost what was acknowledged, and serves no more.
    Detected(String),
}

/// A service that can be struck.
pub trait Victim: Send {
    /// Where it answers now.
    fn address(&self) -> SocketAddr;

    /// Does to itself what the round is about, while the load runs.
    ///
    /// # Errors
    /// Any [`Fault`]; among them a part that should have gone on and has not.
    fn strike(&mut self, strike: &mut Strike, stop: &AtomicBool) -> Result<Connections, Fault>;

    /// Makes it whole again, after the load has ended.
    ///
    /// # Errors
    /// Any [`Fault`]; among them a part that does not start again.
    fn recover(&mut self, stop: &AtomicBool) -> Result<Recovery, Fault>;

    /// Lets a wallet go on that was paused and replaced.
    fn resume_replaced(&mut self);

    /// Looks how the wallet that was replaced has ended. Gives what is wrong with that.
    ///
    /// # Errors
    /// [`Fault::Interrupted`].
    fn replaced_has_ended(&mut self, stop: &AtomicBool) -> Result<Option<String>, Fault>;

    /// What its ledger has done beside its commits so far.
    fn upkept(&self) -> Upkept;

    /// Ends the service in order, replays its ledger, and compares its audit stream with it.
    ///
    /// # Errors
    /// Any [`Fault`]; among them a ledger or a stream that is not whole.
    fn close(&mut self) -> Result<Closed, Fault>;

    /// Leaves on disk what there is, for people: something was found.
    fn keep(&mut self);
}

/// What a ledger had come to at the end of its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Its entries.
    pub entries: u64,
    /// Operations of the audit stream that are these entries.
    pub audited: u64,
}

/// Sleeps, or hears Ctrl-C.
///
/// # Errors
/// [`Fault::Interrupted`].
pub fn pause(long: Duration, stop: &AtomicBool) -> Result<(), Fault> {
    wait_for(long, stop, || false).map(drop)
}

/// Waits until this holds; false if it does not after so long.
///
/// # Errors
/// [`Fault::Interrupted`].
pub fn wait_for(most: Duration, stop: &AtomicBool, mut holds: impl FnMut() -> bool) -> Result<bool, Fault> {
    let begin = Instant::now();
    loop {
        if holds() {
            return Ok(true);
        }
        if stop.load(Ordering::Relaxed) {
            return Err(Fault::Interrupted);
        }
        let left = most.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        std::thread::sleep(left.min(LOOK_EVERY));
    }
}
