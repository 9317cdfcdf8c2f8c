//! What is killed, paused, filled up or lied to, and how rounds are shared among the kinds.

use serde::Serialize;

/// What happens to the service in a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// SIGKILL of a wallet with an embedded ledger.
    #[default]
    Embedded,
    /// SIGKILL of a wallet whose ledger is a daemon.
    Wallet,
    /// SIGKILL of the daemon; the wallet goes on without a restart.
    Daemon,
    /// SIGKILL of both.
    Both,
    /// The daemon, the wallet or both are paused and go on.
    Pause,
    /// The wallet is paused, replaced by a second one on the same daemon, and resumed.
    Replace,
    /// The ledger's disk says that it has no room for a while; then SIGKILL of the daemon.
    DiskFull,
    /// A small file system is filled up for a while; then SIGKILL of the daemon whose ledger is on it.
    SmallDisk,
    /// The same with a wallet and its embedded ledger.
    SmallDiskEmbedded,
    /// SIGKILL of the daemon, or of both, on a disk that loses what was not synced.
    LoseUnsynced,
    /// SIGKILL of the daemon on a disk that said it had synced and had not.
    LyingSync,
    /// The daemon's disk fails all syncs of a commit from some moment on: the daemon must end by itself, and the wallet goes on when it is
    /// started again on a good disk.
    SyncError,
}

/// Where the ledger of a variant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the wallet.
    Embedded,
    /// In the daemon as it is shipped.
    Daemon,
    /// In the daemon on a disk that fails as it is told to.
    FaultyDisk,
}

impl Variant {
    /// All of them, in the order of a run.
    pub const ALL: [Variant; 12] = [
        Variant::Embedded,
        Variant::Wallet,
        Variant::Daemon,
        Variant::Both,
        Variant::Pause,
        Variant::Replace,
        Variant::DiskFull,
        Variant::SmallDisk,
        Variant::SmallDiskEmbedded,
        Variant::LoseUnsynced,
        Variant::LyingSync,
        Variant::SyncError,
    ];

    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Variant::Embedded => "embedded",
            Variant::Wallet => "wallet",
            Variant::Daemon => "daemon",
            Variant::Both => "both",
            Variant::Pause => "pause",
            Variant::Replace => "replace",
            Variant::DiskFull => "disk-full",
            Variant::SmallDisk => "small-disk",
            Variant::SmallDiskEmbedded => "small-disk-embedded",
            Variant::LoseUnsynced => "lose-unsynced",
            Variant::LyingSync => "lying-sync",
            Variant::SyncError => "sync-error",
        }
    }

    /// Where its ledger is.
    pub fn place(self) -> Place {
        match self {
            Variant::Embedded | Variant::SmallDiskEmbedded => Place::Embedded,
            Variant::SmallDisk | Variant::Wallet | Variant::Daemon | Variant::Both | Variant::Pause | Variant::Replace => {
                Place::Daemon
            }
            Variant::DiskFull | Variant::LoseUnsynced | Variant::LyingSync | Variant::SyncError => Place::FaultyDisk,
        }
    }

    /// Whether its ledger is on a file system of its own, which has to be mounted.
    pub fn on_a_small_disk(self) -> bool {
        matches!(self, Variant::SmallDisk | Variant::SmallDiskEmbedded)
    }

    /// Whether each round ends a ledger: what a disk has lost after it said that it had it cannot be mended.
    pub fn ends_its_ledger(self) -> bool {
        self == Variant::LyingSync
    }

    /// Whether each of its rounds has a SIGKILL after which the service has to go on with everything.
    pub fn kills(self) -> bool {
        match self {
            Variant::Embedded | Variant::Wallet | Variant::Daemon | Variant::Both => true,
            Variant::DiskFull | Variant::SmallDisk | Variant::SmallDiskEmbedded | Variant::LoseUnsynced => true,
            Variant::Pause | Variant::Replace | Variant::LyingSync | Variant::SyncError => false,
        }
    }

    /// Whether a ledger or a wallet starts again in its rounds, on a ledger that goes on.
    pub fn starts_again(self) -> bool {
        match self {
            Variant::Embedded | Variant::Wallet | Variant::Daemon | Variant::Both | Variant::Replace | Variant::SyncError => true,
            Variant::DiskFull | Variant::SmallDisk | Variant::SmallDiskEmbedded | Variant::LoseUnsynced => true,
            Variant::Pause | Variant::LyingSync => false,
        }
    }

    /// Its part of the rounds when several are run. Those that take long get fewer.
    fn weight(self) -> u64 {
        match self {
            Variant::Daemon | Variant::LoseUnsynced => 18,
            Variant::Embedded | Variant::Wallet | Variant::Both => 13,
            Variant::LyingSync => 6,
            Variant::DiskFull => 5,
            Variant::Pause | Variant::SyncError => 4,
            Variant::Replace | Variant::SmallDisk | Variant::SmallDiskEmbedded => 2,
        }
    }
}

/// How many of all rounds each variant gets: its share, and at least one.
pub fn shares(variants: &[Variant], rounds: u64) -> Vec<(Variant, u64)> {
    let total: u64 = variants.iter().map(|variant| variant.weight()).sum();
    let mut left = rounds;
    let mut weight_left = total;
    let mut shares = Vec::new();
    for (number, variant) in variants.iter().enumerate() {
        let others = (variants.len() - 1 - number) as u64;
        let share = (left * variant.weight()).div_ceil(weight_left).min(left.saturating_sub(others)).max(1);
        (left, weight_left) = (left.saturating_sub(share), weight_left - variant.weight());
        shares.push((*variant, share));
    }
    shares
}

/// A list of variants as it is typed: names with commas between them, or `all`.
///
/// # Errors
/// Which name is none.
pub fn parse(text: &str) -> Result<Variants, String> {
    if text == "all" {
        return Ok(Variants(Variant::ALL.to_vec()));
    }
    let named = |name: &str| Variant::ALL.into_iter().find(|variant| variant.name() == name);
    let names = || Variant::ALL.map(Variant::name).join(", ");
    let list = text.split(',').map(|name| named(name).ok_or_else(|| format!("{name:?} is none of {}, all", names())));
    list.collect::<Result<_, _>>().map(Variants)
}

/// Variants that were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variants(pub Vec<Variant>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_shared_out_to_the_last_one() {
        for rounds in [12, 13, 50, 100, 2_000] {
            let shares = shares(&Variant::ALL, rounds);
            assert_eq!(shares.iter().map(|(_, share)| share).sum::<u64>(), rounds, "{shares:?}");
            assert!(shares.iter().all(|(_, share)| *share > 0), "{shares:?}");
        }
        assert_eq!(shares(&[Variant::Pause], 7), [(Variant::Pause, 7)]);
        let of_2000 = shares(&Variant::ALL, 2_000);
        assert_eq!((of_2000[2], of_2000[5]), ((Variant::Daemon, 360), (Variant::Replace, 40)));
    }

    #[test]
    fn variants_are_told_as_they_are_typed() {
        for variant in Variant::ALL {
            assert_eq!(parse(variant.name()), Ok(Variants(vec![variant])));
            assert_eq!(serde_json::to_value(variant).unwrap(), variant.name());
        }
        assert_eq!(parse("daemon,both"), Ok(Variants(vec![Variant::Daemon, Variant::Both])));
        assert_eq!(parse("all").map(|all| all.0.len()), Ok(12));
        assert!(parse("deamon").unwrap_err().contains("sync-error"));
    }
}
