//! One test for each way in which a part can fail, to be read by a person: what happens to writes, to reads, and how it ends. Each
//! drives the same world as the random histories, with exactly one thing going wrong. `docs/SIMULATION.md` has the table of all rows,
//! with the tests that play them on a real server.
use crate::clients::Clients;
use crate::core::Answer;
use crate::grants::{grants, ANYTHING};
use crate::power::SEGMENT_CHANGES;
use crate::rng::Rng;
use crate::swarm::Swarm;
use crate::world::{Ended, World};
use svc_wallet::domain::{Account, Allowance, Amount, Asset, Code, CoreId, Draft, Entry, Key, Nonce, Op};
use svc_wallet::engine::{Gate, Request, Ticket, OUTBOX_MAX};
use svc_wallet::ledger::Storage;
use svc_wallet::shard::Settings;

/// Segments of this many bytes are soon full.
const SMALL: u64 = 40 << 10;

/// Two cores, segments of this size, and nothing that goes wrong by itself.
fn quiet_world(segment_bytes: u64) -> (World, Rng) {
    quiet_world_with(false, segment_bytes)
}

/// The same behind the daemon, and whatever is sent arrives.
fn quiet_world_behind_a_daemon() -> (World, Rng) {
    let (world, rng) = quiet_world_with(true, SMALL);
    world.faults().quiet = true;
    (world, rng)
}

fn quiet_world_with(behind_daemon: bool, segment_bytes: u64) -> (World, Rng) {
    let mut rng = Rng::new(1);
    let swarm = Swarm { cores_max: 2, segment_bytes, behind_daemon, ..Swarm::quiet(&mut rng) };
    let settings = Settings { hash_seeds: [1, 2, 3, 4], idempotency_ttl_ms: 1 << 40, keys_max: 1 << 16 };
    let mut world = World::new(1, &swarm, settings, &mut rng, false);
    world.kill();
    if behind_daemon {
        world.kill_wallet(&mut rng);
    }
    world.start(&mut rng, 2);
    (world, rng)
}

/// Submits a write under a key of its own on core 0.
fn write(world: &mut World, op: Op, from: &str, to: &str, number: u64) {
    let mut bytes = Vec::new();
    let key = format!("{}-{number}", op.as_str());
    let draft = Draft {
        op,
        from: op.debits().then(|| Account::new(from).unwrap()),
        to: op.credits().then(|| Account::new(to).unwrap()),
        asset: Asset::new("roc").unwrap(),
        amount: Amount::new(1).unwrap(),
        nonce: op.debits().then_some(Nonce(number)),
        key: Key::new(&key).unwrap(),
        memo: None,
        corr: "row",
        token: grants()[ANYTHING].id,
        ceiling: false,
        budget: false,
        daily_max: false,
        ts: world.now,
    };
    draft.encode(&mut bytes);
    let ticket = Ticket { core: CoreId(0), connection: 0, generation: 0, request: number };
    world.submit(ticket, Request::Write { entry: Entry::parse(&bytes).unwrap().0, allowance: Allowance::default() });
}

/// Asks core 0 for a balance.
fn read(world: &mut World, account: &str) {
    let (account, asset) = (Account::new(account).unwrap(), Asset::new("roc").unwrap());
    let ticket = Ticket { core: CoreId(0), connection: 0, generation: 0, request: 0 };
    world.submit(ticket, Request::Balance { account, asset });
}

fn balance(world: &mut World, rng: &mut Rng, account: &str) -> u128 {
    read(world, account);
    let answers = rounds(world, rng, 4);
    let found = answers.iter().find_map(|answer| if let Answer::Balance { amount, .. } = answer { Some(*amount) } else { None });
    found.expect("reads are served")
}

fn rounds(world: &mut World, rng: &mut Rng, most: u64) -> Vec<Answer> {
    let mut answers = Vec::new();
    for _ in 0..most {
        world.tick += 1;
        if world.has_cores() {
            answers.extend(world.round(rng).into_iter().map(|(_, answer)| answer));
        }
    }
    answers
}

/// Everything that is under way gets to the ledger's door, and no further.
fn queue(world: &mut World, rng: &mut Rng) {
    for index in [0, 1, 0, 1] {
        world.cores[index].empty_inbox(Gate::Open);
        drop(world.hand_over(index, rng));
    }
    assert!(world.cores.iter().any(|core| !core.link.towards.is_empty()), "a batch waits for the committer");
}

fn receipts(answers: &[Answer]) -> usize {
    answers.iter().filter(|answer| matches!(answer, Answer::Receipt { .. })).count()
}

/// Issues so many times to alice and waits for the receipts.
fn issue(world: &mut World, rng: &mut Rng, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        write(world, Op::Issue, "", "alice", number);
        assert_eq!(receipts(&rounds(world, rng, 30)), 1, "an issue gets its receipt");
    }
}

