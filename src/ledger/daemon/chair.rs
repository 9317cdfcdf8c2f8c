//! The one place from which a ledger is written: who sits there, what it has sent, and what became of it.
//!
//! Invariants: one wallet at a time; a wallet that was replaced is refused for ever after, whatever of it still arrives; a batch that
//! comes again is answered with its old place; what is told to be durable is. It uses no clock: the time comes in.
use super::peer::Peer;
use crate::domain::{LaneBatch, LogId, Root, Seq};
use crate::ledger::engine::{Engine, Tenure};
use crate::ledger::merge::{GroupCommit, LanePlace, Standing};
use crate::ledger::protocol::{Acknowledged, Fault, Refused, Reply, Tenant};
use crate::ledger::writer::{Writer, Written};
use crate::ledger::LedgerError;
use std::ops::ControlFlow;
use std::time::Duration;

/// A connected wallet that was not heard for so long may be replaced.
pub const SILENCE_MAX: Duration = Duration::from_secs(2);

/// The right of one connection to write; worthless as soon as another one has been given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat(u64);

struct Holder {
    who: Peer,
    connected: bool,
    heard: Duration,
}

/// What became of the batches that were handed in.
#[derive(Debug)]
pub enum Committed {
    /// There was nothing to do.
    Nothing,
    /// They are durable.
    Durable(Vec<Acknowledged>),
    /// There is no room; they wait.
    NoRoom(std::io::Error),
}

/// Why a connection is refused.
#[derive(Debug)]
pub enum Turned {
    /// It is told so and closed.
    Away(Fault),
    /// The ledger can take nothing any more: the process must end.
    Fatal(LedgerError),
}

impl From<Fault> for Turned {
    fn from(fault: Fault) -> Self {
        Turned::Away(fault)
    }
}

fn fault(refused: Refused, epoch: u64, text: impl Into<String>) -> Fault {
    Fault { refused, epoch, text: text.into() }
}

/// The chair.
pub struct Chair<E> {
    writer: Writer<E>,
    log_id: LogId,
    /// Of the present tenure; `None` until its writer is there for the first time.
    group: Option<GroupCommit>,
    holder: Option<Holder>,
    seats: u64,
}

impl<E: Engine> Chair<E> {
    /// Nobody sits on it. The log was opened with this tenure.
    pub fn new(engine: E, tenure: Tenure, log_id: LogId) -> Self {
        Self { writer: Writer::new(engine, tenure), log_id, group: None, holder: None, seats: 0 }
    }

    /// A wallet wants to write in a new epoch.
    pub fn acquire(&mut self, who: Peer, lanes: u16, now: Duration) -> Result<(Seat, Reply<'static>), Turned> {
        // The same process asks again if its grant was lost with its connection.
        if let Some(holder) = self.holder.as_ref().filter(|holder| holder.connected && !holder.who.is_the_process(&who)) {
            let silent = now.saturating_sub(holder.heard);
            if silent < SILENCE_MAX {
                let text = format!("{} has the ledger; stop that wallet, or give this one a ledger of its own", holder.who);
                return Err(fault(Refused::InUse, self.writer.tenure().epoch, text).into());
            }
            let (pid, by) = (holder.who.pid, who.pid);
            tracing::warn!(event = "writer_replaced", pid, by, "a wallet that was not heard any more is replaced");
        }
        let tenure = self.writer.engine().acquire(None).map_err(|error| {
            tracing::error!(event = "epoch_not_taken", %error, "no new epoch could be taken");
            fault(Refused::Unavailable, 0, format!("no new epoch could be taken: {error}"))
        })?;
        self.writer.begin(tenure);
        self.group = Some(GroupCommit::new(lanes, self.writer.engine().body_bytes_max()));
        Ok(self.seat(who, now))
    }

