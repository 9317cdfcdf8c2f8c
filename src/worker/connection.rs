//! The state of one connection: ordered places for replies, bytes ready to be written, and since when it does what it does.
//!
//! Requests of a connection are answered in any order and written in theirs. This file knows no socket; the task that
//! serves the connection owns it.
use crate::api::{Method, Route, TraceContext};
use crate::http;
use crate::telemetry::Tally;
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::task::Waker;

/// What a connection is doing, for the sweep that cuts those that take too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing has arrived since the last reply.
    Idle,
    /// A part of a request has arrived.
    Reading,
    /// Requests are being answered.
    Answering,
    /// A reply is being written.
    Writing,
    /// The last reply is written; what the client still sends is thrown away, so that it can read the reply.
    Lingering,
}

/// A correlation id, at most 64 bytes.
#[derive(Clone, Copy)]
pub struct Corr {
    length: u8,
    bytes: [u8; crate::domain::limits::CORR_BYTES_MAX],
}

impl Corr {
    /// Takes a client's id that [`crate::api::correlation`] has let through.
    pub fn given(text: &str) -> Self {
        debug_assert_eq!(crate::api::correlation(text.as_bytes()), Some(text));
        Self::copy(text.as_bytes())
    }

    /// Makes an id of a random number of the process and a running number.
    pub fn made(process: u64, number: u64) -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0u8; 24];
        let bits = u128::from(process as u32) << 64 | u128::from(number);
        for (index, place) in text.iter_mut().enumerate() {
            *place = HEX[(bits >> (4 * (23 - index)) & 15) as usize];
        }
        Self::copy(&text)
    }

    fn copy(text: &[u8]) -> Self {
        let mut bytes = [0u8; crate::domain::limits::CORR_BYTES_MAX];
        bytes[..text.len()].copy_from_slice(text);
        Self { length: text.len() as u8, bytes }
    }

    /// The id as bytes of visible ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("only ASCII is kept")
    }
}

/// What has to be remembered of a request until it is answered.
#[derive(Clone, Copy)]
pub struct Meta {
    /// The route, for metrics.
    pub route: Route,
    /// The method, for metrics and because a HEAD gets no body.
    pub method: Method,
    /// What becomes of the connection after the reply.
    pub connection: http::Connection,
    /// Whether the request counts against the inflight ceiling.
    pub admitted: bool,
    /// The core that owns the account asked about, once the request was handed to it.
    pub owner: Option<u16>,
    /// The correlation id.
    pub corr: Corr,
    /// The trace that it belongs to.
    pub trace: Option<TraceContext>,
    /// When the request was complete, in microseconds of the core's clock.
    pub started_us: u64,
}

impl Meta {
    /// The span of what is logged about the request, under the names by which gateways and SDKs know it.
    pub fn span(&self) -> tracing::Span {
        tracing::debug_span!(
            "request",
            corr_id = self.corr.as_str(),
            trace_id = self.trace.map(tracing::field::display),
            route = self.route.as_str()
        )
    }
}

/// The place of one reply.
struct Place {
    meta: Meta,
    /// The whole reply, once it is there and earlier ones are not.
    ready: Option<Vec<u8>>,
    answered: bool,
}

/// One connection.
pub struct Connection {
    generation: u32,
    /// Number of the request whose reply comes next.
    first: u64,
    places: VecDeque<Place>,
    unanswered: usize,
    /// Replies that can be written.
    pub out: Vec<u8>,
    /// Wakes the task that serves the connection.
    pub waker: Option<Waker>,
    /// What it is doing.
    pub phase: Phase,
    /// Since when, in milliseconds of the core's clock.
    pub since_ms: u64,
    /// When the first bytes of a request that is not complete arrived, in milliseconds of the core's clock.
    pub partial_since_ms: Option<u64>,
    /// Whether it is to be closed after what is in flight.
    pub closing: bool,
    /// Whether the client waits for leave to send a body, which it gets when earlier requests are answered.
    pub continue_due: bool,
    /// Why the sweep cut it, if it did.
    pub cut: Option<Tally>,
    /// The socket, owned by the task that serves the connection; open for as long as the connection is in the table.
    pub socket: RawFd,
}

