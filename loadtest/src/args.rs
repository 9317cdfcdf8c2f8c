//! The command line.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    compare::CompareArgs,
    crash::{
        upkeep::Upkeep,
        variant::{self, Variants},
    },
    rng::Share,
    workload::Mix,
};

pub use crate::written::{account_prefix, count, cpu_list, duration, loopback, rate, share, CpuList, Rate};

/// Load, crash and connection tests for svc-wallet, over loopback.
///
/// Every command starts its own server (the binaries beside this one) in a temporary directory with free ports, and stops
/// it and removes the directory at the end, on errors and on Ctrl-C. Results go to standard output, progress to standard
/// error.
#[derive(Debug, Parser)]
#[command(
    name = "loadtest",
    version,
    args_override_self = true,
    max_term_width = 110,
    after_help = "Exit codes: 0 all as it should be; 1 the test found something; 2 usage; 3 the test could not be carried \
                  out; 130 interrupted."
)]
pub struct Cli {
    /// Print one JSON object on standard output instead of tables, and one on standard error if there is no result.
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress on standard error; there is none with --json either.
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The tests.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Load the server, check every reply, and then the books.
    ///
    /// At a fixed rate the load is open-loop: latency counts from the moment at which a request was due, whether or not a
    /// connection was free. With `--rate max` every connection always has `--pipeline` requests outstanding.
    #[command(
        after_help = "Examples:\n  loadtest run --requests 1_000_000 --accounts 100_000 --repeat-share 1% --hot-share 20% \
                      --rate max\n  loadtest run --rate 50% --connections 256 --duration 20s\n  loadtest run --baseline \
                      --rounds 5 --connections 64 --pipeline 16 --rate max"
    )]
    Run(RunArgs),
    /// Measure the bare responder: the server's runtime and HTTP parser with a fixed reply, driven by the same generator.
    Baseline(BaselineArgs),
    /// Kill, pause, fill up or deceive the service under load, again and again; nothing acknowledged may be missing or doubled.
    ///
    /// After each round every receipt of its ledger is fetched and compared byte for byte, every spend without a reply is
    /// repeated twice with its key, and the books are compared with the receipts. At the end of a ledger's life it is
    /// replayed, and must have as many entries as there are receipts.
    #[command(after_help = CRASH_HELP)]
    Crash(CrashArgs),
    /// Inject faults on purpose under load, one after the other, and say which of the runbook's criteria hold.
    ///
    /// The server is one of its own, on a ledger daemon, and lets faults be injected. Each fault is injected and removed through its admin
    /// socket, by `ronctl chaos`. Afterwards the load goes on for a while and is measured; then every receipt is looked for, and the
    /// ledger is replayed.
    #[command(
        after_help = "Examples:\n  loadtest chaos\n  loadtest chaos --window 10m\n  loadtest chaos --each 20s --window 1h \
                            --rate 5_000 --connections 1_000 --accounts 100_000\n  loadtest --json chaos --embedded --seed 7"
    )]
    Chaos(ChaosArgs),
    /// Many idle connections and many slow clients, and load beside them that must not notice.
    Idle(IdleArgs),
    /// Measure how long a server with many accounts takes to be ready, and how much memory it needs.
    #[command(after_help = "Examples:\n  loadtest startup --accounts 100_000 --entries 1_000_000\n  loadtest startup \
                            --accounts 10_000_000 --entries 10_000_000 --ready-within 10s\n  loadtest startup --daemon")]
    Startup(StartupArgs),
    /// Measure the server in two ways in turns, and tell the ratios.
    #[command(after_help = COMPARE_HELP)]
    Compare(CompareArgs),
    /// The bare responder itself, which `baseline` starts: prints its address, answers until standard input ends.
    #[command(hide = true)]
    Responder(ResponderArgs),
    /// The ledger daemon on a disk that fails as it is told to, which `crash` starts.
    #[command(hide = true)]
    FaultyLedger(FaultyLedgerArgs),
}

const COMPARE_HELP: &str = "What is compared:
  daemon     an embedded ledger, and the ledger daemon behind its socket
  snapshots  no snapshot during the load, and one after the other
  tokens     good tokens alone, and bad ones of every kind beside them, each of which has to be refused as it deserves

Examples:
  loadtest compare daemon --rounds 5 --duration 5s --connections 256 --pipeline 1
  loadtest compare snapshots --rate 20_000 --accounts 1_000_000 --rounds 5 --duration 10s
  loadtest compare tokens --bad-tokens 5_000 --rounds 9 --duration 5s --at-least 0.9";

