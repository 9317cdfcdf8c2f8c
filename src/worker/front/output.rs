//! What a core's engine puts out, as replies to those who wait for it.
use super::Front;
use crate::api;
use crate::domain::{Entry, Refusal};
use crate::engine::{Outcome, Output, Repeat, Ticket};
use crate::telemetry::feed::Refused;
use crate::telemetry::Tally;
use crate::worker::mailbox::Asked;

impl Output for Front {
    fn reply(&mut self, ticket: Ticket, outcome: Outcome<'_>) {
        let log_id = self.site.log_id;
        match outcome {
            Outcome::Refused(refusal) => self.refuse(ticket, refusal),
            Outcome::Receipt { entry, seq, root, replayed } => {
                if replayed {
                    self.note_replay(ticket);
                }
                let extra: &[(&str, &str)] = if replayed { &[("Idempotency-Replayed", "true")] } else { &[] };
                self.reply_with(ticket, 200, extra, |out| api::reply::receipt(out, log_id, &entry, seq, &root));
            }
            Outcome::Balance { account, asset, balance } => {
                let now = self.clock.unix_now();
                self.reply_with(ticket, 200, &[], |out| api::reply::balance(out, account, asset, &balance, now));
            }
            Outcome::LastNonce { account, last } => {
                let now = self.clock.unix_now();
                self.reply_with(ticket, 200, &[], |out| api::reply::last_nonce(out, account, last, now));
            }
        }
    }

    fn refused(&mut self, entry: &Entry<'_>, refusal: &Refusal) {
        if let Some(feed) = &self.feed {
            feed.refused(Refused::entry(entry, refusal));
        }
    }

    fn ask(&mut self, repeat: Repeat) -> Result<(), Repeat> {
        self.stats.tally(Tally::LedgerQuestion);
        let question = repeat.question.clone();
        let asked = Asked::Repeat { asker: self.core, repeat };
        self.desk.ask(question, asked).map_err(|asked| match asked {
            Asked::Repeat { repeat, .. } => repeat,
            Asked::Transaction { .. } | Asked::Page { .. } | Asked::History { .. } | Asked::Totals { .. } => {
                unreachable!("the desk gives back what it was given")
            }
        })
    }
}