    /// A wallet wants to go on with its epoch.
    pub fn resume(&mut self, who: Peer, tenant: &Tenant, now: Duration) -> Result<(Seat, Reply<'static>), Turned> {
        let Tenure { epoch: newest, head, .. } = self.writer.tenure();
        let Tenant { log_id, epoch, head: known, root, settled, ref acknowledged } = *tenant;
        if log_id != self.log_id {
            let text = "this daemon has another ledger than the one that the wallet has read; point both at the same one";
            return Err(fault(Refused::Foreign, 0, text).into());
        }
        if epoch < newest {
            let text = format!("epoch {newest} has replaced epoch {epoch}");
            return Err(fault(Refused::Fenced, newest, text).into());
        }
        if epoch > newest || known > head || settled > known || !self.holds((known, root))? {
            let text = format!(
                "this ledger ends with entry {} in epoch {newest}, and the wallet has seen entry {} durable in epoch {epoch}: it is an \
                 older copy; stop both, and bring back the newest directory",
                head.0, known.0
            );
            return Err(fault(Refused::Foreign, newest, text).into());
        }
        let mut group = match self.group.take() {
            Some(group) => group,
            None => self.reconstructed(settled, acknowledged)?,
        };
        group.withdraw();
        let (has, lanes) = (usize::from(group.lanes()), acknowledged.len());
        self.group = Some(group);
        if has != lanes {
            let text = format!("epoch {epoch} has {has} lanes, not {lanes}");
            return Err(fault(Refused::Malformed, newest, text).into());
        }
        Ok(self.seat(who, now))
    }

    /// What the present epoch has written, after the daemon was started anew: up to an entry the wallet knows all of it, and what is
    /// behind that is read back.
    fn reconstructed(&mut self, settled: Seq, acknowledged: &[u64]) -> Result<GroupCommit, Turned> {
        let engine = self.writer.engine();
        let mut group = GroupCommit::resumed(acknowledged, engine.body_bytes_max());
        let mut misfit = None;
        let read = engine.read(Seq(settled.0 + 1), &mut |batch| {
            let mut first_seq = batch.first_seq;
            for section in &batch.sections {
                let place = LanePlace { lane_first: section.lane_first, count: section.count, first_seq, root: batch.root };
                if first_seq > settled && !group.note(section.lane, place) {
                    misfit = Some((section.lane, section.lane_first));
                    return ControlFlow::Break(());
                }
                first_seq = Seq(first_seq.0 + u64::from(section.count));
            }
            ControlFlow::Continue(())
        });
        read.map_err(|error| fault(Refused::Unavailable, 0, format!("the ledger cannot be read: {error}")))?;
        if let Some((lane, lane_first)) = misfit {
            let text = format!(
                "entry {lane_first} of lane {lane} in the ledger does not follow what the wallet has seen; start it again"
            );
            return Err(fault(Refused::Foreign, self.writer.tenure().epoch, text).into());
        }
        Ok(group)
    }

    /// Whether the chain hash after the batch of this entry, which is durable, is the one that the wallet knows. What follows the entry
    /// is read, not the entry itself: that is not there if a restored ledger begins behind it.
    fn holds(&mut self, (seq, root): (Seq, Root)) -> Result<bool, Turned> {
        let Tenure { head, root: newest, .. } = self.writer.tenure();
        if seq == head {
            return Ok(root == newest);
        }
        let mut found = None;
        let read = self.writer.engine().read(Seq(seq.0 + 1), &mut |batch| {
            found = Some(if batch.first_seq > seq { batch.prev } else { batch.root });
            ControlFlow::Break(())
        });
        read.map_err(|error| fault(Refused::Unavailable, 0, format!("the ledger cannot be read: {error}")))?;
        Ok(found == Some(root))
    }

    fn seat(&mut self, who: Peer, now: Duration) -> (Seat, Reply<'static>) {
        self.seats += 1;
        self.holder = Some(Holder { who, connected: true, heard: now });
        let Tenure { epoch, head, root } = self.writer.tenure();
        let through = self.group.as_ref().expect("set before a seat is given").through();
        (Seat(self.seats), Reply::Granted { epoch, head, root, through })
    }

