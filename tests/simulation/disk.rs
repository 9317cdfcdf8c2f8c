//! The dice behind the disk's faults: transient ones by rates, and at most one lie in a history.
use crate::coverage::Coverage;
use crate::rng::Rng;
use crate::swarm::{Lie, Swarm};
use std::collections::BTreeMap;
use std::ops::Range;
use svc_wallet::ledger::{Faults, ReadFault, SyncFault, WriteFault, WITNESS_NAME};

/// One block: what a misdirected access is off by a multiple of.
const BLOCK: u64 = 4096;

pub struct DiskFaults {
    rng: Rng,
    write_error: u64,
    short_write: u64,
    sync_error: u64,
    read_error: u64,
    /// A lie about a write or read that is to be told at the next occasion.
    armed: Option<Lie>,
    /// A range of a file that cannot be read until it is written again.
    latent: Option<(String, Range<u64>)>,
    /// How far each file has been written.
    written: BTreeMap<String, u64>,
    /// Whether a lie was told.
    pub lied: Option<Lie>,
    /// The next sync of a snapshot is a lie: true if the write is lost, false if it goes elsewhere in the file.
    pub snapshot_lie: Option<bool>,
    /// How often one was told.
    pub snapshot_lies: u64,
    /// Transient faults that the caller was told of.
    pub told: u64,
    /// The mark of the last commit could not be written to `witness`.
    pub unwitnessed: bool,
    /// No transient faults now.
    pub quiet: bool,
    pub coverage: Coverage,
}

impl DiskFaults {
    pub fn new(seed: u64, swarm: &Swarm) -> Self {
        Self {
            rng: Rng::new(seed),
            write_error: swarm.write_error,
            short_write: swarm.short_write,
            sync_error: swarm.sync_error,
            read_error: swarm.read_error,
            armed: None,
            latent: None,
            written: BTreeMap::new(),
            lied: None,
            snapshot_lie: None,
            snapshot_lies: 0,
            told: 0,
            unwitnessed: false,
            quiet: false,
            coverage: Coverage::default(),
        }
    }

    /// A lie that the disk tells by itself at the next write or read.
    pub fn arm(&mut self, lie: Lie) {
        self.armed = Some(lie);
    }

    fn tell(&mut self, lie: Lie, what: &'static str) {
        self.armed = None;
        self.lied = Some(lie);
        self.coverage.count(what);
    }

    /// Whether an older extent is to come back, now that there is one.
    pub fn is_armed(&self, lie: Lie) -> bool {
        self.armed == Some(lie) && !self.quiet
    }

    /// One came back.
    pub fn brought_back(&mut self) {
        self.tell(Lie::OlderExtent, "disk: older extent again");
    }

    fn told(&mut self, what: &'static str) {
        self.told += 1;
        self.coverage.count(what);
    }

    fn somewhere_written(&mut self) -> Option<(String, u64)> {
        let segments: Vec<_> = self.written.iter().filter(|(name, _)| !name.ends_with(".tmp")).collect();
        let (name, end) = segments.get(self.rng.below(segments.len().max(1) as u64) as usize)?;
        let (name, end) = ((*name).clone(), **end);
        let at = self.rng.below(end);
        Some((name, at))
    }

    /// Where a bit is to flip, and which.
    pub fn rot(&mut self) -> Option<(String, u64, u8)> {
        let (name, at) = self.somewhere_written()?;
        let mask = 1 << self.rng.below(8);
        self.tell(Lie::BitRot, "disk: bit rot");
        Some((name, at, mask))
    }

    /// As [`DiskFaults::rot`], in the last block that was written to the last segment.
    pub fn rot_at_the_end(&mut self) -> Option<(String, u64, u8)> {
        let (name, end) = self.written.iter().rfind(|(name, _)| name.starts_with("segment-"))?;
        let (name, end) = (name.clone(), *end);
        let at = end - BLOCK + self.rng.below(300);
        self.tell(Lie::BitRot, "disk: bit rot");
        Some((name, at, 1))
    }

