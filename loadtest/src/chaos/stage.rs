//! The service of the test as real processes: a wallet that lets faults be injected, and the ledger daemon behind it; and what an
//! operator does with them. Everything runs on loopback and ends with this value.

use std::{net::SocketAddr, process::Command, sync::atomic::AtomicBool};

use tempfile::TempDir;

use super::faults::REGISTRY_MAX_AGE;
use crate::{
    crash::{self, victim::Closed},
    daemon::{Daemon, Disk},
    fault::Fault,
    server::{Server, ServerPlan},
    tokens::Token,
};

/// The processes.
pub struct Stage {
    wallet: Server,
    daemon: Option<Daemon>,
    // Last: the processes end before what they write to is removed.
    directory: Option<TempDir>,
}

impl Stage {
    /// Starts a service on an empty directory.
    ///
    /// # Errors
    /// Any [`Fault`].
    pub fn start(plan: ServerPlan, embedded: bool, stop: &AtomicBool) -> Result<Stage, Fault> {
        let directory = plan.directory()?;
        let mut daemon = (!embedded).then(|| Daemon::prepare(Disk::Real(None), directory.path(), &plan)).transpose()?;
        if let Some(daemon) = &mut daemon {
            daemon.start_well(stop)?;
        }
        let max_age = REGISTRY_MAX_AGE.as_millis();
        let more = format!(
            "\n[registry]\npoll_every = \"1s\"\ntimeout = \"500ms\"\nmax_age = \"{max_age}ms\"\n\n[faults]\nallowed = true\n"
        );
        let plan = ServerPlan {
            ledger: daemon.as_ref().map(Daemon::socket),
            audit: "file",
            parent: Some(directory.path().to_owned()),
            more: plan.more.clone() + &more,
            ..plan
        };
        let mut wallet = Server::prepare(plan)?;
        wallet.start(stop)?;
        Ok(Stage { wallet, daemon, directory: Some(directory) })
    }

    /// Where the API is.
    pub fn address(&self) -> SocketAddr {
        self.wallet.address()
    }

    /// The capability of the load.
    ///
    /// # Errors
    /// Those of [`Server::token`].
    pub fn token(&self) -> Result<Token, Fault> {
        self.wallet.token()
    }

    /// Whether the wallet says that it is ready.
    pub fn is_ready(&self) -> bool {
        self.wallet.is_ready()
    }

    /// How often its own audit has found something wrong.
    ///
    /// # Errors
    /// Those of [`Server::metric`].
    pub fn violations(&self) -> Result<u64, Fault> {
        self.wallet.metric("wallet_conservation_checks_total{outcome=\"violated\"}").map(|count| count as u64)
    }

    /// Does something as an operator, and says whether that succeeded.
    ///
    /// # Errors
    /// [`Fault::Io`] if the command cannot be started.
    pub fn try_operate(&self, arguments: &[&str]) -> Result<(bool, String), Fault> {
        let mut command = Command::new(self.wallet.program().with_file_name("ronctl"));
        command.arg("--config").arg(self.wallet.config_path()).args(arguments);
        let output = command.output().map_err(Fault::io("starting ronctl"))?;
        Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }

    /// Does something as an operator.
    ///
    /// # Errors
    /// As [`Stage::try_operate`]; and [`Fault::Program`] if it does not succeed.
    pub fn operate(&self, arguments: &[&str]) -> Result<(), Fault> {
        match self.try_operate(arguments)? {
            (true, _) => Ok(()),
            (false, cause) => Err(Fault::Program { what: format!("ronctl {}", arguments.join(" ")), cause }),
        }
    }

    /// Ends the service in order, replays its ledger, and compares its audit stream with it.
    ///
    /// # Errors
    /// Any [`Fault`]; among them a ledger or a stream that is not whole.
    pub fn close(&mut self) -> Result<Closed, Fault> {
        self.wallet.stop()?;
        self.daemon.as_mut().map_or(Ok(()), Daemon::stop)?;
        let ledger = self.daemon.as_ref().map_or_else(|| self.wallet.ledger_directory(), Daemon::directory);
        crash::closed(self.wallet.program(), &ledger, &self.wallet.audit_directory())
    }

    /// Leaves on disk what there is, for people.
    pub fn keep(&mut self) {
        self.wallet.keep();
        if let Some(directory) = self.directory.take() {
            eprintln!("kept: {}", directory.keep().display());
        }
    }
}
