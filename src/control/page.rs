//! The pages of the control plane: which path leads to which page on which surface, and what a page is.
use crate::domain::Code;

/// Where a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// The port of the control plane, which probes and scrapers reach.
    Port,
    /// The admin socket, which only the operator's account reaches.
    Admin,
}

/// One page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// `/healthz`: the process is alive.
    Health,
    /// `/readyz`: whether work may be sent here.
    Ready,
    /// `/metrics`: Prometheus text.
    Metrics,
    /// `/version`: what runs here.
    Version,
    /// `/console`: a page that draws the others, for a browser.
    Console,
    /// `/policy`: the policy in force; on the admin socket only.
    Policy,
    /// `/status`: what the operator wants to see; on the admin socket only.
    Status,
    /// `/registry`: the topology in force; on the admin socket only.
    Registry,
    /// `/faults`: the faults that are injected on purpose; on the admin socket only.
    Faults,
    /// `/revocations`: which list of revocations is in force; on the admin socket only.
    Revocations,
}

impl Page {
    /// All pages.
    pub const ALL: [Page; 10] = [
        Page::Health,
        Page::Ready,
        Page::Metrics,
        Page::Version,
        Page::Console,
        Page::Policy,
        Page::Status,
        Page::Registry,
        Page::Faults,
        Page::Revocations,
    ];

    /// Its path.
    pub fn path(self) -> &'static str {
        match self {
            Page::Health => "/healthz",
            Page::Ready => "/readyz",
            Page::Metrics => "/metrics",
            Page::Version => "/version",
            Page::Console => "/console",
            Page::Policy => "/policy",
            Page::Status => "/status",
            Page::Registry => "/registry",
            Page::Faults => "/faults",
            Page::Revocations => "/revocations",
        }
    }

    /// The page of a request target; what follows a `?` does not count.
    pub(super) fn of(target: &str, surface: Surface) -> Option<Self> {
        let path = target.split('?').next().unwrap_or(target);
        let page = Self::ALL.into_iter().find(|page| page.path() == path)?;
        let is_for_all = match page {
            Page::Health | Page::Ready | Page::Metrics | Page::Version | Page::Console => true,
            Page::Policy | Page::Status | Page::Registry | Page::Faults | Page::Revocations => false,
        };
        (is_for_all || surface == Surface::Admin).then_some(page)
    }
}

/// What the admin socket can be asked to do, with POST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `/capabilities`: make a capability, where the keyring is in memory alone.
    Mint,
    /// `/keys`: tell the keys, or let a fresh one sign, where the keyring is in memory alone.
    Keys,
    /// `/policy`: read the policy again.
    ReloadPolicy,
    /// `/accounting/flush`: count everything that is durable.
    FlushCounters,
    /// `/accounting/recount`: set the counters aside, and count everything anew.
    Recount,
    /// `/faults`: inject a fault.
    InjectFault,
    /// `/faults/clear`: end a fault, or all of them.
    ClearFaults,
    /// `/drain/on`: take the service out of rotation.
    DrainOn,
    /// `/drain/off`: put it back.
    DrainOff,
}

impl Action {
    /// All of them.
    pub const ALL: [Action; 9] = [
        Action::Mint,
        Action::Keys,
        Action::ReloadPolicy,
        Action::FlushCounters,
        Action::Recount,
        Action::InjectFault,
        Action::ClearFaults,
        Action::DrainOn,
        Action::DrainOff,
    ];

    /// Its path.
    pub fn path(self) -> &'static str {
        match self {
            Action::Mint => "/capabilities",
            Action::Keys => "/keys",
            Action::ReloadPolicy => "/policy",
            Action::FlushCounters => "/accounting/flush",
            Action::Recount => "/accounting/recount",
            Action::InjectFault => "/faults",
            Action::ClearFaults => "/faults/clear",
            Action::DrainOn => "/drain/on",
            Action::DrainOff => "/drain/off",
        }
    }

    /// That of a request target.
    pub(super) fn of(target: &str, surface: Surface) -> Option<Self> {
        Self::ALL.into_iter().find(|action| surface == Surface::Admin && action.path() == target)
    }
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionFault {
    /// HTTP status.
    pub status: u16,
    /// Its kind.
    pub code: Code,
    /// What is wrong, and what to do.
    pub message: String,
}

/// The content of a page at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageReply {
    /// HTTP status.
    pub status: u16,
    /// Value of `Content-Type`.
    pub content_type: &'static str,
    /// Value of `Retry-After`, in seconds.
    pub retry_after: Option<u32>,
    /// Value of `Content-Security-Policy`, of a page that a browser runs.
    pub content_policy: Option<&'static str>,
    /// The body.
    pub body: Vec<u8>,
}

impl PageReply {
    /// A JSON page with status 200.
    pub fn json(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, content_type: "application/json", retry_after: None, content_policy: None, body: body.into() }
    }

    /// A page of metrics in Prometheus' text format.
    pub fn metrics(body: impl Into<Vec<u8>>) -> Self {
        Self { content_type: "text/plain; version=0.0.4; charset=utf-8", ..Self::json(body) }
    }

    /// The answer to OPTIONS: nothing but the header that the server adds.
    pub(super) fn options() -> Self {
        Self { status: 204, content_type: "", ..Self::json("") }
    }

    /// The answer of `/readyz`, with the reasons.
    pub fn readiness(snapshot: &super::Snapshot) -> Self {
        let body = snapshot.body_with_reasons.as_bytes();
        Self { status: snapshot.status, retry_after: snapshot.retry_after, ..Self::json(body) }
    }
}

/// Makes the pages; called on a thread of its own for every request, so it may take a moment but must not wait for ever.
pub trait Pages: Send + Sync + 'static {
    /// The page as it is now.
    fn page(&self, page: Page) -> PageReply;

    /// Does something, asked with this body by this user of the machine; `None` if it cannot be asked for here.
    fn act(&self, _action: Action, _body: &[u8], _uid: u32) -> Option<Result<PageReply, ActionFault>> {
        None
    }
}

impl<F: Fn(Page) -> PageReply + Send + Sync + 'static> Pages for F {
    fn page(&self, page: Page) -> PageReply {
        self(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_for_the_operator_only() {
        for action in Action::ALL {
            assert_eq!(Action::of(action.path(), Surface::Admin), Some(action));
            assert_eq!(Action::of(action.path(), Surface::Port), None);
        }
    }

    #[test]
    fn status_policy_and_topology_are_for_the_operator_only_and_queries_do_not_matter() {
        for page in [Page::Status, Page::Policy, Page::Registry, Page::Faults] {
            assert_eq!(Page::of(page.path(), Surface::Port), None);
            assert_eq!(Page::of(page.path(), Surface::Admin), Some(page));
        }
        for page in [Page::Health, Page::Ready, Page::Metrics, Page::Version, Page::Console] {
            assert_eq!(Page::of(&format!("{}?verbose=1", page.path()), Surface::Port), Some(page));
        }
        for bad in ["", "/", "/healthz/", "/HEALTHZ", "healthz", "/metrics#x"] {
            assert_eq!(Page::of(bad, Surface::Admin), None, "{bad}");
        }
    }
}
