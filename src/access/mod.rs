//! Who may do what: macaroons and their caveats, the keyring that signs them, and the policy that binds everybody.
//!
//! Invariants: no capability is believed before its signature has been checked with a key of the keyring; a caveat that is
//! not understood denies; every caveat of a token and of its discharges has to hold, so adding one can only narrow; expiry
//! is looked at on every use; secrets are wiped from memory and never shown.
//! Deliberately not known here: HTTP, JSON bodies, routes, balances.
//!
//! The `macaroon` crate writes whole tokens and signatures to the log target `macaroon`: a subscriber must keep that target
//! off at every level.
mod account_set;
mod board;
mod cache;
mod capability;
mod caveat;
mod custody;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod guarded;
mod hybrid;
mod identifier;
mod inspect;
mod keyring;
mod keyring_fault;
mod mint;
mod opening_key;
mod policy;
mod policy_fault;
mod policy_reader;
mod private_file;
mod revocation_file;
mod revocations;
mod scope;
mod seal;
mod signature;
mod signed_root;
mod signing;
mod token;
mod written_json;
mod written_signature;

pub use cache::{Lookups, TokenCache, UNCHECKED};
pub use capability::{Capability, Demand};
pub use custody::{key_file_beside, Custody};
pub use guarded::{forbid_core_dumps, forbid_swap};
pub use identifier::token_id_text;
pub use inspect::{inspect, inspect_discharge, Description, Discharge, Limits};
pub use keyring::{KeyEntry, KeyUnusable, Keyring, Sealing, KEYS_MAX};
pub use keyring_fault::KeyringFault;
pub use mint::{attenuate, mint, MintFault, MintRequest};
pub use opening_key::Kms;
pub use policy::{Policy, PolicyBoard, Wish, FORM as POLICY_FORM};
pub use policy_fault::{PolicyFault, PolicyFlaw, PolicyFlaws};
pub use private_file::{directory_of, Stamp};
pub use revocation_file::{
    change as change_revocations, load as load_revocations, load_list as load_revocation_list, reason_well_formed,
    RevocationFault, REASON_BYTES_MAX, REVOCATIONS_MAX, VERSION as REVOCATIONS_VERSION,
};
pub use revocations::{Revocation, RevocationBoard, Revocations, Revoked};
pub use scope::{Scope, ScopeSet};
pub use signed_root::{RootBoard, SignedRoot, ROOTS_MAX};
pub use signing::{
    PublicKey, Signature, SignatureFault, ED25519_PUBLIC_BYTES, ED25519_SIGNATURE_BYTES, ML_DSA_65_PUBLIC_BYTES,
    ML_DSA_65_SIGNATURE_BYTES,
};
pub use token::{DISCHARGES_BYTES_MAX, TOKEN_BYTES_MAX};
pub use written_signature::{WrittenFault, WrittenSignature, AUDIT_CHECKPOINT, LEDGER_ROOT};

#[cfg(test)]
mod tests;
