//! The wall clock, for the ledger and whatever stands above it.
use crate::domain::UnixMs;
use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock; 0 if it stands before the epoch.
pub fn unix_now() -> UnixMs {
    UnixMs(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64))
}
