//! A core's front to its connections: requests are read, checked and handed to the engine; outcomes become replies.
//!
//! Everything that happens to a request before and after its owner core decides is here, in the order of the contract:
//! framing and caps, admission, capability, shape, policy. What the engine answers arrives through `output`. Reads of durable
//! entries pass the engine by; they are in `lookups`. Where an interpreted request goes is in `calls`, what the audit stream is told in
//! `telling`, what is done to requests on purpose in `disturbed`.
mod calls;
mod disturbed;
mod lookups;
mod output;
mod telling;

use super::admission::Admission;
use super::clock::Clock;
use super::connection::{Connections, Corr, Meta, Phase};
use super::denials::Denials;
use super::disturbance::{Disturbed, Turns};
use super::mailbox::Asked;
use super::site::Site;
use super::spans::SpanTeller;
use super::terms::method_of;
use super::writes::Writes;
use crate::access::{Keyring, Policy, TokenCache};
use crate::api::{self, Resolved, Route};
use crate::domain::{Code, CoreId, Reason, Refusal, UnixMs};
use crate::engine::{Engine, Gate, Request, Ticket};
use crate::http::{self, Step};
use crate::ledger::LookupDesk;
use crate::ring::Ring;
use crate::telemetry::feed::Feed;
use crate::telemetry::{CoreStats, MethodIndex, RouteIndex, Tally};
use std::rc::Rc;
use std::sync::Arc;

/// What `feed` did with the input of a connection.
pub enum Fed {
    /// As many requests as one connection may have in flight; there may be more in the input.
    More,
    /// Everything that was complete.
    All {
        /// What the rest of the input can grow to at most.
        request_bytes_max: usize,
    },
}

/// A core's front.
pub struct Front {
    core: CoreId,
    ring: Ring,
    /// Counted by this core alone: the count of an `Arc` would be written by all cores for each request.
    #[allow(clippy::redundant_allocation)]
    site: Rc<Arc<Site>>,
    /// The open connections.
    pub connections: Connections,
    /// What happened since the figures were last handed over.
    pub stats: Box<CoreStats>,
    tokens: TokenCache,
    /// What was on the board when it was looked at last, and its number.
    #[allow(clippy::redundant_allocation)]
    policy: (u64, Rc<Arc<Policy>>),
    denials: Denials,
    /// What is done to requests on purpose, as it was when some were read last, and which of them are meant.
    disturbed: Disturbed,
    turns: Turns,
    /// Taken out while a request that borrows from it is handed in.
    scratch: Option<Box<api::Scratch>>,
    writes: Writes,
    desk: Arc<LookupDesk<Asked>>,
    /// Where the audit stream is told of refused writes, if there is one.
    feed: Option<Feed>,
    clock: Clock,
    corr_next: u64,
    spans: SpanTeller,
    in_flight: usize,
    /// Connections with replies that have not been woken.
    answered: Vec<u32>,
}

impl Front {
    /// The front of one core, without connections.
    pub fn new(
        core: CoreId,
        ring: Ring,
        site: Arc<Site>,
        keyring: Arc<Keyring>,
        desk: Arc<LookupDesk<Asked>>,
        feed: Option<Feed>,
        stats: Box<CoreStats>,
    ) -> Self {
        let tokens = TokenCache::new(keyring, &site.audience, site.tokens_max)
            .with_leeway(site.clock_leeway)
            .with_revocations(site.revocations.clone());
        let policy = in_force(&site);
        let feed = feed.map(|feed| feed.under(policy.1.version()));
        Self {
            core,
            ring,
            connections: Connections::default(),
            stats,
            tokens,
            policy,
            denials: Denials::default(),
            disturbed: Disturbed::default(),
            turns: Turns::default(),
            scratch: Some(Box::default()),
            writes: Writes::default(),
            desk,
            feed,
            clock: Clock::new(),
            corr_next: u64::from(core.0) << 48,
            spans: SpanTeller::new(site.spans.clone(), site.process, core),
            in_flight: 0,
            answered: Vec::new(),
            site: Rc::new(site),
        }
    }

