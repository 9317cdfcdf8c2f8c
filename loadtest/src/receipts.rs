//! Finding acknowledged receipts again: `GET /v1/tx/{txid}` must give each one byte for byte as it was first sent.

use serde::Serialize;

use crate::{
    engine::{Class, Engine, Plan, Source},
    fault::Fault,
    memory::Fingerprint,
    progress::Progress,
    reply::Reply,
    requests::Requests,
    tally::{text, Tally},
};

/// What the search found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Receipts asked for.
    pub asked: u64,
    /// Those that came back byte for byte.
    pub identical: u64,
}

struct Fetch<'a> {
    requests: &'a Requests,
    wanted: &'a [Fingerprint],
    next: usize,
    found: Found,
    tally: &'a mut Tally,
}

impl Source for Fetch<'_> {
    type Ticket = usize;

    fn next(&mut self, _connection: usize, out: &mut Vec<u8>) -> Option<usize> {
        let wanted = self.wanted.get(self.next)?;
        self.requests.transaction(&wanted.txid, out);
        self.next += 1;
        Some(self.next - 1)
    }

    fn answered(&mut self, _connection: usize, index: usize, reply: &Reply<'_>) -> Class {
        let wanted = &self.wanted[index];
        if reply.status != 200 {
            self.tally.refused("an acknowledged receipt, fetched", reply);
        } else if Fingerprint::of(reply.body).as_ref() != Some(wanted) {
            let txid = String::from_utf8_lossy(&wanted.txid).into_owned();
            self.tally.trouble("an acknowledged receipt came back different", || format!("{txid}: {}", text(reply.body)));
        } else {
            self.found.identical += 1;
        }
        Class::Read
    }

    fn lost(&mut self, _connection: usize, index: usize) {
        let txid = String::from_utf8_lossy(&self.wanted[index].txid).into_owned();
        self.tally.trouble("a connection broke while receipts were fetched", || txid);
    }

    fn troubles(&self) -> u64 {
        self.tally.unexpected_count()
    }
}

/// Fetches every wanted receipt and compares it.
///
/// # Errors
/// Those of the engine. A missing or different receipt is a finding, counted in the tally.
pub fn fetch(
    engine: &mut Engine,
    requests: &Requests,
    wanted: &[Fingerprint],
    tally: &mut Tally,
    progress: &mut Progress,
) -> Result<Found, Fault> {
    let found = Found { asked: wanted.len() as u64, identical: 0 };
    let mut fetch = Fetch { requests, wanted, next: 0, found, tally };
    engine.drive(&mut fetch, &Plan::everything(), progress)?;
    Ok(fetch.found)
}
