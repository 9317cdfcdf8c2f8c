//! The service of a round as real processes: a wallet, and the ledger daemon that its variant has, on one directory.
//!
//! Everything runs on loopback and ends with this value. What each variant does to them stands in `strike`.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{
    small_disk::SmallDisk,
    upkeep::{self, Aim, Upkeep, Upkept},
    variant::{Place, Variant},
    victim::{pause, wait_for, Closed, Connections, Recovery, Strike, Victim},
};
use crate::{
    daemon::{Daemon, Disk, Started},
    fault::Fault,
    server::{Server, ServerPlan},
    tokens::Token,
};

/// Something that has to show, shows within this.
const SHOW_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long a daemon is away, and a disk full, at least and at most.
const TROUBLE_MIN: Duration = Duration::from_millis(100);
const TROUBLE_MAX: Duration = Duration::from_millis(500);
/// A pause up to this may not be noticed by any client: wallet and daemon take each other for dead after 2 s of silence, of which 500 ms
/// may have passed before the pause.
const PAUSE_UNNOTICED_MAX: Duration = Duration::from_secs(1);
/// The longest pause: well beyond that silence.
const PAUSE_MAX: Duration = Duration::from_millis(3_500);
/// How long the load goes on after a pause.
const AFTER_PAUSE: Duration = Duration::from_millis(100);
/// A ledger has used up the segment in use and the next one, which it has made ahead, after so long.
const FULL_WAIT_MAX: Duration = Duration::from_secs(90);
/// The kill comes at most so long after something that it is to come close to.
const CLOSE_BY: Duration = Duration::from_millis(30);
/// A strike that is to meet the change to a new segment waits for it at most so long, and comes at most so long after it, or after
/// the moment at which a snapshot was asked for.
const ROLL_WAIT_MAX: Duration = Duration::from_secs(2);
const AFTER_AIM_MAX: Duration = Duration::from_millis(20);
/// Exit code of a wallet that can never write again.
const EXIT_FATAL: i32 = svc_wallet::control::EXIT_REPLACED;

/// The processes.
pub struct Stage {
    variant: Variant,
    plan: ServerPlan,
    wallet: Server,
    /// One that was paused and has a successor.
    replaced: Option<Server>,
    daemon: Option<Daemon>,
    recovery: Recovery,
    daemon_is_gone: bool,
    // Behind the processes that have files on it open.
    small_disk: Option<SmallDisk>,
    // Last: the processes end before what they write to is removed.
    directory: Option<TempDir>,
}

impl Stage {
    /// Starts a service for this variant on an empty directory, for so many rounds. The seed decides what a faulty disk writes early.
    ///
    /// # Errors
    /// Any [`Fault`].
    pub fn start(
        variant: Variant,
        plan: &ServerPlan,
        upkeep: Upkeep,
        rounds: u64,
        seed: u64,
        stop: &AtomicBool,
    ) -> Result<Stage, Fault> {
        let directory = plan.directory()?;
        let small_disk = variant.on_a_small_disk().then(|| SmallDisk::mount(directory.path(), rounds)).transpose();
        let small_disk = small_disk.map_err(|cause| Fault::Program { what: "a small file system".into(), cause })?;
        let ledger_directory = small_disk.as_ref().map(SmallDisk::ledger);
        let plan = ServerPlan { log: Some(upkeep::LOG_FILTER), ledger_directory, ..plan.clone() };
        let disk = match variant.place() {
            Place::Embedded => None,
            Place::Daemon => Some(Disk::Real(Some(upkeep))),
            Place::FaultyDisk => Some(Disk::Faulty(seed)),
        };
        let mut daemon = disk.map(|disk| Daemon::prepare(disk, directory.path(), &plan)).transpose()?;
        if let Some(daemon) = &mut daemon {
            daemon.start_well(stop)?;
        }
        let plan = ServerPlan {
            ledger: daemon.as_ref().map(Daemon::socket),
            audit: "file",
            keyring: Some(directory.path().join("wallet.keyring")),
            parent: Some(directory.path().to_owned()),
            more: plan.more.clone() + &upkeep.configuration(),
            ..plan
        };
        let mut wallet = Server::prepare(plan.clone())?;
        wallet.start(stop)?;
        let recovery = Recovery::Whole(Duration::ZERO);
        let directory = Some(directory);
        Ok(Stage { variant, plan, wallet, replaced: None, daemon, recovery, daemon_is_gone: false, small_disk, directory })
    }

