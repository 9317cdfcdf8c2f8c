//! What tests from the outside share: a server in a directory of its own, a raw HTTP client, and the words of the wallet.
//!
//! Nothing here looks into the server: it is the binary, reached through its ports, signals and files.
#![allow(dead_code, unused_imports)] // Each test binary uses a part of this module.
mod accounting;
mod client;
mod daemon;
mod process;
mod registry;
mod ronctl;
mod server;
mod wallet;

pub use accounting::Accounting;
pub use client::{request, Client, Reply, Request};
pub use daemon::Daemon;
pub use process::Process;
pub use registry::{topology, Registry};
pub use server::{free_port, Exit, Server, POLICY};
pub use wallet::{body, Wallet};

use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. Nothing is ever expected to take this long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again until there is an answer.
///
/// # Panics
/// If there is none within [`PATIENCE`].
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
