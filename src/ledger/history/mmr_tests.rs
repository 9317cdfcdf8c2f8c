//! Mountain ranges against a naive model that builds every tree anew, and proofs in which anything at all was changed.
use super::*;
use crate::domain::{Consistency, Found, HistoryRoot, Inclusion, Proof};
use crate::ledger::history::{verify_consistency, verify_inclusion, ProofFault};
use crate::ledger::sample;

const LOG: LogId = LogId([7; 16]);
const BATCHES: u64 = 300;

fn keyed(kind: &str, parts: &[&[u8]]) -> Digest {
    let key = format!("svc-wallet history 1: {kind}");
    *blake3::keyed_hash(key.as_bytes().try_into().unwrap(), &parts.concat()).as_bytes()
}

/// The root of a perfect tree, from the leaves.
fn tree(leaves: &[Digest]) -> Digest {
    match leaves {
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len() / 2);
            keyed("inner node", &[&tree(left), &tree(right)])
        }
    }
}

/// The peaks over these leaves, the largest trees first.
fn naive_peaks(mut leaves: &[Digest]) -> Vec<Digest> {
    let mut peaks = Vec::new();
    while !leaves.is_empty() {
        let (mountain, rest) = leaves.split_at(1 << leaves.len().ilog2());
        peaks.push(tree(mountain));
        leaves = rest;
    }
    peaks
}

/// A ledger without a disk: batch `n` has `n % 7 + 1` entries.
struct World {
    batches: Vec<(Seq, Root, Vec<Vec<u8>>)>,
    leaves: Vec<Digest>,
    nodes: Vec<Digest>,
    peaks: Vec<Peaks>,
}

impl World {
    fn new(batches: u64) -> Self {
        let mut world = Self { batches: Vec::new(), leaves: Vec::new(), nodes: Vec::new(), peaks: vec![Peaks::default()] };
        let mut next = 1;
        for number in 0..batches {
            let batch = sample::lane_batch(0, next, number as u32 % 7 + 1);
            let entries: Vec<Vec<u8>> = crate::domain::Entry::all_own(&batch.bytes).map(|entry| entry.bytes().to_vec()).collect();
            let chain = [number as u8; 32];
            let (first, count) = (next, entries.len() as u64);
            let of_entries: Vec<Digest> =
                (next..).zip(&entries).map(|(seq, entry)| keyed("entry leaf", &[&u64::to_le_bytes(seq), entry])).collect();
            let leaf =
                keyed("batch leaf", &[&chain, &first.to_le_bytes(), &count.to_le_bytes(), &naive_peaks(&of_entries).concat()]);
            let mut peaks = world.peaks.last().unwrap().clone();
            peaks.append(leaf, &mut |node| world.nodes.push(node));
            world.peaks.push(peaks);
            world.leaves.push(leaf);
            world.batches.push((Seq(next), chain, entries));
            next += count;
        }
        world
    }

    fn root(&self, size: u64) -> HistoryRoot {
        let (first, _, entries) = &self.batches[size as usize - 1];
        let through = Seq(first.0 + entries.len() as u64 - 1);
        let peaks = naive_peaks(&self.leaves[..size as usize]).concat();
        let hash = keyed("whole root", &[&LOG.0, &size.to_le_bytes(), &through.0.to_le_bytes(), &peaks]);
        HistoryRoot { size, through, hash }
    }

    fn top(&self, subtree: Subtree) -> Result<Digest, ()> {
        Ok(self.nodes[subtree.position() as usize])
    }

    fn proof(&self, batch: u64, index: u64, size: u64) -> Proof {
        let (first_seq, chain, entries) = &self.batches[batch as usize];
        let mut of_batch = (Peaks::default(), Vec::new());
        for (seq, entry) in (first_seq.0..).zip(entries) {
            of_batch.0.append(entry_leaf(Seq(seq), entry), &mut |node| of_batch.1.push(node));
        }
        let found = Found { entry: entries[index as usize].as_slice().into(), seq: Seq(first_seq.0 + index), root: *chain };
        let in_batch =
            path(index, entries.len() as u64, &mut |subtree| Ok::<_, ()>(of_batch.1[subtree.position() as usize])).unwrap();
        let in_history = path(batch, size, &mut |subtree| self.top(subtree)).unwrap();
        let inclusion = Inclusion {
            first_seq: *first_seq,
            entries: entries.len() as u64,
            in_batch,
            batch,
            in_history,
            root: self.root(size),
        };
        Proof { log_id: LOG, found, inclusion }
    }

    fn consistency(&self, from: u64, to: u64) -> Consistency {
        let tops = |subtrees: &mut dyn Iterator<Item = Subtree>| subtrees.map(|subtree| self.top(subtree).unwrap()).collect();
        Consistency {
            log_id: LOG,
            from: self.root(from),
            to: self.root(to),
            peaks: tops(&mut mountains(from)),
            additions: tops(&mut additions(from, to)),
        }
    }
}

