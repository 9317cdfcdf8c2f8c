//! The wallet service as a library; see `docs/ARCHITECTURE.md` for the map.
pub mod access;
pub mod accounting;
pub mod accountingd;
pub mod api;
pub mod audit;
pub mod config;
pub mod control;
pub mod domain;
pub mod engine;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod http;
pub mod ledger;
pub mod ledgerd;
pub mod operator;
pub mod registry;
pub mod registryd;
pub mod ring;
pub mod shard;
pub mod stream;
pub mod telemetry;
pub mod worker;