    /// The capability of the load.
    ///
    /// # Errors
    /// Those of [`Server::token`].
    pub fn token(&self) -> Result<Token, Fault> {
        self.wallet.token()
    }

    fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("a variant that strikes the daemon has one")
    }

    /// Kills the daemon, sees the wallet notice, and starts the daemon again; the wallet has to serve again by itself.
    fn daemon_dies_and_returns(&mut self, strike: &mut Strike, stop: &AtomicBool) -> Result<Connections, Fault> {
        self.daemon().kill()?;
        self.recovery = Recovery::Whole(self.daemon_returns(strike, stop)?);
        Ok(Connections::Kept)
    }

    /// Every other time it is away for so long that what was under way is answered, and more writes come. Gives how long it then took
    /// until the wallet served again.
    fn daemon_returns(&mut self, strike: &mut Strike, stop: &AtomicBool) -> Result<Duration, Fault> {
        self.wallet.wait_ready(false, stop)?;
        if strike.random.below(2) == 0 {
            pause(strike.between(TROUBLE_MIN, TROUBLE_MAX), stop)?;
        }
        strike.outage.comes_back();
        let begin = Instant::now();
        self.daemon().start_well(stop)?;
        self.wallet.wait_ready(true, stop)?;
        Ok(begin.elapsed())
    }

    /// The disk fails the syncs of commits: the daemon must end by itself and say so. Then the disk is good again.
    fn syncs_fail(&mut self, strike: &mut Strike, stop: &AtomicBool) -> Result<Connections, Fault> {
        let fail = self.daemon().switches().fail_syncs();
        fs::write(&fail, "").map_err(Fault::io("letting syncs fail"))?;
        let ended = self.daemon().wait_end(SHOW_WAIT_MAX, stop)?;
        fs::remove_file(&fail).map_err(Fault::io("letting syncs succeed"))?;
        let Some((status, log)) = ended else {
            // It has passed over what failed; how much of that is lost shows only without it.
            return self.daemon_dies_and_returns(strike, stop);
        };
        let how =
            told_of_a_failed_sync(status, &log).map_err(|cause| Fault::Program { what: "the ledger daemon".into(), cause })?;
        self.recovery = Recovery::Ended(how, self.daemon_returns(strike, stop)?);
        Ok(Connections::Kept)
    }

    /// Pauses the daemon, the wallet or both. A short pause is no reason to refuse anything; one that the two may take for the death of
    /// each other excuses refusals, and nothing else.
    fn is_paused(&mut self, strike: &mut Strike, stop: &AtomicBool) -> Result<Connections, Fault> {
        let (daemon, wallet) = [(true, false), (false, true), (true, true)][strike.random.below(3) as usize];
        let long = if strike.random.below(2) == 0 {
            strike.between(TROUBLE_MIN, PAUSE_UNNOTICED_MAX)
        } else {
            strike.begin_outage();
            strike.between(PAUSE_UNNOTICED_MAX, PAUSE_MAX)
        };
        for signal in [Signal::STOP, Signal::CONT] {
            if daemon {
                self.daemon().process().signal(signal);
            }
            if wallet {
                self.wallet.process().signal(signal);
            }
            if signal == Signal::STOP {
                pause(long, stop)?;
            }
        }
        let begin = Instant::now();
        self.wallet.wait_ready(true, stop)?;
        // A wallet that has been paused finds only now that its daemon was silent, and a daemon that its wallet was.
        pause(AFTER_PAUSE, stop)?;
        self.wallet.wait_ready(true, stop)?;
        self.recovery = Recovery::Whole(begin.elapsed().saturating_sub(AFTER_PAUSE));
        Ok(Connections::Kept)
    }

    /// Pauses the wallet and starts another one, which gets the ledger as soon as the daemon takes the first one for dead.
    fn wallet_is_replaced(&mut self, stop: &AtomicBool) -> Result<Connections, Fault> {
        self.wallet.process().signal(Signal::STOP);
        let mut second = Server::prepare(self.plan.clone())?;
        self.recovery = Recovery::Whole(second.start(stop)?);
        self.replaced = Some(std::mem::replace(&mut self.wallet, second));
        Ok(Connections::Abandoned)
    }

    fn disk_fills_up(&mut self, strike: &mut Strike, stop: &AtomicBool) -> Result<Connections, Fault> {
        let full = self.daemon().switches().full();
        fs::write(&full, "").map_err(Fault::io("filling up the disk"))?;
        self.wallet.wait_ready(false, stop)?;
        pause(strike.between(TROUBLE_MIN, TROUBLE_MAX), stop)?;
        fs::remove_file(&full).map_err(Fault::io("making room on the disk"))?;
        self.wallet.wait_ready(true, stop)?;
        pause(strike.between(Duration::ZERO, CLOSE_BY), stop)?;
        self.daemon_dies_and_returns(strike, stop)
    }

    /// Somebody else's files take all room there is, until writes are refused; then they go.
    fn small_disk_fills_up(&mut self, strike: &mut Strike, stop: &AtomicBool) -> Result<Connections, Fault> {
        let disk = self.small_disk.as_ref().expect("such a variant has such a disk");
        let wallet = &mut self.wallet;
        let mut filled = disk.fill();
        // What a snapshot that was replaced leaves behind is taken as well.
        let refuses = wait_for(FULL_WAIT_MAX, stop, || {
            filled = disk.fill();
            filled.is_err() || !wallet.is_ready()
        })?;
        filled?;
        if !refuses {
            return Err(wallet.process().fault(format!("writes on a full disk ({}) for {FULL_WAIT_MAX:?}", disk.kind())));
        }
        pause(strike.between(TROUBLE_MIN, TROUBLE_MAX), stop)?;
        disk.make_room()?;
        wallet.wait_ready(true, stop)?;
        pause(strike.between(Duration::ZERO, CLOSE_BY), stop)?;
        if self.daemon.is_some() {
            return self.daemon_dies_and_returns(strike, stop);
        }
        self.wallet.process().signal(Signal::KILL);
        Ok(Connections::Broken)
    }

    /// The disk lies until an acknowledgement rests on nothing; then the daemon dies and comes back without it.
    fn disk_lies(&mut self, strike: &mut Strike, stop: &AtomicBool) -> Result<Connections, Fault> {
        let (lie, lied) = (self.daemon().switches().lie(), self.daemon().switches().lied());
        fs::write(&lie, "").map_err(Fault::io("letting the disk lie"))?;
        if !wait_for(SHOW_WAIT_MAX, stop, || lied.exists())? {
            let what = "the load".to_owned();
            return Err(Fault::Program { what, cause: "brought no commit for the disk to lie about".into() });
        }
        pause(strike.between(Duration::ZERO, CLOSE_BY), stop)?;
        self.daemon().kill()?;
        fs::remove_file(&lie).map_err(Fault::io("ending the lie"))?;
        self.recovery = match self.daemon().start(stop)? {
            Started::Refused(how) => {
                // It would go on waiting for its ledger.
                self.wallet.process().signal(Signal::KILL);
                self.wallet.reap_killed()?;
                Recovery::Detected(format!("the ledger refused to open: {how}"))
            }
            Started::Listens => self.wallet_finds_out(stop)?,
        };
        Ok(Connections::Open)
    }

    /// The wallet has seen more acknowledged than the ledger has: it has to end. If it serves, it has believed the disk.
    fn wallet_finds_out(&mut self, stop: &AtomicBool) -> Result<Recovery, Fault> {
        let begin = Instant::now();
        match self.wallet.process().wait_end(SHOW_WAIT_MAX, stop)? {
            Some(status) if status.code() == Some(EXIT_FATAL) && self.wallet.process().log().contains("FATAL") => {
                Ok(Recovery::Detected("the wallet ended when it found its ledger older than it had seen it".into()))
            }
            Some(status) => Err(self.wallet.process().fault(format!("ended with {status}, and not with FATAL"))),
            None => Ok(Recovery::Whole(begin.elapsed())),
        }
    }

    fn both_die(&mut self, strike: &mut Strike) -> Result<Connections, Fault> {
        // Which of the two lives a little longer.
        if strike.random.below(2) == 0 {
            self.daemon().kill()?;
            self.wallet.process().signal(Signal::KILL);
        } else {
            self.wallet.process().signal(Signal::KILL);
            self.daemon().kill()?;
        }
        self.daemon_is_gone = true;
        Ok(Connections::Broken)
    }

    /// Brings the strike close to what it is to meet, if that comes.
    fn take_aim(&mut self, strike: &mut Strike, stop: &AtomicBool) -> Result<(), Fault> {
        match strike.aim {
            Aim::Anything => return Ok(()),
            Aim::Snapshot => {
                let keeper = self.daemon.as_mut().map(Daemon::process);
                keeper.unwrap_or_else(|| self.wallet.process()).signal(Signal::USR1);
            }
            Aim::Roll => {
                let ledger = self.ledger_directory();
                let before = upkeep::segments(&ledger);
                wait_for(ROLL_WAIT_MAX, stop, || upkeep::segments(&ledger) > before)?;
            }
        }
        pause(strike.between(Duration::ZERO, AFTER_AIM_MAX), stop)
    }

    fn ledger_directory(&self) -> PathBuf {
        self.daemon.as_ref().map_or_else(|| self.wallet.ledger_directory(), Daemon::directory)
    }
}