const CRASH_HELP: &str = "Variants:
  embedded       SIGKILL of a wallet with an embedded ledger
  wallet         SIGKILL of a wallet whose ledger is a daemon
  daemon         SIGKILL of the daemon: the wallet refuses writes, and goes on by itself when the daemon is back
  both           SIGKILL of both
  pause          the daemon, the wallet or both are paused for 100 ms to 3.5 s; up to 1 s no request may be refused
  replace        the wallet is paused, replaced by a second one on the same daemon, and resumed: it may only end
  disk-full      the daemon's disk has no room for a while; writes are refused, reads go on; then SIGKILL of the daemon
  small-disk     as disk-full, with a small file system that is mounted and filled up (ext4 on a loop device, or a tmpfs), where that
                 is permitted; it is gone with the processes. Where it is not, all leaves this one and the next out, and says so
  small-disk-embedded  the same with an embedded ledger; then SIGKILL of the wallet
  lose-unsynced  SIGKILL of the daemon, or of both, on a disk that loses any part of what was not synced
  lying-sync     SIGKILL of the daemon on a disk that said it had synced and had not: what was
                 acknowledged and is lost must be detected
  sync-error     every sync of a commit fails from a moment on: the daemon must end by itself and say which; reads go on, and with the
                 disk good again and the daemon started the wallet goes on by itself

Examples:
  loadtest crash
  loadtest crash --variant daemon,both --rounds 100 --accounts 1_000 --connections 16 --pipeline 4
  loadtest crash --variant all --rounds 200 --accounts 1_000 --connections 16 --pipeline 4 --rate 8_000 \
                 --kill-after-min 50ms --kill-after-max 250ms --seed 7";

/// How the requests look.
#[derive(Clone, Debug, Args)]
pub struct TrafficArgs {
    /// Connections of the load.
    #[arg(long, default_value = "64", value_parser = count)]
    pub connections: u64,
    /// Requests outstanding at most on each connection.
    #[arg(long, default_value = "16", value_parser = count)]
    pub pipeline: u64,
    /// Accounts that are funded and loaded.
    #[arg(long, default_value = "100_000", value_parser = count)]
    pub accounts: u64,
    /// Minor units issued to every account before the load.
    #[arg(long, default_value = "1_000_000_000", value_parser = count)]
    pub fund: u64,
    /// The asset that is spent.
    #[arg(long, default_value = "roc")]
    pub asset: String,
    /// What to send; single shares below override those of the workload.
    #[arg(long, value_enum, default_value = "spend")]
    pub workload: Preset,
    /// Balance reads, of all requests (such as 30% or 0.3).
    #[arg(long, value_parser = share)]
    pub read_share: Option<Share>,
    /// Exact repeats of earlier spends, of all requests.
    #[arg(long, value_parser = share)]
    pub repeat_share: Option<Share>,
    /// Deliberate overdrafts, of all requests; their refusal is counted apart.
    #[arg(long, value_parser = share)]
    pub refusal_share: Option<Share>,
    /// Spends that touch one hot account, of all spends. It is debited by one connection, since its nonces must come in
    /// order, and credited by all.
    #[arg(long, value_parser = share)]
    pub hot_share: Option<Share>,
    /// Issues, burns, holds, captures and releases in equal parts, of all spends; what cannot be done gives way to a transfer. Each
    /// account then begins with held value of its neighbour.
    #[arg(long, value_parser = share)]
    pub operation_share: Option<Share>,
    /// Seed of everything that is random; printed, so that a run can be had again.
    #[arg(long, value_parser = count)]
    pub seed: Option<u64>,
    /// CPU of the generator; by default the last one.
    #[arg(long)]
    pub cpu: Option<usize>,
    /// Give up if no reply comes for this long.
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub patience: Duration,
}

/// Which server.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// The svc-wallet binary; by default the one beside this program. `ronctl` is looked for beside it.
    #[arg(long)]
    pub server: Option<PathBuf>,
    /// CPUs of the server's cores; its other threads find time on the other CPUs.
    #[arg(long, default_value = "0", value_parser = cpu_list)]
    pub server_cpus: CpuList,
    /// Event loop of the server: auto, io_uring or epoll.
    #[arg(long, default_value = "auto")]
    pub driver: String,
    /// Where the temporary directory is made, such as on the disk that is to be measured.
    #[arg(long)]
    pub directory: Option<PathBuf>,
    /// Keep the directory, with ledger, configuration and log.
    #[arg(long)]
    pub keep: bool,
}

