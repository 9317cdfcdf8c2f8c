//! Bad tokens at a steady rate, beside a load: attenuated, expired, not yet valid, revoked, of a foreign key, cut and with flipped bits.
//!
//! A thread of its own asks for spends that would be good but for their tokens, over connections of its own, and counts every reply that
//! is not the refusal that the token deserves. It rests while the other side of a comparison is loaded.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        Arc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::{
    fault::Fault,
    reply,
    tokens::{self, Token},
};

/// Requests go out together so often.
const TICK: Duration = Duration::from_millis(4);
/// How long a reply may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The characters of a token.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// The base64 of a token has many more characters than its key and signature need; these many at its end are signature alone.
const SIGNATURE_CHARS: usize = 40;

/// What a thread shares with who has started it.
#[derive(Default)]
struct Shared {
    going: AtomicBool,
    ended: AtomicBool,
    answered: AtomicU64,
    wrong: AtomicU64,
}

/// A flood that was started and rests.
pub struct Flood {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Flooded {
    /// Replies to bad tokens.
    pub answered: u64,
    /// Of them, those that were not the refusal that the token deserves; a broken connection counts as one.
    pub wrong: u64,
}

/// A bad token, and the status that it deserves.
struct Bad {
    token: String,
    status: u16,
}

impl Flood {
    /// Makes the tokens and a thread that sends `per_second` of them once it is told to.
    ///
    /// # Errors
    /// [`Fault::Program`] if `ronctl` does not do what it is for, [`Fault::Io`] from the system.
    pub fn start(address: SocketAddr, ronctl: &Path, config: &Path, foreign: &Token, per_second: f64) -> Result<Flood, Fault> {
        let bad = tokens_of(ronctl, config, foreign)?;
        let shared = Arc::<Shared>::default();
        let own = Arc::clone(&shared);
        let send = move || {
            let mut at = 0;
            while !own.ended.load(Ordering::Relaxed) {
                if flood(address, &bad, &mut at, per_second, &own).is_err() {
                    own.wrong.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let thread = std::thread::Builder::new().name("flood".into()).spawn(send).map_err(Fault::io("starting a thread"))?;
        Ok(Flood { shared, thread: Some(thread) })
    }

    /// Goes on, or rests.
    pub fn go(&self, on: bool) {
        self.shared.going.store(on, Ordering::Relaxed);
    }

    /// Ends it.
    pub fn end(mut self) -> Flooded {
        self.stop();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Flooded { answered: count(&self.shared.answered), wrong: count(&self.shared.wrong) }
    }

    fn stop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Sends over one connection until the end, or until it breaks.
fn flood(address: SocketAddr, bad: &[Bad], at: &mut usize, per_second: f64, shared: &Shared) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut out, mut input) = (Vec::new(), Vec::new());
    let (mut due, mut owed) = (Instant::now(), 0.0);
    while !shared.ended.load(Ordering::Relaxed) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        due = Instant::now() + TICK;
        if !shared.going.load(Ordering::Relaxed) {
            owed = 0.0;
            continue;
        }
        owed += per_second * TICK.as_secs_f64();
        let first = *at;
        while owed >= 1.0 {
            owed -= 1.0;
            spend(&bad[*at % bad.len()].token, address, &mut out);
            *at += 1;
        }
        stream.write_all(&out)?;
        out.clear();
        for number in first..*at {
            let status = next_status(&mut stream, &mut input)?;
            shared.answered.fetch_add(1, Ordering::Relaxed);
            shared.wrong.fetch_add(u64::from(status != bad[number % bad.len()].status), Ordering::Relaxed);
        }
    }
    Ok(())
}

fn spend(token: &str, host: SocketAddr, out: &mut Vec<u8>) {
    const BODY: &str = r#"{"from":"flood:a","to":"flood:b","asset":"roc","amount_minor":"1","nonce":1}"#;
    let head = format!(
        "POST /wallet/spend HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nIdempotency-Key: flood\r\n\
         Authorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n",
        BODY.len()
    );
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(BODY.as_bytes());
}

/// Reads a whole reply and gives its status.
fn next_status(stream: &mut TcpStream, input: &mut Vec<u8>) -> std::io::Result<u16> {
    loop {
        let parsed = reply::parse(input).map_err(|reply::Malformed(what)| std::io::Error::other(what))?;
        if let Some((status, length)) = parsed.map(|(reply, length)| (reply.status, length)) {
            input.drain(..length);
            return Ok(status);
        }
        let mut piece = [0; 16 << 10];
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        input.extend_from_slice(&piece[..count]);
    }
}

/// Bad tokens of every kind; those that are spoiled by a character or cut differ from each other, so that none is met twice soon.
fn tokens_of(ronctl: &Path, config: &Path, foreign: &Token) -> Result<Vec<Bad>, Fault> {
    let good = tokens::mint(ronctl, config)?;
    let good = good.expose();
    let narrower = |caveat: &str| attenuated(ronctl, good, caveat);
    let revoked = ran(ronctl, config, &["cap", "mint", "--subject", "flood", "--scopes", "wallet:*", "--ttl", "24h"])?;
    ran(ronctl, config, &["cap", "revoke", "--subject", "flood"])?;
    let steady = [
        (narrower("scope = wallet:read")?, 403),
        (narrower("exp = 2020-01-01T00:00:00Z")?, 401),
        (narrower("nbf = 2099-01-01T00:00:00Z")?, 401),
        (revoked, 401),
        (foreign.expose().to_owned(), 401),
    ];
    let mut bad = Vec::new();
    for (number, place) in (good.len() - SIGNATURE_CHARS..good.len() - 2).enumerate() {
        let (token, status) = &steady[number % steady.len()];
        bad.push(Bad { token: token.clone(), status: *status });
        bad.push(Bad { token: with_another_character(good, place), status: 401 });
        bad.push(Bad { token: good[..place].to_owned(), status: 401 });
    }
    Ok(bad)
}

/// The token with another character at this place.
fn with_another_character(token: &str, place: usize) -> String {
    let mut bytes = token.as_bytes().to_vec();
    let known = ALPHABET.iter().position(|letter| *letter == bytes[place]).unwrap_or(0);
    bytes[place] = ALPHABET[(known + 1) % ALPHABET.len()];
    String::from_utf8(bytes).expect("a token is ASCII")
}

fn attenuated(ronctl: &Path, token: &str, caveat: &str) -> Result<String, Fault> {
    let mut command = Command::new(ronctl);
    command.args(["cap", "attenuate", "--caveat", caveat]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(Fault::io(format!("starting {}", ronctl.display())))?;
    let mut input = child.stdin.take().expect("it was asked for");
    input.write_all(token.as_bytes()).map_err(Fault::io("handing a token to ronctl"))?;
    drop(input);
    let output = child.wait_with_output().map_err(Fault::io("waiting for ronctl"))?;
    told("ronctl cap attenuate", &output)
}

fn ran(ronctl: &Path, config: &Path, arguments: &[&str]) -> Result<String, Fault> {
    let output = Command::new(ronctl).args(arguments).arg("--config").arg(config).output();
    told("ronctl cap", &output.map_err(Fault::io(format!("starting {}", ronctl.display())))?)
}

/// What it has printed, which may be a secret and is not shown.
fn told(what: &str, output: &std::process::Output) -> Result<String, Fault> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(Fault::Program { what: what.into(), cause: output.status.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spoiled_token_differs_in_one_character() {
        let token = "abc_";
        let spoiled: Vec<String> = (0..4).map(|place| with_another_character(token, place)).collect();
        assert_eq!(spoiled, ["bbc_", "acc_", "abd_", "abcA"]);
    }
}
