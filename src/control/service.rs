//! The whole service in one process: put together in order, watched once in a while, taken apart in order.
//!
//! The order matters. Everything that can refuse to start does so before the ledger is touched; the control port answers while
//! the ledger is still being read; a core gets its slice before it gets its listener.
use super::auditing::Auditing;
use super::counting::{CountersDesk, Counting, Place};
use super::custody::custody;
use super::ephemeral::EphemeralKeys;
use super::fault::{refused, ServiceFault};
use super::faults::{Faults, Switches};
use super::keys::{InForce, KeyWatch, Telling};
use super::ledger::{Deliver, Ledger, Opened};
use super::notes::Notes;
use super::pages::{control_servers, ServicePages};
use super::policy::{PolicyKeeper, PolicyReloads};
use super::replay::Interruption;
use super::revocations::RevocationWatch;
use super::root_signing::RootSigning;
use super::site::site;
use super::slices::Slices;
use super::supervisor::Supervisor;
use super::system::{leave_to_cores, raise_file_limit};
use super::topology::Topology;
use super::traces::Traces;
use super::watch::{Files, Watcher};
use super::{ControlServer, Dep, Readiness, SharedVersion, SignalEvent, Signals, Version};
use crate::access::{forbid_core_dumps, forbid_swap, Custody, Keyring, KeyringFault, Policy, RevocationBoard, Stamp, UNCHECKED};
use crate::audit::{Event, EventKind};
use crate::config::{self, cpus_usable, AuditSink, Config, FEATURES};
use crate::domain::{hex, CoreId, Durable};
use crate::engine::{Engine, Gate};
use crate::ledger::{LookupDesk, Schedule, Scrubbing};
use crate::ring::Ring;
use crate::shard::{Budgets, Settings};
use crate::telemetry::feed::feed;
use crate::telemetry::logs::LogGuard;
use crate::telemetry::{BuildInfo, Check, Labels, Publisher};
use crate::worker::{self, mailbox, unix_now, CoreParts, Driver, Letter, Mailbox, Site, Wanted, Workers};
use crossbeam_channel::Receiver;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// Questions to the ledger that wait for the lookup desk.
const QUESTIONS_MAX: usize = 4096;
/// Time between two looks at the figures while the service drains: what is counted after the last look is not seen any more.
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(10);

/// Exit code of a server that can never write to its ledger again: another one has taken it over, or the daemon has another ledger. It
/// is no other exit's, because a supervisor must not start such a server again: two would take the ledger from each other in turns.
pub const EXIT_REPLACED: i32 = 3;

/// Lets a panic of any thread end the process after its message: half a service would keep accounts and lanes silent, and the
/// supervisor starts a whole one.
fn end_with_any_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
}

/// Runs the service until a signal ends it. Of `log` it shows how many lines were dropped.
///
/// # Errors
/// If it cannot start, or the ledger cannot be closed in order.
pub fn run(config: &Config, log: &LogGuard) -> Result<(), ServiceFault> {
    end_with_any_panic();
    let amnesia = config.security.amnesia;
    match forbid_core_dumps() {
        Err(error) if amnesia => return Err(refused("security.amnesia: core dumps cannot be turned off")(error)),
        Err(error) => {
            tracing::warn!(event = "core_dumps_possible", %error, "the system does not let core dumps be turned off; secrets may get into one");
        }
        Ok(()) => {}
    }
    let notes = Notes::default();
    let keys = match amnesia {
        true => {
            forbid_swap().map_err(refused("security.amnesia"))?;
            Keys::InMemory(Arc::new(EphemeralKeys::new(notes.clone()).map_err(refused("cannot make a key"))?))
        }
        // Its key may have to be taken out of the environment, which is done while there is but the thread of the log.
        false => Keys::InFile(custody(&config.security)),
    };
    let (_signals, events) = Signals::listen().map_err(refused("cannot take over the signals"))?;
    let supervisor = Supervisor::of_process();
    supervisor.status("reading the ledger");
    let mut interruption = Interruption::new(&events);
    let Some(service) = Service::start(config, keys, notes, &mut interruption)? else {
        return Ok(());
    };
    if interruption.reload_wanted() {
        service.reload();
    }
    supervisor.ready("serving");
    service.watch(&events, log, &supervisor);
    supervisor.ending("draining, then closing the ledger");
    service.stop(log)
}