#[test]
fn peaks_and_nodes_are_those_of_the_model_at_every_size() {
    let world = World::new(BATCHES);
    for (size, peaks) in (0..).zip(&world.peaks) {
        assert_eq!(peaks.hashes(), naive_peaks(&world.leaves[..size]), "{size}");
        assert_eq!(peaks.size(), size as u64);
        for mountain in mountains(size as u64) {
            let leaves = mountain.start as usize..(mountain.start + (1 << mountain.height)) as usize;
            assert_eq!(world.top(mountain).unwrap(), tree(&world.leaves[leaves]), "{size} {mountain:?}");
        }
        if size > 0 {
            let root = world.root(size as u64);
            assert_eq!(peaks.root(LOG, root.through), root.hash);
        }
    }
    assert_eq!(world.nodes.len() as u64, node_count(BATCHES));
}

#[test]
fn every_entry_is_proven_under_every_root_that_covers_it() {
    let world = World::new(130);
    for size in 1..=130 {
        for batch in 0..size {
            let index = (batch + size) % (batch % 7 + 1);
            assert_eq!(verify_inclusion(&world.proof(batch, index, size)), Ok(()), "batch {batch}, entry {index}, size {size}");
        }
    }
}

#[test]
fn every_root_continues_every_earlier_one() {
    let world = World::new(200);
    for to in 1..=200 {
        for from in 1..=to {
            assert_eq!(verify_consistency(&world.consistency(from, to)), Ok(()), "from {from} to {to}");
        }
    }
}

#[test]
fn no_entry_is_proven_at_another_place_or_under_another_root() {
    let world = World::new(40);
    for (batch, index, size) in [(0, 0, 1), (0, 0, 40), (13, 3, 14), (13, 6, 40), (31, 2, 32), (39, 4, 40)] {
        let good = world.proof(batch, index, size);
        assert_eq!(verify_inclusion(&good), Ok(()));
        let bad = |change: &dyn Fn(&mut Proof), what: &str| {
            let mut proof = good.clone();
            change(&mut proof);
            assert_ne!(proof, good, "{what}");
            assert!(verify_inclusion(&proof).is_err(), "{what} of batch {batch}");
        };
        let more_or_less: [&dyn Fn(u64) -> u64; 4] =
            [&|number| number + 1, &|number| number.wrapping_sub(1), &|_| u64::MAX, &|number| number + (1 << 40)];
        for change in more_or_less {
            bad(&|proof| proof.found.seq.0 = change(proof.found.seq.0), "position");
            bad(&|proof| proof.inclusion.first_seq.0 = change(proof.inclusion.first_seq.0), "first entry");
            bad(&|proof| proof.inclusion.entries = change(proof.inclusion.entries), "entries");
            bad(&|proof| proof.inclusion.batch = change(proof.inclusion.batch), "batch");
            bad(&|proof| proof.inclusion.root.size = change(proof.inclusion.root.size), "size");
            bad(&|proof| proof.inclusion.root.through.0 = change(proof.inclusion.root.through.0), "end");
            bad(
                &|proof| {
                    proof.found.seq.0 = change(proof.found.seq.0);
                    proof.inclusion.first_seq.0 = change(proof.inclusion.first_seq.0);
                },
                "both positions",
            );
        }
        for byte in 0..good.found.entry.len() {
            for bit in 0..8 {
                bad(&|proof| proof.found.entry[byte] ^= 1 << bit, "entry");
            }
        }
        for bit in 0..256 {
            let (byte, mask) = (bit / 8, 1 << (bit % 8));
            bad(&|proof| proof.found.root[byte] ^= mask, "chain hash");
            bad(&|proof| proof.inclusion.root.hash[byte] ^= mask, "root");
            bad(&|proof| proof.log_id.0[byte % 16] ^= mask, "ledger");
            let lists: [fn(&mut Inclusion) -> &mut Vec<Digest>; 4] = [
                |place| &mut place.in_batch.siblings,
                |place| &mut place.in_batch.peaks,
                |place| &mut place.in_history.siblings,
                |place| &mut place.in_history.peaks,
            ];
            for list in lists {
                for at in 0..list(&mut good.inclusion.clone()).len() {
                    bad(&|proof| list(&mut proof.inclusion)[at][byte] ^= mask, "hash");
                    bad(
                        &|proof| {
                            list(&mut proof.inclusion).remove(at);
                        },
                        "fewer hashes",
                    );
                }
                bad(&|proof| list(&mut proof.inclusion).push([0; 32]), "more hashes");
            }
        }
        bad(&|proof| proof.found.entry = [&*proof.found.entry, &[0]].concat().into(), "longer entry");
        bad(&|proof| proof.found.entry = Box::default(), "no entry");
    }
}