    /// Which core this is.
    pub fn core(&self) -> CoreId {
        self.core
    }

    /// The room of all connections for large requests.
    pub fn large_input(&self) -> Arc<Admission> {
        self.site.large_input.clone()
    }

    /// Whether writes are let through.
    pub fn gate(&self) -> Gate {
        self.site.gate.get()
    }

    /// Microseconds of the core's clock.
    pub fn now_us(&self) -> u64 {
        self.clock.now_us()
    }

    /// Milliseconds of the core's clock.
    pub fn now_ms(&self) -> u64 {
        self.clock.now_us() / 1000
    }

    /// The wall clock.
    pub fn unix_now(&self) -> UnixMs {
        self.clock.unix_now()
    }

    /// Renews what follows the wall clock.
    pub fn note_time(&mut self) {
        self.clock.note_time();
    }

    /// Requests of this core's connections that were admitted and are not answered.
    pub fn in_flight_here(&self) -> usize {
        self.in_flight
    }

    /// Counts the look-ups of tokens since the last call among the figures.
    pub fn count_lookups(&mut self) {
        let lookups = self.tokens.take_lookups();
        self.stats.tally_many(Tally::TokenCacheHit, lookups.hits);
        self.stats.tally_many(Tally::TokenCacheMiss, lookups.misses);
    }

    /// Verifies with this keyring from now on.
    pub fn change_keyring(&mut self, keyring: Arc<Keyring>) {
        self.tokens.change_keyring(keyring);
    }

    /// Verified tokens in memory.
    pub fn cached_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Hands every complete request of the input in and drops it from the input. `waiting_us` says since when they wait, if for longer than
    /// this moment.
    pub fn feed(
        &mut self,
        place: u32,
        framer: &mut http::Framer,
        input: &mut Vec<u8>,
        waiting_us: Option<u64>,
        engine: &mut Engine,
    ) -> Fed {
        let site = self.site.clone();
        let started_us = waiting_us.unwrap_or_else(|| self.clock.now_us());
        let unix_now = self.clock.unix_now();
        let mut used = 0;
        let mut taken = 0;
        let fed = loop {
            let connection = self.connections.get(place).expect("only the task that serves a connection removes it");
            if connection.closing {
                used = input.len();
                break Fed::All { request_bytes_max: 0 };
            }
            // Of what is large only one reply at a time waits to be read by a client.
            let is_full = connection.unanswered() >= site.pipeline_depth || connection.waits_for_page();
            if is_full || taken >= site.pipeline_depth {
                break Fed::More;
            }
            match framer.next(&mut input[used..], &site.http_limits) {
                Step::NeedMore { expect_continue } => {
                    connection.continue_due |= expect_continue;
                    break Fed::All { request_bytes_max: site.http_limits.request_bytes_max() };
                }
                Step::Request(request) => {
                    used += request.consumed;
                    taken += 1;
                    connection.closing |= !request.head.keep_alive();
                    self.request(place, request, started_us, unix_now, engine);
                }
                Step::Refused(fault) => {
                    connection.closing = true;
                    self.refuse_unread(place, api::fault_refusal(&fault), &input[used..], started_us);
                }
            }
        };
        self.hand_writes_in(engine);
        input.drain(..used);
        let connection = self.connections.get(place).expect("only the task that serves a connection removes it");
        connection.partial_since_ms = match (framer.is_inside_request(input.len()), used) {
            (false, _) => None,
            (true, 0) => connection.partial_since_ms.or(Some(started_us / 1000)),
            (true, _) => Some(started_us / 1000),
        };
        fed
    }

