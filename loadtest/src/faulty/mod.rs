//! The production ledger daemon on a disk that fails as the test wants: `loadtest faulty-ledger`, which `crash` starts.
//!
//! The only place of this program that knows the server's library. It is what the library's own binary `ron-ledger` runs, over
//! another [`Storage`](svc_wallet::ledger::Storage), and with segments that are small enough to be left behind in every round.

mod held;
mod storage;

pub use storage::{FaultyStorage, Switches};

use std::{path::Path, time::Duration};

use svc_wallet::{
    domain::LogId,
    ledger::{Options, Schedule, Scrubbing},
    ledgerd::{self, Settings},
    telemetry::logs,
};

use crate::{args::FaultyLedgerArgs, fault::Fault, rng::Random};

/// Size of a segment, in bytes: some hundred commits of one block.
const SEGMENT_BYTES: u64 = 1 << 20;
/// Time between two snapshots: some in every round, so that strikes meet them.
const SNAPSHOT_EVERY: Duration = Duration::from_millis(200);
/// Time between the ends of two passes that read everything again, and how fast: often enough to meet every fault.
const SCRUB_EVERY: Duration = Duration::from_secs(2);
const SCRUB_BYTES_PER_SECOND: u64 = 64 << 20;
/// How long the keys of issues are remembered: for the whole test.
const KEYS_TTL: Duration = Duration::from_secs(86_400);

/// Serves the ledger until a signal ends it.
///
/// # Errors
/// [`Fault::Program`] if the daemon says why it cannot.
pub fn run(args: &FaultyLedgerArgs) -> Result<(), Fault> {
    let failed = |cause: String| Fault::Program { what: "the ledger daemon on a faulty disk".into(), cause };
    let log =
        logs::init(ledgerd::SERVICE, std::env::var("RUST_LOG").ok().as_deref()).map_err(|fault| failed(fault.to_string()))?;
    let settings = Settings {
        directory: args.dir.clone(),
        socket: args.sock.clone(),
        segment_bytes: SEGMENT_BYTES,
        schedule: Schedule { every: SNAPSHOT_EVERY, entries: u64::MAX, keys_ttl: KEYS_TTL, look_every: Schedule::LOOK_EVERY },
        scrubbing: Scrubbing { every: SCRUB_EVERY, bytes_per_second: SCRUB_BYTES_PER_SECOND },
        users: vec![rustix::process::geteuid().as_raw()],
    };
    let storage = FaultyStorage::create(&args.dir, Switches::in_directory(&args.switches), args.seed)
        .map_err(Fault::io(format!("making {}", args.dir.display())))?;
    let served = ledgerd::run_on(storage, &options(&args.dir, args.seed), &settings, &log);
    log.flush();
    served.map_err(failed)
}

/// Segments smaller than the configuration allows, and an identity of the log from the seed and its place.
fn options(directory: &Path, seed: u64) -> Options {
    let place = directory.display().to_string();
    let mut random = Random::new(place.bytes().fold(seed, |sum, byte| sum.rotate_left(7) ^ u64::from(byte)));
    let mut id = [0; 16];
    id[..8].copy_from_slice(&random.draw().to_le_bytes());
    id[8..].copy_from_slice(&random.draw().to_le_bytes());
    Options::for_simulation(SEGMENT_BYTES, LogId(id))
}
