//! What the ledger daemon is told by its arguments or by a file. Nothing is opened here but the file.
use crate::config::{self, Raw, SCRUB_BYTES_PER_SECOND, SCRUB_EVERY, SNAPSHOT_ENTRIES, SNAPSHOT_EVERY};
use crate::domain::limits::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::ledger::{Schedule, Scrubbing};
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Largest file of settings, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Size of new segments if none is given, in bytes.
const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;
/// Time between two snapshots if none is given.
const SNAPSHOT_AFTER_DEFAULT: Duration = Duration::from_secs(15 * 60);
/// Entries between two snapshots if none are given.
const SNAPSHOT_ENTRIES_DEFAULT: u64 = 5_000_000;
/// Time between the ends of two passes of scrubbing if none is given.
const SCRUB_AFTER_DEFAULT: Duration = Duration::from_secs(7 * 86_400);
/// What scrubbing reads at most if nothing is given, in bytes per second: five terabytes in a week.
const SCRUB_RATE_DEFAULT: u64 = 8 << 20;

/// Keeps a ledger for wallets on this machine: the same ledger that svc-wallet embeds, behind a unix socket.
#[derive(Debug, Clone, Default, clap::Parser)]
#[command(
    name = "ron-ledger",
    version,
    after_help = "Examples:
  ron-ledger --dir ./var/ledger --sock unix:///run/ron/ledger.sock
  ron-ledger --config configs/ron-ledger.toml
  ron-ledger --dir ./var/ledger --sock unix:///run/ron/ledger.sock --allow-uid 1001

A wallet uses it with deps.ledger_sock = \"unix:///run/ron/ledger.sock\". The socket has mode 0600; its directory is made with mode
0700 and must not be open to others. SIGTERM and SIGINT close the ledger in order. SIGUSR1 takes a snapshot now, while
it serves; the log says what became of it.
Exit codes: 0 ended in order, 1 could not start or stop, 2 arguments, 130/143 ended at once."
)]
pub struct Args {
    /// Directory of the ledger; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Where to listen: unix:///PATH
    #[arg(long, value_name = "SOCKET")]
    pub sock: Option<String>,
    /// Size of new segments, such as 128MiB; 64MiB if not given
    #[arg(long, value_name = "SIZE")]
    pub segment_bytes: Option<String>,
    /// Time between two snapshots, such as 15m; that if not given
    #[arg(long, value_name = "TIME")]
    pub snapshot_every: Option<String>,
    /// Entries after which a snapshot is due before that, such as 1_000_000; 5_000_000 if not given
    #[arg(long, value_name = "ENTRIES")]
    pub snapshot_entries: Option<String>,
    /// Time between the ends of two passes that read everything again, such as 7days; that if not given
    #[arg(long, value_name = "TIME")]
    pub scrub_every: Option<String>,
    /// What such a pass reads at most in one second, such as 16MiB; 8MiB if not given
    #[arg(long, value_name = "SIZE")]
    pub scrub_bytes_per_second: Option<String>,
    /// User whose processes may connect; repeatable. If none is given: the user of this process, and root
    #[arg(long, value_name = "UID")]
    pub allow_uid: Vec<u32>,
    /// File with dir, sock, segment_bytes, snapshot_every, snapshot_entries, scrub_every, scrub_bytes_per_second and allow_uid;
    /// arguments win over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// The file of settings.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    dir: Option<PathBuf>,
    sock: Option<String>,
    segment_bytes: Option<Raw>,
    snapshot_every: Option<String>,
    snapshot_entries: Option<Raw>,
    scrub_every: Option<String>,
    scrub_bytes_per_second: Option<Raw>,
    #[serde(default)]
    allow_uid: Vec<u32>,
}

/// Everything that the daemon must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Directory of the ledger.
    pub directory: PathBuf,
    /// Path of the socket.
    pub socket: PathBuf,
    /// Size of new segments, in bytes.
    pub segment_bytes: u64,
    /// When snapshots are taken. How long keys are remembered is told by the wallet; until then all of them are.
    pub schedule: Schedule,
    /// How often and how fast everything is read again.
    pub scrubbing: Scrubbing,
    /// Users whose processes may connect.
    pub users: Vec<u32>,
}