    /// Refuses a request of which a part has arrived, because there is no room for the rest; the connection closes.
    pub fn refuse_for_room(&mut self, place: u32, input: &[u8]) {
        let connection = self.connections.get(place).expect("only the task that serves a connection removes it");
        connection.closing = true;
        let refusal = Refusal::new(Code::Busy, "too many large requests are arriving at once; retry after a moment");
        let started_us = self.clock.now_us();
        self.refuse_unread(place, refusal, input, started_us);
    }

    /// Refuses what could not be read as a request.
    fn refuse_unread(&mut self, place: u32, refusal: Refusal, input: &[u8], started_us: u64) {
        let headers = api::IncomingHeaders::of_lines(input);
        let meta = Meta {
            route: Route::Unknown,
            method: api::Method::Other,
            connection: http::Connection::Closes,
            admitted: false,
            owner: None,
            corr: headers.corr.map_or_else(|| self.made_corr(), Corr::given),
            trace: headers.trace,
            started_us,
        };
        let ticket = self.expect(place, meta);
        self.refuse(ticket, refusal);
    }

    fn request(&mut self, place: u32, request: http::Request<'_>, started_us: u64, unix_now: UnixMs, engine: &mut Engine) {
        let http::Request { head, body, .. } = request;
        let mut headers = api::IncomingHeaders::default();
        for (name, value) in head.headers() {
            headers.observe(name, value);
        }
        let corr = headers.corr.map_or_else(|| self.made_corr(), Corr::given);
        let method = method_of(head.method());
        let path = head.path();
        let resolved = api::resolve(method, path);
        let (Resolved::Handler(route) | Resolved::Options(route, _) | Resolved::Refused(route, ..)) = resolved;
        let connection = http::Connection::of(head.keep_alive(), head.http_1_0());
        let trace = headers.trace;
        let mut meta = Meta { route, method, connection, admitted: false, owner: None, corr, trace, started_us };
        match resolved {
            Resolved::Refused(_, _, refusal) => {
                let ticket = self.expect(place, meta);
                return self.refuse(ticket, refusal);
            }
            Resolved::Options(_, allow) => {
                let ticket = self.expect(place, meta);
                return self.reply_with(ticket, 204, &[("Allow", allow)], |_| {});
            }
            Resolved::Handler(Route::Healthz | Route::Readyz | Route::Version) => {
                let ticket = self.expect(place, meta);
                return self.control(ticket, route);
            }
            Resolved::Handler(_) => {}
        }
        let admitted = self.site.admission.admit(route);
        meta.admitted = admitted.is_ok();
        self.in_flight += usize::from(meta.admitted);
        if let Err(busy) = admitted {
            let ticket = self.expect(place, meta);
            let refusal = Refusal::new(Code::Busy, busy);
            self.tell_unread(route.op(), unix_now, corr.as_str(), &refusal);
            return self.refuse(ticket, refusal);
        }
        let ticket = self.expect(place, meta);
        let (site, query, encoding) = (self.site.clone(), head.query(), head.encoding());
        let incoming = api::Incoming { route, path, query, headers, encoding, limits: &site.http_limits, body };
        if site.policy.epoch() != self.policy.0 {
            self.take_policy();
        }
        // One policy for all of the request; what the owner core has to know of it goes with the call.
        let policy = self.policy.1.clone();
        self.interpret(&policy, ticket, incoming, corr.as_str(), unix_now, engine);
    }

    fn interpret(
        &mut self,
        policy: &Policy,
        ticket: Ticket,
        incoming: api::Incoming<'_>,
        corr: &str,
        now: UnixMs,
        engine: &mut Engine,
    ) {
        let mut scratch = self.scratch.take().expect("put back after each request");
        let route = incoming.route;
        let called = api::interpret(incoming, &mut self.tokens, policy, now, corr, &mut scratch);
        self.tell_holder();
        let refusal = match called.and_then(|call| self.has_room(policy, route, now).map(|()| call)) {
            Ok(call) => {
                self.call(ticket, call, engine);
                None
            }
            Err(refusal) => Some(refusal),
        };
        if let Some(refusal) = refusal {
            self.tell_refused(route.op(), now, corr, &scratch, &refusal);
            let holder = self.tokens.holder().cloned();
            self.deny(ticket, refusal, holder.as_deref());
        }
        self.scratch = Some(scratch);
    }

