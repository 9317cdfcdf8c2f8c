//! What a start would meet outside of the configuration: CPUs, the event loop, files, addresses. For `--check-config`.
//!
//! Nothing is made, changed or listened on, and a server that is running is neither disturbed nor in the way. What is not looked
//! at is told in [`crate::config::check`]: the ledger and the counters, which only their server may open, and whether an address
//! is free, which can change until the start.
use super::custody::custody;
use super::service::wanted;
use super::topology;
use crate::access::{load_revocation_list, KeyringFault, Policy};
use crate::config::{cpus_usable, Config, LedgerDep, Problem};
use crate::worker::{Driver, Wanted};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Everything that would refuse a start with this configuration on this machine, in the order of the keys.
pub fn findings(config: &Config) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut note = |key: &str, outcome: Result<(), String>| {
        if let Err(message) = outcome {
            found.push(Problem { subject: key.to_owned(), origin: Some(config.origin(key).clone()), message });
        }
    };
    note("bind.http", may_bind(config.bind.http));
    note("bind.metrics", may_bind(config.bind.metrics));
    note("bind.admin", config.bind.admin.as_deref().map_or(Ok(()), may_be_socket));
    let cpus = cpus_usable().map_err(|error| format!("cannot tell which CPUs may be used: {error}"));
    let cpus = cpus.and_then(|usable| config.runtime.cores.resolve(&usable));
    note("runtime.cores", cpus.as_ref().map(|_| ()).map_err(Clone::clone));
    if let (Ok(cpus), Wanted::IoUring) = (&cpus, wanted(config)) {
        note("runtime.driver", Driver::choose(Wanted::IoUring, cpus.len()).map(drop));
    }
    match &config.deps.ledger {
        LedgerDep::Embedded(_) => {}
        LedgerDep::Unix(socket) => note("deps.ledger_sock", may_be_socket(socket)),
    }
    note("deps.registry_url", topology::findings(config));
    note("security.policy_file", Policy::load(&config.security.policy_file).map(drop).map_err(|fault| fault.to_string()));
    note("security.revocations", load_revocation_list(&config.security.revocations).map(drop).map_err(|fault| fault.to_string()));
    match custody(&config.security).open() {
        // One that is not there is made at the first start.
        Ok(_) | Err(KeyringFault::Missing { .. }) => {}
        Err(fault @ KeyringFault::Kms { .. }) => note("security.kms", Err(fault.to_string())),
        Err(fault) => note("security.keyring", Err(fault.to_string())),
    }
    found
}

/// Whether the address is one of this machine and may be bound by this user. That somebody listens there is no fault: a check
/// beside a running server is an ordinary thing.
fn may_bind(address: SocketAddr) -> Result<(), String> {
    let bind = || -> io::Result<()> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A socket that does not listen and lets others share its address keeps no server from starting meanwhile.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())
    };
    match bind() {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(()),
        Err(error) => Err(format!("cannot listen on {address}: {error}; choose an address of this machine that may be used")),
    }
}

/// Whether a socket can be made at this path, or one that is there replaced.
fn may_be_socket(path: &Path) -> Result<(), String> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            Err(format!("{}: this is no socket and is left alone; choose another path", path.display()))
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("{}: {error}; choose another path", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_foreign_address_is_noticed_and_a_running_server_is_not_in_the_way() {
        // 192.0.2.0/24 is for documentation and belongs to nobody (RFC 5737).
        let told = may_bind("192.0.2.1:8080".parse().unwrap()).unwrap_err();
        assert!(told.contains("cannot listen on 192.0.2.1:8080: "), "{told}");
        let alone = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(may_bind(alone.local_addr().unwrap()), Ok(()));
        let shared = crate::worker::bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        assert_eq!(may_bind(shared[0].local_addr().unwrap()), Ok(()));
        let address = alone.local_addr().unwrap();
        drop(alone);
        assert_eq!(may_bind(address), Ok(()));
        TcpListener::bind(address).expect("a check leaves nothing behind");
    }

    #[test]
    fn only_a_socket_may_stand_where_the_admin_socket_is_to_be() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("admin.sock");
        assert_eq!(may_be_socket(&path), Ok(()));
        assert!(may_be_socket(place.path()).unwrap_err().contains("this is no socket"));
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(may_be_socket(&path), Ok(()));
        assert!(path.exists());
    }
}
