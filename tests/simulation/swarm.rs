//! What one seed does and what goes wrong in it: each history gets a random subset of operations and faults, each with a random
//! strength, because a mixture of everything all the time hides what only shows where something is absent.
use crate::grants::grants;
use crate::rng::Rng;

/// A disk that lies or rots: at most one such fault in a history, so that the verdict about it can be sharp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    LostWrite,
    MisdirectedWrite,
    MisdirectedRead,
    BitRot,
    LatentReadError,
    /// What was once written to a place, and was gone after a crash, is there again in place of what was written later.
    OlderExtent,
}

const LIES: [Lie; 6] =
    [Lie::LostWrite, Lie::MisdirectedWrite, Lie::MisdirectedRead, Lie::BitRot, Lie::LatentReadError, Lie::OlderExtent];

/// Rates are per step in ten thousandths, or in percent of the occasions that they name.
#[derive(Clone, Debug)]
pub struct Swarm {
    pub steps: u64,
    pub cores_max: u64,
    pub segment_bytes: u64,
    pub sector_bytes: usize,
    /// Keys are remembered for 100 ms only: repeats leave the window and are found by their nonce.
    pub forgetful: bool,
    /// How many keys of debits, and of issues, a core remembers at most.
    pub keys_max: usize,
    pub act_percent: u64,
    /// Weights of issue, transfer, burn, hold, capture and release.
    pub operations: [u64; 6],
    pub accounts: u64,
    pub read_percent: u64,
    pub repeat_percent: u64,
    pub hot_percent: u64,
    pub huge_percent: u64,
    /// Amounts near what 128 bits hold, near what may still be issued, and of all that an account has.
    pub extreme_percent: u64,
    /// How many of the assets are moved.
    pub assets: u64,
    pub wrong_nonce_percent: u64,
    pub key_again_percent: u64,
    pub ceiling_percent: u64,
    pub budget_percent: u64,
    /// Capabilities other than those for anything, by their places among all, and how often one of them is used.
    pub grants: [usize; 6],
    pub grant_percent: u64,
    pub timeout_ticks: u64,
    pub cut_connection: u64,
    pub clock_jump: u64,
    pub not_ready: u64,
    pub inbox_full_percent: u64,
    pub lane_full_percent: u64,
    pub lose_acknowledgement_percent: u64,
    pub repeat_acknowledgement_percent: u64,
    /// How late an acknowledgement of a commit reaches a core at most.
    pub slow_ticks: u64,
    pub cut_link: u64,
    pub power_loss: u64,
    pub kill: u64,
    pub power_loss_in_commit: u64,
    pub power_loss_in_mark: u64,
    pub power_loss_in_recovery_percent: u64,
    pub second_writer: u64,
    pub snapshot: u64,
    pub power_loss_in_snapshot: u64,
    pub snapshot_rot: u64,
    pub snapshot_lie: u64,
    pub index_damage: u64,
    pub power_loss_in_history: u64,
    pub history_rot: u64,
    pub full_disk: u64,
    pub write_error: u64,
    pub short_write: u64,
    pub sync_error: u64,
    pub read_error: u64,
    pub keep_percent: u64,
    pub garble_percent: u64,
    pub lie: Option<Lie>,
    /// The ledger is behind the daemon, and what can go wrong between it and its wallet.
    pub behind_daemon: bool,
    pub cut_wire: u64,
    pub stall_wire: u64,
    pub replace: u64,
}

