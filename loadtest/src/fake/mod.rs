//! A small wallet in memory, for the tests of the tests: right by default, and wrong in one chosen way on request.
//!
//! One thread per connection and one lock around everything, so its semantics are easy to see. A "kill" drops every
//! connection in the middle of whatever it does; a restart goes on with the same state. What else is done to it stands in `victim`.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        Arc, Mutex, Weak,
    },
    time::Duration,
};

use serde_json::{json, Value};

use crate::{crash::variant::Variant, memory};

// As this module is.
#[cfg(test)]
mod victim;

/// How the wallet is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It is right.
    None,
    /// One credit in 50 gets lost.
    LosesCredits,
    /// One spend in 50 is acknowledged and never applied.
    LosesWrites,
    /// Repeats are applied again.
    AppliesRepeats,
    /// Repeats of issues are applied again: they have no nonce that could show it.
    AppliesRepeatedIssues,
    /// Captures and releases are acknowledged and pay nothing.
    KeepsWhatIsHeld,
    /// Repeats get the first receipt with another time.
    AltersRepeats,
    /// Repeats are not marked.
    HidesRepeats,
    /// A receipt's hash is not that of the receipt.
    WrongHash,
    /// One spend in 50 is refused with 500, in the first half of a test.
    Fails,
    /// Overdrafts go through.
    AllowsOverdrafts,
    /// The newest spends are gone after a restart, as if they had never been durable.
    ForgetsAtRestart,
    /// Receipts change after a restart.
    AltersReceiptsAtRestart,
    /// Keys are gone after a restart: what had taken effect is refused when repeated.
    ForgetsKeysAtRestart,
    /// Slow clients are never cut.
    NeverCuts,
    /// One receipt of an earlier round is gone after the second restart and back after the third.
    ForgetsOneForARound,
    /// Writes are refused with 503 although nothing has happened to it.
    RefusesBeforehand,
    /// What is refused with 503 is taken from the balance all the same.
    AppliesWhatItRefuses,
    /// While it cannot write it does not read either.
    DoesNotReadInAnOutage,
    /// Connections break when only its ledger has gone.
    BreaksInAnOutage,
    /// After it was replaced it goes on with what it had.
    AcknowledgesWhenReplaced,
    /// After it was replaced it does not end.
    DoesNotEndWhenReplaced,
    /// It goes on with what a disk that lied has left.
    ServesAfterALie,
    /// It goes on after a lie, and is right: it had acknowledged nothing of what is gone.
    LosesNothingByALie,
    /// Its ledger goes on after a sync that failed.
    PassesOverAFailedSync,
    /// Its ledger has an entry that nobody has a receipt for.
    HasAnEntryBesides,
    /// Its audit stream lacks an operation.
    AuditsOneLess,
}

#[derive(Clone, Default)]
struct State {
    /// What is free.
    balances: HashMap<String, i128>,
    held: HashMap<String, i128>,
    nonces: HashMap<String, u64>,
    by_key: HashMap<(String, String), (Vec<u8>, String)>,
    by_txid: HashMap<String, String>,
    sequence: u64,
}

struct Shared {
    state: Mutex<State>,
    older: Mutex<Option<State>>,
    /// Connections with their generation.
    open: Mutex<Vec<(u64, Weak<TcpStream>)>>,
    killed: AtomicBool,
    restarts: AtomicU64,
    /// The receipt that is gone for a round.
    mislaid: Mutex<Option<(String, String)>>,
    flaw: Flaw,
    variant: Variant,
    /// It cannot write.
    outage: AtomicBool,
    /// Writes that were refused.
    refused: AtomicU64,
    /// Connections of earlier generations belong to a wallet that was replaced.
    generation: AtomicU64,
    /// The wallets before this generation go on after their pause.
    resumed: AtomicU64,
    /// What a wallet that was replaced still knows.
    stale: Mutex<State>,
    /// Connections of wallets that were replaced, with requests that came too late.
    held: AtomicU64,
    read_timeout: Duration,
    /// Makes one reply wait, once.
    pause_once: Mutex<Option<Duration>>,
}