/// Where the keyring is.
enum Keys {
    InFile(Custody),
    InMemory(Arc<EphemeralKeys>),
}

impl Keys {
    /// The keyring, and what tells the state of its file from the next one.
    fn open(&self) -> Result<(InForce, Option<Stamp>), KeyringFault> {
        match self {
            Keys::InFile(custody) => {
                let (keyring, stamp) = custody.open_or_create()?;
                Ok((InForce::new(Arc::new(keyring)), Some(stamp)))
            }
            Keys::InMemory(keys) => Ok((keys.in_force(), None)),
        }
    }

    /// Puts the keyring in force anew if its file has changed since it was read, and tells its state. One that cannot be opened changes
    /// nothing: whoever watches the file says so.
    fn look_again(&self, in_force: &InForce, stamp: Option<Stamp>) -> Option<Stamp> {
        match self {
            Keys::InFile(custody) if custody.stamp() != stamp => {
                // What changes while it is read is noticed by whoever watches the file.
                let now = custody.stamp();
                match custody.open() {
                    Ok(keyring) => {
                        in_force.replace(Arc::new(keyring));
                        now
                    }
                    Err(_) => stamp,
                }
            }
            Keys::InFile(_) | Keys::InMemory(_) => stamp,
        }
    }

    /// If it is in memory, what the admin socket asks.
    fn in_memory(&self) -> Option<Arc<EphemeralKeys>> {
        match self {
            Keys::InFile(_) => None,
            Keys::InMemory(keys) => Some(keys.clone()),
        }
    }
}

struct Service {
    readiness: Readiness,
    site: Arc<Site>,
    workers: Workers,
    ledger: Ledger,
    desk: Arc<LookupDesk<worker::Asked>>,
    counting: Counting,
    auditing: Option<Arc<Auditing>>,
    /// None if there is no file to look after.
    keys: Option<KeyWatch>,
    roots: RootSigning,
    traces: Traces,
    faults: Arc<Faults>,
    watcher: Watcher,
    notes: Notes,
    /// Time between readiness off and listeners closed, so that a balancer that looks can turn away.
    drain_notice: Duration,
    _servers: Vec<ControlServer>,
}