/// Arguments of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub traffic: TrafficArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub server: ServerArgs,
    /// Requests per second: a number (20_000), `max`, or a percentage of the saturating rate, measured first (50%).
    #[arg(long, default_value = "max", value_parser = rate)]
    pub rate: Rate,
    /// How long to send, each phase and round; 10 s unless --requests is given.
    #[arg(long, value_parser = duration)]
    pub duration: Option<Duration>,
    /// How many requests to send, each phase and round.
    #[arg(long, value_parser = count)]
    pub requests: Option<u64>,
    /// Load that is sent before anything is measured.
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub warmup: Duration,
    /// Measure the bare responder as well, in turns with the server, and print the ratio.
    #[arg(long)]
    pub baseline: bool,
    /// Turns with --baseline.
    #[arg(long, default_value = "3", value_parser = count)]
    pub rounds: u64,
    /// With --baseline: a median of the ratios below this is a finding.
    #[arg(long, requires = "baseline")]
    pub at_least: Option<f64>,
    /// 95 of 100 spends are to be confirmed within this time, as they are promised within 150ms; a slower phase, the last one, is a finding.
    #[arg(long, value_parser = duration)]
    pub p95_at_most: Option<Duration>,
    /// A server that runs already, instead of an own one; loopback addresses only.
    #[arg(long, value_parser = loopback, conflicts_with_all = ["baseline"])]
    pub target: Option<SocketAddr>,
    /// File with the capability for --target: scopes issue, spend and read.
    #[arg(long, requires = "target")]
    pub token_file: Option<PathBuf>,
    /// The capability itself; other users of this machine can see it, so --token-file is better.
    #[arg(long, requires = "target", conflicts_with = "token_file")]
    pub token: Option<String>,
    /// What account names begin with; with --target, existing accounts of that name are taken over.
    #[arg(long, default_value = "load:", value_parser = account_prefix)]
    pub account_prefix: String,
}

/// Arguments of `baseline`.
#[derive(Clone, Debug, Args)]
pub struct BaselineArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub traffic: TrafficArgs,
    /// CPU of the responder.
    #[arg(long, default_value = "0", value_parser = cpu_list)]
    pub server_cpus: CpuList,
    /// How long to send, each round.
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub duration: Duration,
    /// How often.
    #[arg(long, default_value = "3", value_parser = count)]
    pub rounds: u64,
}

/// Arguments of `crash`.
#[derive(Clone, Debug, Args)]
pub struct CrashArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub traffic: TrafficArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub server: ServerArgs,
    /// What happens in a round: names with commas between them, or all; see below.
    #[arg(long, default_value = "embedded", value_parser = variant::parse)]
    pub variant: Variants,
    /// How many rounds; several variants share them, those that take long with a smaller part.
    #[arg(long, default_value = "20", value_parser = count)]
    pub rounds: u64,
    /// Rounds of a ledger's life; then it is verified, and a new one is begun. Each round looks for all receipts of that life.
    #[arg(long, default_value = "50", value_parser = count)]
    pub rounds_per_ledger: u64,
    /// Requests per second of the load: a number (8_000), or max.
    #[arg(long, default_value = "max", value_parser = rate)]
    pub rate: Rate,
    /// The earliest moment of the kill after the load began.
    #[arg(long, default_value = "300ms", value_parser = duration)]
    pub kill_after_min: Duration,
    /// The latest moment. In a third of the rounds the strike then waits for the next segment, and in another third it follows a
    /// snapshot that was asked for.
    #[arg(long, default_value = "1500ms", value_parser = duration)]
    pub kill_after_max: Duration,
    /// With variants whose daemon dies: a first refusal, or an answer while the ledger is away, that takes longer is a finding.
    #[arg(long, value_parser = count)]
    pub refused_within_ms: Option<u64>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub upkeep: Upkeep,
}

/// Arguments of `chaos`.
#[derive(Clone, Debug, Args)]
pub struct ChaosArgs {
    /// Requests per second of the load, due at equal distances whatever becomes of them.
    #[arg(long, default_value = "1_000", value_parser = count)]
    pub rate: u64,
    /// Connections of the load, each with one request at a time.
    #[arg(long, default_value = "256", value_parser = count)]
    pub connections: u64,
    /// Accounts that are funded and loaded.
    #[arg(long, default_value = "20_000", value_parser = count)]
    pub accounts: u64,
    /// Balance reads, of all requests; the others are spends [default: 30%].
    #[arg(long, value_parser = share)]
    pub read_share: Option<Share>,
    /// How long each fault is active, at least.
    #[arg(long, default_value = "4s", value_parser = duration)]
    pub each: Duration,
    /// How long the load is observed after the last fault, such as 30s, 10m or 1h.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub window: Duration,
    /// The error budget: which share of the requests may fail in that time.
    #[arg(long, default_value = "1%", value_parser = share)]
    pub budget: Share,
    /// 95 of 100 requests have to be answered within this time afterwards.
    #[arg(long, default_value = "150ms", value_parser = duration)]
    pub p95_within: Duration,
    /// With an embedded ledger instead of the daemon.
    #[arg(long)]
    pub embedded: bool,
    /// Seed of everything that is random.
    #[arg(long, value_parser = count)]
    pub seed: Option<u64>,
    /// CPU of the generator; by default the last one.
    #[arg(long)]
    pub cpu: Option<usize>,
    /// Give up if no reply comes for this long.
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub patience: Duration,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub server: ServerArgs,
}

