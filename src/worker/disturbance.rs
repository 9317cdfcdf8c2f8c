//! What is done to requests on purpose, to see how clients live with it: some are late, and some writes meet a quota that is used up.
//!
//! All cores share one number: at rest that costs one relaxed load of it for all requests that are read together. Which requests are meant each core decides for itself, so
//! that in the long run it is just the share that was asked for. Who disturbs, and until when, is not known here.
use std::sync::atomic::{AtomicU64, Ordering};

/// A share of requests, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u16);

impl Share {
    /// All of them.
    pub const ALL: Share = Share(1_000);

    /// So many of a thousand; `None` unless it is one of them at least.
    pub fn of_thousand(thousandths: u16) -> Option<Self> {
        (1..=1_000).contains(&thousandths).then_some(Self(thousandths))
    }

    /// Of a thousand.
    pub fn thousandths(self) -> u16 {
        self.0
    }
}

/// What is done to requests now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disturbed {
    /// How late some are in milliseconds, and which share of all.
    pub late: Option<(u16, Share)>,
    /// Which share of the writes is refused as if a quota were used up.
    pub refused: Option<Share>,
}

/// The same for all cores, to be changed at any time.
#[derive(Debug, Default)]
pub struct Disturbance(AtomicU64);

impl Disturbance {
    /// This is done from now on.
    pub fn set(&self, disturbed: Disturbed) {
        let (late_ms, late) = disturbed.late.unwrap_or_default();
        let refused = disturbed.refused.unwrap_or_default();
        let packed = u64::from(late_ms) << 32 | u64::from(late.0) << 16 | u64::from(refused.0);
        self.0.store(packed, Ordering::Relaxed);
    }

    /// What is done now.
    pub fn get(&self) -> Disturbed {
        let packed = self.0.load(Ordering::Relaxed);
        let share = |shift: u32| Share::of_thousand((packed >> shift) as u16);
        Disturbed { late: share(16).map(|share| ((packed >> 32) as u16, share)), refused: share(0) }
    }
}

/// Which requests a core means: the golden ratio walks through all shares evenly and in step with nothing that clients do.
#[derive(Debug, Default)]
pub(super) struct Turns(u32);

impl Turns {
    /// Whether the next request is among this share of all.
    pub fn take(&mut self, share: Share) -> bool {
        const GOLDEN: u32 = 0x9E37_79B9;
        self.0 = self.0.wrapping_add(GOLDEN);
        (u64::from(self.0) * 1_000) >> 32 < u64::from(share.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_what_is_done() {
        let disturbance = Disturbance::default();
        assert_eq!(disturbance.get(), Disturbed::default());
        let half = Share::of_thousand(500);
        for disturbed in [
            Disturbed { late: Some((60_000, Share::ALL)), refused: half },
            Disturbed { late: Some((1, Share(1))), refused: None },
            Disturbed { late: None, refused: Some(Share::ALL) },
            Disturbed::default(),
        ] {
            disturbance.set(disturbed);
            assert_eq!(disturbance.get(), disturbed);
        }
        assert!(Share::of_thousand(0).is_none() && Share::of_thousand(1_001).is_none());
    }

    #[test]
    fn a_share_is_met_closely_and_soon() {
        for thousandths in [1, 10, 333, 500, 999, 1_000] {
            let (mut turns, share) = (Turns::default(), Share::of_thousand(thousandths).unwrap());
            let meant = (0..10_000).filter(|_| turns.take(share)).count();
            let expected = 10 * usize::from(thousandths);
            assert!(meant.abs_diff(expected) <= 5, "{meant} of 10000 are meant, and should be {expected}");
        }
        let (mut turns, half) = (Turns::default(), Share::of_thousand(500).unwrap());
        let meant: Vec<bool> = (0..8).map(|_| turns.take(half)).collect();
        assert!(meant.contains(&true) && meant.contains(&false), "{meant:?}");
    }
}