    /// Whether the policy lets the request through that all else lets through: its quotas, and what it serves while the service is not ready.
    fn has_room(&mut self, policy: &Policy, route: Route, now: UnixMs) -> Result<(), Refusal> {
        if self.gate() != Gate::Open && route.read().is_some_and(|read| !policy.serves_degraded(read)) {
            let message = "not ready, and the policy does not serve this read meanwhile; see /readyz for what is missing";
            return Err(Refusal::new(Code::RetryLater, message));
        }
        self.storm(route)?;
        let holder = self.tokens.holder().expect("what was interpreted has come with a capability");
        self.site.quotas.take(policy, holder.subject(), now)
    }

    fn submit(&mut self, ticket: Ticket, request: Request<'_>, engine: &mut Engine) {
        let owner = self.ring.owner(request.account()).0;
        self.connections
            .get(ticket.connection)
            .and_then(|connection| connection.waiting_mut(ticket.request))
            .expect("just made")
            .owner = Some(owner);
        let gate = self.gate();
        engine.submit(ticket, request, gate, self);
    }

    fn control(&mut self, ticket: Ticket, route: Route) {
        let reply = (self.site.control_plane)(route);
        let retry_after = reply.retry_after.map(|seconds| seconds.to_string());
        let extra = retry_after.as_ref().map(|seconds| ("Retry-After", seconds.as_str()));
        let extra: Vec<(&str, &str)> = extra.into_iter().collect();
        self.reply_with(ticket, reply.status, &extra, |out| out.extend_from_slice(reply.body.as_bytes()));
    }

    /// Refuses a waiting request.
    pub fn refuse(&mut self, ticket: Ticket, refusal: Refusal) {
        let Some(meta) = self.waiting(ticket) else { return };
        if let Some(reason) = refusal.reason {
            self.stats.rejected(reason);
        }
        if let Some(scope) = refusal.quota {
            self.stats.tally(Tally::of_quota(scope));
        }
        if matches!(refusal.code, Code::NonceConflict | Code::IdempotencyConflict) {
            self.stats.conflict();
        }
        let (code, status) = (refusal.code.as_str(), refusal.status);
        if refusal.code == Code::InternalError {
            let (corr_id, route) = (meta.corr.as_str(), meta.route.as_str());
            tracing::error!(event = "failed", corr_id, route, code, status, cause = %refusal.message, "a request failed by our own fault");
        }
        let _span = meta.span().entered();
        let reason = refusal.reason.map_or("none", Reason::as_str);
        tracing::debug!(event = "refused", reason, code, status, "a request was refused");
        let mut extra: Vec<(&str, &str)> = api::reply::refusal_headers(&refusal).to_vec();
        if refusal.status == 405 {
            extra.push(("Allow", meta.route.allow()));
        }
        if refusal.status == 415 {
            extra.push(("Accept-Encoding", http::ACCEPT_ENCODING));
        }
        self.reply_with(ticket, refusal.status, &extra, |out| api::reply::refusal(out, &refusal, meta.corr.as_str()));
    }

    fn note_replay(&mut self, ticket: Ticket) {
        self.stats.replay();
        let Some(meta) = self.waiting(ticket) else { return };
        let _span = meta.span().entered();
        tracing::debug!(event = "replayed", "a repeat is answered with the first receipt");
    }

    /// The request of a ticket, if it still waits.
    fn waiting(&mut self, ticket: Ticket) -> Option<Meta> {
        let connection = self.connections.get(ticket.connection)?;
        (connection.generation() == ticket.generation).then(|| connection.waiting(ticket.request).copied())?
    }

