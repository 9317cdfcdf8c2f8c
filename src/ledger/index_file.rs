//! Searching an index file: a few blocks are read for a question, and each is checked as it is read.
use super::index_format::{Block, Head, Pair, Run, Subject};
use super::layout::{BLOCK_BYTES, ZERO_BLOCK};
use super::storage::{read_zero_filled, StorageFile};
use std::io;
use std::ops::ControlFlow;

/// An index file that belongs to its subject.
pub(super) struct IndexFile<F> {
    file: F,
    head: Head,
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl<F: StorageFile> IndexFile<F> {
    /// Reads the head. Fails if the file is damaged, of another version or about something else.
    pub fn open(file: F, subject: Subject) -> io::Result<Self> {
        let mut block = ZERO_BLOCK;
        read_zero_filled(&file, &mut block, 0)?;
        let head = Head::decode(&block, subject);
        let head = head.ok_or_else(|| damaged("the index file belongs to something else, is of another version or damaged"))?;
        if head.file_bytes() != Some(file.size()?) {
            return Err(damaged("the index file has another length than its head says"));
        }
        Ok(Self { file, head })
    }

    /// What the head says.
    pub fn head(&self) -> &Head {
        &self.head
    }

    fn block(&self, run: Run, number: u64) -> io::Result<Block> {
        let mut bytes = ZERO_BLOCK;
        read_zero_filled(&self.file, &mut bytes, self.head.block_of(run, number) * BLOCK_BYTES as u64)?;
        self.head.decode_block(run, number, bytes).ok_or_else(|| damaged("a block of the index file is damaged"))
    }

    /// Up to `limit` entries under this hash that stand before `end`, the last first.
    pub fn newest(&self, run: Run, hash: u64, end: u32, limit: usize) -> io::Result<Vec<u32>> {
        let wanted = Pair { hash, at: end };
        let mut number = self.blocks_before(run, wanted)?;
        let mut found = Vec::new();
        while number > 0 && found.len() < limit {
            number -= 1;
            let block = self.block(run, number)?;
            let mut before = (0..block.len()).rev().map(|place| block.pair(place)).skip_while(|pair| *pair >= wanted);
            let mut same = before.by_ref().take_while(|pair| pair.hash == hash && pair.at < end);
            found.extend(same.by_ref().take(limit - found.len()).map(|pair| pair.at));
            if block.pair(0).hash != hash {
                break;
            }
        }
        Ok(found)
    }

    /// How many blocks of the run begin before this pair. Hashes are spread evenly, so the search begins where the pair would be if
    /// they were perfectly so, and goes away from there in growing steps.
    fn blocks_before(&self, run: Run, wanted: Pair) -> io::Result<u64> {
        let blocks = self.head.blocks(run);
        let guess = ((u128::from(wanted.hash) * u128::from(blocks)) >> 64) as u64;
        let begins_before = |number: u64| Ok::<bool, io::Error>(self.block(run, number)?.pair(0) < wanted);
        // All blocks below `low` begin before the pair, none from `high` on does.
        let (mut low, mut high) = (0, blocks);
        let (mut step, mut probe) = (1, guess);
        while low < high {
            if begins_before(probe)? {
                low = probe + 1;
                probe = if high == blocks { (low + step).min(blocks) - 1 } else { low + (high - low) / 2 };
            } else {
                high = probe;
                probe = if low == 0 { high.saturating_sub(step) } else { low + (high - low) / 2 };
            }
            step *= 2;
        }
        Ok(low)
    }

    /// Hands over all hashes of a run, in ascending order, until the receiver has enough.
    pub fn each_hash(&self, run: Run, each: &mut dyn FnMut(u64) -> ControlFlow<()>) -> io::Result<()> {
        for number in 0..self.head.blocks(run) {
            let block = self.block(run, number)?;
            if (0..block.len()).try_for_each(|place| each(block.pair(place).hash)).is_break() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::index_format::{Pairs, PAIRS_PER_BLOCK};
    use super::super::memory::{MemoryFile, MemoryStorage};
    use super::super::storage::{replace, Storage};
    use super::*;
    use crate::domain::{LogId, Period, Seq, UnixMs};

    const SUBJECT: Subject = Subject { log_id: LogId([1; 16]), segment: 3, first: Seq(1), last: Seq(9) };

    fn pairs(runs: [Vec<(u64, u32)>; 3]) -> Pairs {
        let runs = runs.map(|run| run.into_iter().map(|(hash, at)| Pair { hash, at }).collect());
        let mut pairs = Pairs { runs, accepted: Period { first: UnixMs(5), last: UnixMs(7) } };
        pairs.sort();
        pairs
    }

    fn file(pairs: &Pairs) -> MemoryStorage {
        let storage = MemoryStorage::new();
        replace(&storage, "i", &pairs.encode(SUBJECT)).unwrap();
        storage
    }

    fn opened(storage: &MemoryStorage) -> IndexFile<MemoryFile> {
        IndexFile::open(storage.open("i").unwrap(), SUBJECT).unwrap()
    }

    /// Every question has the same answer from the file and from memory, where it is found by looking at all pairs.
    #[test]
    fn every_pair_is_found_backwards_from_anywhere_whatever_the_hashes_are_like() {
        let spread = |number: u64| number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let even: Vec<_> = (0..3000u32).map(|at| (spread(u64::from(at)), at)).collect();
        // Some accounts have most of the entries, and their pairs fill several blocks.
        let crowded: Vec<_> = (0..3000u32).map(|at| (spread(u64::from(at % 7 * (at % 3))), at)).collect();
        let low: Vec<_> = (0..1000u32).map(|at| (u64::from(at), at)).collect();
        let pairs = pairs([even, crowded, low]);
        let storage = file(&pairs);
        let index = opened(&storage);
        assert_eq!(index.head().accepted, Period { first: UnixMs(5), last: UnixMs(7) });
        for run in Run::ALL {
            let all = &pairs.runs[run as usize];
            let mut hashes: Vec<u64> = all.iter().map(|pair| pair.hash).collect();
            let mut streamed = Vec::new();
            let take = &mut |hash| {
                streamed.push(hash);
                ControlFlow::Continue(())
            };
            index.each_hash(run, take).unwrap();
            assert_eq!(streamed, hashes);
            hashes.dedup();
            hashes.truncate(200);
            for hash in hashes.into_iter().flat_map(|hash| [hash, hash ^ 1]).chain([0, u64::MAX]) {
                for (end, limit) in [(u32::MAX, 5000), (u32::MAX, 3), (1500, 400), (0, 1)] {
                    let mut expected: Vec<u32> =
                        all.iter().filter(|pair| pair.hash == hash && pair.at < end).map(|pair| pair.at).collect();
                    expected.reverse();
                    expected.truncate(limit);
                    assert_eq!(pairs.newest(run, hash, end, limit), expected, "{run:?} {hash:x} before {end}");
                    assert_eq!(index.newest(run, hash, end, limit).unwrap(), expected, "{run:?} {hash:x} before {end}");
                }
            }
        }
        let empty = file(&Pairs::new());
        assert!(opened(&empty).newest(Run::Keys, 1, u32::MAX, 9).unwrap().is_empty());
    }

    #[test]
    fn a_damaged_or_foreign_file_is_never_believed() {
        let run = |kind: u64| (0..300).map(|number| (number << 50 | kind, number as u32)).collect();
        let pairs = pairs([run(1), run(2), run(3)]);
        let storage = file(&pairs);
        let bytes = pairs.encode(SUBJECT).len();
        assert_eq!(bytes, BLOCK_BYTES * (1 + 3 * 300usize.div_ceil(PAIRS_PER_BLOCK)));
        let all = |storage: &MemoryStorage| {
            let index = IndexFile::open(storage.open("i")?, SUBJECT)?;
            for (run, number) in Run::ALL.into_iter().flat_map(|run| (0..300).map(move |number| (run, number))) {
                let found = index.newest(run, number << 50 | (1 + run as u64), u32::MAX, 2)?;
                assert_eq!(found, [number as u32]);
            }
            Ok::<(), io::Error>(())
        };
        all(&storage).unwrap();
        for byte in (0..bytes).step_by(61) {
            let bad = storage.fork();
            bad.tamper("i", |bytes| bytes[byte] ^= 0x40);
            assert!(all(&bad).is_err(), "byte {byte}");
        }
        let swapped = storage.fork();
        swapped.tamper("i", |bytes| bytes[BLOCK_BYTES..3 * BLOCK_BYTES].rotate_left(BLOCK_BYTES));
        assert!(all(&swapped).is_err(), "two blocks have changed places");
        let short = storage.fork();
        short.tamper("i", |bytes| bytes.truncate(bytes.len() - 1));
        assert!(all(&short).is_err(), "the file is cut short");
        let endless = Head { subject: SUBJECT, pairs: [u64::MAX; 3], accepted: Period::EMPTY };
        replace(&storage, "endless", &endless.encode()).unwrap();
        assert!(IndexFile::open(storage.open("endless").unwrap(), SUBJECT).is_err(), "more blocks than a file can have");
        for foreign in [Subject { segment: 4, ..SUBJECT }, Subject { last: Seq(8), ..SUBJECT }] {
            assert!(IndexFile::open(storage.open("i").unwrap(), foreign).is_err());
        }
    }
}