/// The wallet; it ends with the test's process.
pub struct Fake {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Fake {
    pub fn start(flaw: Flaw) -> Fake {
        Fake::for_variant(flaw, Variant::Embedded)
    }

    /// One to which this is done in each round.
    pub fn for_variant(flaw: Flaw, variant: Variant) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            older: Mutex::default(),
            open: Mutex::default(),
            killed: AtomicBool::new(false),
            restarts: AtomicU64::new(0),
            mislaid: Mutex::default(),
            flaw,
            variant,
            outage: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
            stale: Mutex::default(),
            held: AtomicU64::new(0),
            read_timeout: Duration::from_millis(300),
            pause_once: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&accepting);
                // Little room, so that a client that never reads is stuck soon, however busy the machine is.
                let socket = socket2::SockRef::from(&stream);
                socket.set_send_buffer_size(16 * 1024).and_then(|()| socket.set_recv_buffer_size(16 * 1024)).unwrap();
                let stream = Arc::new(stream);
                let generation = shared.generation.load(Ordering::SeqCst);
                shared.open.lock().unwrap().push((generation, Arc::downgrade(&stream)));
                std::thread::spawn(move || shared.serve(&stream, generation));
            }
        });
        Fake { shared, address }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn read_timeout(&self) -> Duration {
        self.shared.read_timeout
    }

    /// The next reply comes this much later.
    pub fn pause_once(&self, pause: Duration) {
        *self.shared.pause_once.lock().unwrap() = Some(pause);
    }
}

/// What became of the requests of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// Every whole one is answered.
    All,
    /// Some came when the wallet had been replaced.
    TooLate,
}

struct Request {
    target: String,
    key: Option<String>,
    body: Vec<u8>,
    /// Its length on the wire.
    bytes: usize,
}

impl Request {
    /// The first request of these bytes, if it is all there.
    fn whole(bytes: &[u8]) -> Option<Request> {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut request = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(head) = request.parse(bytes).unwrap() else { return None };
        let header = |name: &str| request.headers.iter().find(|header| header.name == name).map(|header| header.value);
        let length = header("Content-Length").map_or(0, |value| String::from_utf8_lossy(value).parse().unwrap());
        let body = bytes.get(head..head + length)?.to_vec();
        let key = header("Idempotency-Key").map(|value| String::from_utf8_lossy(value).into_owned());
        Some(Request { target: request.path.unwrap().to_owned(), key, body, bytes: head + length })
    }
}

struct Answer {
    status: u16,
    replayed: bool,
    body: String,
}

fn answer(status: u16, body: impl ToString) -> Answer {
    Answer { status, replayed: false, body: body.to_string() }
}

fn refusal(status: u16, code: &str) -> Answer {
    answer(status, json!({"code": code, "http": status, "message": "refused", "retryable": false, "corr_id": "x"}))
}

