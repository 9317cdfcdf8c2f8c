//! Every fixed bound of the service in one place, with the relations between them checked at compile time.

/// Longest account name, in bytes (wire contract).
pub const ACCOUNT_BYTES_MAX: usize = 256;
/// Longest asset name, in bytes (wire contract).
pub const ASSET_BYTES_MAX: usize = 16;
/// Longest idempotency key, in bytes (wire contract).
pub const KEY_BYTES_MAX: usize = 64;
/// Longest memo, in bytes (wire contract).
pub const MEMO_BYTES_MAX: usize = 256;
/// Longest correlation id that is kept and echoed, in bytes.
pub const CORR_BYTES_MAX: usize = 64;

/// Most entries on one page of the entries of an account.
pub const PAGE_ENTRIES_MAX: usize = 100;

/// Slots of the account hash ring; stable for ever, gateways compute it too.
pub const SLOTS: usize = 16_384;
/// Most core workers of one server.
pub const CORES_MAX: usize = 256;

/// Fixed part of an encoded entry, in bytes; see `docs/LEDGER.md`.
pub const ENTRY_HEAD_BYTES: usize = 64;
/// Longest encoded entry, in bytes.
pub const ENTRY_BYTES_MAX: usize =
    ENTRY_HEAD_BYTES + 2 * ACCOUNT_BYTES_MAX + ASSET_BYTES_MAX + KEY_BYTES_MAX + MEMO_BYTES_MAX + CORR_BYTES_MAX;
/// Most entry bytes that one lane hands over as one batch.
pub const LANE_BATCH_BYTES_MAX: usize = 1 << 20;
/// Largest body of one ledger batch, in bytes: what one write and one fdatasync carry.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// Smallest ledger segment that can be configured, in bytes.
pub const SEGMENT_BYTES_MIN: u64 = 8 << 20;
/// Largest ledger segment that can be configured, in bytes.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// Most value of one asset that one core's slice of accounts may ever be issued, in minor units. With at most
/// [`CORES_MAX`] cores the sum over all of them fits 128 bits, so no credit can overflow a balance.
pub const ISSUED_PER_CORE_MAX: u128 = 1 << 119;

const _: () = assert!(ENTRY_BYTES_MAX < u16::MAX as usize);
const _: () = assert!(LANE_BATCH_BYTES_MAX <= BATCH_BYTES_MAX);
const _: () = assert!(2 * BATCH_BYTES_MAX as u64 <= SEGMENT_BYTES_MIN);
const _: () = assert!(SLOTS.is_power_of_two() && CORES_MAX <= SLOTS);
const _: () = assert!(ISSUED_PER_CORE_MAX.checked_mul(CORES_MAX as u128).is_some());