/// The line in which a daemon that has ended so says that a sync failed.
///
/// # Errors
/// What is wrong with its end.
fn told_of_a_failed_sync(status: ExitStatus, log: &str) -> Result<String, String> {
    if status.success() {
        return Err(format!("ended with {status} when a sync failed, as if nothing were wrong"));
    }
    let fatal = log.lines().find(|line| line.contains("FATAL"));
    let fatal = fatal.ok_or_else(|| format!("ended with {status} when a sync failed, and did not say FATAL"))?;
    if fatal.contains("could not sync") && fatal.contains("Input/output error") {
        return Ok(format!("{status}: {fatal}"));
    }
    Err(format!("ended with {status} when a sync failed, and does not name it: {fatal}"))
}

impl Victim for Stage {
    fn address(&self) -> SocketAddr {
        self.wallet.address()
    }

    fn strike(&mut self, strike: &mut Strike, stop: &AtomicBool) -> Result<Connections, Fault> {
        pause(strike.after, stop)?;
        self.take_aim(strike, stop)?;
        if !matches!(self.variant, Variant::Embedded | Variant::Wallet | Variant::Pause | Variant::Replace) {
            strike.begin_outage();
        }
        match self.variant {
            Variant::Embedded | Variant::Wallet => {
                self.wallet.process().signal(Signal::KILL);
                Ok(Connections::Broken)
            }
            Variant::Daemon => self.daemon_dies_and_returns(strike, stop),
            Variant::Both => self.both_die(strike),
            Variant::Pause => self.is_paused(strike, stop),
            Variant::Replace => self.wallet_is_replaced(stop),
            Variant::DiskFull => self.disk_fills_up(strike, stop),
            Variant::SmallDisk | Variant::SmallDiskEmbedded => self.small_disk_fills_up(strike, stop),
            Variant::LoseUnsynced if strike.random.below(2) == 0 => self.daemon_dies_and_returns(strike, stop),
            Variant::LoseUnsynced => self.both_die(strike),
            Variant::LyingSync => self.disk_lies(strike, stop),
            Variant::SyncError => self.syncs_fail(strike, stop),
        }
    }