/// The disk has no room for anything more; the next segment is there already, and wants room for its mark.
fn fill_behind_the_next_segment(world: &mut World, rng: &mut Rng) {
    rounds(world, rng, 1);
    fill(world);
}

fn fill(world: &mut World) {
    world.full_until = u64::MAX;
    world.storage.limit_bytes(Some(0));
}

/// Row "disk full": writes are refused before anything is written, reads are served, and it ends by itself once there is room.
#[test]
fn a_full_disk_refuses_writes_and_serves_reads_until_there_is_room() {
    let (mut world, mut rng) = quiet_world(SMALL);
    fill_behind_the_next_segment(&mut world, &mut rng);
    let mut number = 0;
    while !world.process().full {
        number += 1;
        write(&mut world, Op::Issue, "", "alice", number);
        rounds(&mut world, &mut rng, 20);
    }
    let durable = u128::from(world.model.head());
    assert_eq!(balance(&mut world, &mut rng, "alice"), durable);
    write(&mut world, Op::Issue, "", "alice", number + 1);
    let refused = rounds(&mut world, &mut rng, 4);
    assert!(
        refused.iter().any(|answer| matches!(answer, Answer::Refused { code: Code::UpstreamUnavailable, .. })),
        "{refused:?}"
    );
    world.storage.limit_bytes(None);
    assert_eq!(receipts(&rounds(&mut world, &mut rng, 20)), 1, "what waited for room is committed");
    issue(&mut world, &mut rng, number + 2..=number + 2);
    assert_eq!(balance(&mut world, &mut rng, "alice"), durable + 2);
}

/// The same behind the daemon: its wallet is told so, refuses by itself before anything is sent, and is told of the room.
#[test]
fn while_the_disk_of_the_daemon_is_full_its_wallet_refuses_writes_and_serves_reads() {
    let (mut world, mut rng) = quiet_world_behind_a_daemon();
    fill_behind_the_next_segment(&mut world, &mut rng);
    let mut number = 0;
    while matches!(world.gate_of_wallet(), Some(Gate::Open)) {
        number += 1;
        write(&mut world, Op::Issue, "", "alice", number);
        rounds(&mut world, &mut rng, 20);
    }
    let durable = u128::from(world.model.head());
    assert_eq!((durable, world.wallet().link.in_doubt()), (u128::from(number) - 1, 1), "one waits for room");
    assert_eq!(balance(&mut world, &mut rng, "alice"), durable);
    write(&mut world, Op::Issue, "", "alice", number + 1);
    let refused = rounds(&mut world, &mut rng, 4);
    assert!(matches!(refused[..], [Answer::Refused { code: Code::UpstreamUnavailable, .. }]), "{refused:?}");
    assert_eq!((u128::from(world.model.head()), world.wallet().link.in_doubt()), (durable, 1), "and nothing else");
    world.storage.limit_bytes(None);
    assert_eq!(receipts(&rounds(&mut world, &mut rng, 20)), 1, "what waited for room is committed");
    issue(&mut world, &mut rng, number + 2..=number + 2);
    assert_eq!(balance(&mut world, &mut rng, "alice"), durable + 2);
}

/// Found ahead: there is no room for the next segment while the present one has some left, so nothing comes to wait for it.
#[test]
fn a_disk_without_room_for_the_next_segment_refuses_writes_before_any_waits() {
    for (mut world, mut rng) in [quiet_world(SMALL), quiet_world_behind_a_daemon()] {
        fill(&mut world);
        let mut number = 0;
        while world.gate(0) == Gate::Open {
            number += 1;
            write(&mut world, Op::Issue, "", "alice", number);
            rounds(&mut world, &mut rng, 20);
        }
        assert!(number > 2 && world.model.head() == number, "{} of {number} are durable", world.model.head());
        world.storage.limit_bytes(None);
        rounds(&mut world, &mut rng, 20);
        issue(&mut world, &mut rng, number + 1..=number + 1);
        assert_eq!(balance(&mut world, &mut rng, "alice"), u128::from(number) + 1);
    }
}

/// Row "fdatasync error": nothing is acknowledged, the process ends, and recovery believes the disk and not the cache.
#[test]
fn a_failed_sync_ends_the_process_and_what_was_not_acknowledged_is_gone() {
    let (mut world, mut rng) = quiet_world(SMALL);
    issue(&mut world, &mut rng, 1..=3);
    world.storage.fail_syncs(true);
    write(&mut world, Op::Issue, "", "alice", 4);
    assert_eq!(receipts(&rounds(&mut world, &mut rng, 20)), 0, "I-6: nothing is acknowledged after a sync that failed");
    assert!(world.process.is_none(), "the process has ended");
    world.storage.fail_syncs(false);
    world.start(&mut rng, 2);
    assert_eq!(balance(&mut world, &mut rng, "alice"), 3);
    issue(&mut world, &mut rng, 4..=4);
    world.crash(&mut rng);
    world.start(&mut rng, 1);
    assert_eq!(balance(&mut world, &mut rng, "alice"), 4);
}

