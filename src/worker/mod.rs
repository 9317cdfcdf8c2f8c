//! The core workers: one pinned thread per core with its own event loop, its own listener and its own slice of the accounts.
//!
//! The worker is thin: it moves bytes between sockets and the front, letters between cores, and batches to the ledger. What a
//! request means is decided in `api` and `access`, what it does in `engine`.
mod admission;
mod clock;
mod connection;
mod core;
mod denials;
mod disturbance;
mod driver;
mod front;
mod labels;
mod listener;
mod mailbox;
mod quotas;
mod serve;
mod site;
mod spans;
mod sweep;
mod terms;
mod writes;

pub use crate::ledger::unix_now;
pub use admission::{Admission, Ceilings};
pub use disturbance::{Disturbance, Disturbed, Share};
pub use driver::{Driver, Wanted};
pub use labels::{METHOD_LABELS, ROUTE_LABELS, SERVED};
pub use listener::bind;
pub use mailbox::{mailbox, Asked, Inbox, Letter, Mailbox, Order};
pub use quotas::SharedQuotas;
pub use serve::LARGE_INPUT_BYTES_MAX;
pub use site::{ControlPlane, ControlReply, SharedGate, Site};
pub use sweep::{Timeouts, LEDGER_DOWN_PATIENCE, SWEEP_EVERY};

use self::core::{Core, SharedCore};
use crate::access::Keyring;
use crate::domain::CoreId;
use crate::engine::Engine;
use crate::ledger::{LaneSender, LookupDesk};
use crate::ring::Ring;
use crate::telemetry::feed::Feed;
use crate::telemetry::CoreStats;
use crossbeam_channel::{Receiver, Sender};
use front::Front;
use monoio::io::Canceller;
use monoio::net::TcpListener;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Pause before something that could not be handed over is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(1);
/// How often a core that drains looks whether it has finished.
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(5);

/// What is particular to one core at start.
pub struct CoreParts {
    /// The engine with its slice rebuilt from the ledger.
    pub engine: Engine,
    /// Its inbox.
    pub inbox: Inbox,
    /// Its listener.
    pub listener: std::net::TcpListener,
    /// Its lane to the ledger.
    pub lane: LaneSender,
    /// The keys that it begins to verify with.
    pub keyring: Arc<Keyring>,
    /// The CPU that it is pinned to.
    pub cpu: usize,
    /// Where it tells the audit stream of refused writes, if there is one.
    pub feed: Option<Feed>,
}

/// The running cores.
pub struct Workers {
    mailboxes: Vec<Mailbox>,
    threads: Vec<JoinHandle<()>>,
    stats: Receiver<(CoreId, Box<CoreStats>)>,
}

/// Starts one thread per core.
///
/// # Errors
/// If a thread cannot be made.
pub fn start(
    site: &Arc<Site>,
    ring: Ring,
    driver: &Driver,
    desk: &Arc<LookupDesk<Asked>>,
    mailboxes: Vec<Mailbox>,
    parts: Vec<CoreParts>,
) -> io::Result<Workers> {
    assert_eq!(parts.len(), usize::from(ring.cores()));
    let (stats_back, stats) = crossbeam_channel::bounded(4 * parts.len());
    let mut threads = Vec::with_capacity(parts.len());
    for (number, parts) in parts.into_iter().enumerate() {
        let place = Place {
            core: CoreId(number as u16),
            ring,
            site: site.clone(),
            driver: driver.clone(),
            desk: desk.clone(),
            peers: mailboxes.clone(),
            stats_back: stats_back.clone(),
        };
        threads.push(std::thread::Builder::new().name(format!("core-{number}")).spawn(move || place.run(parts))?);
    }
    Ok(Workers { mailboxes, threads, stats })
}

/// Empty figures with the tables of routes and methods that the cores count by.
pub fn empty_stats() -> Box<CoreStats> {
    Box::new(CoreStats::new(ROUTE_LABELS.len(), METHOD_LABELS.len()))
}

impl Workers {
    /// Asks every core for its figures; they arrive through [`Workers::stats`]. A core with a full inbox is left out this time.
    pub fn ask_stats(&self) {
        for mailbox in &self.mailboxes {
            if mailbox.try_put(Letter::Order(Order::Stats(empty_stats()))).is_ok() {
                mailbox.ring();
            }
        }
    }

