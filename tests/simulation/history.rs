//! One seed, one history: a phase in which everything may go wrong, then one in which nothing does and everything must come to rest.
use crate::clients::Clients;
use crate::coverage::{Coverage, GIVEN_UP};
use crate::linearizability::{check, Finding};
use crate::rng::Rng;
use crate::swarm::{Lie, Swarm};
use crate::world::{Ended, World};
use svc_wallet::domain::Root;
use svc_wallet::shard::Settings;

/// Ticks within which everything comes to rest once the faults have stopped.
const REST_TICKS_MAX: u64 = 4000;

/// What a history came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub fingerprint: (Root, u64),
    pub steps: u64,
    pub coverage: Coverage,
}

/// Plays the history of a seed; panics where a promise is broken.
pub fn play(seed: u64, aloud: bool) -> Outcome {
    let mut rng = Rng::new(seed);
    let swarm = Swarm::new(&mut rng).behind_a_daemon(&mut Rng::new(seed ^ 0xdae_0000_0000));
    if aloud {
        println!("{swarm:#?}");
    }
    let ttl_ms = if swarm.forgetful { 100 } else { u64::from(u32::MAX) };
    let settings = Settings { hash_seeds: [1, 2, 3, seed], idempotency_ttl_ms: ttl_ms, keys_max: swarm.keys_max };
    let mut world = World::new(seed, &swarm, settings, &mut rng, aloud);
    world.coverage.count(if swarm.behind_daemon { "world: ledger behind the daemon" } else { "world: embedded ledger" });
    let mut clients = Clients::new();
    let lie_at = rng.below(if swarm.lie == Some(Lie::OlderExtent) { swarm.steps / 3 } else { swarm.steps });
    for step in 0..swarm.steps {
        if swarm.lie.is_some() && step == lie_at {
            lie(&mut world, &mut clients, &mut rng);
            if world.ended.is_some() {
                break;
            }
        }
        trouble(&mut world, &mut clients, &mut rng);
        if world.ended.is_some() {
            break;
        }
        world.tick += 1;
        world.now.0 += rng.below(3);
        world.expire_keys();
        clients.give_up(&mut world, &mut rng);
        if rng.percent(swarm.act_percent) {
            clients.act(&mut world, &mut rng);
        }
        let replies = world.step(&mut rng);
        clients.take(replies, &mut world);
        world.step_replaced(&mut clients, false, &mut rng);
        begin_again(&mut world, &mut clients, &mut rng);
        if world.ended.is_some() {
            break;
        }
        hold_against_model(&mut world);
    }
    if world.ended.is_none() {
        come_to_rest(&mut world, &mut clients, &mut rng);
    }
    let verdict = match (&world.ended, world.lied()) {
        (None, None) => "verdict: everything in order",
        (None, Some(_)) => "verdict: lie survived or repaired",
        (Some(Ended::Refused(_)), _) => "verdict: fault detected, log refused",
        (Some(Ended::LastCommitLost), _) => "verdict: last commit lost to a lie",
    };
    world.coverage.count(verdict);
    world.say(|| verdict.into());
    let mut coverage = std::mem::take(&mut world.coverage);
    coverage.add(&world.faults().coverage);
    Outcome { fingerprint: world.fingerprint(), steps: world.tick, coverage }
}

/// Whenever nothing is under way, be it in the middle of a history: what the cores have is what the entries add up to. While something is
/// under way the two may differ by just that.
fn hold_against_model(world: &mut World) {
    if world.runs() && world.is_idle() {
        world.coverage.count("model: live state compared");
        assert_eq!(world.state(), world.model.state(), "I-1 to I-5: the live state is what the entries add up to");
    }
}

fn lie(world: &mut World, clients: &mut Clients, rng: &mut Rng) {
    match world.swarm.lie {
        Some(lie @ (Lie::LostWrite | Lie::MisdirectedWrite | Lie::MisdirectedRead | Lie::OlderExtent)) => world.faults().arm(lie),
        Some(Lie::BitRot) => {
            // Some bits rot where the log ended when it was last opened, with nothing behind them yet.
            let idle = rng.percent(40);
            if idle {
                world.kill();
                begin_again(world, clients, rng);
                if world.ended.is_some() {
                    return;
                }
            }
            let rot = if idle { world.faults().rot_at_the_end() } else { world.faults().rot() };
            if let Some((name, at, mask)) = rot {
                world.say(|| format!("bit rot in {name} at {at}"));
                world.storage.rot(&name, at, mask);
            }
            if idle {
                world.kill();
                begin_again(world, clients, rng);
            }
        }
        Some(Lie::LatentReadError) => world.faults().wear_out(),
        None => {}
    }
}

