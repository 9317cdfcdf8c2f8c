//! Reads of durable entries: they are asked of the ledger's desk and answered when it has answered; no owner core is involved.
use super::Front;
use crate::access::Capability;
use crate::api;
use crate::domain::{
    Account, Asset, Code, Entry, Found, HistoryAnswer, HistoryQuestion, Page, PageQuestion, Question, Refusal, Seq, Totals, TxId,
    Untold,
};
use crate::engine::{Outcome, Output, Ticket};
use crate::telemetry::Tally;
use crate::worker::mailbox::Asked;
use std::sync::Arc;

impl Front {
    pub(super) fn ask_transaction(&mut self, ticket: Ticket, id: TxId, capability: Arc<Capability>) {
        self.stats.tally(Tally::LedgerQuestion);
        if self.desk.ask(Question::At(id.seq), Asked::Transaction { ticket, id, capability }).is_err() {
            self.refuse(ticket, Refusal::new(Code::Busy, "too many transactions are being looked up in the ledger; retry"));
        }
    }

    /// Answers a question about a transaction with what the ledger found.
    pub fn transaction(&mut self, ticket: Ticket, id: TxId, capability: &Capability, found: Option<Found>) {
        let not_found = || Refusal::new(Code::NotFound, "no such transaction");
        let Some(found) = found else { return self.refuse(ticket, not_found()) };
        let entry = Entry::parse_own(&found.entry).0;
        if TxId::new(self.site.log_id, found.seq, &entry) != id {
            return self.refuse(ticket, not_found());
        }
        match api::may_read(capability, &entry) {
            Err(refusal) => self.deny(ticket, refusal, Some(capability)),
            Ok(()) => self.reply(ticket, Outcome::Receipt { entry, seq: found.seq, root: found.root, replayed: false }),
        }
    }

    /// Refuses what was asked with this capability, and logs it if the capability is the cause.
    pub(super) fn deny(&mut self, ticket: Ticket, refusal: Refusal, holder: Option<&Capability>) {
        if let Some(meta) = self.waiting(ticket) {
            let now_ms = self.now_ms();
            let policy_version = self.policy.1.version();
            self.denials.log(now_ms, &meta, &refusal, holder, policy_version);
        }
        self.refuse(ticket, refusal);
    }

    pub(super) fn ask_page(
        &mut self,
        ticket: Ticket,
        account: Account<'_>,
        before: Option<Seq>,
        limit: usize,
        capability: Arc<Capability>,
    ) {
        self.stats.tally(Tally::LedgerQuestion);
        let account: Box<str> = account.as_str().into();
        let question = PageQuestion { account: account.clone(), before, limit };
        if self.desk.ask_page(question, Asked::Page { ticket, account, capability }).is_err() {
            self.refuse(ticket, Refusal::new(Code::Busy, "too many questions to the ledger are waiting; retry"));
        }
    }

    /// Answers a question about the entries of an account with what the ledger found. What the capability does not cover is left out.
    pub fn page(&mut self, ticket: Ticket, account: &str, capability: &Capability, page: &Page) {
        let log_id = self.site.log_id;
        let receipts = page.entries.iter().map(|found| (Entry::parse_own(&found.entry).0, found.seq, &found.root));
        let shown = receipts.filter(|(entry, ..)| api::may_read(capability, entry).is_ok());
        self.reply_with(ticket, 200, &[], |out| api::reply::entries(out, log_id, account, shown, page.before));
    }

    pub(super) fn ask_history(&mut self, ticket: Ticket, question: HistoryQuestion, of: Option<(TxId, Arc<Capability>)>) {
        self.stats.tally(Tally::LedgerQuestion);
        let (question, chosen) = self.under_signed_root(question);
        if self.desk.ask_history(question, Asked::History { ticket, of, chosen }).is_err() {
            self.refuse(ticket, Refusal::new(Code::Busy, "too many questions to the ledger are waiting; retry"));
        }
    }

    /// Whoever names no root gets the proof under the oldest signed one that covers the entry, if there is one.
    fn under_signed_root(&self, question: HistoryQuestion) -> (HistoryQuestion, bool) {
        let HistoryQuestion::Proof { seq, size: None } = question else { return (question, false) };
        match self.site.roots.covering(seq) {
            Some(signed) => (HistoryQuestion::Proof { seq, size: Some(signed.root.size) }, true),
            None => (question, false),
        }
    }

    /// Answers a question about the history, as far as the asker may see the transaction that it is about.
    pub fn history(&mut self, ticket: Ticket, of: Option<(TxId, Arc<Capability>)>, chosen: bool, answer: &HistoryAnswer) {
        let of = of.as_ref().map(|(id, capability)| (*id, &**capability));
        let unproven;
        let answer = match answer {
            HistoryAnswer::Proof(found, Err(why)) if chosen => {
                unproven = HistoryAnswer::Proof(found.clone(), Err(why.of_chosen_root()));
                &unproven
            }
            answer => answer,
        };
        match api::proof::history(self.site.log_id, of, answer, &self.site.roots) {
            Err(refusal) => self.deny(ticket, refusal, of.map(|(_, capability)| capability)),
            Ok(body) => self.reply_with(ticket, 200, &[], |out| out.extend_from_slice(&body)),
        }
    }

    /// Answers with the newest signed root.
    pub(super) fn signed_root(&mut self, ticket: Ticket) {
        match api::proof::newest_signed(self.site.log_id, &self.site.roots) {
            Err(refusal) => self.refuse(ticket, refusal),
            Ok(body) => self.reply_with(ticket, 200, &[], |out| out.extend_from_slice(&body)),
        }
    }

    pub(super) fn ask_totals(&mut self, ticket: Ticket, asset: Asset<'_>) {
        self.stats.tally(Tally::LedgerQuestion);
        let asset: Box<str> = asset.as_str().into();
        if self.desk.ask_totals(asset.clone(), Asked::Totals { ticket, asset }).is_err() {
            self.refuse(ticket, Refusal::new(Code::Busy, "too many questions to the ledger are waiting; retry"));
        }
    }

    /// Answers a question about an asset with what the audit says.
    pub fn totals(&mut self, ticket: Ticket, asset: &str, totals: Result<Totals, Untold>) {
        match totals {
            Ok(totals) => self.reply_with(ticket, 200, &[], |out| api::reply::totals(out, asset, &totals)),
            Err(Untold::NotYet) => {
                self.refuse(ticket, Refusal::new(Code::RetryLater, "the audit has not read the ledger yet; retry in a moment"));
            }
            Err(Untold::Broken) => {
                let told = "the audit has failed, so no sum of this ledger can be trusted; nothing is written until the operator has acted";
                self.refuse(ticket, Refusal::new(Code::UpstreamUnavailable, told));
            }
        }
    }
}
