//! Accounts whose names were chosen so that all of them have one slot, and with it one core: who sends everything there keeps that core busy
//! and gets what one core gives; accounts of the other core are served meanwhile, and nothing is lost or done twice.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use support::Server;
use svc_wallet::domain::{Account, CoreId};
use svc_wallet::ring::{slot, Ring, Slot};

const CHOSEN: usize = 24;
const ATTACKERS: usize = 6;
const SPENDS: u64 = 150;

fn slot_of(name: &str) -> Slot {
    slot(Account::new(name).unwrap())
}

/// Names that have the slot of the first one. Anybody can compute it: gateways are to.
fn chosen() -> Vec<String> {
    let names = (0u64..).map(|number| format!("chosen:{number}"));
    let wanted = slot_of("chosen:0");
    names.filter(|name| slot_of(name) == wanted).take(CHOSEN).collect()
}

#[test]
fn accounts_chosen_for_one_slot_keep_their_own_core_busy_and_nobody_from_the_other_one() {
    let server = Server::with(&[("runtime.cores", "2"), ("timeouts.idle_ms", "10m")]);
    let chosen = chosen();
    let ring = Ring::new(2);
    let owner = |name: &str| ring.owner(Account::new(name).unwrap());
    let busy = owner(&chosen[0]);
    assert!(chosen.iter().all(|name| owner(name) == busy));
    let elsewhere = (0..).map(|number| format!("other:{number}")).find(|name| owner(name) == CoreId(1 - busy.0)).unwrap();
    let mut admin = server.wallet();
    chosen.iter().for_each(|name| drop(admin.issue(name, u128::from(SPENDS))));
    admin.issue(&elsewhere, 1_000_000);
    let done = AtomicBool::new(false);
    let mut spent = 0;
    std::thread::scope(|scope| {
        let attackers: Vec<_> = (0..ATTACKERS)
            .map(|attacker| {
                let (server, chosen) = (&server, &chosen);
                scope.spawn(move || {
                    let mut wallet = server.wallet();
                    for name in chosen[1..].iter().skip(attacker).step_by(ATTACKERS) {
                        for nonce in 1..=SPENDS {
                            wallet.spend(name, &chosen[0], 1, nonce, &format!("k-{nonce}")).ok();
                        }
                    }
                })
            })
            .collect();
        let (server, elsewhere, done) = (&server, &elsewhere, &done);
        let served = scope.spawn(move || {
            let (mut wallet, mut nonce) = (server.wallet(), 0);
            while !done.load(Ordering::Relaxed) || nonce < 20 {
                nonce += 1;
                wallet.spend(elsewhere, "shop", 1, nonce, &format!("k-{nonce}")).ok();
            }
            nonce
        });
        let ended: Vec<_> = attackers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|ended| ended.unwrap());
        spent = served.join().unwrap();
    });
    assert_eq!(admin.balance("shop"), u128::from(spent));
    assert_eq!(admin.balance(&chosen[0]), u128::from(SPENDS) * CHOSEN as u128);
    for name in &chosen[1..] {
        assert_eq!((admin.balance(name), admin.seq(name).0), (0, SPENDS), "{name}");
    }
}
