//! What the control plane of the service shows, and where it listens.
use super::console;
use super::counting::CountersDesk;
use super::ephemeral::EphemeralKeys;
use super::fault::{refused, ServiceFault};
use super::faults::Faults;
use super::notes::{asked_by, Notes};
use super::policy::PolicyKeeper;
use super::revocations::revocations_page;
use super::service::SERVICE;
use super::topology::Topology;
use super::{
    bind_admin, bind_admin_without_file, health_body, Action, ActionFault, ControlServer, Page, PageReply, Pages, Readiness,
    SharedVersion,
};
use crate::access::RevocationBoard;
use crate::audit::{Event, EventKind};
use crate::config::Config;
use crate::telemetry::Publisher;
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

/// What the control plane shows, and does if the keyring is in memory.
pub(super) struct ServicePages {
    pub readiness: Readiness,
    pub publisher: Arc<Publisher>,
    pub version: SharedVersion,
    pub status: Arc<Mutex<String>>,
    pub policy: Arc<PolicyKeeper>,
    pub topology: Arc<Topology>,
    /// From when on they are looked at: until then the list that was read at the start is as good as none.
    pub revocations: Arc<OnceLock<Arc<RevocationBoard>>>,
    pub counters: CountersDesk,
    pub faults: Arc<Faults>,
    pub notes: Notes,
    /// If they are in memory.
    pub keys: Option<Arc<EphemeralKeys>>,
}

impl Pages for ServicePages {
    fn page(&self, page: Page) -> PageReply {
        match page {
            Page::Health => PageReply::json(health_body(SERVICE)),
            Page::Ready => PageReply::readiness(&self.readiness.snapshot()),
            Page::Metrics => PageReply::metrics(self.publisher.render()),
            Page::Version => PageReply::json(self.version.body()),
            Page::Console => console::page(),
            Page::Policy => self.policy.page(),
            Page::Registry => self.topology.page(),
            Page::Faults => self.faults.page(),
            Page::Revocations => revocations_page(self.revocations.get()),
            Page::Status => PageReply::json(self.status.lock().expect("no thread panics while it holds the status").clone()),
        }
    }

    fn act(&self, action: Action, body: &[u8], uid: u32) -> Option<Result<PageReply, ActionFault>> {
        match action {
            Action::ReloadPolicy => Some(self.policy.act(uid)),
            Action::FlushCounters | Action::Recount => {
                let done = self.counters.act(action);
                let what = if action == Action::Recount { "recount" } else { "flush" };
                self.notes.note(asked_by(Event::new(EventKind::Counters, done.is_ok()).with("what", what), Some(uid)));
                Some(done)
            }
            Action::DrainOn | Action::DrainOff => Some(self.rotate(action == Action::DrainOn, uid)),
            Action::InjectFault => Some(self.faults.inject(body, uid)),
            Action::ClearFaults => Some(self.faults.clear(body, uid)),
            Action::Mint | Action::Keys => self.keys.as_ref().map(|keys| keys.act(action, body, uid)),
        }
    }
}

impl ServicePages {
    /// Takes the service out of rotation, or puts it back, and answers what `/readyz` says then.
    fn rotate(&self, is_out: bool, uid: u32) -> Result<PageReply, ActionFault> {
        self.notes.when_open()?;
        self.readiness.take_out_of_rotation(is_out);
        let what = if is_out { "on" } else { "off" };
        self.notes.note(asked_by(Event::new(EventKind::Drain, true).with("what", what), Some(uid)));
        Ok(PageReply::json(self.readiness.snapshot().body_with_reasons.to_string()))
    }
}

/// Opens the control port and the admin socket, and serves these pages there.
pub(super) fn control_servers(config: &Config, pages: Arc<dyn Pages>) -> Result<Vec<ControlServer>, ServiceFault> {
    let address = config.bind.metrics;
    let port = TcpListener::bind(address).map_err(refused(format!(
        "bind.metrics: cannot listen on {address}; stop what listens there or choose another address"
    )))?;
    let mut servers = vec![ControlServer::serve_port(port, pages.clone()).map_err(refused("cannot serve the control port"))?];
    if let Some(path) = &config.bind.admin {
        let bind = if config.security.amnesia { bind_admin_without_file } else { bind_admin };
        let socket = bind(Path::new(path)).map_err(|fault| ServiceFault::Refused(format!("bind.admin: {fault}")))?;
        servers.push(ControlServer::serve_admin(socket, pages).map_err(refused("cannot serve the admin socket"))?);
    }
    Ok(servers)
}