impl Settings {
    /// From arguments and the file that they name.
    ///
    /// # Errors
    /// What is missing or wrong, and what to write.
    pub fn of(args: &Args) -> Result<Self, String> {
        let written = args.config.as_deref().map_or(Ok(Written::default()), read)?;
        let directory = args.dir.clone().or(written.dir).ok_or("no directory of the ledger; write --dir DIR")?;
        let socket = args.sock.clone().or(written.sock).ok_or("no socket to listen on; write --sock unix:///PATH")?;
        let segment_bytes = given("segment_bytes", args.segment_bytes.as_deref(), written.segment_bytes, &|raw| {
            let bytes = config::bytes(raw, SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX)?;
            let whole = bytes % 4096 == 0;
            whole.then_some(bytes).ok_or_else(|| format!("{raw} is not a multiple of 4096; write for example \"64MiB\""))
        })?;
        let segment_bytes = segment_bytes.unwrap_or(SEGMENT_BYTES_DEFAULT);
        let every = args.snapshot_every.as_deref().or(written.snapshot_every.as_deref());
        let every = every.map(|every| time(every, SNAPSHOT_EVERY, "a snapshot every", "15m, from 1s to 7days")).transpose()?;
        let entries = given("snapshot_entries", args.snapshot_entries.as_deref(), written.snapshot_entries, &|raw| {
            config::integer(raw, SNAPSHOT_ENTRIES)
        })?;
        let schedule = Schedule {
            every: every.unwrap_or(SNAPSHOT_AFTER_DEFAULT),
            entries: entries.unwrap_or(SNAPSHOT_ENTRIES_DEFAULT),
            keys_ttl: Duration::MAX,
            look_every: Schedule::LOOK_EVERY,
        };
        let scrub_every = args.scrub_every.as_deref().or(written.scrub_every.as_deref());
        let scrub_every =
            scrub_every.map(|every| time(every, SCRUB_EVERY, "scrubbing every", "7days, from 1s to 14days")).transpose()?;
        let argument = args.scrub_bytes_per_second.as_deref();
        let bytes_per_second = given("scrub_bytes_per_second", argument, written.scrub_bytes_per_second, &|raw| {
            config::bytes(raw, SCRUB_BYTES_PER_SECOND)
        })?;
        let bytes_per_second = bytes_per_second.unwrap_or(SCRUB_RATE_DEFAULT);
        let scrubbing = Scrubbing { every: scrub_every.unwrap_or(SCRUB_AFTER_DEFAULT), bytes_per_second };
        let mut users = if args.allow_uid.is_empty() { written.allow_uid } else { args.allow_uid.clone() };
        if users.is_empty() {
            users = vec![rustix::process::geteuid().as_raw(), 0];
        }
        Ok(Self { directory, socket: config::socket_path(&socket)?, segment_bytes, schedule, scrubbing, users })
    }
}

/// What an argument says, or else the file, as the configuration of a wallet reads it; `None` if neither does.
fn given(
    name: &str,
    argument: Option<&str>,
    written: Option<Raw>,
    read: &dyn Fn(&Raw) -> Result<u64, String>,
) -> Result<Option<u64>, String> {
    let raw = argument.map(|argument| Raw::Text(argument.to_owned())).or(written);
    raw.map(|raw| read(&raw).map_err(|what| format!("{name}: {what}"))).transpose()
}

fn time(written: &str, range: RangeInclusive<Duration>, what: &str, example: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(written.trim()).ok().filter(|time| range.contains(time));
    time.ok_or_else(|| format!("{what} {written:?}; write a time such as {example}"))
}