impl Service {
    /// `None` if a signal asked for an end while the ledger was being read.
    fn start(
        config: &Config,
        keys: Keys,
        notes: Notes,
        interruption: &mut Interruption<'_>,
    ) -> Result<Option<Self>, ServiceFault> {
        raise_file_limit(config.limits.connections);
        let policy = Policy::load(&config.security.policy_file)?;
        let (in_force, mut stamp) = keys.open()?;
        let board = Arc::<RevocationBoard>::default();
        let mut revocations = RevocationWatch::open(config.security.revocations.clone(), board.clone())?;
        let usable = cpus_usable().map_err(refused("cannot tell which CPUs may be used"))?;
        let cpus = config.runtime.cores.resolve(&usable).map_err(ServiceFault::Refused)?;
        leave_to_cores(&usable, &cpus);
        let switches = Switches::default();
        let topology = Arc::new(Topology::start(config, switches.registry.clone())?);
        let driver = Driver::choose(wanted(config), cpus.len()).map_err(ServiceFault::Refused)?;
        if let Driver::Epoll { cause: Some(cause) } = &driver {
            tracing::warn!(event = "driver_fallback", reason = %cause, "running on epoll");
        }
        let ring = Ring::new(cpus.len() as u16);
        let bind = || {
            worker::bind(config.bind.http, cpus.len()).map_err(refused(format!(
                "bind.http: cannot listen on {}; stop what listens there or choose another address",
                config.bind.http
            )))
        };
        // A bad address is told at once. Nobody is let in before the ledger has been read: who came early would only wait.
        drop(bind()?);

        let readiness = Readiness::new();
        for dep in Dep::ALL {
            readiness.down(dep, "the service is starting");
        }
        let status = Arc::new(Mutex::new(String::from("{}")));
        let publisher = Arc::new(publisher(config, &driver, ring)?);
        let version = SharedVersion::new(version(config, &driver, topology.version()));
        let policy = PolicyKeeper::new(
            config.security.policy_file.clone(),
            policy,
            publisher.clone(),
            version.clone(),
            notes.clone(),
            switches.policy.clone(),
        );
        let policy = Arc::new(policy);
        let faults = Faults::start(config.faults.allowed, switches.clone(), readiness.clone(), publisher.clone(), notes.clone());
        let faults = Arc::new(faults.map_err(refused("cannot start the thread of the faults"))?);
        publisher.registry_version(topology.version().unwrap_or(0));
        topology.publish(&publisher);
        readiness.publish(&publisher);
        let counters = CountersDesk::default();
        let (watched, in_use) = (Arc::<OnceLock<_>>::default(), board.clone());
        let pages = ServicePages {
            readiness: readiness.clone(),
            publisher: publisher.clone(),
            version: version.clone(),
            status: status.clone(),
            policy: policy.clone(),
            topology: topology.clone(),
            revocations: watched.clone(),
            counters: counters.clone(),
            faults: faults.clone(),
            notes: notes.clone(),
            keys: keys.in_memory(),
        };
        let servers = control_servers(config, Arc::new(pages))?;

        let (mailboxes, inboxes): (Vec<Mailbox>, Vec<_>) = (0..cpus.len()).map(|_| mailbox()).unzip();
        let to_lanes = mailboxes.clone();
        let deliver = move |durable: Durable| to_lanes[usize::from(durable.batch.lane)].put(Letter::Durable(durable));
        let fresh = || engines(config, ring);
        let hands = (Box::new(deliver) as Deliver, switches.ledger.clone());
        let (mut ledger, engines) = match Ledger::open(config, &fresh, hands, (&readiness, &publisher), interruption)? {
            Opened::Open { ledger, engines, conserved } => {
                publisher.conservation_check(if conserved.is_ok() { Check::Holds } else { Check::Violated });
                conserved.map_err(ServiceFault::Refused)?;
                (ledger, engines)
            }
            Opened::GivenUp { entries } => {
                readiness.drain();
                let what = "a signal asked for an end while the ledger was being read; the ledger is as it was";
                tracing::info!(event = "start_given_up", entries, "{what}");
                return Ok(None);
            }
        };
        // A standby may have waited for days: who asks it is held to what is in the files now.
        policy.look_again();
        revocations.look(false);
        stamp = keys.look_again(&in_force, stamp);
        readiness.recovered();
        readiness.up(Dep::Policy);

        let (to_cores, to_desk, to_verify, to_watch) =
            (mailboxes.clone(), mailboxes.clone(), mailboxes.clone(), mailboxes.clone());
        let answer = move |asked: worker::Asked, found| to_desk[usize::from(asked.asker().0)].put(Letter::Answered(asked, found));
        let desk = LookupDesk::spawn(ledger.reader(), QUESTIONS_MAX, Box::new(answer))
            .map_err(refused("cannot start the lookup thread"))?;
        let desk = Arc::new(desk);
        let place = Place::of(&config.deps.accounting, config.security.amnesia);
        let counting = Counting::start(&place, ledger.reader(), publisher.clone(), switches.accounting.clone(), &counters)?;
        let (feeds, intakes): (Vec<_>, Vec<_>) = match config.audit_sink() {
            AuditSink::Off => (cpus.iter().map(|_| None).collect(), Vec::new()),
            AuditSink::File | AuditSink::Unix(_) => {
                cpus.iter().map(|_| feed()).map(|(core, stream)| (Some(core), stream)).unzip()
            }
        };
        let auditing = Auditing::start(config, ledger.reader(), intakes, in_force.clone())?.map(Arc::new);
        let signing = RootSigning::start(config, ledger.reader(), in_force.clone(), publisher.clone());
        let (signing, roots) = signing.map_err(refused("cannot start the thread that signs roots"))?;

        let listeners = bind()?;
        let started = begun(ledger.epoch(), cpus.len(), &in_force.get(), &policy.current(), &revocations);
        let of_requests = (policy.board(), switches.requests.clone());
        let (spans, traces) = Traces::start(config, &publisher).map_err(refused("cannot start the thread that sends traces"))?;
        let site = Arc::new(site(config, (board, roots), of_requests, &readiness, version.clone(), ledger.log_id(), spans));
        let parts = engines.into_iter().zip(inboxes).zip(listeners).zip(&cpus).zip(feeds).enumerate();
        let parts = parts.map(|(core, ((((engine, inbox), listener), cpu), feed))| CoreParts {
            engine,
            inbox,
            listener,
            lane: ledger.lane(core as u16),
            keyring: in_force.get(),
            cpu: *cpu,
            feed,
        });
        let workers =
            worker::start(&site, ring, &driver, &desk, mailboxes, parts.collect()).map_err(refused("cannot start a core"))?;
        let live = Box::new(Slices::new(to_cores));
        ledger.audit(schedule(config), live).map_err(refused("cannot start the auditor"))?;
        let config::Ledger { scrub_every: every, scrub_bytes_per_second: bytes_per_second, .. } = config.ledger;
        ledger.scrub(Scrubbing { every, bytes_per_second }).map_err(refused("cannot start the thread that scrubs"))?;
        let telling = Telling { cores: to_verify, publisher: publisher.clone(), version: version.clone(), notes: notes.clone() };
        let keys = match keys {
            Keys::InFile(custody) => {
                let watch = KeyWatch::start(custody, in_force, stamp, telling);
                Some(watch.map_err(refused("cannot start the thread of the keyring"))?)
            }
            Keys::InMemory(keys) => {
                keys.serve(telling);
                None
            }
        };
        readiness.up(Dep::Ledger);
        let policy = PolicyReloads::start(policy).map_err(refused("cannot start the thread that reads the policy"))?;
        let _ = watched.set(in_use);
        let files = Files { topology, revocations, policy };
        let watcher = Watcher::new(publisher, files, version, status, ledger.watch(), ledger.epoch(), driver.name());
        let watcher = watcher.with_stream(auditing.clone()).with_load(to_watch, config.ledger.commit_max);
        auditing.iter().for_each(|auditing| auditing.note(started.clone()));
        notes.open(auditing.as_ref());
        tracing::info!(
            event = "started",
            http = %config.bind.http,
            control = %config.bind.metrics,
            cores = cpus.len(),
            driver = driver.name(),
            entries = ledger.watch().head().0,
            epoch = ledger.epoch(),
            "serving"
        );
        Ok(Some(Self {
            readiness,
            site,
            workers,
            ledger,
            desk,
            counting,
            auditing,
            keys,
            roots: signing,
            traces,
            faults,
            watcher,
            notes,
            drain_notice: config.timeouts.drain_notice,
            _servers: servers,
        }))
    }

