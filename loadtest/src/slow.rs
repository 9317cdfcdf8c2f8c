//! Slow clients: they hold a connection and never finish, and the server must cut them off.
//!
//! Three ways to be slow: one byte of the head a second, one byte of the body a second, and asking without ever reading.
//! Whoever is cut comes back at once, so that the pressure stays. All of them live on one thread that looks at every
//! socket twenty times a second. It does not know the load beside it.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};

/// How often all sockets are looked at.
const TICK: Duration = Duration::from_millis(50);
/// A dribbler's pause between two bytes.
const BYTE_PAUSE: Duration = Duration::from_secs(1);
/// What one that never reads writes at most per tick, in bytes.
const FLOOD_BYTES: usize = 64 * 1024;
/// Of so many slow clients one never reads: to fill the server's send buffer it has to ask a lot.
const READERS_ONE_IN: u64 = 50;
/// The server may take this much longer than its timeout: it sweeps its connections coarsely.
pub const GRACE: Duration = Duration::from_millis(2_500);

/// Ways to be slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slowness {
    /// The head comes a byte at a time.
    Head,
    /// The body does.
    Body,
    /// Replies are never read.
    Reader,
}

/// What became of the slow clients of one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cuts {
    /// Connections opened, those that came back included.
    pub opened: u64,
    /// Connections that could not be opened.
    pub refused: u64,
    /// Connections that the server ended.
    pub cut: u64,
    /// Connections that it should have ended, and did not, or did too late.
    pub overdue: u64,
    /// The earliest end after the opening.
    pub cut_ms_min: u64,
    /// The median.
    pub cut_ms_p50: u64,
    /// The latest.
    pub cut_ms_max: u64,
}

/// What the slow clients send.
#[derive(Clone, Debug)]
pub struct Script {
    /// A complete `POST` whose head is sent at once by those who dribble the body.
    pub post: Vec<u8>,
    /// A complete `GET`, asked for over and over by those who never read.
    pub get: Vec<u8>,
}

struct Client {
    kind: Slowness,
    stream: Option<TcpStream>,
    opened: Instant,
    next_byte: Instant,
    sent: usize,
    /// Since when nothing more of what one that never reads wants to send could be sent: its replies have nowhere to go.
    stuck: Option<Instant>,
}

/// Slow clients at work.
pub struct SlowClients {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeMap<&'static str, Cuts>>,
}

impl SlowClients {
    /// Starts so many of them on a thread of their own.
    pub fn start(address: SocketAddr, count: u64, script: Script, read_timeout: Duration) -> SlowClients {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || work(address, count, &script, read_timeout, &stopped));
        SlowClients { stop, thread }
    }

    /// Ends them and tells what became of them, by kind.
    pub fn finish(self) -> BTreeMap<&'static str, Cuts> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("slow clients only count")
    }
}

fn work(
    address: SocketAddr,
    count: u64,
    script: &Script,
    read_timeout: Duration,
    stop: &AtomicBool,
) -> BTreeMap<&'static str, Cuts> {
    let head = memchr::memmem::find(&script.post, b"\r\n\r\n").map_or(script.post.len(), |at| at + 4);
    let mut found: BTreeMap<&'static str, (Cuts, Vec<u64>)> = BTreeMap::new();
    let now = Instant::now();
    let mut clients: Vec<Client> = (0..count).map(|number| Client::new(kind_of(number), None, now)).collect();
    while !stop.load(Ordering::Relaxed) {
        for client in &mut clients {
            let (cuts, times) = found.entry(name(client.kind)).or_default();
            let now = Instant::now();
            if client.stream.is_none() {
                match open(address, client.kind) {
                    Ok(stream) => {
                        cuts.opened += 1;
                        *client = Client::new(client.kind, Some(stream), now);
                    }
                    Err(_) => cuts.refused += 1,
                }
            }
            if client.step(script, head, now).is_err() {
                cuts.cut += 1;
                cuts.overdue += u64::from(client.is_overdue(Instant::now(), read_timeout));
                times.push(client.opened.elapsed().as_millis() as u64);
                client.stream = None;
            }
        }
        std::thread::sleep(TICK);
    }
    let now = Instant::now();
    for client in clients.iter().filter(|client| client.stream.is_some() && client.is_overdue(now, read_timeout)) {
        found.entry(name(client.kind)).or_default().0.overdue += 1;
    }
    found.into_iter().map(|(kind, (cuts, times))| (kind, with_times(cuts, times))).collect()
}

