//! How the ledgers of a crash test are kept, so that strikes meet what a ledger does beside its commits, and what of it took place.
//!
//! What took place is told by the logs and the directory of the ledger, as an operator would see it. It does not know any variant.

use std::{fs, ops::AddAssign, path::Path, time::Duration};

use clap::Args;
use serde::Serialize;

use crate::{
    args::{count, duration},
    rng::Random,
};

/// What the processes log: warnings, and what they say of snapshots, scrubbing and starts.
pub const LOG_FILTER: &str = "warn,svc_wallet::control=info,svc_wallet::ledger=info,svc_wallet::ledgerd=info";

/// How a ledger is kept by the shipped binaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct Upkeep {
    /// Size of a segment in bytes; the smallest that the server takes, so that segments are left behind often.
    #[arg(long, default_value = "8_388_608", value_parser = count)]
    pub segment_bytes: u64,
    /// Time between two snapshots.
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub snapshot_every: Duration,
    /// Entries after which a snapshot is due before that.
    #[arg(long, default_value = "1_000", value_parser = count)]
    pub snapshot_entries: u64,
    /// Time between two passes that read everything sealed again.
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub scrub_every: Duration,
    /// What such a pass reads in one second, in bytes.
    #[arg(long, default_value = "268_435_456", value_parser = count)]
    pub scrub_bytes_per_second: u64,
}

impl Upkeep {
    /// As lines of the wallet's configuration.
    pub fn configuration(&self) -> String {
        let Upkeep { segment_bytes, snapshot_every, snapshot_entries, scrub_every, scrub_bytes_per_second } = self;
        format!(
            "\n[ledger]\nsegment_bytes = {segment_bytes}\nsnapshot_every = \"{}ms\"\nsnapshot_entries = {snapshot_entries}\n\
             scrub_every = \"{}ms\"\nscrub_bytes_per_second = {scrub_bytes_per_second}\n",
            snapshot_every.as_millis(),
            scrub_every.as_millis()
        )
    }

    /// As arguments of the ledger daemon.
    pub fn arguments(&self) -> [String; 10] {
        let words = [
            ("--segment-bytes", self.segment_bytes.to_string()),
            ("--snapshot-every", format!("{}ms", self.snapshot_every.as_millis())),
            ("--snapshot-entries", self.snapshot_entries.to_string()),
            ("--scrub-every", format!("{}ms", self.scrub_every.as_millis())),
            ("--scrub-bytes-per-second", self.scrub_bytes_per_second.to_string()),
        ];
        let mut arguments = <[String; 10]>::default();
        for (place, (name, value)) in arguments.chunks_mut(2).zip(words) {
            place.clone_from_slice(&[name.to_owned(), value]);
        }
        arguments
    }
}

/// What a strike is to come close to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Aim {
    /// Nothing: any moment.
    #[default]
    Anything,
    /// A snapshot that is asked for right before it.
    Snapshot,
    /// The change to a new segment, after which the old one is indexed.
    Roll,
}

impl Aim {
    /// Each of them in a third of the rounds.
    pub fn draw(random: &mut Random) -> Aim {
        match random.below(3) {
            0 => Aim::Anything,
            1 => Aim::Snapshot,
            _two => Aim::Roll,
        }
    }
}

/// What the ledgers of a variant did beside their commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Upkept {
    /// Segments that were left behind.
    pub rolls: u64,
    /// Snapshots that were taken.
    pub snapshots: u64,
    /// Starts of a ledger, or of a wallet, that began at a snapshot.
    pub starts_at_a_snapshot: u64,
    /// Passes of scrubbing that came to their end.
    pub scrubs: u64,
}

impl AddAssign for Upkept {
    fn add_assign(&mut self, other: Upkept) {
        self.rolls += other.rolls;
        self.snapshots += other.snapshots;
        self.starts_at_a_snapshot += other.starts_at_a_snapshot;
        self.scrubs += other.scrubs;
    }
}

impl Upkept {
    /// Reads the logs below this directory, and counts the segments of the ledger.
    pub fn seen(place: &Path, ledger: &Path) -> Upkept {
        let mut upkept = Upkept { rolls: segments(ledger).saturating_sub(1), ..Upkept::default() };
        read_logs(place, &mut upkept);
        upkept
    }

    fn take_line(&mut self, line: &str) {
        let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else { return };
        match line["event"].as_str() {
            Some("snapshot_taken") => self.snapshots += 1,
            Some("scrub_ended") => self.scrubs += 1,
            Some("recovered" | "ledger_started") => {
                self.starts_at_a_snapshot += u64::from(line["from_snapshot"].as_u64() > Some(0));
            }
            _another => {}
        }
    }
}

/// How many segments a ledger has.
pub fn segments(ledger: &Path) -> u64 {
    let is_segment = |name: &str| name.starts_with("segment-") && name.ends_with(".log");
    let names = fs::read_dir(ledger).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.file_name());
    names.filter(|name| is_segment(&name.to_string_lossy())).count() as u64
}

/// The logs in this directory and in those in it.
fn read_logs(place: &Path, upkept: &mut Upkept) {
    for entry in fs::read_dir(place).into_iter().flatten().filter_map(Result::ok) {
        let path = entry.path();
        let is_log = ["server.log", "daemon.log"].iter().any(|name| path.ends_with(name));
        if is_log {
            String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).lines().for_each(|line| upkept.take_line(line));
        } else if path.is_dir() {
            read_logs(&path, upkept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_place_is_read_from_logs_and_directory() {
        let place = tempfile::tempdir().unwrap();
        let (ledger, wallet) = (place.path().join("ledger"), place.path().join("loadtest-1"));
        fs::create_dir(&ledger).unwrap();
        fs::create_dir(&wallet).unwrap();
        for name in ["segment-0000000000.log", "segment-0000000001.log", "segment-0000000002.log", "spare.tmp"] {
            fs::write(ledger.join(name), "").unwrap();
        }
        let daemon = "{\"event\":\"ledger_started\",\"from_snapshot\":7}\n{\"event\":\"snapshot_taken\",\"seq\":9}\nnot JSON\n";
        fs::write(place.path().join("daemon.log"), daemon).unwrap();
        let server =
            "{\"event\":\"recovered\",\"from_snapshot\":0}\n{\"event\":\"scrub_ended\"}\n{\"event\":\"snapshot_failed\"}\n";
        fs::write(wallet.join("server.log"), server).unwrap();
        let seen = Upkept::seen(place.path(), &ledger);
        assert_eq!(seen, Upkept { rolls: 2, snapshots: 1, starts_at_a_snapshot: 1, scrubs: 1 });
        assert_eq!(Upkept::seen(&place.path().join("nothing"), &place.path().join("nothing")), Upkept::default());
    }
}