fn read(path: &Path) -> Result<Written, String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| told(&error))?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| told(&error))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(told(&format!("more than {FILE_BYTES_MAX} bytes are no settings")));
    }
    toml::from_str(&text).map_err(|error| told(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_win_over_the_file_and_what_is_missing_is_told() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("l.toml");
        std::fs::write(
            &file,
            "dir = \"/l\"\nsock = \"unix:///s/l.sock\"\nsegment_bytes = 8388608\nsnapshot_every = \"2h\"\nallow_uid = [7]\nscrub_every = \"3days\"\n",
        )
        .unwrap();
        let from_file = Args { config: Some(file.clone()), ..Args::default() };
        let settings = Settings::of(&from_file).unwrap();
        let schedule = Schedule {
            every: Duration::from_secs(7_200),
            entries: 5_000_000,
            keys_ttl: Duration::MAX,
            look_every: Duration::from_millis(500),
        };
        let (directory, socket) = ("/l".into(), "/s/l.sock".into());
        let scrubbing = Scrubbing { every: Duration::from_secs(3 * 86_400), bytes_per_second: 8 << 20 };
        let expected = Settings { directory, socket, segment_bytes: 8 << 20, schedule, scrubbing, users: vec![7] };
        assert_eq!(settings, expected);
        let both = Args { dir: Some("/other".into()), allow_uid: vec![8, 9], ..from_file };
        let settings = Settings::of(&both).unwrap();
        assert_eq!((settings.directory, settings.users), ("/other".into(), vec![8, 9]));

        let told = |args: &Args| Settings::of(args).unwrap_err();
        assert!(told(&Args::default()).contains("--dir"));
        let dir = Args { dir: Some("/l".into()), ..Args::default() };
        assert!(told(&dir).contains("--sock"));
        for sock in ["tcp://h", "unix://l", "", "unix://"] {
            assert!(told(&Args { sock: Some(sock.into()), ..dir.clone() }).contains("three slashes"), "{sock}");
        }
        let sock = Args { sock: Some("./l.sock".into()), ..dir };
        assert_eq!(Settings::of(&sock).unwrap().segment_bytes, 64 << 20);
        for (size, bytes) in [("16MiB", 16 << 20), ("16_777_216", 16 << 20), (" 1 GiB", 1 << 30), ("8388608", 8 << 20)] {
            let args = Args { segment_bytes: Some(size.into()), ..sock.clone() };
            assert_eq!(Settings::of(&args).unwrap().segment_bytes, bytes, "{size}");
        }
        for (size, part) in [
            ("16777217", "segment_bytes: \"16777217\" is not a multiple of 4096"),
            ("5000", "out of range; choose from 8MiB to 1GiB"),
            ("2GiB", "out of range"),
            ("64M", "is not a size; write bytes such as 1_048_576, or a text such as \"1MiB\""),
            ("-1", "is not a size"),
            ("", "is not a size"),
        ] {
            let refused = told(&Args { segment_bytes: Some(size.into()), ..sock.clone() });
            assert!(refused.contains(part), "{size}: {refused}");
        }
        let every = Args { snapshot_every: Some("1m".into()), snapshot_entries: Some("1_000".into()), ..sock.clone() };
        let schedule = Settings::of(&every).unwrap().schedule;
        assert_eq!((schedule.every, schedule.entries), (Duration::from_secs(60), 1_000));
        for every in ["", "15", "1ms", "8days", "soon"] {
            assert!(told(&Args { snapshot_every: Some(every.into()), ..sock.clone() }).contains("such as 15m"), "{every}");
        }
        assert!(told(&Args { snapshot_entries: Some("999".into()), ..sock.clone() }).contains("choose from 1_000 to"));
        assert!(told(&Args { snapshot_entries: Some("1k".into()), ..sock.clone() }).contains("snapshot_entries: \"1k\" is not"));
        for every in ["", "7", "15days", "1ms"] {
            assert!(told(&Args { scrub_every: Some(every.into()), ..sock.clone() }).contains("such as 7days"), "{every}");
        }
        let scrub = Args { scrub_every: Some("1s".into()), scrub_bytes_per_second: Some("64KiB".into()), ..sock.clone() };
        let expected = Scrubbing { every: Duration::from_secs(1), bytes_per_second: 65_536 };
        assert_eq!(Settings::of(&scrub).unwrap().scrubbing, expected);
        assert!(told(&Args { scrub_bytes_per_second: Some("65_535".into()), ..sock }).contains("choose from 64KiB to"));
        let text = "dir = \"/l\"\nsock = \"/s\"\nsegment_bytes = \"16MiB\"\nsnapshot_entries = \"2_000\"\nscrub_bytes_per_second = \"1MiB\"\n";
        std::fs::write(&file, text).unwrap();
        let settings = Settings::of(&Args { config: Some(file.clone()), ..Args::default() }).unwrap();
        let told_of = (settings.segment_bytes, settings.schedule.entries, settings.scrubbing.bytes_per_second);
        assert_eq!(told_of, (16 << 20, 2_000, 1 << 20));
        std::fs::write(&file, "dir = \"/l\"\nsock = \"/s\"\nsegment_bytes = true\n").unwrap();
        assert!(told(&Args { config: Some(file.clone()), ..Args::default() }).contains("segment_bytes: true is not a size"));
        std::fs::write(&file, "dirr = 1\n").unwrap();
        assert!(told(&Args { config: Some(file), ..Args::default() }).contains("dirr"));
    }

    #[test]
    fn the_shipped_file_is_valid() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/ron-ledger.toml");
        Settings::of(&Args { config: Some(file), ..Args::default() }).unwrap();
    }
}
