//! The topology: which cell owns which slots of the account ring, and where it answers.
//!
//! A cell is one ledger with one active wallet. The registry file is JSON:
//!
//! ```json
//! {"version": 3, "cells": [{"name": "local", "slots": [0, 16383], "addresses": ["http://127.0.0.1:8080"]}]}
//! ```
//!
//! `slots` names the first and the last slot, both included. Invariants of a [`Registry`]: every slot belongs to exactly one
//! cell; names are unique; the version is above zero. Invariants of a [`RegistryFile`]: a version is never exchanged for an
//! older one nor for another content under the same number, and a bad file never takes the place of a good one.
mod file;
mod topology;

pub use file::{RegistryFile, Reloaded};
pub use topology::{Cell, Registry, RegistryFault};