    /// Watches until the service is to end. The supervisor hears of it as long as all cores are heard.
    fn watch(&self, events: &Receiver<SignalEvent>, log: &LogGuard, supervisor: &Supervisor) {
        loop {
            let event = self.watcher.wait(events);
            self.watcher.look(&self.readiness, &self.site, &self.workers, self.ledger.auditor(), &self.counting, log);
            supervisor.lives(|| self.watcher.hears(&self.workers));
            match event {
                Some(SignalEvent::Reload) => self.reload(),
                Some(SignalEvent::Snapshot) => self.ledger.take_snapshot(),
                Some(SignalEvent::Drain | SignalEvent::Exit(_)) => return,
                None => {}
            }
        }
    }

    fn reload(&self) {
        self.watcher.reload();
        self.keys.iter().for_each(KeyWatch::look);
    }

    /// Degrades first: readiness drops, then the listeners close, what is in flight finishes, the ledger is closed. Figures are
    /// published all the while, so that whoever watches sees the drain and not the moment before it.
    fn stop(self, log: &LogGuard) -> Result<(), ServiceFault> {
        self.readiness.tell_drain();
        // What they hold back is committed before the ledger is closed.
        self.faults.end_all();
        self.watcher.publish_now(&self.readiness, &self.counting, log);
        let notice_ms = self.drain_notice.as_millis() as u64;
        tracing::info!(
            event = "draining",
            notice_ms,
            "not ready any more; everything is served on for this long, then the listeners close"
        );
        let noticed = Instant::now() + self.drain_notice;
        while Instant::now() < noticed {
            self.workers.ask_stats();
            std::thread::sleep(DRAIN_LOOK_EVERY);
            self.watcher.look(&self.readiness, &self.site, &self.workers, self.ledger.auditor(), &self.counting, log);
        }
        self.readiness.drain();
        self.site.gate.set(Gate::NotReady);
        self.keys.into_iter().for_each(KeyWatch::stop);
        self.workers.drain();
        while !self.workers.ended() {
            self.workers.ask_stats();
            std::thread::sleep(DRAIN_LOOK_EVERY);
            self.watcher.absorb(self.workers.stats());
            self.watcher.publish_if_due(&self.readiness, &self.counting, log);
        }
        self.watcher.absorb(self.workers.stats());
        let unanswered = self.site.admission.all().in_flight();
        let head = self.ledger.watch();
        // The last snapshot is taken while the ledger is still ours.
        self.ledger.close()?;
        // Everything has been committed: the last signed root covers it.
        self.roots.stop();
        self.traces.stop();
        self.watcher.publish_now(&self.readiness, &self.counting, log);
        self.counting.stop();
        drop(self.watcher);
        // Whoever is still busy with something that was asked for tells nobody any more.
        self.notes.close();
        self.auditing.and_then(Arc::into_inner).into_iter().for_each(Auditing::stop);
        drop(self.desk);
        tracing::info!(event = "stopped", entries = head.head().0, unanswered, "the ledger is closed");
        Ok(())
    }
}