impl Shared {
    fn serve(&self, mut stream: &TcpStream, generation: u64) {
        let timeout = (self.flaw != Flaw::NeverCuts).then_some(self.read_timeout);
        let mut input = Vec::new();
        let mut chunk = [0; 16 * 1024];
        let mut begun = std::time::Instant::now();
        loop {
            let mut out = Vec::new();
            let taken = self.take_requests(&mut input, &mut out, generation, &self.state);
            if taken == Taken::TooLate {
                self.held.fetch_add(1, Ordering::SeqCst);
                while self.resumed.load(Ordering::SeqCst) <= generation {
                    std::thread::sleep(Duration::from_millis(1));
                }
                if self.flaw == Flaw::AcknowledgesWhenReplaced {
                    self.take_requests(&mut input, &mut out, u64::MAX, &self.stale);
                }
            }
            if !out.is_empty() {
                // Taken only with a reply at hand: a request may arrive in pieces.
                let pause = self.pause_once.lock().unwrap().take();
                pause.into_iter().for_each(std::thread::sleep);
            }
            stream.set_write_timeout(timeout).unwrap();
            let written = !self.killed.load(Ordering::SeqCst) && stream.write_all(&out).is_ok();
            if taken == Taken::TooLate {
                self.held.fetch_sub(1, Ordering::SeqCst);
            }
            if !written || taken == Taken::TooLate {
                let _already_closed = stream.shutdown(Shutdown::Both);
                return;
            }
            if input.is_empty() {
                begun = std::time::Instant::now();
            }
            let left = timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()).max(Duration::from_millis(1)));
            stream.set_read_timeout(if input.is_empty() { None } else { left }).unwrap();
            match stream.read(&mut chunk) {
                Ok(bytes) if bytes > 0 => {
                    if input.is_empty() {
                        begun = std::time::Instant::now();
                    }
                    input.extend_from_slice(&chunk[..bytes]);
                }
                _end_or_timeout => {
                    let _already_closed = stream.shutdown(Shutdown::Both);
                    return;
                }
            }
        }
    }

    /// Answers all whole requests of the input, with what a wallet of this generation may still do.
    fn take_requests(&self, input: &mut Vec<u8>, out: &mut Vec<u8>, generation: u64, state: &Mutex<State>) -> Taken {
        while let Some(request) = Request::whole(input) {
            // Whether it was replaced is looked at under the lock, as a ledger does with a fence.
            let mut state = state.lock().unwrap();
            if self.killed.load(Ordering::SeqCst) {
                break;
            }
            if generation < self.generation.load(Ordering::SeqCst) {
                return Taken::TooLate;
            }
            let Answer { status, replayed, body } = self.answer(&mut state, &request);
            drop(state);
            let mark = if replayed { "Idempotency-Replayed: true\r\n" } else { "" };
            out.extend(format!("HTTP/1.1 {status} X\r\n{mark}Content-Length: {}\r\n\r\n{body}", body.len()).bytes());
            let used = request.bytes;
            input.drain(..used);
        }
        Taken::All
    }

    fn answer(&self, state: &mut State, request: &Request) -> Answer {
        let outage = self.outage.load(Ordering::SeqCst);
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let account = query.strip_prefix("account=").map(|rest| rest.split('&').next().unwrap().to_owned());
        match (path, account, &request.key) {
            ("/v1/balance", Some(_), _) if outage && self.flaw == Flaw::DoesNotReadInAnOutage => {
                refusal(503, "UPSTREAM_UNAVAILABLE")
            }
            ("/v1/balance", Some(account), _) => {
                let part = |values: &HashMap<String, i128>| values.get(&account).copied().unwrap_or(0);
                let amount = part(&state.balances) + part(&state.held);
                answer(200, format!(r#"{{"account":"{account}","asset":"roc","amount_minor":"{amount}"}}"#))
            }
            ("/v1/seq", Some(account), _) => {
                let last = state.nonces.get(&account).copied().unwrap_or(0);
                answer(200, format!(r#"{{"account":"{account}","last_nonce":{last},"next_nonce":{}}}"#, last + 1))
            }
            (path, _, Some(key)) => {
                let op = path.strip_prefix("/v1/").unwrap_or("transfer");
                self.write(state, op, key, &request.body)
            }
            (path, _, None) => match state.by_txid.get(path.strip_prefix("/v1/tx/").unwrap()) {
                Some(receipt) => answer(200, receipt),
                None => refusal(404, "NOT_FOUND"),
            },
        }
    }

    fn write(&self, state: &mut State, op: &str, key: &str, body: &[u8]) -> Answer {
        let fields: Value = serde_json::from_slice(body).unwrap();
        let text = |name: &str| fields[name].as_str().unwrap_or_default().to_owned();
        let (from, to) = (text("from"), text("to"));
        let amount: i128 = text("amount_minor").parse().unwrap();
        let spend = op != "issue";
        let takes_held = matches!(op, "capture" | "release");
        let scope = (if spend { from.clone() } else { to.clone() }, key.to_owned());
        if let Some((first, receipt)) = state.by_key.get(&scope).cloned() {
            assert_eq!(first, body, "the generator repeats exactly");
            if self.flaw == Flaw::AppliesRepeats || (self.flaw == Flaw::AppliesRepeatedIssues && !spend) {
                *state.balances.entry(from).or_default() -= amount;
                *state.balances.entry(to).or_default() += amount;
            }
            let altered = self.flaw == Flaw::AltersRepeats;
            let receipt = if altered { receipt.replacen(r#""ts":17"#, r#""ts":18"#, 1) } else { receipt };
            return Answer { replayed: self.flaw != Flaw::HidesRepeats, ..answer(200, receipt) };
        }
        // A test funds fifty accounts, and each of them places something: then the load begins.
        let loaded = spend && state.sequence > 100;
        let unasked = self.flaw == Flaw::RefusesBeforehand && state.sequence % 40 == 7 && loaded;
        if self.outage.load(Ordering::SeqCst) || unasked {
            if self.flaw == Flaw::AppliesWhatItRefuses {
                *state.balances.entry(from).or_default() -= amount;
                *state.balances.entry(to).or_default() += amount;
            }
            state.sequence += u64::from(unasked);
            self.refused.fetch_add(1, Ordering::SeqCst);
            return refusal(503, "UPSTREAM_UNAVAILABLE");
        }
        state.sequence += 1;
        let fiftieth = state.sequence % 50 == 0 && loaded;
        // Early and few, so that most accounts go on and the repeats at the end meet no further failure.
        if fiftieth && state.sequence < 550 && self.flaw == Flaw::Fails {
            return refusal(500, "INTERNAL_ERROR");
        }
        if spend {
            let last = state.nonces.get(&from).copied().unwrap_or(0);
            if fields["nonce"].as_u64() != Some(last + 1) {
                return refusal(409, "NONCE_CONFLICT");
            }
            let purse = if takes_held { &mut state.held } else { &mut state.balances };
            if purse.get(&from).copied().unwrap_or(0) < amount && self.flaw != Flaw::AllowsOverdrafts {
                return refusal(409, "INSUFFICIENT_FUNDS");
            }
            if !(fiftieth && self.flaw == Flaw::LosesWrites) {
                *purse.entry(from.clone()).or_default() -= amount;
                state.nonces.insert(from.clone(), last + 1);
            }
        }
        let kept = takes_held && self.flaw == Flaw::KeepsWhatIsHeld;
        if op != "burn" && !kept && !(fiftieth && matches!(self.flaw, Flaw::LosesCredits | Flaw::LosesWrites)) {
            let purse = if op == "hold" { &mut state.held } else { &mut state.balances };
            *purse.entry(to.clone()).or_default() += amount;
        }
        let receipt = self.receipt(state.sequence, op, &from, &to, &fields, key);
        state.by_txid.insert(receipt[memory_range()].to_owned(), receipt.clone());
        state.by_key.insert(scope, (body.to_vec(), receipt.clone()));
        if matches!(self.flaw, Flaw::ForgetsAtRestart | Flaw::ServesAfterALie) {
            // What is forgotten is everything after the round's first spends.
            self.older.lock().unwrap().get_or_insert_with(|| state.clone());
        }
        answer(200, receipt)
    }

    fn receipt(&self, sequence: u64, op: &str, from: &str, to: &str, fields: &Value, key: &str) -> String {
        let party =
            |name: &str, account: &str| if account.is_empty() { String::new() } else { format!(r#""{name}":"{account}","#) };
        let (payer, payee) = (party("from", from), party("to", to));
        let nonce = fields["nonce"].as_u64().map(|nonce| format!(r#""nonce":{nonce},"#)).unwrap_or_default();
        let amount = fields["amount_minor"].as_str().unwrap();
        let text = format!(
            r#"{{"txid":"tx_{sequence:026}","op":"{op}",{payer}{payee}"asset":"roc","amount_minor":"{amount}",{nonce}"idem":"{key}","ts":17,"settlement_status":"accepted"}}"#
        );
        let sorted: std::collections::BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
        let mut hash = blake3::hash(&serde_json::to_vec(&sorted).unwrap()).to_hex().to_string();
        if self.flaw == Flaw::WrongHash {
            hash = "0".repeat(64);
        }
        let receipt = format!(r#"{},"receipt_hash":"b3:{hash}"}}"#, &text[..text.len() - 1]);
        assert!(self.flaw == Flaw::WrongHash || memory::receipt_hash_holds(receipt.as_bytes()));
        receipt
    }
}

fn memory_range() -> std::ops::Range<usize> {
    crate::requests::TXID_RANGE
}
