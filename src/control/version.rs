//! The bodies of `/version` and `/healthz`.
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The revision of the sources that this library was built from, or `unknown`.
pub const REVISION: &str = env!("SVC_WALLET_REVISION");

/// What `/version` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Version {
    /// Name of the service.
    pub name: &'static str,
    /// Version of the package.
    pub version: &'static str,
    /// Revision of the sources.
    pub git_revision: &'static str,
    /// What was built in or turned on beyond the ordinary.
    pub features: Vec<&'static str>,
    /// Posture towards quantum computers: `hybrid` if the keyring is sealed and signs in the hybrid way, else `off`.
    pub pq: &'static str,
    /// Version of the policy in force; `None` before one is loaded.
    pub policy_version: Option<u64>,
    /// Version of the topology in force; `None` before one is loaded.
    pub registry_version: Option<u64>,
    /// Serial number of the keyring in force; `None` before one is loaded.
    pub keyring_version: Option<u64>,
    /// The driver of the cores: `io_uring` or `epoll`.
    pub driver: &'static str,
    /// Why the driver is not the preferred one, and what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_note: Option<String>,
}

impl Version {
    /// The version of this build, with no policy and no topology yet.
    pub fn new(name: &'static str, features: Vec<&'static str>, driver: &'static str, driver_note: Option<String>) -> Self {
        Self {
            name,
            version: env!("CARGO_PKG_VERSION"),
            git_revision: REVISION,
            features,
            pq: "off",
            policy_version: None,
            registry_version: None,
            keyring_version: None,
            driver,
            driver_note,
        }
    }

    /// The JSON body.
    pub fn body(&self) -> String {
        serde_json::to_string(self).expect("the body has only texts and numbers")
    }
}

/// The version as everybody is told it; clones are handles to the same one, and a new topology shows in all of them.
#[derive(Clone, Debug)]
pub struct SharedVersion(Arc<Mutex<Version>>);

impl SharedVersion {
    /// Shares a version.
    pub fn new(version: Version) -> Self {
        Self(Arc::new(Mutex::new(version)))
    }

    /// A policy of this version is in force from now on.
    pub fn policy_version(&self, version: u64) {
        self.version().policy_version = Some(version);
    }

    /// The version of the policy in force.
    pub fn policy(&self) -> Option<u64> {
        self.version().policy_version
    }

    /// A topology of this version is in force from now on.
    pub fn registry_version(&self, version: u64) {
        self.version().registry_version = Some(version);
    }

    /// A keyring with this serial number is in force from now on.
    pub fn keyring_version(&self, serial: u64) {
        self.version().keyring_version = Some(serial);
    }

    /// Whether the keyring in force is hybrid.
    pub fn post_quantum(&self, hybrid: bool) {
        self.version().pq = if hybrid { "hybrid" } else { "off" };
    }

    /// The JSON body at this moment.
    pub fn body(&self) -> String {
        self.version().body()
    }

    fn version(&self) -> MutexGuard<'_, Version> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The JSON body of `/healthz`: the process is alive and answers.
pub fn health_body(service: &str) -> String {
    let service = serde_json::to_string(service).expect("every text is a JSON string");
    format!("{{\"ok\":true,\"service\":{service}}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bodies_are_those_of_the_contract() {
        assert_eq!(health_body("svc-wallet"), r#"{"ok":true,"service":"svc-wallet"}"#);
        let mut version = Version::new("svc-wallet", vec!["tor"], "epoll", Some("io_uring is disabled: ...".to_owned()));
        version.policy_version = Some(3);
        let body: serde_json::Value = serde_json::from_str(&version.body()).unwrap();
        let expected = serde_json::json!({
            "name": "svc-wallet", "version": env!("CARGO_PKG_VERSION"), "git_revision": REVISION, "features": ["tor"], "pq": "off",
            "policy_version": 3, "registry_version": null, "keyring_version": null, "driver": "epoll", "driver_note": "io_uring is disabled: ...",
        });
        assert_eq!(body, expected);
        let shared = SharedVersion::new(version);
        shared.clone().registry_version(9);
        shared.policy_version(8);
        shared.keyring_version(4);
        shared.post_quantum(true);
        let body: serde_json::Value = serde_json::from_str(&shared.body()).unwrap();
        assert_eq!(body["pq"], "hybrid");
        let versions = ["policy_version", "registry_version", "keyring_version"].map(|name| body[name].as_u64());
        assert_eq!(versions, [Some(8), Some(9), Some(4)]);
    }

    #[test]
    fn the_revision_is_a_hash_or_unknown() {
        assert!(REVISION == "unknown" || REVISION.len() >= 7, "{REVISION}");
    }
}