    /// From now on a sector cannot be read.
    pub fn wear_out(&mut self) {
        let Some((name, at)) = self.somewhere_written() else { return };
        let start = at / BLOCK * BLOCK;
        self.latent = Some((name, start..start + BLOCK));
        self.lied = Some(Lie::LatentReadError);
    }
}

impl Faults for DiskFaults {
    fn write(&mut self, file: &str, offset: u64, bytes: usize) -> Option<WriteFault> {
        let end = offset + bytes as u64;
        let fault = if !self.quiet && self.rng.rarely(self.write_error) {
            self.told("disk: write error");
            Some(WriteFault::Error)
        } else if !self.quiet && self.rng.rarely(self.short_write) {
            self.told("disk: short write");
            Some(WriteFault::Short(self.rng.below(bytes as u64) as usize))
        } else {
            None
        };
        if file == WITNESS_NAME {
            self.unwitnessed = fault.is_some();
        }
        if fault.is_some() {
            return fault;
        }
        let written = self.written.entry(file.to_owned()).or_default();
        *written = end.max(*written);
        if self.latent.as_ref().is_some_and(|(name, range)| name == file && offset <= range.start && range.end <= end) {
            self.latent = None;
        }
        None
    }

    fn sync(&mut self, file: &str) -> Option<SyncFault> {
        if !self.quiet && self.rng.rarely(self.sync_error) {
            self.told("disk: sync error");
            return Some(SyncFault::Error);
        }
        if let Some(lost) = self.snapshot_lie.filter(|_| file.starts_with("snapshot-")) {
            (self.snapshot_lie, self.snapshot_lies) = (None, self.snapshot_lies + 1);
            self.coverage.count(if lost { "disk: lost write to a snapshot" } else { "disk: misdirected write to a snapshot" });
            let bytes = BLOCK as i64 * (1 + self.rng.below(3) as i64);
            return Some(if lost { SyncFault::Lost } else { SyncFault::Misdirected { file: file.to_owned(), bytes } });
        }
        if !file.starts_with("segment-") && !self.rng.percent(5) {
            return None;
        }
        match self.armed? {
            Lie::LostWrite => {
                self.tell(Lie::LostWrite, "disk: lost write");
                Some(SyncFault::Lost)
            }
            Lie::MisdirectedWrite => {
                let blocks = 1 + self.rng.below(6) as i64;
                let bytes = BLOCK as i64 * if self.rng.percent(50) { blocks } else { -blocks };
                let segments: Vec<_> = self.written.keys().filter(|name| name.starts_with("segment-")).cloned().collect();
                let other = self.rng.percent(25) && !segments.is_empty();
                let file = if other { self.rng.pick(&segments).clone() } else { file.to_owned() };
                self.tell(Lie::MisdirectedWrite, "disk: misdirected write");
                Some(SyncFault::Misdirected { file, bytes })
            }
            Lie::MisdirectedRead | Lie::BitRot | Lie::LatentReadError | Lie::OlderExtent => None,
        }
    }

    fn read(&mut self, file: &str, offset: u64, bytes: usize) -> Option<ReadFault> {
        let end = offset + bytes as u64;
        if self.latent.as_ref().is_some_and(|(name, range)| name == file && offset < range.end && range.start < end) {
            self.coverage.count("disk: latent read error");
            return Some(ReadFault::Error);
        }
        if !self.quiet && self.rng.rarely(self.read_error) {
            self.told("disk: read error");
            return Some(ReadFault::Error);
        }
        if self.armed == Some(Lie::MisdirectedRead) && file.starts_with("segment-") {
            let blocks = self.rng.below(8);
            self.tell(Lie::MisdirectedRead, "disk: misdirected read");
            return Some(ReadFault::From(BLOCK * blocks));
        }
        None
    }
}