impl Connection {
    /// A connection that has just been accepted.
    pub fn new(generation: u32, socket: RawFd, now_ms: u64) -> Self {
        Self {
            generation,
            first: 0,
            places: VecDeque::new(),
            unanswered: 0,
            out: Vec::new(),
            waker: None,
            phase: Phase::Idle,
            since_ms: now_ms,
            partial_since_ms: None,
            closing: false,
            continue_due: false,
            cut: None,
            socket,
        }
    }

    /// Which connection of its place in the table it is.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Requests that have no reply yet.
    pub fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Whether the newest request is for a page of entries, which may have a hundred kilobytes, and has no reply yet.
    pub fn waits_for_page(&self) -> bool {
        self.places.back().is_some_and(|place| !place.answered && place.meta.route == Route::Entries)
    }

    /// Makes the place for a request's reply and returns its number.
    pub fn expect(&mut self, meta: Meta) -> u64 {
        self.places.push_back(Place { meta, ready: None, answered: false });
        self.unanswered += 1;
        self.first + self.places.len() as u64 - 1
    }

    /// The request of this number, if it waits for its reply.
    pub fn waiting(&self, number: u64) -> Option<&Meta> {
        let place = self.places.get(usize::try_from(number.checked_sub(self.first)?).ok()?)?;
        (!place.answered).then_some(&place.meta)
    }

    /// Answers a waiting request: `write` appends the whole reply.
    ///
    /// # Panics
    /// If no such request waits; ask [`Connection::waiting`] first.
    pub fn answer(&mut self, number: u64, write: impl FnOnce(&mut Vec<u8>)) {
        let index = (number - self.first) as usize;
        let place = &mut self.places[index];
        assert!(!place.answered);
        place.answered = true;
        self.unanswered -= 1;
        if index > 0 {
            let mut bytes = Vec::with_capacity(640);
            write(&mut bytes);
            place.ready = Some(bytes);
            return;
        }
        write(&mut self.out);
        self.places.pop_front();
        self.first += 1;
        while self.places.front().is_some_and(|place| place.answered) {
            let place = self.places.pop_front().expect("the front was just looked at");
            self.out.extend_from_slice(&place.ready.expect("an answered place that is not the first holds its reply"));
            self.first += 1;
        }
    }

    /// Whether no request has come after this one.
    pub fn is_newest(&self, number: u64) -> bool {
        number + 1 == self.first + self.places.len() as u64
    }

    /// As [`Connection::waiting`], to note what became known of the request.
    pub fn waiting_mut(&mut self, number: u64) -> Option<&mut Meta> {
        let place = self.places.get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)?;
        (!place.answered).then_some(&mut place.meta)
    }

    /// Numbers of the waiting requests that `is_late` says are.
    pub fn overdue<'a>(&'a self, is_late: impl Fn(&Meta) -> bool + 'a) -> impl Iterator<Item = u64> + 'a {
        let late = move |place: &Place| !place.answered && is_late(&place.meta);
        self.places.iter().enumerate().filter(move |(_, place)| late(place)).map(|(index, _)| self.first + index as u64)
    }

    /// How many admitted requests wait, for a connection that ends with some unanswered.
    pub fn admitted_waiting(&self) -> impl Iterator<Item = Route> + '_ {
        self.places.iter().filter(|place| !place.answered && place.meta.admitted).map(|place| place.meta.route)
    }

    /// Waits for input: the rest of a request that has begun, or the next one.
    pub fn enter_reading(&mut self, now_ms: u64) {
        if matches!(self.phase, Phase::Answering | Phase::Writing) {
            // Nothing was read meanwhile, which is not the client's fault: its time begins now.
            self.partial_since_ms = self.partial_since_ms.map(|_| now_ms);
        }
        match self.partial_since_ms {
            Some(since_ms) => (self.phase, self.since_ms) = (Phase::Reading, since_ms),
            None => (self.phase, self.since_ms) = (Phase::Idle, now_ms),
        }
    }

    /// Changes the phase, and the time since when if it is another one.
    pub fn enter(&mut self, phase: Phase, now_ms: u64) {
        if self.phase != phase {
            self.phase = phase;
            self.since_ms = now_ms;
        }
    }
}