    fn expect(&mut self, place: u32, meta: Meta) -> Ticket {
        let connection = self.connections.get(place).expect("only the task that serves a connection removes it");
        let request = connection.expect(meta);
        Ticket { core: self.core, connection: place, generation: connection.generation(), request }
    }

    /// Writes a whole reply for a waiting request; one that nobody waits for any more is dropped.
    fn reply_with(&mut self, ticket: Ticket, status: u16, extra: &[(&str, &str)], body: impl FnOnce(&mut Vec<u8>)) {
        let Some(meta) = self.waiting(ticket) else { return };
        let connection = self.connections.get(ticket.connection).expect("a request of this connection waits");
        // A drain may have begun since the request came; the last reply tells the client that no further one follows.
        let closes = connection.closing && connection.is_newest(ticket.request);
        let mut core = itoa::Buffer::new();
        let mut fields = [("", &[][..]); 6];
        fields[0] = ("X-Corr-ID", meta.corr.as_bytes());
        fields[1] = ("X-Wallet-Core", core.format(meta.owner.unwrap_or_default()).as_bytes());
        let own = if meta.owner.is_some() { 2 } else { 1 };
        let count = own + extra.len();
        fields[own..count].iter_mut().zip(extra).for_each(|(field, (name, value))| *field = (*name, value.as_bytes()));
        let head = http::ReplyHead {
            status,
            date: self.clock.date(),
            content_type: if status == 204 { "" } else { "application/json" },
            connection: if closes { http::Connection::Closes } else { meta.connection },
            to_head: meta.method == api::Method::Head,
            extra: &fields[..count],
        };
        connection.answer(ticket.request, |out| {
            if status == 204 {
                return http::write(out, &head, &[]);
            }
            let begun = http::begin(out, &head);
            body(out);
            http::finish(out, begun);
        });
        let latency_us = self.clock.now_us().saturating_sub(meta.started_us);
        self.stats.answered(RouteIndex(meta.route as u8), MethodIndex(meta.method as u8), status, latency_us);
        self.spans.answered(&meta, status, latency_us);
        if meta.admitted {
            self.site.admission.release(meta.route);
            self.in_flight -= 1;
        }
        if self.answered.last() != Some(&ticket.connection) {
            self.answered.push(ticket.connection);
        }
    }

    /// Lets the next wake-ups reach a connection that has replies to write and could not write them yet.
    pub fn wake_later(&mut self, place: u32) {
        self.answered.push(place);
    }

    /// Wakes the tasks of all connections that have replies to write.
    pub fn wake_answered(&mut self) {
        for place in self.answered.drain(..) {
            if let Some(waker) = self.connections.get(place).and_then(|connection| connection.waker.take()) {
                waker.wake();
            }
        }
    }

    /// Removes a connection whose task ends; `broken` says that the socket failed or was cut.
    pub fn close(&mut self, place: u32, broken: bool) {
        let Some(connection) = self.connections.remove(place) else { return };
        self.site.connections.release(1);
        for route in connection.admitted_waiting() {
            self.site.admission.release(route);
            self.in_flight -= 1;
        }
        let by_peer = if broken && connection.phase != Phase::Idle { Tally::ConnectionError } else { Tally::ConnectionClosed };
        self.stats.tally(connection.cut.unwrap_or(by_peer));
    }

    /// The date of replies.
    pub fn date(&self) -> &str {
        self.clock.date()
    }

    /// A new correlation id.
    pub fn made_corr(&mut self) -> Corr {
        self.corr_next += 1;
        Corr::made(self.site.process, self.corr_next)
    }
}

/// The policy in force and its number; counted, as the site is, by this core alone.
#[allow(clippy::redundant_allocation)]
fn in_force(site: &Site) -> (u64, Rc<Arc<Policy>>) {
    let (epoch, policy) = site.policy.current();
    (epoch, Rc::new(policy))
}