fn with_times(mut cuts: Cuts, mut times: Vec<u64>) -> Cuts {
    times.sort_unstable();
    cuts.cut_ms_min = times.first().copied().unwrap_or(0);
    cuts.cut_ms_p50 = times.get(times.len() / 2).copied().unwrap_or(0);
    cuts.cut_ms_max = times.last().copied().unwrap_or(0);
    cuts
}

impl Client {
    fn new(kind: Slowness, stream: Option<TcpStream>, now: Instant) -> Self {
        Self { kind, stream, opened: now, next_byte: now, sent: 0, stuck: None }
    }

    /// Whether the server should have ended it before `now`. For those who never read time counts from when they were stuck: how
    /// long the system had room for what they send is not the server's doing.
    fn is_overdue(&self, now: Instant, read_timeout: Duration) -> bool {
        let since = if self.kind == Slowness::Reader { self.stuck } else { Some(self.opened) };
        since.is_some_and(|since| now.saturating_duration_since(since) > read_timeout + GRACE)
    }

    /// Sends what is due, and looks whether the server has ended the connection. `Err` if it has.
    fn step(&mut self, script: &Script, head: usize, now: Instant) -> Result<(), ()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        match self.kind {
            Slowness::Head | Slowness::Body => {
                let upfront = if self.kind == Slowness::Body { head } else { 1 };
                let due = if self.sent == 0 { &script.post[..upfront] } else { &script.post[self.sent..][..1] };
                // The last byte is never sent: these requests do not end.
                if now >= self.next_byte && self.sent + due.len() < script.post.len() {
                    self.sent += written(stream.write(due))?;
                    self.next_byte = now + BYTE_PAUSE;
                }
                let mut reply = [0; 512];
                match stream.read(&mut reply) {
                    Ok(_) => Err(()),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                    Err(_) => Err(()),
                }
            }
            Slowness::Reader => {
                let mut budget = FLOOD_BYTES;
                while budget > 0 {
                    let offset = self.sent % script.get.len();
                    let bytes = written(stream.write(&script.get[offset..]))?;
                    if bytes == 0 {
                        self.stuck.get_or_insert(now);
                        break;
                    }
                    self.stuck = None;
                    self.sent += bytes;
                    budget = budget.saturating_sub(bytes);
                }
                Ok(())
            }
        }
    }
}

fn written(result: io::Result<usize>) -> Result<usize, ()> {
    match result {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(_) => Err(()),
    }
}

fn open(address: SocketAddr, kind: Slowness) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if kind == Slowness::Reader {
        // As little room as the system gives, so that the server's replies soon have nowhere to go.
        socket.set_recv_buffer_size(4096)?;
    }
    socket.connect_timeout(&address.into(), Duration::from_secs(1))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn kind_of(number: u64) -> Slowness {
    match number % READERS_ONE_IN {
        0 => Slowness::Reader,
        odd if odd % 2 == 1 => Slowness::Head,
        _even => Slowness::Body,
    }
}

fn name(kind: Slowness) -> &'static str {
    match kind {
        Slowness::Head => "dribbling heads",
        Slowness::Body => "dribbling bodies",
        Slowness::Reader => "never reading",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_is_overdue_by_its_own_time() {
        let (start, timeout) = (Instant::now(), Duration::from_secs(3));
        let late = start + timeout + GRACE + Duration::from_millis(1);
        for kind in [Slowness::Head, Slowness::Body] {
            let client = Client::new(kind, None, start);
            assert_eq!([start + timeout, late].map(|now| client.is_overdue(now, timeout)), [false, true]);
        }
        let mut reader = Client::new(Slowness::Reader, None, start);
        assert!(!reader.is_overdue(late, timeout), "the system still has room for what it sends");
        reader.stuck = Some(start + timeout);
        assert_eq!([late, late + timeout].map(|now| reader.is_overdue(now, timeout)), [false, true]);
    }
}