    /// The one who sits here was heard.
    pub fn heard(&mut self, seat: Seat, now: Duration) -> Result<(), Turned> {
        self.group_of(seat)?;
        if let Some(holder) = &mut self.holder {
            holder.heard = now;
        }
        Ok(())
    }

    fn group_of(&mut self, seat: Seat) -> Result<&mut GroupCommit, Turned> {
        let epoch = self.writer.tenure().epoch;
        let text = || {
            format!("another connection has the ledger now, in epoch {epoch}: of this wallet, if that is its own, or of one that has replaced it")
        };
        match &mut self.group {
            Some(group) if seat.0 == self.seats => Ok(group),
            Some(_) | None => Err(fault(Refused::Fenced, epoch, text()).into()),
        }
    }

    /// Takes a batch for the next commit, or gives it back if that is full. A batch that came before is answered with its place.
    pub fn admit(&mut self, seat: Seat, batch: LaneBatch) -> Result<Result<Option<Acknowledged>, LaneBatch>, Turned> {
        let group = self.group_of(seat)?;
        match group.standing(batch.lane, batch.lane_first, batch.count) {
            Standing::Next => Ok(group.admit(batch).map(|()| None)),
            Standing::Repeat => self.place(seat, batch.lane, batch.lane_first, batch.count).map(|place| Ok(Some(place))),
            Standing::Misfit => Err(misfit(batch.lane, batch.lane_first, batch.count).into()),
        }
    }

    /// Where a durable batch is.
    pub fn place(&mut self, seat: Seat, lane: u16, lane_first: u64, count: u32) -> Result<Acknowledged, Turned> {
        let placed = self.group_of(seat)?.place_of(lane, lane_first, count);
        let placed = placed.ok_or_else(|| misfit(lane, lane_first, count))?;
        Ok(Acknowledged { lane, lane_first, count, first_seq: placed.first_seq, root: placed.root })
    }

    /// Makes durable what was admitted.
    pub fn commit(&mut self, seat: Seat) -> Result<Committed, Turned> {
        self.group_of(seat)?;
        let group = self.group.as_mut().expect("its seat was just found good");
        if group.batches().is_empty() {
            return Ok(Committed::Nothing);
        }
        match self.writer.append(group.batches()) {
            Written::Placed(placed) => {
                let mut batches = Vec::with_capacity(group.batches().len());
                group.settle(Some(placed), |durable| {
                    let LaneBatch { lane, lane_first, count, .. } = durable.batch;
                    batches.push(Acknowledged { lane, lane_first, count, first_seq: durable.first_seq, root: durable.root });
                });
                Ok(Committed::Durable(batches))
            }
            Written::NoRoom(error) => Ok(Committed::NoRoom(error)),
            Written::Ended(error) => Err(Turned::Fatal(error)),
        }
    }

    /// Nothing came for a while: notes how far the log reaches.
    pub fn note(&mut self, seat: Seat) -> Result<(), Turned> {
        self.group_of(seat)?;
        self.writer.note();
        Ok(())
    }

    /// The connection is gone. Its wallet may come back, or another one may take the chair at once.
    pub fn leave(&mut self, seat: Seat) {
        if seat.0 != self.seats {
            return;
        }
        if let Some(holder) = &mut self.holder {
            holder.connected = false;
        }
        if let Some(group) = &mut self.group {
            group.withdraw();
        }
        self.writer.note();
    }

    /// What it commits with.
    pub fn engine(&mut self) -> &mut E {
        self.writer.engine()
    }

    /// Lets go of the ledger in order.
    pub fn close(self) -> Result<(), LedgerError> {
        self.writer.close()
    }
}

fn misfit(lane: u16, lane_first: u64, count: u32) -> Fault {
    let text = format!("entries {lane_first} and the following, {count} in all, do not fit what lane {lane} has sent before");
    fault(Refused::Malformed, 0, text)
}