/// What the audit stream is told of a start: what runs, and which keys, revocations and policy are in force, for these may have been
/// changed while nothing ran.
fn begun(epoch: u64, cores: usize, keyring: &Keyring, policy: &Policy, revocations: &RevocationWatch) -> Event {
    let event = Event::new(EventKind::Start, true).with("version", env!("CARGO_PKG_VERSION")).with("revision", super::REVISION);
    let event = event.with("cores", cores.to_string()).with("epoch", epoch.to_string());
    let event = event.with("keyring_version", keyring.serial().to_string()).with("active", keyring.active_id());
    let event =
        event.with("keys", keyring.ids().collect::<Vec<_>>().join(" ")).with("policy_version", policy.version().to_string());
    let event =
        event.with("revocations", revocations.entries().to_string()).with("revocations_digest", hex(&revocations.digest()));
    let of_policy = policy.revocations();
    event.with("policy_revocations", of_policy.len().to_string()).with("policy_revocations_digest", hex(&of_policy.digest()))
}

fn schedule(config: &Config) -> Schedule {
    Schedule {
        every: config.ledger.snapshot_every,
        entries: config.ledger.snapshot_entries,
        keys_ttl: config.idempotency.ttl,
        look_every: Schedule::LOOK_EVERY,
    }
}

/// The engines of all cores, without accounts.
fn engines(config: &Config, ring: Ring) -> Vec<Engine> {
    let settings = Settings {
        hash_seeds: random_words(),
        idempotency_ttl_ms: config.idempotency.ttl.as_millis() as u64,
        keys_max: config.idempotency.keys_max,
    };
    let budgets = Budgets::default();
    (0..ring.cores()).map(|core| Engine::new(CoreId(core), ring, settings, &budgets)).collect()
}

/// The value of the label `service`.
pub const SERVICE: &str = crate::config::SERVICE_NAME;

fn publisher(config: &Config, driver: &Driver, ring: Ring) -> Result<Publisher, ServiceFault> {
    let labels =
        Labels { service: SERVICE, routes: &worker::ROUTE_LABELS, methods: &worker::METHOD_LABELS, served: &worker::SERVED };
    let build = BuildInfo {
        version: env!("CARGO_PKG_VERSION"),
        revision: super::REVISION,
        driver: driver.name(),
        cores: ring.cores(),
        started: unix_now(),
    };
    Publisher::new(labels, &build, &config.metrics.latency_buckets_ms).map_err(|fault| ServiceFault::Refused(fault.to_string()))
}

fn version(config: &Config, driver: &Driver, registry_version: Option<u64>) -> Version {
    let note = match driver {
        Driver::Epoll { cause } => cause.clone(),
        Driver::IoUring => None,
    };
    let built_in = FEATURES.map(|feature| (feature.built_in, feature.name));
    let features = [(config.security.amnesia, "amnesia"), (UNCHECKED, "unchecked_capabilities")].into_iter().chain(built_in);
    let features = features.filter_map(|(has, name)| has.then_some(name)).collect();
    let mut version = Version::new(SERVICE, features, driver.name(), note);
    version.registry_version = registry_version;
    version
}

/// The event loop that is asked for.
pub(super) fn wanted(config: &Config) -> Wanted {
    match config.runtime.driver {
        crate::config::Driver::Auto => Wanted::Auto,
        crate::config::Driver::IoUring => Wanted::IoUring,
        crate::config::Driver::Epoll => Wanted::Epoll,
    }
}

pub(super) fn random_words() -> [u64; 4] {
    let mut words = [0u64; 4];
    for word in &mut words {
        *word = getrandom::u64().expect("the operating system has randomness from its start on");
    }
    words
}
