//! The edge of one simulated core: a client's request goes through the function that the worker calls between framing and engine. What
//! it lets through, and with which code it refuses, is what the model of capabilities says (I-4).
use crate::grants::{keyring, refusal_name, Demand, Grant, AUDIENCE};
use crate::model::{ASSETS, CEILING};
use crate::world::World;
use std::sync::OnceLock;
use svc_wallet::access::{Policy, TokenCache};
use svc_wallet::api::{interpret, Call, Incoming, IncomingHeaders, Route, Scratch};
use svc_wallet::domain::{Allowance, Amount, CoreId, Refusal, UnixMs};
use svc_wallet::http;

/// Capabilities that a core remembers: fewer than the clients of some histories have.
const TOKENS_MAX: usize = 3;

pub struct Edge {
    tokens: TokenCache,
    scratch: Scratch,
}

/// A request as it was read from a connection.
pub struct Sent {
    pub path: String,
    pub query: Option<String>,
    /// The header of the idempotency key.
    pub key: Option<String>,
    pub body: String,
}

/// What was let through.
#[derive(Debug)]
pub enum Called {
    Write { entry: Vec<u8>, allowance: Allowance },
    Balance,
    LastNonce,
}

fn policy() -> &'static Policy {
    static POLICY: OnceLock<Policy> = OnceLock::new();
    POLICY.get_or_init(|| {
        let assets = ASSETS.map(|asset| format!(r#""{asset}": {{}}"#)).join(", ");
        let operations = r#"["issue", "transfer", "burn", "hold", "capture", "release"]"#;
        Policy::parse(format!(r#"{{"version": 1, "operations": {operations}, "assets": {{{assets}}}}}"#).as_bytes()).unwrap()
    })
}

impl Edge {
    pub fn new() -> Self {
        Self { tokens: TokenCache::new(keyring(), AUDIENCE, TOKENS_MAX), scratch: Scratch::default() }
    }

    fn ask(&mut self, grant: &Grant, sent: Sent, now: UnixMs) -> Result<Called, Refusal> {
        let mut headers = IncomingHeaders::default();
        let Sent { path, query, key, body } = sent;
        for (name, value) in [
            ("Authorization", grant.authorization.as_deref()),
            ("X-Wallet-Discharge", grant.discharge.as_deref()),
            ("Idempotency-Key", key.as_deref()),
            ("Content-Type", Some("application/json")),
        ] {
            if let Some(value) = value {
                headers.observe(name.as_bytes(), value.as_bytes());
            }
        }
        let incoming = Incoming {
            route: Route::of_path(&path),
            path: &path,
            query: query.as_deref(),
            headers,
            encoding: Ok(http::Encoding::Identity),
            limits: &http::Limits::default(),
            body: &mut body.into_bytes(),
        };
        Ok(match interpret(incoming, &mut self.tokens, policy(), now, "sim", &mut self.scratch)? {
            Call::Write { entry, allowance } => Called::Write { entry: entry.bytes().to_vec(), allowance },
            Call::Balance { .. } => Called::Balance,
            Call::Seq { .. } => Called::LastNonce,
            Call::Tx { .. } | Call::Entries { .. } | Call::Totals { .. } | Call::History { .. } | Call::SignedRoot => {
                unreachable!("no client asks for that")
            }
        })
    }
}

impl World {
    /// A client's request arrives at a core with a capability. What is let through has not been decided on; `None` if it is refused.
    pub fn call(&mut self, core: CoreId, grant: &Grant, sent: Sent, demand: &Demand<'_>) -> Option<Called> {
        let now = self.now;
        let told = self.cores[usize::from(core.0)].edge.ask(grant, sent, now);
        match (told, grant.allows(demand, now)) {
            (Ok(called), Ok(counted)) => {
                if let Called::Write { allowance, .. } = &called {
                    let (ceiling, budget) = (allowance.daily_ceiling, allowance.budget);
                    let (ceiling, budget) = (ceiling.map(Amount::minor_units), budget.map(Amount::minor_units));
                    assert_eq!(ceiling, counted.ceiling.then_some(CEILING), "I-4: the least daily ceiling counts: {grant:?}");
                    assert_eq!(budget, counted.budget, "I-4: the least budget counts: {grant:?}");
                }
                Some(called)
            }
            (Err(refusal), Err(code)) if refusal.code == code => {
                self.coverage.count(refusal_name(grant, code));
                None
            }
            (told, expected) => panic!(
                "I-4: a capability is taken for another than it is: {told:?}, and not {expected:?}, for {demand:?} with {grant:?} at {}",
                now.0
            ),
        }
    }
}
