//! What a core's front tells the audit stream: which writes it has refused, and whose the tokens are. It waits for nobody.
use super::{in_force, Front};
use crate::api::Scratch;
use crate::domain::{Op, Refusal, UnixMs};
use crate::engine::Ticket;
use crate::telemetry::feed::{Holder, Refused};

impl Front {
    /// Takes the policy that is in force now, under which refusals are told from here on.
    pub(super) fn take_policy(&mut self) {
        self.policy = in_force(&self.site);
        let version = self.policy.1.version();
        self.feed = self.feed.take().map(|feed| feed.under(version));
    }

    /// Tells whose the token is that was verified in full for this request, if one was; if the stream has no room, when it comes again.
    pub(super) fn tell_holder(&mut self) {
        let (Some(fresh), Some(feed)) = (self.tokens.take_fresh(), &mut self.feed) else { return };
        let holder = || Holder { token: fresh.token(), subject: fresh.subject().into(), key_id: fresh.key_id().into() };
        if !feed.holder(fresh.token(), holder) {
            self.tokens.tell_again();
        }
    }

    /// Tells of a write that was refused before its body was read.
    pub(super) fn tell_unread(&self, op: Option<Op>, now: UnixMs, corr: &str, refusal: &Refusal) {
        if let (Some(feed), Some(op)) = (&self.feed, op) {
            feed.refused(Refused::unread(op, now, corr, refusal));
        }
    }

    /// Tells of a write that was refused while it was interpreted, and whose its token is, if the signature was right.
    pub(super) fn tell_refused(&self, op: Option<Op>, now: UnixMs, corr: &str, asked: &Scratch, why: &Refusal) {
        let (Some(feed), Some(op)) = (&self.feed, op) else { return };
        let refused = match asked.asked() {
            Some(entry) => Refused::entry(&entry, why),
            None => Refused::unread(op, now, corr, why),
        };
        let holder = self.tokens.holder().map(|known| (known.token(), known.subject().into()));
        feed.refused(Refused { holder, ..refused });
    }

    /// Answers a request that was not confirmed in time. If it is a write, its entry may still become durable.
    pub fn give_up(&mut self, ticket: Ticket, refusal: Refusal) {
        let write = self.waiting(ticket).and_then(|meta| Some((meta.route.op()?, meta.corr)));
        if let (Some(feed), Some((op, corr))) = (&self.feed, write) {
            let unread = Refused::unread(op, self.clock.unix_now(), corr.as_str(), &refusal);
            feed.refused(Refused { unknown: true, ..unread });
        }
        self.refuse(ticket, refusal);
    }
}
