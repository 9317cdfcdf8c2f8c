//! What was written to a file and has not reached it: sectors in the memory of this process, which go with it.
//!
//! Invariant: what is read through it is what was written last. It does not know when what it holds is to be applied or lost.

use std::{collections::BTreeMap, io};

/// What is held as one piece, in bytes: what a disk writes as a whole.
pub const SECTOR_BYTES: usize = 512;

/// The sectors of one file that are held.
#[derive(Default)]
pub struct Held {
    sectors: BTreeMap<u64, [u8; SECTOR_BYTES]>,
    /// Length of the file with everything that was written, in bytes.
    bytes: u64,
}

impl Held {
    /// Nothing is held of a file of this length.
    pub fn of(bytes: u64) -> Held {
        Held { sectors: BTreeMap::new(), bytes }
    }

    /// Length of the file with what is held, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether there is nothing that could be lost.
    pub fn is_empty(&self) -> bool {
        self.sectors.is_empty()
    }

    /// Puts what is held over what was read of the file at this offset: `read` bytes of it. Gives the bytes that there are then.
    pub fn show(&self, buffer: &mut [u8], read: usize, offset: u64) -> usize {
        buffer[read..].fill(0);
        for (sector, content) in self.sectors.range(offset / SECTOR_BYTES as u64..) {
            let start = sector * SECTOR_BYTES as u64;
            if start >= offset + buffer.len() as u64 {
                break;
            }
            let (from, to) = (start.max(offset), (start + SECTOR_BYTES as u64).min(offset + buffer.len() as u64));
            let piece = &content[(from - start) as usize..(to - start) as usize];
            buffer[(from - offset) as usize..(to - offset) as usize].copy_from_slice(piece);
        }
        read.max(self.bytes.saturating_sub(offset).min(buffer.len() as u64) as usize)
    }

    /// Writes bytes at this offset: whole sectors, the rest of each from `under`, which reads what the file has. `passes` says of
    /// each sector whether it reaches the file at once; what passes is handed to `through`.
    ///
    /// # Errors
    /// Those of reading and of writing through.
    pub fn write(
        &mut self,
        bytes: &[u8],
        offset: u64,
        under: &mut dyn FnMut(&mut [u8], u64) -> io::Result<usize>,
        passes: &mut dyn FnMut(u64) -> bool,
        through: &mut dyn FnMut(&[u8], u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        self.bytes = self.bytes.max(end);
        for sector in offset / SECTOR_BYTES as u64..end.div_ceil(SECTOR_BYTES as u64) {
            let start = sector * SECTOR_BYTES as u64;
            let (from, to) = (start.max(offset), (start + SECTOR_BYTES as u64).min(end));
            let mut content = [0; SECTOR_BYTES];
            if to - from < SECTOR_BYTES as u64 {
                let read = under(&mut content, start)?;
                self.show(&mut content, read, start);
            }
            content[(from - start) as usize..(to - start) as usize]
                .copy_from_slice(&bytes[(from - offset) as usize..(to - offset) as usize]);
            if passes(sector) {
                self.sectors.remove(&sector);
                through(self.within(sector, &content), start)?;
            } else {
                self.sectors.insert(sector, content);
            }
        }
        Ok(())
    }

    /// Hands over everything that is held, neighbours together, and holds nothing any more.
    ///
    /// # Errors
    /// Those of writing through; what was not handed over is still held then.
    pub fn apply(&mut self, through: &mut dyn FnMut(&[u8], u64) -> io::Result<()>) -> io::Result<()> {
        let mut run: Vec<u8> = Vec::new();
        let mut start = 0;
        for (sector, content) in &self.sectors {
            let offset = sector * SECTOR_BYTES as u64;
            if !run.is_empty() && offset != start + run.len() as u64 {
                through(&run, start)?;
                run.clear();
            }
            if run.is_empty() {
                start = offset;
            }
            run.extend_from_slice(self.within(*sector, content));
        }
        if !run.is_empty() {
            through(&run, start)?;
        }
        self.sectors.clear();
        Ok(())
    }

    /// The part of a sector that lies within the file.
    fn within<'a>(&self, sector: u64, content: &'a [u8; SECTOR_BYTES]) -> &'a [u8] {
        let left = self.bytes.saturating_sub(sector * SECTOR_BYTES as u64).min(SECTOR_BYTES as u64);
        &content[..left as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Random, Share};
    use std::cell::RefCell;

    /// A file in memory.
    fn put(file: &RefCell<Vec<u8>>, bytes: &[u8], offset: u64) {
        let (mut file, offset) = (file.borrow_mut(), offset as usize);
        let end = (offset + bytes.len()).max(file.len());
        file.resize(end, 0);
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn get(file: &RefCell<Vec<u8>>, buffer: &mut [u8], offset: u64) -> usize {
        let file = file.borrow();
        let rest = file.get(offset as usize..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        read
    }

    /// Random writes of any length at any place, with a random share of sectors passing: what is read is what was written, the file
    /// itself has the old or the new content of each sector, and after everything was applied it has the new one.
    #[test]
    fn what_is_read_is_what_was_written_and_the_file_has_whole_sectors_of_it() {
        let mut random = Random::new(11);
        for _ in 0..300 {
            let file = RefCell::new(vec![1; random.below(3_000) as usize]);
            let mut expected = file.borrow().clone();
            let mut held = Held::of(expected.len() as u64);
            let passing = Share::of(random.below(3) as f64 / 2.0);
            for round in 0..6 {
                let (offset, length) = (random.below(3_000), 1 + random.below(2_500) as usize);
                let bytes: Vec<u8> = (0..length).map(|at| (at as u8) ^ (round * 37)).collect();
                let before = file.borrow().clone();
                let wanted = RefCell::new(expected);
                put(&wanted, &bytes, offset);
                expected = wanted.into_inner();
                let through = &mut |bytes: &[u8], offset| -> io::Result<()> {
                    put(&file, bytes, offset);
                    Ok(())
                };
                let under = &mut |buffer: &mut [u8], offset| Ok(get(&file, buffer, offset));
                held.write(&bytes, offset, under, &mut |_| random.chance(passing), through).unwrap();
                let mut shown = vec![9; expected.len() + 700];
                let read = get(&file, &mut shown, 0);
                let read = held.show(&mut shown, read, 0);
                assert_eq!((held.bytes(), &shown[..read]), (expected.len() as u64, &expected[..]));
                for (number, sector) in file.borrow().chunks(SECTOR_BYTES).enumerate() {
                    let at = number * SECTOR_BYTES;
                    let old = before.get(at..(at + sector.len()).min(before.len())).unwrap_or_default();
                    let new = expected.get(at..(at + sector.len()).min(expected.len())).unwrap_or_default();
                    let blank = sector.iter().skip(old.len()).all(|byte| *byte == 0);
                    assert!(sector == new || (sector[..old.len()] == *old && blank), "a sector is torn");
                }
            }
            held.apply(&mut |bytes, offset| {
                put(&file, bytes, offset);
                Ok(())
            })
            .unwrap();
            assert!(held.is_empty() && *file.borrow() == expected);
        }
    }
}