/// All connections of a core; places are used again, generations tell connections of one place apart.
#[derive(Default)]
pub struct Connections {
    places: Vec<Option<Connection>>,
    free: Vec<u32>,
    generation: u32,
    open: usize,
}

impl Connections {
    /// How many are open.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Adds a connection and returns its place.
    pub fn insert(&mut self, socket: RawFd, now_ms: u64) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        let connection = Connection::new(self.generation, socket, now_ms);
        self.open += 1;
        match self.free.pop() {
            Some(place) => {
                self.places[place as usize] = Some(connection);
                place
            }
            None => {
                self.places.push(Some(connection));
                (self.places.len() - 1) as u32
            }
        }
    }

    /// The connection at a place, if one is there.
    pub fn get(&mut self, place: u32) -> Option<&mut Connection> {
        self.places.get_mut(place as usize)?.as_mut()
    }

    /// Removes a connection.
    pub fn remove(&mut self, place: u32) -> Option<Connection> {
        let removed = self.places.get_mut(place as usize)?.take()?;
        self.free.push(place);
        self.open -= 1;
        Some(removed)
    }

    /// All open connections with their places.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Connection)> {
        self.places.iter_mut().enumerate().filter_map(|(place, connection)| Some((place as u32, connection.as_mut()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(started_us: u64) -> Meta {
        Meta {
            route: Route::Unknown,
            method: Method::Get,
            connection: http::Connection::Stays,
            admitted: true,
            owner: None,
            corr: Corr::made(1, 2),
            trace: None,
            started_us,
        }
    }

    #[test]
    fn replies_leave_in_the_order_of_their_requests() {
        let mut connection = Connection::new(1, 0, 0);
        let numbers: Vec<u64> = (0..4).map(|n| connection.expect(meta(n))).collect();
        for (index, letter) in [(2, b"c"), (1, b"b"), (0, b"a"), (3, b"d")] {
            connection.answer(numbers[index], |out| out.extend_from_slice(letter));
        }
        assert_eq!(connection.out, b"abcd");
        assert_eq!(connection.unanswered(), 0);
        assert!(connection.waiting(numbers[2]).is_none(), "a second answer finds nobody");
    }

    #[test]
    fn overdue_requests_are_found_wherever_they_stand() {
        let mut connection = Connection::new(1, 0, 0);
        let numbers: Vec<u64> = (0..3).map(|n| connection.expect(meta(n * 10))).collect();
        connection.answer(numbers[1], |out| out.push(b'x'));
        assert_eq!(connection.overdue(|meta| meta.started_us <= 20).collect::<Vec<_>>(), [numbers[0], numbers[2]]);
        assert_eq!(connection.admitted_waiting().count(), 2);
        assert_eq!([0, 1, 2].map(|index| connection.is_newest(numbers[index])), [false, false, true]);
    }

    #[test]
    fn the_time_to_send_a_request_does_not_run_while_earlier_ones_are_answered() {
        let mut connection = Connection::new(1, 0, 0);
        connection.partial_since_ms = Some(100);
        connection.enter_reading(150);
        assert_eq!((connection.phase, connection.since_ms), (Phase::Reading, 100), "a slow sender gains nothing by dribbling");
        connection.enter(Phase::Answering, 160);
        connection.enter_reading(9_000);
        assert_eq!((connection.phase, connection.since_ms), (Phase::Reading, 9_000));
        connection.enter_reading(9_500);
        assert_eq!((connection.phase, connection.since_ms), (Phase::Reading, 9_000));
    }

    #[test]
    fn a_place_that_is_used_again_has_another_generation() {
        let mut connections = Connections::default();
        let place = connections.insert(0, 0);
        let first = connections.get(place).unwrap().generation();
        connections.remove(place);
        assert_eq!(connections.insert(0, 0), place);
        assert_ne!(connections.get(place).unwrap().generation(), first);
    }

    #[test]
    fn correlation_ids_are_echoed_or_made_anew() {
        assert_eq!(Corr::given("abc-1").as_str(), "abc-1");
        assert_ne!(Corr::made(1, 2).as_str(), Corr::made(1, 3).as_str());
    }
}
