//! When a pass begins and how long a reading rests. Pure.
use crate::domain::UnixMs;
use std::time::Duration;

/// Within this time everything should be read again: most latent errors are found by then.
pub(super) const READ_AGAIN_WITHIN: Duration = Duration::from_secs(14 * 86_400);

/// How long so many bytes take at this rate.
pub(super) fn time_for(bytes: u64, bytes_per_second: u64) -> Duration {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(bytes_per_second.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// How long to rest after a reading of so many bytes that took so long, for the rate to be kept.
pub(super) fn rest_after(bytes: u64, took: Duration, bytes_per_second: u64) -> Duration {
    time_for(bytes, bytes_per_second).saturating_sub(took)
}

/// When the next pass begins, so that it ends `every` after the one before: it takes `needed`. At once if there was none. An end that
/// the clock has not reached, because it was set back, counts as now.
pub(super) fn begins_at(last_end: Option<UnixMs>, now: UnixMs, every: Duration, needed: Duration) -> UnixMs {
    let Some(last_end) = last_end else { return now };
    let pause = u64::try_from(every.saturating_sub(needed).as_millis()).unwrap_or(u64::MAX);
    UnixMs(last_end.0.min(now.0).saturating_add(pause))
}

/// The rate from which on everything is read within [`READ_AGAIN_WITHIN`], in bytes per second.
pub(super) fn rate_needed(bytes: u64) -> u64 {
    bytes.div_ceil(READ_AGAIN_WITHIN.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_reading_and_its_rest_take_as_long_as_the_rate_says() {
        let millis = Duration::from_millis;
        for (bytes, took, rate, rest) in [
            (MIB, millis(0), MIB, millis(1000)),
            (MIB, millis(400), MIB, millis(600)),
            (MIB, millis(1000), MIB, millis(0)),
            (MIB, millis(5000), MIB, millis(0)),
            (4 * MIB, millis(10), 8 * MIB, millis(490)),
            (0, millis(0), MIB, millis(0)),
            (4096, millis(0), 65_536, Duration::from_micros(62_500)),
        ] {
            assert_eq!(rest_after(bytes, took, rate), rest, "{bytes} bytes in {took:?} at {rate}");
            assert!(took + rest >= time_for(bytes, rate), "the rate is never exceeded");
        }
        assert!(rest_after(u64::MAX, Duration::ZERO, 1) > Duration::from_secs(1 << 30), "nothing overflows");
    }

    #[test]
    fn passes_end_an_interval_apart_whatever_they_take() {
        let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(86_400));
        let day_ms = 86_400_000;
        let (end, now) = (UnixMs(10 * day_ms), UnixMs(10 * day_ms + 5));
        assert_eq!(begins_at(None, now, day, hour), now);
        assert_eq!(begins_at(Some(end), now, day, Duration::ZERO), UnixMs(11 * day_ms));
        assert_eq!(begins_at(Some(end), now, day, hour), UnixMs(11 * day_ms - 3_600_000));
        assert_eq!(begins_at(Some(end), now, day, 3 * day), end, "one that takes longer follows at once");
        assert_eq!(
            begins_at(Some(UnixMs(99 * day_ms)), now, day, Duration::ZERO),
            UnixMs(now.0 + day_ms),
            "the clock was set back"
        );
        assert_eq!(begins_at(Some(end), now, Duration::MAX, Duration::ZERO), UnixMs(u64::MAX));
    }

    #[test]
    fn the_rate_that_is_needed_reads_all_of_it_in_two_weeks() {
        for bytes in [0, 1, MIB, 5 << 40, (5 << 40) + 1] {
            assert!(time_for(bytes, rate_needed(bytes)) <= READ_AGAIN_WITHIN, "{bytes}");
        }
        assert_eq!(rate_needed(14 * 86_400 * 1000), 1000);
    }
}
