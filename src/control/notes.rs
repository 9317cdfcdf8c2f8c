//! Where everything that is done to the service is noted: in the audit stream, if there is one, for as long as there is.
//!
//! Invariants: what is done before the stream is open waits for it; nobody who notes something waits. Whoever asked on the admin socket
//! stands in the event with the user that the kernel tells.
use super::auditing::Auditing;
use super::page::ActionFault;
use crate::audit::{Event, EVENTS_MAX};
use crate::domain::Code;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Leads to the stream; clones lead to the same one.
#[derive(Clone)]
pub(super) struct Notes(Arc<Mutex<Place>>);

enum Place {
    /// There is no stream yet: what has been noted meanwhile.
    Ahead(Vec<Event>),
    /// It is there, until the service ends.
    Open(Weak<Auditing>),
    /// There is none.
    None,
}

impl Default for Notes {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Place::Ahead(Vec::new()))))
    }
}

impl Notes {
    /// From now on the stream is there, or it is known that there is none.
    pub fn open(&self, stream: Option<&Arc<Auditing>>) {
        let place = stream.map_or(Place::None, |stream| Place::Open(Arc::downgrade(stream)));
        let ahead = std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), place);
        if let (Place::Ahead(events), Some(stream)) = (ahead, stream) {
            events.into_iter().for_each(|event| stream.note(event));
        }
    }

    /// From now on there is none any more.
    pub fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Place::None;
    }

    /// Whether that has been said.
    fn is_open(&self) -> bool {
        !matches!(&*self.0.lock().unwrap_or_else(PoisonError::into_inner), Place::Ahead(_))
    }

    /// Nothing is done to a service that is starting.
    ///
    /// # Errors
    /// If it is, for whoever asked.
    pub fn when_open(&self) -> Result<(), ActionFault> {
        let message = || "the service is starting; try again".to_owned();
        self.is_open().then_some(()).ok_or_else(|| ActionFault { status: 503, code: Code::RetryLater, message: message() })
    }

    /// Tells the stream. What does not fit before it is open is left out; the log has it.
    pub fn note(&self, event: Event) {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Place::Ahead(events) if events.len() < EVENTS_MAX => events.push(event),
            Place::Open(stream) => stream.upgrade().into_iter().for_each(|stream| stream.note(event.clone())),
            Place::Ahead(_) | Place::None => {}
        }
    }
}

/// Says in an event who asked, if it was asked for on the admin socket.
pub(super) fn asked_by(event: Event, uid: Option<u32>) -> Event {
    match uid {
        Some(uid) => event.with("uid", uid.to_string()),
        None => event,
    }
}
