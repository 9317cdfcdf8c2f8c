//! Where an interpreted request goes: to the look-ups of durable entries, or to the engine, writes together.
use super::Front;
use crate::api::Call;
use crate::engine::{Engine, Request, Ticket};

impl Front {
    /// Hands an interpreted request to who answers it.
    pub(super) fn call(&mut self, ticket: Ticket, call: Call<'_>, engine: &mut Engine) {
        match call {
            Call::Tx { id, capability } => self.ask_transaction(ticket, id, capability),
            Call::History { question, of } => self.ask_history(ticket, question, of),
            Call::SignedRoot => self.signed_root(ticket),
            Call::Entries { account, before, limit, capability } => self.ask_page(ticket, account, before, limit, capability),
            Call::Totals { asset } => self.ask_totals(ticket, asset),
            Call::Write { entry, allowance } => {
                self.stats.operation(entry.op());
                self.writes.push(ticket, &entry, allowance);
            }
            Call::Balance { account, asset } => {
                self.hand_writes_in(engine);
                self.submit(ticket, Request::Balance { account, asset }, engine);
            }
            Call::Seq { account } => {
                self.hand_writes_in(engine);
                self.submit(ticket, Request::LastNonce { account }, engine);
            }
        }
    }

    /// Hands in the writes that were read together.
    pub(super) fn hand_writes_in(&mut self, engine: &mut Engine) {
        if self.writes.waiting.is_empty() {
            return;
        }
        let mut writes = std::mem::take(&mut self.writes);
        engine.expect(writes.entries());
        for ((ticket, allowance), entry) in writes.waiting.iter().zip(writes.entries()) {
            self.submit(*ticket, Request::Write { entry, allowance: *allowance }, engine);
        }
        writes.waiting.clear();
        writes.bytes.clear();
        self.writes = writes;
    }
}