    fn recover(&mut self, stop: &AtomicBool) -> Result<Recovery, Fault> {
        let begin = Instant::now();
        if std::mem::take(&mut self.daemon_is_gone) {
            self.daemon().start_well(stop)?;
            self.wallet.reap_killed()?;
            self.wallet.start(stop)?;
            return Ok(Recovery::Whole(begin.elapsed()));
        }
        if matches!(self.variant, Variant::Embedded | Variant::Wallet | Variant::SmallDiskEmbedded) {
            self.wallet.reap_killed()?;
            return Ok(Recovery::Whole(self.wallet.start(stop)?));
        }
        Ok(std::mem::replace(&mut self.recovery, Recovery::Whole(Duration::ZERO)))
    }

    fn resume_replaced(&mut self) {
        if let Some(replaced) = &mut self.replaced {
            replaced.process().signal(Signal::CONT);
        }
    }

    fn replaced_has_ended(&mut self, stop: &AtomicBool) -> Result<Option<String>, Fault> {
        let Some(mut replaced) = self.replaced.take() else { return Ok(None) };
        let process = replaced.process();
        let wrong = match process.wait_end(SHOW_WAIT_MAX, stop)? {
            None => Some("has not ended".to_owned()),
            Some(status) if status.code() != Some(EXIT_FATAL) => Some(format!("ended with {status}")),
            Some(_) if !process.log().contains("FATAL") => Some("did not say FATAL".to_owned()),
            Some(_) => None,
        };
        Ok(wrong.map(|how| process.fault(how).to_string()))
    }