/// What may go wrong between two steps.
fn trouble(world: &mut World, clients: &mut Clients, rng: &mut Rng) {
    let swarm = world.swarm.clone();
    if rng.rarely(swarm.clock_jump) {
        let ms = rng.below(if swarm.forgetful { 300 } else { 3 * 3_600_000 });
        if rng.percent(50) {
            world.coverage.count("clock: forward");
            world.now.0 += ms;
        } else {
            world.coverage.count("clock: backward");
            world.now.0 -= ms;
        }
    }
    if rng.rarely(swarm.not_ready) {
        world.coverage.count("core: not ready");
        world.not_ready_until = world.tick + 1 + rng.below(40);
    }
    if rng.rarely(swarm.cut_link) {
        world.coverage.count("link: cut");
        let (core, until) = (rng.below(world.cores.len() as u64) as usize, world.tick + 1 + rng.below(60));
        world.cores[core].link.cut(until);
    }
    if rng.rarely(swarm.cut_wire) {
        world.cut_wire(rng);
    }
    if rng.rarely(swarm.stall_wire) {
        world.stall_wire(rng);
    }
    if world.process.is_none() {
        // The daemon is away, and nothing happens to its disk meanwhile.
        return begin_again(world, clients, rng);
    }
    if rng.rarely(swarm.second_writer) {
        world.second_writer();
    }
    if rng.rarely(swarm.full_disk) {
        if rng.percent(50) {
            // The next segment is there, and its mark will be the first for which there is no room.
            world.attempt_ahead();
        }
        world.full_until = world.tick + 1 + rng.below(150);
        world.storage.limit_bytes(Some(0));
    }
    if world.full_until > 0 && world.tick >= world.full_until {
        world.full_until = 0;
        world.storage.limit_bytes(None);
    }
    if rng.percent(2) && world.process.is_some() {
        world.note();
    }
    if rng.rarely(swarm.snapshot_lie) {
        world.faults().snapshot_lie = Some(rng.percent(50));
    }
    if rng.rarely(swarm.snapshot) {
        world.snapshot(rng);
    }
    if rng.rarely(swarm.snapshot_rot) {
        world.rot_snapshot(rng);
    }
    if rng.rarely(swarm.index_damage) {
        world.damage_index(rng);
    }
    if rng.rarely(swarm.history_rot) {
        world.rot_history(rng);
    }
    if rng.rarely(swarm.power_loss) {
        world.crash(rng);
    } else if rng.rarely(swarm.kill) {
        world.kill_some(rng);
    } else if rng.rarely(swarm.replace) {
        world.pause_wallet(clients, rng);
    } else if rng.rarely(swarm.power_loss_in_commit) {
        world.crash_in_commit(rng);
    } else if rng.rarely(swarm.power_loss_in_mark) {
        if rng.percent(50) {
            world.crash_in_note(rng);
        } else {
            world.crash_in_close(rng);
        }
    } else if rng.rarely(swarm.power_loss_in_snapshot) {
        world.crash_in_snapshot(rng);
    } else if rng.rarely(swarm.power_loss_in_history) {
        world.crash_in_history(rng);
    }
    begin_again(world, clients, rng);
}

/// If the server has ended, it is started again, perhaps with another number of cores; likewise the daemon.
fn begin_again(world: &mut World, clients: &mut Clients, rng: &mut Rng) {
    if world.runs() || world.daemon_stays_away(rng) {
        return;
    }
    if !world.has_cores() {
        clients.forget_connections();
    }
    if world.process.is_none() && rng.percent(30) {
        world.crash(rng);
    }
    let cores = world.some_cores(rng);
    world.start(rng, cores);
    if world.ended.is_none() {
        clients.check_promises(world);
    }
}

/// The faults have stopped: everything that is pending resolves within a bounded time, and everything adds up.
fn come_to_rest(world: &mut World, clients: &mut Clients, rng: &mut Rng) {
    world.say(|| "the faults stop".into());
    world.faults().quiet = true;
    world.faults().snapshot_lie = None;
    world.storage.limit_bytes(None);
    (world.full_until, world.not_ready_until) = (0, 0);
    let swarm = &mut world.swarm;
    (swarm.lose_acknowledgement_percent, swarm.inbox_full_percent, swarm.lane_full_percent) = (0, 0, 0);
    (swarm.power_loss_in_recovery_percent, swarm.timeout_ticks) = (0, u64::MAX / 2);
    let until = world.tick + REST_TICKS_MAX;
    loop {
        clients.repeat_unanswered(world, rng, 16);
        loop {
            world.tick += 1;
            assert!(world.tick < until, "progress resumes when the faults stop");
            let replies = world.round(rng);
            clients.take(replies, world);
            world.step_replaced(clients, true, rng);
            begin_again(world, clients, rng);
            if world.ended.is_some() {
                return;
            }
            if world.is_idle() {
                break;
            }
        }
        clients.give_up_hanging(world);
        if clients.is_settled(world) {
            break;
        }
    }
    check_end(world, clients, rng);
}

/// At rest: the live state is what the ledger adds up to, before and after a restart, and every client's view can be explained.
fn check_end(world: &mut World, clients: &mut Clients, rng: &mut Rng) {
    clients.check_promises(world);
    assert_eq!(world.state(), world.model.state(), "the live state is that of the ledger");
    world.check_history(rng);
    if world.follow() {
        let sums = world.process().work.audit().sums;
        let told: Vec<_> = sums.into_iter().map(|sums| (sums.asset, sums.issued, sums.burned, sums.held)).collect();
        assert_eq!(told, world.model.totals(), "I-3: the auditor's sums are those of the entries");
    }
    if world.lied().is_none() {
        world.check_scrubbing();
    }
    let cores = 1 + rng.below(4) as u16;
    world.restart(rng, cores);
    if world.ended.is_some() {
        return;
    }
    if world.lied().is_none() {
        world.audit();
        world.probe_keys(rng);
        world.archive(rng);
        world.back_up_and_restore(rng);
    }
    for (account, history) in clients.histories(world) {
        let operations = history.len();
        match check(history) {
            Finding::Linearizable => world.coverage.count("linearizability: account checked"),
            Finding::Undecided => world.coverage.count(GIVEN_UP),
            Finding::Violation => panic!("linearizability: {account} with {operations} operations cannot be explained"),
        }
    }
}