/// Row "corrupt log": a server does not start on it, and says where the damage is.
#[test]
fn a_bit_that_flipped_in_the_log_keeps_the_server_from_starting() {
    let (mut world, mut rng) = quiet_world(SMALL);
    issue(&mut world, &mut rng, 1..=3);
    let segment = world.storage.list().unwrap().into_iter().rfind(|name| name.starts_with("segment-")).unwrap();
    world.faults().lied = Some(crate::swarm::Lie::BitRot);
    world.storage.rot(&segment, 8192 + 200, 1);
    world.kill();
    world.start(&mut rng, 2);
    let Some(Ended::Refused(message)) = &world.ended else { panic!("it starts") };
    assert!(message.contains("byte 8192") && message.contains("ronctl ledger verify"), "{message}");
}

/// The first account that this core owns.
fn account_of(world: &World, core: u16) -> String {
    let ring = svc_wallet::ring::Ring::new(world.cores.len() as u16);
    let mut names = (0..).map(|number| format!("a{number}"));
    names.find(|name| ring.owner(Account::new(name).unwrap()) == CoreId(core)).unwrap()
}

/// Row "a core's inbox is full": forwarded requests are refused as busy at the bound; credits wait and are never dropped, and no
/// reply overtakes them.
#[test]
fn a_full_inbox_holds_credits_back_and_refuses_what_is_too_much() {
    let (mut world, mut rng) = quiet_world(8 << 20);
    let (here, there) = (account_of(&world, 0), account_of(&world, 1));
    write(&mut world, Op::Issue, "", &here, 1);
    assert_eq!(receipts(&rounds(&mut world, &mut rng, 20)), 1, "the account has something");
    world.swarm.inbox_full_percent = 100;
    write(&mut world, Op::Transfer, &here, &there, 1);
    assert_eq!(receipts(&rounds(&mut world, &mut rng, 20)), 0, "the reply waits for its credit");
    for number in 0..OUTBOX_MAX as u64 {
        write(&mut world, Op::Issue, "", &there, 10 + number);
    }
    let busy = |answer: &Answer| matches!(answer, Answer::Refused { code: Code::Busy, .. });
    world.swarm.inbox_full_percent = 0;
    let answers = rounds(&mut world, &mut rng, 1);
    assert_eq!(answers.iter().filter(|answer| busy(answer)).count(), 1, "one more than there is room for beside the credit");
    assert_eq!(receipts(&answers), 1, "the reply that waited");
    assert_eq!(balance(&mut world, &mut rng, &here), 0, "the transfer has debited it");
}

/// The same row for reads: one of an account of the own core needs no inbox and is served; one that has to be forwarded is refused as
/// busy where nothing more may wait for the other core, and is served once there is room.
#[test]
fn while_an_inbox_is_full_reads_of_the_own_core_are_served_and_forwarded_ones_refused() {
    let (mut world, mut rng) = quiet_world(8 << 20);
    let (here, there) = (account_of(&world, 0), account_of(&world, 1));
    write(&mut world, Op::Issue, "", &here, 1);
    write(&mut world, Op::Issue, "", &there, 2);
    assert_eq!(receipts(&rounds(&mut world, &mut rng, 20)), 2, "both accounts have something");
    world.swarm.inbox_full_percent = 100;
    let waiting = OUTBOX_MAX as u64;
    for number in 0..waiting {
        write(&mut world, Op::Issue, "", &there, 10 + number);
    }
    for account in [&here, &there] {
        read(&mut world, account);
    }
    let answers = rounds(&mut world, &mut rng, 1);
    let as_told = matches!(&answers[..], [
        Answer::Balance { account, amount: 1, .. },
        Answer::Refused { code: Code::Busy, .. },
    ] if *account == here);
    assert!(as_told, "{answers:?}");
    assert_eq!(balance(&mut world, &mut rng, &here), 1, "reads of the own core go on");
    world.swarm.inbox_full_percent = 0;
    assert_eq!(receipts(&rounds(&mut world, &mut rng, 40)) as u64, waiting, "what waited is done");
    assert_eq!(balance(&mut world, &mut rng, &there), 1 + u128::from(waiting));
}