    fn upkept(&self) -> Upkept {
        self.directory.as_ref().map_or_else(Upkept::default, |place| Upkept::seen(place.path(), &self.ledger_directory()))
    }

    fn close(&mut self) -> Result<Closed, Fault> {
        self.wallet.stop()?;
        if let Some(daemon) = &mut self.daemon {
            daemon.stop()?;
        }
        closed(&self.plan.program, &self.ledger_directory(), &self.wallet.audit_directory())
    }

    fn keep(&mut self) {
        self.wallet.keep();
        if let Some(replaced) = &mut self.replaced {
            replaced.keep();
        }
        if let Some(directory) = self.directory.take() {
            eprintln!("kept: {}", directory.keep().display());
        }
    }
}

/// What the directories of a service have come to that has ended: its ledger is replayed, and its audit stream compared with it.
///
/// # Errors
/// [`Fault::Program`] if one of them is not whole.
pub fn closed(program: &Path, ledger: &Path, stream: &Path) -> Result<Closed, Fault> {
    let ronctl = || Command::new(program.with_file_name("ronctl"));
    let mut replay = ronctl();
    replay.args(["--json", "ledger", "verify", "--dir"]).arg(ledger);
    let entries = verified("ronctl ledger verify", replay, "/entries")?;
    let mut compare = ronctl();
    compare.args(["--json", "audit", "verify", "--up-to-date", "--dir"]).arg(stream).arg("--ledger").arg(ledger);
    let audited = verified("ronctl audit verify", compare, "/ledger/equal")?;
    Ok(Closed { entries, audited })
}

/// A number of the verdict of a command that finds nothing.
fn verified(what: &str, mut command: Command, number: &str) -> Result<u64, Fault> {
    let output = command.output().map_err(Fault::io("starting ronctl"))?;
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    match said.pointer(number).and_then(serde_json::Value::as_u64) {
        Some(number) if output.status.success() => Ok(number),
        Some(_) | None => {
            let cause = format!("{}: {said} {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
            Err(Fault::Program { what: what.into(), cause })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn an_end_after_a_failed_sync_has_to_name_it() {
        let aborted = ExitStatus::from_raw(Signal::ABORT.as_raw());
        let fatal = r#"{"message":"FATAL: nothing more is acknowledged","error":"could not CALL (segment-1): Input/output error (os error 5)"}"#;
        let (sync, write) = (fatal.replace("CALL", "sync the batch"), fatal.replace("CALL", "write the batch"));
        let log = format!("{{\"message\":\"before\"}}\n{sync}\n");
        assert!(told_of_a_failed_sync(aborted, &log).is_ok_and(|how| how.ends_with(&sync)));
        for (status, log, wrong) in [
            (ExitStatus::from_raw(0), &*log, "as if nothing were wrong"),
            (aborted, "could not sync the batch: Input/output error", "did not say FATAL"),
            (aborted, &*write, "does not name it"),
        ] {
            assert!(told_of_a_failed_sync(status, log).is_err_and(|told| told.contains(wrong)), "{log}");
        }
    }
}
