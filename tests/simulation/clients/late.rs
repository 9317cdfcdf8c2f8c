//! Clients of a wallet that was paused and replaced: what they still ask it, and what it still answers.
use super::Clients;
use crate::core::Answer;
use crate::rng::Rng;
use crate::world::World;
use svc_wallet::engine::Ticket;

impl Clients {
    /// The wallet that the clients talked to does not answer for now, and is replaced.
    pub fn set_aside(&mut self) {
        let writes = std::mem::take(&mut self.writes);
        writes.values().for_each(|write| self.wishes[write.wish].answered = false);
        self.late.extend(writes);
        self.reads.clear();
    }

    /// Some client sends its request to a wallet that was replaced.
    pub fn ask_replaced(&mut self, world: &mut World, rng: &mut Rng) {
        if !self.wishes.is_empty() {
            let index = rng.below(self.wishes.len() as u64) as usize;
            self.send(world, index, rng);
            let write = self.writes.remove_entry(&self.ticket_next);
            self.late.extend(write);
        }
    }

    /// Answers of a wallet that was replaced. Whatever it refuses is of the past; what it has a receipt for is not.
    pub fn take_late(&mut self, replies: Vec<(Ticket, Answer)>, world: &mut World) {
        for (ticket, answer) in replies {
            let moment = self.moment();
            let Some(write) = self.late.remove(&ticket.request) else { continue };
            if matches!(answer, Answer::Receipt { .. }) {
                world.coverage.count("wallet: receipt after it was replaced");
                self.take_answer(&write, answer, moment, world);
            }
        }
    }
}
