//! The topology: which cell owns which slots of the account ring, and where it answers.
//!
//! A cell is one ledger with one active wallet. The registry file is JSON:
//!
//! ```json
//! {"version": 3, "cells": [{"name": "local", "slots": [0, 16383], "addresses": ["http://127.0.0.1:8080"]}]}
//! ```
//!
//! `slots` names the first and the last slot, both included. The same text comes out of a file or from a registry behind HTTP, and
//! is read by the same reader. Invariants of a [`Registry`]: every slot belongs to exactly one cell; names are unique; the version
//! is above zero. Invariants of what is [`Held`]: a version is never exchanged for an older one nor for another content under the
//! same number, and nothing bad ever takes the place of something good.
mod file;
mod held;
mod http;
#[cfg(any(test, fuzzing))]
pub(crate) use http::fuzzing;
mod pauses;
mod source;
mod topology;
mod watch;

#[cfg(test)]
mod fake;
#[cfg(test)]
pub(crate) mod sample;

pub use held::{Held, Taken};
pub use source::{Answer, Source, SourceFault, TOPOLOGY_PATH};
pub use topology::{Cell, Registry, RegistryFault};
pub use watch::{Before, Outcome, Standing, StartFault, Watch};