/// Row "kill -9, power loss": nothing acknowledged is lost, nothing unacknowledged is half applied.
#[test]
fn whatever_was_acknowledged_survives_a_power_loss_inside_of_a_commit() {
    for (garble_percent, changes) in [0, 50, 100].into_iter().flat_map(|percent| [(percent, 0), (percent, 1), (percent, 2)]) {
        let (mut world, mut rng) = quiet_world(SMALL);
        world.swarm.garble_percent = garble_percent;
        issue(&mut world, &mut rng, 1..=5);
        write(&mut world, Op::Issue, "", "alice", 6);
        queue(&mut world, &mut rng);
        let done = world.crash_after(changes, &mut rng);
        assert_eq!(done, changes == 2, "a commit is a write and a sync");
        world.start(&mut rng, 1);
        let there = balance(&mut world, &mut rng, "alice");
        assert!(if done { there == 6 } else { (5..=6).contains(&there) }, "{there} after {changes} changes");
    }
}

/// The same at every change that a commit makes to the disk which begins a segment: the mark, header and name of the new file, the batch.
#[test]
fn whatever_was_acknowledged_survives_a_power_loss_at_every_step_to_a_new_segment() {
    let (mut world, mut rng) = quiet_world(SMALL);
    let first = world.last_segment();
    let full = (1..).find(|number| {
        issue(&mut world, &mut rng, *number..=*number);
        world.last_segment() != first
    });
    let full = full.expect("a segment is full some time");
    let mut changes = 0;
    loop {
        let (mut world, mut rng) = quiet_world(SMALL);
        issue(&mut world, &mut rng, 1..=full - 1);
        write(&mut world, Op::Issue, "", "alice", full);
        queue(&mut world, &mut rng);
        let done = world.crash_after(changes, &mut rng);
        world.start(&mut rng, 1);
        let there = balance(&mut world, &mut rng, "alice");
        let least = u128::from(if done { full } else { full - 1 });
        assert!((least..=u128::from(full)).contains(&there), "{there} of {full} after {changes} changes");
        if done {
            break;
        }
        changes += 1;
    }
    assert!((10..SEGMENT_CHANGES).contains(&changes), "{changes} changes");
}

/// Row "the daemon is gone, comes back": reads are served, writes are refused, what was pending is committed later, once.
#[test]
fn while_the_daemon_is_gone_writes_are_refused_and_what_was_pending_settles_later() {
    let (mut world, mut rng) = quiet_world_behind_a_daemon();
    issue(&mut world, &mut rng, 1..=3);
    write(&mut world, Op::Issue, "", "alice", 4);
    for core in 0..2 {
        assert!(world.turn(core, &mut rng).is_empty(), "nothing is promised yet");
    }
    world.kill();
    world.lose_daemon(&mut rng);
    assert_eq!(receipts(&rounds(&mut world, &mut rng, 20)), 0, "I-6: nothing is acknowledged without the daemon");
    assert_eq!(balance(&mut world, &mut rng, "alice"), 3);
    write(&mut world, Op::Issue, "", "alice", 5);
    let refused = rounds(&mut world, &mut rng, 4);
    assert!(matches!(refused[..], [Answer::Refused { code: Code::UpstreamUnavailable, .. }]), "{refused:?}");
    world.start(&mut rng, 2);
    assert_eq!(receipts(&rounds(&mut world, &mut rng, 30)), 1, "what was pending");
    issue(&mut world, &mut rng, 5..=5);
    assert_eq!(balance(&mut world, &mut rng, "alice"), 5);
    assert_eq!(world.model.head(), 5, "I-1: what was repeated is there once");
}

/// Row "a wallet was paused and replaced": what the first one still had on its way never arrives, and it learns why.
#[test]
fn nothing_of_a_wallet_that_was_replaced_arrives_and_it_is_told() {
    let (mut world, mut rng) = quiet_world_behind_a_daemon();
    issue(&mut world, &mut rng, 1..=3);
    write(&mut world, Op::Issue, "", "alice", 4);
    for core in 0..2 {
        assert!(world.turn(core, &mut rng).is_empty(), "nothing is promised yet");
    }
    let mut clients = Clients::new();
    world.pause_wallet(&mut clients, &mut rng);
    world.start(&mut rng, 2);
    assert_eq!(balance(&mut world, &mut rng, "alice"), 3);
    issue(&mut world, &mut rng, 5..=5);
    for _ in 0..40 {
        world.tick += 1;
        world.step_replaced(&mut clients, true, &mut rng);
    }
    assert_eq!(world.coverage.get("wallet: learned that it was replaced"), 1);
    assert_eq!(world.model.head(), 4, "nothing of the first one arrives");
    issue(&mut world, &mut rng, 6..=6);
    assert_eq!(balance(&mut world, &mut rng, "alice"), 5);
}