#[test]
fn no_other_history_continues_a_root() {
    let world = World::new(64);
    for (from, to) in [(1, 2), (5, 5), (7, 20), (32, 33), (21, 64)] {
        let good = world.consistency(from, to);
        let bad = |change: &dyn Fn(&mut Consistency), what: &str| {
            let mut proof = good.clone();
            change(&mut proof);
            assert_ne!(proof, good, "{what}");
            assert!(verify_consistency(&proof).is_err(), "{what} from {from} to {to}");
        };
        for bit in 0..256 {
            let (byte, mask) = (bit / 8, 1 << (bit % 8));
            bad(&|proof| proof.from.hash[byte] ^= mask, "earlier root");
            bad(&|proof| proof.to.hash[byte] ^= mask, "later root");
            bad(&|proof| proof.log_id.0[byte % 16] ^= mask, "ledger");
            bad(&|proof| proof.from.size ^= 1 << (bit % 64), "earlier size");
            bad(&|proof| proof.to.size ^= 1 << (bit % 64), "later size");
            bad(&|proof| proof.from.through.0 ^= 1 << (bit % 64), "earlier end");
            bad(&|proof| proof.to.through.0 ^= 1 << (bit % 64), "later end");
            for at in 0..good.peaks.len() {
                bad(&|proof| proof.peaks[at][byte] ^= mask, "peak");
            }
            for at in 0..good.additions.len() {
                bad(&|proof| proof.additions[at][byte] ^= mask, "addition");
            }
        }
        bad(&|proof| proof.peaks.push([0; 32]), "more peaks");
        bad(&|proof| proof.additions.push([0; 32]), "more additions");
        bad(
            &|proof| {
                proof.peaks.pop();
            },
            "fewer peaks",
        );
        if from < to {
            bad(
                &|proof| {
                    proof.additions.pop();
                },
                "fewer additions",
            );
            bad(&|proof| std::mem::swap(&mut proof.from, &mut proof.to), "order");
        }
    }
}

#[test]
fn the_largest_numbers_are_refused_and_not_tried() {
    let mut proof = World::new(3).proof(1, 0, 3);
    for number in [u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) - 1] {
        proof.inclusion.root.size = number;
        proof.inclusion.root.through = Seq(u64::MAX);
        for siblings in [0, 1, 62, 63, 64] {
            proof.inclusion.in_history = Path { siblings: vec![[0; 32]; siblings], peaks: vec![[0; 32]; 63] };
            for batch in [0, number - 1, number >> 1] {
                proof.inclusion.batch = batch;
                let fault = verify_inclusion(&proof).unwrap_err();
                assert!(matches!(fault, ProofFault::HistoryPath | ProofFault::Root), "{fault}");
            }
        }
        let from = HistoryRoot { size: 1, through: Seq(1), hash: [0; 32] };
        let to = HistoryRoot { size: number, through: Seq(u64::MAX), hash: [0; 32] };
        let peaks = vec![[1; 32]];
        let hash = Peaks::new(1, peaks.clone()).unwrap().root(LOG, Seq(1));
        for additions in [0, 1, 63, 64, 126, 127, 1000] {
            let additions = vec![[0; 32]; additions];
            let proof = Consistency { log_id: LOG, from: HistoryRoot { hash, ..from }, to, peaks: peaks.clone(), additions };
            assert!(matches!(verify_consistency(&proof), Err(ProofFault::HistoryPath | ProofFault::Root)));
        }
    }
}

/// The leaves, and the root of every size, of the vectors that another program has computed.
#[test]
fn the_vectors_are_met() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/history.json");
    let vectors: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let hex = |value: &serde_json::Value| {
        let digits = value.as_str().unwrap();
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect::<Vec<u8>>()
    };
    let log_id = LogId(hex(&vectors["log_id"]).try_into().unwrap());
    let mut peaks = Peaks::default();
    for (batch, root) in vectors["batches"].as_array().unwrap().iter().zip(vectors["roots"].as_array().unwrap()) {
        let first = batch["first_seq"].as_u64().unwrap();
        let mut entries = Peaks::default();
        for (seq, (entry, leaf)) in
            (first..).zip(batch["entries"].as_array().unwrap().iter().zip(batch["entry_leaves"].as_array().unwrap()))
        {
            use base64::Engine;
            let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(entry.as_str().unwrap()).unwrap();
            let made = entry_leaf(Seq(seq), &bytes);
            assert_eq!(made[..], hex(leaf), "entry {seq}");
            entries.append(made, &mut |_| {});
        }
        let leaf = batch_leaf(&hex(&batch["ledger_root"]).try_into().unwrap(), Seq(first), &entries);
        assert_eq!(leaf[..], hex(&batch["leaf"]), "batch from {first}");
        peaks.append(leaf, &mut |_| {});
        assert_eq!(peaks.size(), root["size"].as_u64().unwrap());
        assert_eq!(peaks.root(log_id, Seq(first + entries.size() - 1))[..], hex(&root["hash"]), "{root}");
    }
    assert_eq!(peaks.size(), 17);
}