impl Swarm {
    pub fn new(rng: &mut Rng) -> Self {
        let mut operations = [0; 6];
        for weight in &mut operations {
            *weight = rng.sometimes(75, 8);
        }
        operations[0] += 2;
        operations[1] += 1;
        let lie = if rng.percent(35) { Some(*rng.pick(&LIES)) } else { None };
        let keys_max = if rng.percent(45) { *rng.pick(&[2, 2, 2, 3, 4, 12, 40]) } else { 1 << 16 };
        let swarm = Self {
            steps: 150 + rng.below(450),
            cores_max: 1 + rng.below(4),
            segment_bytes: *rng.pick(&[40 << 10, 64 << 10, 128 << 10]),
            sector_bytes: *rng.pick(&[512, 512, 4096]),
            forgetful: rng.percent(25),
            keys_max,
            act_percent: 15 + rng.below(40),
            operations,
            accounts: 2 + rng.below(9),
            read_percent: 3 + rng.sometimes(70, 30),
            repeat_percent: rng.sometimes(80, 25),
            hot_percent: rng.sometimes(50, 60),
            huge_percent: rng.sometimes(60, 15),
            extreme_percent: rng.sometimes(30, 20),
            assets: 1 + rng.sometimes(60, 2),
            wrong_nonce_percent: rng.sometimes(60, 10),
            // Where keys are forgotten early, they are used again more often.
            key_again_percent: if keys_max < 1 << 16 { 10 + rng.below(30) } else { rng.sometimes(50, 6) },
            ceiling_percent: rng.sometimes(30, 50),
            budget_percent: rng.sometimes(45, 80),
            grants: std::array::from_fn(|_| rng.below(grants().len() as u64) as usize),
            grant_percent: rng.sometimes(60, 40),
            timeout_ticks: 10 + rng.below(120),
            cut_connection: rng.sometimes(50, 100),
            clock_jump: rng.sometimes(40, 100),
            not_ready: rng.sometimes(30, 60),
            inbox_full_percent: rng.sometimes(40, 30),
            lane_full_percent: rng.sometimes(30, 30),
            lose_acknowledgement_percent: rng.sometimes(40, 25),
            repeat_acknowledgement_percent: rng.sometimes(40, 25),
            slow_ticks: rng.sometimes(50, 30),
            cut_link: rng.sometimes(40, 80),
            power_loss: rng.sometimes(60, 60),
            kill: rng.sometimes(40, 40),
            power_loss_in_commit: rng.sometimes(60, 60),
            power_loss_in_mark: rng.sometimes(30, 60),
            power_loss_in_recovery_percent: rng.sometimes(40, 50),
            second_writer: rng.sometimes(25, 40),
            snapshot: rng.sometimes(65, 250),
            power_loss_in_snapshot: rng.sometimes(40, 60),
            snapshot_rot: rng.sometimes(30, 60),
            snapshot_lie: rng.sometimes(25, 60),
            index_damage: rng.sometimes(40, 100),
            power_loss_in_history: rng.sometimes(30, 60),
            history_rot: rng.sometimes(30, 60),
            full_disk: rng.sometimes(25, 60),
            write_error: rng.sometimes(20, 150),
            short_write: rng.sometimes(20, 150),
            sync_error: rng.sometimes(30, 150),
            read_error: rng.sometimes(20, 300),
            keep_percent: *rng.pick(&[0, 20, 50, 80, 100]),
            garble_percent: rng.sometimes(40, 30),
            lie,
            behind_daemon: false,
            cut_wire: 0,
            stall_wire: 0,
            replace: 0,
        };
        if lie.is_none() && rng.percent(10) {
            // It takes sealed segments behind two snapshots, and keys whose time is over, for something to go to an archive.
            let (segment_bytes, snapshot) = (40 << 10, swarm.snapshot + 150);
            // And many forgotten keys for one that was never used to be taken for one of them.
            let keys_max = if rng.percent(40) { 2 } else { keys_max };
            return Self { steps: 600, act_percent: 60, forgetful: true, segment_bytes, snapshot, keys_max, ..swarm };
        }
        if lie != Some(Lie::OlderExtent) {
            return swarm;
        }
        // It takes commits that were cut short and are gone, others in their place, and no snapshot that has these.
        let (power_loss_in_commit, keep_percent) = (swarm.power_loss_in_commit + 150, swarm.keep_percent.min(20));
        Self { power_loss_in_commit, keep_percent, snapshot: swarm.snapshot / 10, ..swarm }
    }

    /// Some seeds have their ledger behind the daemon. They have dice of their own for it, so that the other histories are the same
    /// with and without this.
    pub fn behind_a_daemon(self, rng: &mut Rng) -> Self {
        if !rng.percent(35) {
            return self;
        }
        Self {
            behind_daemon: true,
            cut_wire: rng.sometimes(60, 200),
            stall_wire: rng.sometimes(40, 100),
            replace: rng.sometimes(60, 80),
            kill: rng.sometimes(60, 80),
            // Of the links of embedded ledgers.
            cut_link: 0,
            ..self
        }
    }

    /// Nothing goes wrong by itself.
    pub fn quiet(rng: &mut Rng) -> Self {
        Self {
            sector_bytes: 512,
            forgetful: false,
            cut_connection: 0,
            clock_jump: 0,
            not_ready: 0,
            inbox_full_percent: 0,
            lane_full_percent: 0,
            lose_acknowledgement_percent: 0,
            repeat_acknowledgement_percent: 0,
            slow_ticks: 0,
            cut_link: 0,
            power_loss: 0,
            kill: 0,
            power_loss_in_commit: 0,
            power_loss_in_mark: 0,
            power_loss_in_recovery_percent: 0,
            second_writer: 0,
            keys_max: 1 << 16,
            snapshot: 0,
            power_loss_in_snapshot: 0,
            snapshot_rot: 0,
            snapshot_lie: 0,
            index_damage: 0,
            power_loss_in_history: 0,
            history_rot: 0,
            full_disk: 0,
            write_error: 0,
            short_write: 0,
            sync_error: 0,
            read_error: 0,
            keep_percent: 50,
            garble_percent: 0,
            lie: None,
            ..Self::new(rng)
        }
    }
}