/// Arguments of `startup`.
#[derive(Clone, Debug, Args)]
pub struct StartupArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub traffic: TrafficArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub server: ServerArgs,
    /// On a ledger daemon; both are ended and started together.
    #[arg(long)]
    pub daemon: bool,
    /// Entries behind the snapshot.
    #[arg(long, default_value = "1_000_000", value_parser = count)]
    pub entries: u64,
    /// Starts after a kill.
    #[arg(long, default_value = "2", value_parser = count)]
    pub starts: u64,
    /// A start that takes longer is a finding.
    #[arg(long, value_parser = duration)]
    pub ready_within: Option<Duration>,
}

/// Arguments of `idle`.
#[derive(Clone, Debug, Args)]
pub struct IdleArgs {
    /// Connections that stay silent.
    #[arg(long, default_value = "10_000", value_parser = count)]
    pub connections: u64,
    /// Slow clients: a third each dribbles its head, dribbles its body, and never reads its replies.
    #[arg(long, default_value = "500", value_parser = count)]
    pub slow: u64,
    /// How long each of the three loads runs: alone, beside the idle, beside idle and slow.
    #[arg(long, default_value = "8s", value_parser = duration)]
    pub duration: Duration,
    /// Requests per second of the load.
    #[arg(long, default_value = "5_000", value_parser = count)]
    pub rate: u64,
    /// Connections of the load.
    #[arg(long, default_value = "64", value_parser = count)]
    pub load_connections: u64,
    /// Accounts of the load.
    #[arg(long, default_value = "10_000", value_parser = count)]
    pub accounts: u64,
    /// The server's `timeouts.read_ms` and `write_ms`; slow clients must be cut after it.
    #[arg(long, default_value = "3s", value_parser = duration)]
    pub read_timeout: Duration,
    /// The 99th percentile of the load may grow to this many times that of the load alone; up to the promised 150 ms it always may.
    #[arg(long, default_value = "10")]
    pub starvation_factor: f64,
    /// Seed of everything that is random.
    #[arg(long, value_parser = count)]
    pub seed: Option<u64>,
    /// CPU of the generator and of the slow clients; by default the last one.
    #[arg(long)]
    pub cpu: Option<usize>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub server: ServerArgs,
}

/// Arguments of `responder`.
#[derive(Clone, Debug, Args)]
pub struct ResponderArgs {
    /// CPU to run on.
    #[arg(long, value_parser = cpu_list)]
    pub cpus: CpuList,
}

/// Arguments of `faulty-ledger`.
#[derive(Clone, Debug, Args)]
pub struct FaultyLedgerArgs {
    /// Directory of the ledger.
    #[arg(long)]
    pub dir: PathBuf,
    /// Path of the socket.
    #[arg(long)]
    pub sock: PathBuf,
    /// Directory of the files that switch the disk.
    #[arg(long)]
    pub switches: PathBuf,
    /// Decides what the disk writes before it is asked to.
    #[arg(long)]
    pub seed: u64,
}

/// Named mixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// Fresh spends between random accounts.
    Spend,
    /// Balance reads.
    Balance,
    /// Half reads, 1% repeats, 1% overdrafts, the rest spends, a fifth of them on the hot account.
    Mix,
    /// Half fresh spends, half exact repeats.
    Repeat,
    /// Spends, half of them on the hot account.
    Hot,
    /// All operations: half of the writes are issues, burns, holds, captures and releases; 2% repeats, and a hot account.
    Operations,
}

impl TrafficArgs {
    /// The shares of the workload, with those that were given by hand.
    pub fn mix(&self) -> Mix {
        let of = |reads: f64, repeats: f64, refusals: f64, hot: f64, operations: f64| Mix {
            reads: Share::of(reads),
            repeats: Share::of(repeats),
            refusals: Share::of(refusals),
            hot: Share::of(hot),
            operations: Share::of(operations),
        };
        let preset = match self.workload {
            Preset::Spend => of(0.0, 0.0, 0.0, 0.0, 0.0),
            Preset::Balance => of(1.0, 0.0, 0.0, 0.0, 0.0),
            Preset::Mix => of(0.5, 0.01, 0.01, 0.2, 0.0),
            Preset::Repeat => of(0.0, 0.5, 0.0, 0.0, 0.0),
            Preset::Hot => of(0.0, 0.0, 0.0, 0.5, 0.0),
            Preset::Operations => of(0.0, 0.02, 0.0, 0.2, 0.5),
        };
        Mix {
            reads: self.read_share.unwrap_or(preset.reads),
            repeats: self.repeat_share.unwrap_or(preset.repeats),
            refusals: self.refusal_share.unwrap_or(preset.refusals),
            hot: self.hot_share.unwrap_or(preset.hot),
            operations: self.operation_share.unwrap_or(preset.operations),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
