//! A ledger and a stream in memory for the tests of the stream.
use super::{
    verify, AuditFault, AuditFigures, Bounds, Comparison, Event, EventKind, Expected, Recovered, Report, Signer, Stream,
    EVENTS_MAX,
};
use crate::domain::{
    Account, Amount, Asset, Code, CoreId, Draft, Entry, Key, LaneBatch, LogId, Nonce, Op, Refusal, Seq, TokenId, UnixMs,
};
use crate::ledger::{Log, MemoryStorage, Options, ReadLedger};
use crate::telemetry::feed::{feed, Feed, Holder, Intake, Refused};
use crossbeam_channel::{bounded, Receiver, Sender};
use std::ops::ControlFlow;

pub const LOG: LogId = LogId([7; 16]);
pub const NOW: UnixMs = UnixMs(1_700_000_000_000);
pub const SMALL: Bounds = Bounds { rotate_bytes: 4_000, keep: None, refusals_per_second: 10 };
pub const TOKEN: TokenId = TokenId([4; 16]);
/// Stands in every entry, and must never stand in the stream.
pub const MEMO: &str = "planted-memo";

/// Entry `seq`: the first issues, the others transfer.
pub fn entry(seq: u64) -> Vec<u8> {
    let (mut bytes, key) = (Vec::new(), format!("key-{seq}"));
    let draft = Draft {
        op: if seq == 1 { Op::Issue } else { Op::Transfer },
        from: Account::new("alice").filter(|_| seq > 1),
        to: Account::new(if seq == 1 { "alice" } else { "bob" }),
        asset: Asset::new("roc").unwrap(),
        amount: Amount::new(u128::from(1_000_000 / seq)).unwrap(),
        nonce: Some(Nonce(seq)).filter(|_| seq > 1),
        key: Key::new(&key).unwrap(),
        memo: Some(MEMO),
        corr: "corr-1",
        token: TOKEN,
        ceiling: false,
        budget: false,
        daily_max: false,
        ts: UnixMs(NOW.0 + seq),
    };
    draft.encode(&mut bytes);
    bytes
}

/// A ledger in memory.
pub struct Ledger {
    pub log: Log<MemoryStorage>,
    entries: u64,
    lane: u64,
}

impl Ledger {
    pub fn with(entries: u64) -> Self {
        let options = Options::for_simulation(8 << 20, LOG);
        let (log, _) = Log::open(MemoryStorage::new(), &options, &mut |_, _, _| Ok(())).unwrap();
        let mut ledger = Self { log, entries: 0, lane: 1 };
        ledger.grow(entries);
        ledger
    }

    pub fn grow(&mut self, count: u64) {
        for _ in 0..count {
            self.entries += 1;
            self.append(entry(self.entries));
        }
    }

    pub fn append(&mut self, bytes: Vec<u8>) {
        self.log.append(&[LaneBatch { lane: 0, lane_first: self.lane, count: 1, bytes }]).unwrap();
        self.lane += 1;
    }

    pub fn head(&self) -> Seq {
        self.log.reader().head()
    }
}

/// A signature that says what it is of, in place of one by a key.
pub fn sign(signed: &[u8], now: UnixMs) -> Option<String> {
    Some(format!("{{\"of\":\"{}\",\"ts\":{}}}", crate::domain::hex(signed), now.0))
}

/// Whether such a signature is of this.
pub fn check_signature(signed: &[u8], signature: &serde_json::Map<String, serde_json::Value>) -> Result<bool, String> {
    let fits = signature["of"] == crate::domain::hex(signed);
    fits.then_some(true).ok_or_else(|| "it is of something else".to_owned())
}

/// What surrounds a stream: one core's end, and that of the control thread.
pub struct Around {
    pub core: Feed,
    pub feeds: [Intake; 1],
    pub control: Sender<Event>,
    events: Receiver<Event>,
    pub figures: AuditFigures,
    /// Whether checkpoints are signed.
    pub signs: bool,
}

impl Around {
    pub fn new() -> Self {
        let ((core, stream), (control, events)) = (feed(), bounded(EVENTS_MAX));
        Self { core, feeds: [stream], control, events, figures: AuditFigures::new(NOW), signs: true }
    }

    pub fn refuse(&self, code: Code) {
        let refusal = Refusal::new(code, "planted-message");
        let bytes = entry(2);
        self.core.refused(Refused::entry(&Entry::parse(&bytes).unwrap().0, &refusal));
    }

    pub fn hold(&mut self, subject: &str) {
        assert!(self.core.holder(TOKEN, || Holder { token: TOKEN, subject: subject.into(), key_id: "k-1".into() }));
    }

    pub fn open(&self, storage: &MemoryStorage, bounds: Bounds) -> Result<(Stream<MemoryStorage>, Recovered), AuditFault> {
        let mut stream = Stream::open(storage.clone(), LOG, bounds, self.figures.clone())?;
        if self.signs {
            stream = stream.signed_by(Signer {
                sign: Box::new(sign),
                check: Box::new(|signed, found| check_signature(signed, found).map(drop)),
            });
        }
        let recovered = stream.recover(NOW)?;
        Ok((stream, recovered))
    }

    /// Rounds until there is nothing more.
    pub fn run(&self, stream: &mut Stream<MemoryStorage>, ledger: &Ledger, now: UnixMs) -> Result<(), AuditFault> {
        while stream.round(now, &mut ledger.log.reader(), &self.feeds, &self.events)? {}
        Ok(())
    }

    /// A whole life: open, follow, end in order.
    pub fn live(&self, storage: &MemoryStorage, ledger: &Ledger, bounds: Bounds) -> Result<Recovered, AuditFault> {
        let (mut stream, recovered) = self.open(storage, bounds)?;
        self.control.try_send(Event::new(EventKind::Start, true).with("cores", CoreId(2).0.to_string())).unwrap();
        self.run(&mut stream, ledger, NOW)?;
        stream.close(NOW, None)?;
        Ok(recovered)
    }
}

/// The report of a stream.
pub fn report(storage: &MemoryStorage) -> Report {
    verify(storage, Expected::default(), &mut |_| ()).unwrap()
}

/// The report of a stream, its signatures checked.
pub fn signed_report(storage: &MemoryStorage) -> Report {
    verify(storage, Expected { check: Some(&mut check_signature), ..Expected::default() }, &mut |_| ()).unwrap()
}

/// Fails unless the stream is whole, and has exactly what the ledger has.
pub fn check(storage: &MemoryStorage, ledger: &Ledger) -> Report {
    let report = report(storage);
    assert_eq!((&*report.damages, &report.torn), (&[][..], &None));
    let mut comparison = Comparison::new(storage.clone(), LOG, &report);
    ReadLedger::scan(&mut ledger.log.reader(), Seq(1), &mut |seq, _, entry| {
        comparison.entry(seq, &entry).unwrap();
        ControlFlow::Continue(())
    })
    .unwrap();
    let compared = comparison.end();
    assert_eq!((compared.differing, compared.behind, &*compared.differences), (0, 0, &[][..]));
    let left_out: u64 = report.gaps.iter().map(|(from, to)| to.0 + 1 - from.0).sum();
    assert_eq!(compared.equal + left_out, ledger.head().0 - report.entries.0 .0);
    report
}

/// All that stands in the files of a stream.
pub fn text(storage: &MemoryStorage) -> String {
    let mut text = String::new();
    for number in super::files(storage).unwrap() {
        storage.tamper(&super::file_name(number), |bytes| text.push_str(&String::from_utf8_lossy(bytes)));
    }
    text
}
