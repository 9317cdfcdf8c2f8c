//! The writing connection of a wallet without I/O, over as many connections as it takes. Pure.
//!
//! Invariants: batches of a lane are sent in their order, and are kept until they are acknowledged; after a lost connection the
//! daemon is asked what is durable, of that only the places are asked for, and the rest is sent again. So each batch is in the
//! ledger once and is acknowledged here once, whatever was lost on the way.
use crate::domain::{Durable, LaneBatch, LogId, Root, Seq};
use crate::ledger::engine::Tenure;
use crate::ledger::protocol::{
    Acknowledged, Fault, Frames, Malformed, Refused, Reply, Request, Role, Tenant, IN_DOUBT_BATCHES_MAX, REPLY_BODY_BYTES_MAX,
};
use std::collections::VecDeque;

/// What the daemon has said.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// This wallet may write: for the first time, or again.
    Granted(Tenure),
    /// A batch is durable.
    Durable(Durable),
    /// A commit of so many entries took so long, in microseconds.
    Commit {
        /// Its duration.
        commit_us: u32,
        /// Its entries.
        entries: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// How the ledger is.
    State {
        /// The last durable entry.
        head: Seq,
        /// Whether it takes entries.
        writable: bool,
        /// Whether it has no room for its next segment.
        scarce: bool,
        /// Attempts to get it room that failed.
        failed_allocations: u64,
    },
    /// The connection ends.
    Fault(Fault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Down,
    Greeting,
    Asking,
    Up,
}

#[derive(Default)]
struct Lane {
    /// Batches that are not acknowledged, the oldest first.
    in_doubt: VecDeque<LaneBatch>,
    /// How many of them have been sent on this connection.
    sent: usize,
    /// Number of the last entry that was acknowledged.
    acknowledged: u64,
}

/// The link.
pub struct Link {
    lanes: Vec<Lane>,
    keys_ttl_ms: u64,
    stage: Stage,
    log_id: Option<LogId>,
    /// The first entry that can be read of it.
    first: Seq,
    /// Its epoch, once it was granted one.
    epoch: Option<u64>,
    /// The newest entry that it knows to be durable, and the chain hash after its batch.
    known: (Seq, Root),
    /// Nothing that is in doubt is up to this entry.
    settled: Seq,
    frames: Frames,
    output: Vec<u8>,
    heard: VecDeque<Heard>,
}

impl Link {
    /// For so many lanes, without a connection. The daemon is told how long keys are remembered, in milliseconds.
    pub fn new(lanes: u16, keys_ttl_ms: u64) -> Self {
        Self {
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            keys_ttl_ms,
            stage: Stage::Down,
            log_id: None,
            first: Seq(1),
            epoch: None,
            known: (Seq(0), [0; 32]),
            settled: Seq(0),
            frames: Frames::new(REPLY_BODY_BYTES_MAX),
            output: Vec::new(),
            heard: VecDeque::new(),
        }
    }

    /// A new connection is there.
    pub fn connected(&mut self) {
        self.disconnected();
        self.stage = Stage::Greeting;
        Request::Hello(Role::Writer { lanes: self.lanes.len() as u16, keys_ttl_ms: self.keys_ttl_ms }).encode(&mut self.output);
    }

    /// The connection is gone; what it had brought only in part is forgotten.
    pub fn disconnected(&mut self) {
        self.stage = Stage::Down;
        self.frames = Frames::new(REPLY_BODY_BYTES_MAX);
        self.output.clear();
        self.lanes.iter_mut().for_each(|lane| lane.sent = 0);
    }

    /// The identity of the log, once the daemon has told it.
    pub fn log_id(&self) -> Option<LogId> {
        self.log_id
    }

    /// The first entry that can be read, as the daemon has told.
    pub fn first(&self) -> Seq {
        self.first
    }

    /// Its epoch, once it was granted one.
    pub fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    /// Whether a refusal says that another wallet has the ledger. In the own epoch it was an older connection of this wallet, whose
    /// request came late: then it is to connect again.
    pub fn is_replaced(&self, fault: &Fault) -> bool {
        fault.refused == Refused::Fenced && self.epoch != Some(fault.epoch)
    }

    /// Whether batches are being sent.
    pub fn is_up(&self) -> bool {
        self.stage == Stage::Up
    }

    /// Whether another batch of this lane can be taken.
    pub fn has_room(&self, lane: u16) -> bool {
        self.lanes[usize::from(lane)].in_doubt.len() < IN_DOUBT_BATCHES_MAX
    }

    /// How many batches are not acknowledged.
    pub fn in_doubt(&self) -> usize {
        self.lanes.iter().map(|lane| lane.in_doubt.len()).sum()
    }

    /// Takes the next batch of a lane; it is sent at once or after the next connection.
    pub fn push(&mut self, batch: LaneBatch) {
        let number = batch.lane;
        assert!(self.has_room(number), "lane {number} has too many batches in doubt");
        let lane = &mut self.lanes[usize::from(number)];
        if self.stage == Stage::Up {
            assert_eq!(lane.sent, lane.in_doubt.len(), "what came before was sent");
            send(&batch, &mut self.output);
            lane.sent += 1;
        }
        lane.in_doubt.push_back(batch);
    }

    /// Says that this wallet is alive.
    pub fn beat(&mut self) {
        if self.stage == Stage::Up {
            Request::Heartbeat.encode(&mut self.output);
        }
    }

    /// Where bytes that arrive are put.
    pub fn input(&mut self) -> &mut Frames {
        &mut self.frames
    }

    /// What is to be sent; to be emptied by the caller.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// The next thing that the daemon has said.
    ///
    /// # Errors
    /// If it is not of the protocol: the connection is of no more use.
    // No iterator: after an error there is nothing more.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Heard>, Malformed> {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return Ok(Some(heard));
            }
            let Some((kind, body)) = self.frames.take()? else { return Ok(None) };
            match (self.stage, Reply::decode(kind, body)?) {
                (_, Reply::Fault(fault)) => self.heard.push_back(Heard::Fault(fault)),
                (Stage::Greeting, Reply::Welcome { log_id, first, .. }) => {
                    self.first = first;
                    self.ask(log_id);
                }
                (Stage::Asking, Reply::Granted { epoch, head, root, through }) => {
                    self.granted(Tenure { epoch, head, root }, &through)?
                }
                (Stage::Up, Reply::Durable { commit_us, batches }) => self.durable(commit_us, &batches)?,
                (Stage::Up, Reply::State { head, writable, scarce, failed_allocations }) => {
                    self.heard.push_back(Heard::State { head, writable, scarce, failed_allocations });
                }
                (Stage::Down | Stage::Greeting | Stage::Asking | Stage::Up, _) => {
                    return Err(Malformed(format!("the daemon has sent a frame of kind {kind} that does not belong here")));
                }
            }
        }
    }

    fn ask(&mut self, log_id: LogId) {
        self.stage = Stage::Asking;
        match self.epoch {
            Some(epoch) => {
                let (head, root) = self.known;
                // The log that was read, so that the daemon notices if it has another one.
                let log_id = self.log_id.expect("known since the first connection");
                let acknowledged = self.lanes.iter().map(|lane| lane.acknowledged).collect();
                let tenant = Tenant { log_id, epoch, head, root, settled: self.settled, acknowledged };
                Request::Resume(tenant).encode(&mut self.output);
            }
            None => {
                self.log_id = Some(log_id);
                Request::Acquire.encode(&mut self.output);
            }
        }
    }

    fn granted(&mut self, tenure: Tenure, through: &[u64]) -> Result<(), Malformed> {
        if through.len() != self.lanes.len() {
            return Err(Malformed(format!("the daemon knows {} lanes, this wallet has {}", through.len(), self.lanes.len())));
        }
        match self.epoch {
            Some(epoch) if epoch != tenure.epoch => {
                return Err(Malformed(format!("the daemon grants epoch {} to the wallet of epoch {epoch}", tenure.epoch)));
            }
            Some(_) => {}
            None => (self.known, self.settled) = ((tenure.head, tenure.root), tenure.head),
        }
        self.epoch = Some(tenure.epoch);
        self.stage = Stage::Up;
        // All places first: when the first commit of this connection is told, nothing before it is in doubt any more.
        let is_durable = |batch: &LaneBatch, through| batch.lane_first + u64::from(batch.count) - 1 <= through;
        for (lane, through) in self.lanes.iter().zip(through) {
            for batch in lane.in_doubt.iter().filter(|batch| is_durable(batch, *through)) {
                let LaneBatch { lane, lane_first, count, .. } = *batch;
                Request::Place { lane, lane_first, count }.encode(&mut self.output);
            }
        }
        for (lane, through) in self.lanes.iter_mut().zip(through) {
            lane.in_doubt.iter().filter(|batch| !is_durable(batch, *through)).for_each(|batch| send(batch, &mut self.output));
            lane.sent = lane.in_doubt.len();
        }
        self.heard.push_back(Heard::Granted(tenure));
        Ok(())
    }

    fn durable(&mut self, commit_us: u32, batches: &[Acknowledged]) -> Result<(), Malformed> {
        let (mut entries, mut bytes) = (0, 0);
        for told in batches {
            let lane = self.lanes.get_mut(usize::from(told.lane));
            let lane = lane.ok_or_else(|| Malformed(format!("the daemon acknowledges lane {}", told.lane)))?;
            let last = last_of(told)?;
            entries += u64::from(told.count);
            let Some(oldest) = lane.in_doubt.front() else { continue };
            if told.lane_first < oldest.lane_first {
                // It was acknowledged before.
                continue;
            }
            if (told.lane_first, told.count) != (oldest.lane_first, oldest.count) || lane.sent == 0 {
                return Err(Malformed(format!(
                    "the daemon acknowledges entry {} of lane {} out of turn",
                    told.lane_first, told.lane
                )));
            }
            let batch = lane.in_doubt.pop_front().expect("just looked at");
            lane.sent -= 1;
            lane.acknowledged = told.lane_first + u64::from(told.count) - 1;
            bytes += batch.bytes.len() as u64;
            if last > self.known.0 {
                self.known = (last, told.root);
            }
            self.heard.push_back(Heard::Durable(Durable { batch, first_seq: told.first_seq, root: told.root }));
        }
        if let Some(last) = batches.last().filter(|_| commit_us > 0) {
            self.settled = last_of(last)?;
            self.heard.push_back(Heard::Commit { commit_us, entries, bytes });
        }
        Ok(())
    }
}

/// The ledger position of the last entry of an acknowledged batch.
fn last_of(told: &Acknowledged) -> Result<Seq, Malformed> {
    let before_first = told.first_seq.0.checked_sub(1).filter(|_| told.count > 0);
    let last = before_first.and_then(|before| before.checked_add(u64::from(told.count)));
    last.map(Seq).ok_or_else(|| Malformed(format!("the daemon acknowledges {} entries from {} on", told.count, told.first_seq.0)))
}

fn send(batch: &LaneBatch, out: &mut Vec<u8>) {
    let LaneBatch { lane, lane_first, count, bytes } = batch;
    Request::Batch { lane: *lane, lane_first: *lane_first, count: *count, entries: bytes }.encode(out);
}
