//! The cores' slices as the auditor asks them: through their inboxes, like everybody else.
use crate::ledger::{Held, Live};
use crate::worker::{Letter, Mailbox, Order};
use crossbeam_channel::bounded;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the cores have for their answers.
const ANSWERS_WAIT_MAX: Duration = Duration::from_secs(2);

/// Every core's inbox.
pub(super) struct Slices {
    mailboxes: Vec<Mailbox>,
}

impl Slices {
    pub fn new(mailboxes: Vec<Mailbox>) -> Self {
        Self { mailboxes }
    }
}

impl Live for Slices {
    fn held(&self, accounts: &[Box<str>]) -> Option<Vec<Held>> {
        let accounts: Arc<[Box<str>]> = accounts.into();
        let (answer, answers) = bounded(self.mailboxes.len());
        for mailbox in &self.mailboxes {
            mailbox.try_put(Letter::Order(Order::Held(Arc::clone(&accounts), answer.clone()))).ok()?;
            mailbox.ring();
        }
        drop(answer);
        let deadline = Instant::now() + ANSWERS_WAIT_MAX;
        let mut held: Vec<Option<Held>> = vec![None; accounts.len()];
        for _ in &self.mailboxes {
            for (place, state) in answers.recv_deadline(deadline).ok()? {
                held[place] = Some(state);
            }
        }
        held.into_iter().collect()
    }
}
