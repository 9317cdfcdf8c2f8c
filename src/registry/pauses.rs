//! How long to wait between questions. Pauses are taken at random from their upper half, so that many servers do not come back to a
//! registry at the same moment; behind a question that failed each is twice as long as the one before it, up to the longest.
use std::time::Duration;

/// The pauses behind questions that fail.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pauses {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Pauses {
    pub fn new(first: Duration, longest: Duration) -> Self {
        let first = first.min(longest);
        Self { first, longest, next: first }
    }

    /// Another question has failed; `random` chooses the pause.
    pub fn failed(&mut self, random: u32) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.longest);
        in_upper_half(pause, random)
    }

    /// A question has had a good answer.
    pub fn forget(&mut self) {
        self.next = self.first;
    }
}

/// Of the upper half of this pause what `random` chooses.
pub(super) fn in_upper_half(pause: Duration, random: u32) -> Duration {
    let half = pause / 2;
    let part = half.as_nanos() * u128::from(random) / u128::from(u32::MAX);
    half + Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_lie_in_their_upper_half() {
        let ms = Duration::from_millis;
        let mut pauses = Pauses::new(ms(200), ms(1_000));
        for pause in [200, 400, 800, 1_000, 1_000].map(ms) {
            let [mut low, mut middle] = [pauses; 2];
            assert_eq!(low.failed(0), pause / 2);
            assert!((pause / 2..pause).contains(&middle.failed(u32::MAX / 3)));
            assert_eq!(pauses.failed(u32::MAX), pause);
        }
        pauses.forget();
        assert_eq!(pauses.failed(u32::MAX), ms(200));
        assert_eq!(Pauses::new(ms(200), ms(50)).failed(u32::MAX), ms(50), "never longer than the longest");
    }
}
