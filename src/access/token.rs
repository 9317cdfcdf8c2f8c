//! From the text of a token to a capability: decode, find the key, check every signature, read every caveat.
//!
//! Invariants: nothing is parsed that is over its cap; only the version 2 binary form is read, and only in the one spelling
//! that a serializer writes, so that a token has no second form; caveats of discharges narrow like those of the token.
use super::capability::Capability;
use super::caveat::Caveat;
use super::identifier::Identifier;
use super::keyring::Keyring;
use super::signature::{self, Flaw};
use crate::domain::{Refusal, Why};
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::Engine;
use macaroon::{Format, Macaroon};

/// Longest token that is parsed, in bytes of text.
pub const TOKEN_BYTES_MAX: usize = 4 << 10;
/// Longest list of discharges that is parsed, in bytes of text.
pub const DISCHARGES_BYTES_MAX: usize = 8 << 10;
/// Most discharges in one request.
const DISCHARGES_MAX: usize = 8;
/// Most caveats of one macaroon: each costs an HMAC when it is verified.
pub(super) const CAVEATS_MAX: usize = 64;
/// First byte of the version 2 binary form.
const FORMAT_V2: u8 = 2;

/// URL-safe base64; padding is written by some tools and left out by others.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Checks the token and its discharges against the keyring.
///
/// What depends on the time, the service or the request is left to the capability.
pub(super) fn verify(keyring: &Keyring, token: &[u8], discharges: Option<&[u8]>) -> Result<Capability, Refusal> {
    let malformed = || Refusal::unauthorized(Why::Malformed);
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| malformed());
    let root = parse(text(token)?).ok_or_else(malformed)?;
    let discharges = parse_discharges(text(discharges.unwrap_or_default())?).ok_or_else(malformed)?;
    let identifier = root.identifier();
    let identifier = Identifier::parse(&identifier.0).ok_or_else(malformed)?;
    let key = keyring.root(identifier.key_id).ok_or_else(|| Refusal::unauthorized(Why::UnknownKey))?;
    signature::check(&root, key, &discharges).map_err(|flaw| {
        Refusal::unauthorized(match flaw {
            Flaw::Signature => Why::Signature,
            Flaw::Discharge => Why::Discharge,
        })
    })?;
    let mut capability = Capability::new(identifier.subject, identifier.key_id, identifier.token);
    for macaroon in std::iter::once(&root).chain(&discharges) {
        for caveat in macaroon.caveats() {
            match caveat {
                macaroon::Caveat::FirstParty(first) => capability.narrow(Caveat::parse(&first.predicate().0)),
                // Its discharge is among those whose caveats are read here.
                macaroon::Caveat::ThirdParty(_) => {}
            }
        }
    }
    Ok(capability)
}

/// Reads the one canonical spelling of a macaroon; `None` for everything else.
pub(super) fn parse(token: &str) -> Option<Macaroon> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let binary = BASE64.decode(token).ok()?;
    if binary.first() != Some(&FORMAT_V2) {
        return None;
    }
    let macaroon = Macaroon::deserialize_binary(&binary).ok()?;
    if macaroon.caveats().len() > CAVEATS_MAX {
        return None;
    }
    let canonical = macaroon.serialize(Format::V2).ok()?;
    (canonical.trim_end_matches('=') == token.trim_end_matches('=')).then_some(macaroon)
}

/// Discharges stand in one header, separated by commas or spaces; no two may have the same identifier.
fn parse_discharges(list: &str) -> Option<Vec<Macaroon>> {
    if list.len() > DISCHARGES_BYTES_MAX {
        return None;
    }
    let mut discharges: Vec<Macaroon> = Vec::new();
    for text in list.split([',', ' ', '\t']).filter(|text| !text.is_empty()) {
        let discharge = parse(text)?;
        if discharges.len() == DISCHARGES_MAX || discharges.iter().any(|known| known.identifier() == discharge.identifier()) {
            return None;
        }
        discharges.push(discharge);
    }
    Some(discharges)
}
