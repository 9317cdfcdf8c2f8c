//! The keyring of a server that leaves nothing on a disk: fresh at each start, in memory alone. What `ronctl` does with a file elsewhere it
//! asks for on the admin socket here: a capability, a rotation, and the public keys.
use super::keys::{InForce, Telling};
use super::notes::{asked_by, Notes};
use super::page::{Action, ActionFault, PageReply};
use crate::access::{inspect, mint, Keyring, MintRequest};
use crate::audit::{Event, EventKind};
use crate::domain::Code;
use crate::worker::unix_now;
use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use serde::Deserialize;
use serde_json::json;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The keyring in force, and whom a new one is told.
pub(super) struct EphemeralKeys {
    in_force: InForce,
    /// Held while a rotation is told: two at once are told in one order.
    rotating: Mutex<()>,
    /// None before there are cores.
    telling: OnceLock<Telling>,
    notes: Notes,
}

/// What is asked about the keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    rotate: Option<Rotation>,
}

/// Whether the fresh key is to be hybrid, or as the one before.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    hybrid: Option<bool>,
}

impl EphemeralKeys {
    /// With one fresh key. What is done with it is noted there.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn new(notes: Notes) -> io::Result<Self> {
        let in_force = InForce::new(Arc::new(Keyring::ephemeral(unix_now())?));
        Ok(Self { in_force, rotating: Mutex::new(()), telling: OnceLock::new(), notes })
    }

    /// The keyring in force.
    pub fn keyring(&self) -> Arc<Keyring> {
        self.in_force.get()
    }

    /// The same, for whoever signs with its active key.
    pub fn in_force(&self) -> InForce {
        self.in_force.clone()
    }

    /// From now on there are those whom another keyring is told.
    pub fn serve(&self, telling: Telling) {
        telling.posture(&self.keyring());
        let _ = self.telling.set(telling);
    }

    /// Does what this user asks for on the admin socket.
    pub fn act(&self, action: Action, body: &[u8], uid: u32) -> Result<PageReply, ActionFault> {
        match action {
            Action::Mint => self.mint(body, uid),
            Action::Keys => self.keys(body, uid),
            Action::ReloadPolicy
            | Action::InjectFault
            | Action::ClearFaults
            | Action::FlushCounters
            | Action::Recount
            | Action::DrainOn
            | Action::DrainOff => Err(not_done(404, Code::NotFound, "the keys have nothing to do with this")),
        }
    }

    fn mint(&self, body: &[u8], uid: u32) -> Result<PageReply, ActionFault> {
        let request: MintRequest = serde_json::from_slice(body).map_err(|error| not_understood(&error))?;
        let token = mint(&self.keyring(), &request, unix_now()).map_err(|fault| not_done(422, Code::BadRequest, fault))?;
        let made = inspect(&token).expect("what was just made can be read");
        let (subject, token_id, key_id) = (&made.subject, &made.token_id, &made.key_id);
        tracing::info!(event = "capability_minted", subject, token_id, uid, "made for whoever asked on the admin socket");
        let event = Event::new(EventKind::Mint, true).with("subject", &**subject).with("token_id", &**token_id);
        self.notes.note(asked_by(event.with("key_id", &**key_id), Some(uid)));
        Ok(PageReply::json(json!({"token": token}).to_string()))
    }

    /// Which there are, with their public halves, after a rotation if that is asked for.
    fn keys(&self, body: &[u8], uid: u32) -> Result<PageReply, ActionFault> {
        let wish: Wish = serde_json::from_slice(body).map_err(|error| not_understood(&error))?;
        let keyring = match wish.rotate {
            Some(rotation) => self.rotate(&rotation, uid)?,
            None => self.keyring(),
        };
        let public = keyring.public_keys().map_err(|fault| not_done(500, Code::InternalError, fault))?;
        let keys = keyring.keys().iter().zip(&public).map(|(key, public)| {
            let ml_dsa_65 = public.ml_dsa_65.as_ref().map(|key| STANDARD.encode(&key[..]));
            json!({
                "id": key.id, "hybrid": key.hybrid, "created": key.created.map(|at| at.0),
                "ed25519": STANDARD.encode(public.ed25519), "ml_dsa_65": ml_dsa_65,
            })
        });
        let (active, hybrid, version) = (keyring.active_id(), keyring.is_hybrid(), keyring.serial());
        let told = json!({"active": active, "hybrid": hybrid, "version": version, "keys": keys.collect::<Vec<_>>()});
        Ok(PageReply::json(told.to_string()))
    }

    fn rotate(&self, rotation: &Rotation, uid: u32) -> Result<Arc<Keyring>, ActionFault> {
        let starting = || not_done(503, Code::RetryLater, "the service is starting; try again");
        let telling = self.telling.get().ok_or_else(starting)?;
        let _one = self.rotating.lock().unwrap_or_else(PoisonError::into_inner);
        let next = self.keyring().rotated(unix_now(), rotation.hybrid);
        let next =
            Arc::new(next.map_err(|error| not_done(500, Code::InternalError, format!("no fresh key: {error}; try again")))?);
        telling.put(&self.in_force, &next, Some(uid));
        Ok(next)
    }
}

fn not_understood(error: &serde_json::Error) -> ActionFault {
    not_done(400, Code::BadRequest, format!("the body is not what is asked for here: {error}"))
}

fn not_done(status: u16, code: Code, message: impl ToString) -> ActionFault {
    ActionFault { status, code, message: message.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn capabilities_are_made_and_what_cannot_be_is_said() {
        let keys = EphemeralKeys::new(Notes::default()).unwrap();
        let request = MintRequest {
            subject: "alice".into(),
            scopes: vec!["wallet:read".into()],
            ttl: Duration::from_secs(60),
            audience: "svc-wallet".into(),
            max_amount: Some(u128::MAX),
            ..MintRequest::default()
        };
        let minted = keys.act(Action::Mint, &serde_json::to_vec(&request).unwrap(), 0).unwrap();
        let minted: serde_json::Value = serde_json::from_slice(&minted.body).unwrap();
        assert_eq!(&*inspect(minted["token"].as_str().unwrap()).unwrap().key_id, keys.keyring().active_id());
        let endless = MintRequest { ttl: Duration::ZERO, ..request };
        let refused = keys.act(Action::Mint, &serde_json::to_vec(&endless).unwrap(), 0).unwrap_err();
        assert!(refused.status == 422 && refused.message.contains("ttl"), "{refused:?}");
        for bad in [&b""[..], b"{}", b"{\"subject\":1}", b"[]"] {
            assert_eq!(keys.act(Action::Mint, bad, 0).unwrap_err().status, 400);
        }
    }

    #[test]
    fn nothing_rotates_before_there_are_cores() {
        let keys = EphemeralKeys::new(Notes::default()).unwrap();
        let before = keys.keyring().active_id().to_owned();
        assert_eq!(keys.act(Action::Keys, b"{\"rotate\":{}}", 0).unwrap_err().status, 503);
        let told = keys.act(Action::Keys, b"{}", 0).unwrap();
        assert!(String::from_utf8(told.body).unwrap().contains(&before));
        assert_eq!(keys.keyring().active_id(), before);
    }
}