    /// How many there are.
    pub fn cores(&self) -> usize {
        self.mailboxes.len()
    }

    /// Where the cores' figures arrive.
    pub fn stats(&self) -> &Receiver<(CoreId, Box<CoreStats>)> {
        &self.stats
    }

    /// Tells every core to finish what is in flight, for at most the write timeout, and then to end.
    pub fn drain(&self) {
        for mailbox in &self.mailboxes {
            mailbox.put(Letter::Order(Order::Drain));
        }
    }

    /// Whether all cores have ended. A panic of one ends the process, so it cannot be met here.
    pub fn ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}

/// Everything that a core's thread takes along.
struct Place {
    core: CoreId,
    ring: Ring,
    site: Arc<Site>,
    driver: Driver,
    desk: Arc<LookupDesk<Asked>>,
    peers: Vec<Mailbox>,
    stats_back: Sender<(CoreId, Box<CoreStats>)>,
}

impl Place {
    fn run(self, parts: CoreParts) {
        pin(parts.cpu);
        let driver = self.driver.clone();
        let ended = driver.run(|| self.serve(parts));
        if let Err(error) = ended {
            tracing::error!(event = "core_failed", %error, "a core's event loop could not be built");
            std::process::exit(1);
        }
    }

    async fn serve(self, parts: CoreParts) {
        let CoreParts { engine, inbox, listener, lane, keyring, feed, .. } = parts;
        let front = Front::new(self.core, self.ring, self.site.clone(), keyring, self.desk, feed, empty_stats());
        let core = Core::new(engine, front, inbox, self.peers, lane, self.stats_back);
        let sleeper = core.sleeper();
        let core: SharedCore = Rc::new(RefCell::new(core));
        let listener = TcpListener::from_std(listener).expect("the listener was bound for this loop");
        let canceller = Canceller::new();
        let accepting = monoio::spawn(listener::accept(core.clone(), listener, canceller.handle(), self.site.clone()));
        monoio::spawn(flush(core.clone()));
        monoio::spawn(sweep_often(core.clone(), self.site.timeouts));
        while !core.borrow().draining {
            poll_fn(|context| sleeper.poll_letters(context)).await;
            let mut core = core.borrow_mut();
            core.empty_inbox();
            core.want_flush();
        }
        canceller.cancel();
        accepting.await;
        finish(&core, &self.site, usize::from(self.ring.cores())).await;
        core.borrow_mut().close_inbox();
    }
}

/// Goes on until all cores have finished what is in flight, for at most the write timeout.
async fn finish(core: &SharedCore, site: &Site, cores: usize) {
    let deadline = Instant::now() + site.timeouts.write;
    let mut finished = false;
    while Instant::now() < deadline {
        if !finished && core.borrow().finished() {
            finished = true;
            site.cores_finished.fetch_add(1, Ordering::Relaxed);
        }
        if site.cores_finished.load(Ordering::Relaxed) >= cores {
            return;
        }
        monoio::time::sleep(DRAIN_LOOK_EVERY).await;
        let mut core = core.borrow_mut();
        core.empty_inbox();
        core.want_flush();
    }
}

/// Hands over what has collected since the tasks that were ready began to run.
async fn flush(core: SharedCore) {
    let wanted =
        || poll_fn(|context| if core.borrow_mut().poll_flush(context.waker()) { Poll::Ready(()) } else { Poll::Pending });
    loop {
        wanted().await;
        while core.borrow_mut().flush() {
            // Whether somebody asks before or the time is over makes no difference.
            let _ = monoio::time::timeout(RETRY_AFTER, wanted()).await;
        }
    }
}

async fn sweep_often(core: SharedCore, timeouts: Timeouts) {
    loop {
        monoio::time::sleep(sweep::SWEEP_EVERY).await;
        sweep::sweep(&mut core.borrow_mut(), &timeouts);
    }
}

/// Pins the calling thread; a CPU that may not be used is a reason to warn, not to stop.
fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        tracing::warn!(event = "pin_failed", cpu, %error, "a core could not be pinned; check runtime.cores against the CPUs allowed");
    }
}
