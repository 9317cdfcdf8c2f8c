//! From the configuration to the custody of the keyring, for the server and for `ronctl` alike.
use crate::access::{key_file_beside, Custody, Kms};
use crate::config::{self, Security};

/// The custody that the configuration asks for. A key in the environment is taken out of there: see [`Custody::new`].
pub fn custody(security: &Security) -> Custody {
    custody_under(security, &security.kms)
}

/// The custody of the configured keyring under a key of another place.
pub fn custody_under(security: &Security, kms: &config::Kms) -> Custody {
    let kms = match kms {
        config::Kms::File(None) => Kms::File(key_file_beside(&security.keyring)),
        config::Kms::File(Some(path)) => Kms::File(path.clone()),
        config::Kms::Credential(name) => Kms::Credential(name.clone()),
        config::Kms::Env(name) => Kms::Env(name.clone()),
    };
    Custody::new(&security.keyring, kms)
}
