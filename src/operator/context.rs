//! What every command needs: the configuration of the server that it is about, a connection to it, and authority.
//!
//! The only place where `ronctl` meets the configuration and the keyring on behalf of its commands. Tokens made here are
//! short-lived and may only read.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::client::{Address, Client, ClientError, Reply, Request};
use super::exit::Failure;
use super::output::Output;
use crate::access::{mint, Custody, Keyring, MintFault, MintRequest};
use crate::config::{files_default, first_there, Config, Flags, Sources, CONFIG_ENV};
use crate::control::{custody, Action, SERVICE};
use crate::worker::unix_now;

/// How long the server may take for one answer; more than its own bound for a commit.
const ANSWER_MS_MAX: u64 = 5_000;
/// How long a token is good that was made for one question.
const TOKEN_S: u64 = 60;

/// Where a command runs.
pub struct Context {
    /// How it speaks.
    pub output: Output,
    /// The configuration file named on the command line.
    pub config: Option<PathBuf>,
}

impl Context {
    /// The configuration of the server: `--config`, else RON_CONFIG, else the first of [`files_default`] that is there, with the
    /// same environment on top that the server looks at.
    pub fn config(&self) -> Result<Config, Failure> {
        let flags = Flags { config: self.config.clone(), ..Flags::default() };
        Config::load(&Sources::of_process(flags)).map_err(|fault| {
            Failure::usage(fault.to_string(), "correct it, or name the server's file with --config FILE or RON_CONFIG")
        })
    }

    /// Whether there is a file of configuration, good or bad.
    pub fn has_config(&self) -> bool {
        let named = || std::env::var_os(CONFIG_ENV).is_some_and(|name| !name.is_empty());
        self.config.is_some() || named() || first_there(files_default()).is_some()
    }

    /// A client of the API.
    pub fn wallet(&self, config: &Config) -> Client {
        Client::new(Address::Tcp(reachable(config.bind.http)), Duration::from_millis(ANSWER_MS_MAX))
    }

    /// A client of the port for health and metrics.
    pub fn metrics(&self, config: &Config) -> Client {
        Client::new(Address::Tcp(reachable(config.bind.metrics)), Duration::from_millis(ANSWER_MS_MAX))
    }

    /// A client of the admin socket, if the configuration has one.
    pub fn admin(&self, config: &Config) -> Option<Client> {
        let path = config.bind.admin.clone()?;
        let address = if config.security.amnesia { Address::Abstract(path) } else { Address::Unix(path) };
        Some(Client::new(address, Duration::from_millis(ANSWER_MS_MAX)))
    }

    /// Asks the server, on its admin socket, to do something that only it can do.
    pub fn ask_server(&self, config: &Config, action: Action, body: &str) -> Result<serde_json::Value, Failure> {
        let mut client = self.admin(config).ok_or_else(|| {
            let what = "this is asked on the admin socket of the server, and the configuration has none";
            Failure::usage(what, "set bind.admin, and start it again")
        })?;
        let request = Request { method: "POST", target: action.path(), headers: &[], body: Some(body) };
        let reply = self.exchange(&mut client, &request)?;
        let told = reply.json();
        let said = || told["message"].as_str().unwrap_or("the server refuses, and does not say why").to_owned();
        match reply.status {
            200 => Ok(told),
            400..=499 => Err(Failure::usage(said(), "")),
            _ => Err(Failure::internal(said(), "see the log of the server")),
        }
    }

    /// Mints a token with the active key of the server's keyring, wherever that is; where it is a file, `keyring` opens it.
    pub fn mint(
        &self,
        config: &Config,
        request: &MintRequest,
        keyring: impl FnOnce(&Custody) -> Result<Keyring, Failure>,
    ) -> Result<String, Failure> {
        if config.security.amnesia {
            let body = serde_json::to_string(request).expect("a request has only texts and numbers");
            let told = self.ask_server(config, Action::Mint, &body)?;
            return told["token"].as_str().map(str::to_owned).ok_or_else(|| {
                Failure::internal("the server does not tell the token", "use a ronctl of the version of the server")
            });
        }
        mint(&keyring(&custody(&config.security))?, request, unix_now()).map_err(|fault| mint_failure(&fault))
    }

    /// One exchange; a server that cannot be reached is told with the way to reach it.
    pub fn exchange(&self, client: &mut Client, request: &Request<'_>) -> Result<Reply, Failure> {
        client.exchange(request).map_err(|fault| unreachable(&fault))
    }

    /// A token for one question: reading only, this account only if one is given, valid for a minute.
    pub fn read_token(&self, config: &Config, account: Option<&str>) -> Result<String, Failure> {
        let request = MintRequest {
            subject: "ronctl".to_owned(),
            scopes: vec!["wallet:read".to_owned()],
            ttl: Duration::from_secs(TOKEN_S),
            audience: config.security.audience.clone(),
            accounts: account.map(str::to_owned).into_iter().collect(),
            ..MintRequest::default()
        };
        self.mint(config, &request, |custody| {
            custody.open().map_err(|fault| Failure::usage(fault.to_string(), "or ask with a token of your own: --token TOKEN"))
        })
    }
}

/// Why a token could not be made, with the exit code that belongs to it.
pub fn mint_failure(fault: &MintFault) -> Failure {
    match fault {
        MintFault::Invalid { .. } | MintFault::TooLong => Failure::usage(fault.to_string(), ""),
        MintFault::NoToken => Failure::usage(fault.to_string(), "give the whole token, or make one with `ronctl cap mint`"),
        MintFault::Nothing => Failure::usage(fault.to_string(), "see ronctl cap attenuate --help"),
        MintFault::NotUnderstood { .. } => {
            Failure::usage(fault.to_string(), "write `name = value` with a name of docs/SECURITY.md, for example 'asset = roc'")
        }
        MintFault::NoRandomness => Failure::internal(fault.to_string(), ""),
    }
}

/// Refuses the name of a service that is not this one.
pub fn known_service(named: &str) -> Result<(), Failure> {
    if named == SERVICE {
        return Ok(());
    }
    let what = format!("{named} is not known here: this ronctl is for {SERVICE} alone");
    Err(Failure::usage(what, format!("ask for {SERVICE}, or use the tool of that service")))
}

/// Where to connect to a server that listens here: "every address" is reached over loopback.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let address = match bound.ip() {
        IpAddr::V4(address) if address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(address) if address.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        address => address,
    };
    SocketAddr::new(address, bound.port())
}

/// A server that cannot be reached, with the way to reach it.
pub fn unreachable(fault: &ClientError) -> Failure {
    let next = match fault {
        ClientError::Connect { .. } => {
            "start it with `svc-wallet --config FILE`, and give the same FILE to `ronctl --config` (or RON_CONFIG)"
        }
        ClientError::TimedOut { .. } => "look at `ronctl status` and at the log of the server",
        ClientError::Broken { .. } => "try again; if it stays so, look at the log of the server",
        ClientError::NotUnderstood { .. } => "check [bind] in the configuration: another program seems to listen there",
    };
    Failure::unreachable(fault.to_string(), next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_every_address_is_reached_over_loopback() {
        let cases = [("0.0.0.0:8080", "127.0.0.1:8080"), ("[::]:1", "[::1]:1"), ("10.0.0.7:80", "10.0.0.7:80")];
        for (bound, expected) in cases {
            assert_eq!(reachable(bound.parse().unwrap()).to_string(), expected);
        }
    }
}
