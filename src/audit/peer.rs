//! Sends the lines of a stream on over a unix socket. The files are the buffer: nothing is lost and nothing grows while the peer is away.
//!
//! The wallet connects. The peer then says which line it has last, as a decimal number, 0 for none, a space, the hash of that line in hex,
//! and a line feed, and gets every line behind that one, as it stands in the files, for as long as the connection holds. So the peer's own
//! word decides where it goes on, after any failure of either side. If the stream has no such line, or one with another hash, its numbers
//! have begun anew, or its end was lost: then the peer gets everything from the oldest line on. A peer that says nothing is left; one may
//! leave the hash out.
use super::figures::AuditFigures;
use super::line::{split, Hash, Line};
use super::lines::{file_name, files, Follower, Lines, Next};
use crate::domain::bytes_of_hex;
use crate::ledger::Storage;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long the peer may take to say where it stands.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);
/// How long the peer may take nothing before the connection is given up.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// Pause before the peer is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// Pause before it is looked for more lines.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long an orderly end waits for the peer to take the last lines.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// Lines that are sent together, in bytes.
const SEND_BYTES: usize = 64 << 10;
/// Longest word of a peer: the digits of 64 bits, a space, the digits of a hash and a line feed.
const HELLO_BYTES_MAX: usize = 20 + 1 + 64 + 1;

/// What a peer has said, or why it has not.
#[derive(Debug, PartialEq, Eq)]
enum Peer {
    /// The last line that it has, and its hash.
    Has(u64, Option<Hash>),
    /// It closed the connection, or said something else.
    Unclear,
}

impl Peer {
    fn ask(stream: &mut UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(HELLO_PATIENCE))?;
        let (mut said, mut byte) = (Vec::new(), [0]);
        while said.len() < HELLO_BYTES_MAX && stream.read(&mut byte)? == 1 {
            if byte[0] == b'\n' {
                return Ok(std::str::from_utf8(&said).ok().and_then(Self::read).unwrap_or(Peer::Unclear));
            }
            said.push(byte[0]);
        }
        Ok(Peer::Unclear)
    }

    fn read(said: &str) -> Option<Self> {
        let (number, hash) = match said.split_once(' ') {
            None => (said, None),
            Some((number, hash)) => (number, Some(bytes_of_hex(hash)?)),
        };
        Some(Peer::Has(number.parse().ok()?, hash))
    }
}

/// Delivers to the peer behind `path` until `stop` is set and everything has been sent, or the peer takes too long then.
pub fn deliver<S: Storage>(storage: &S, path: &Path, figures: &AuditFigures, stop: &AtomicBool) {
    let mut told = String::new();
    while !stop.load(Ordering::Acquire) {
        let ended = connected(storage, path, figures, stop);
        let what = match ended {
            Ok(()) => return,
            Err(error) => error.to_string(),
        };
        if what != told {
            let peer = path.display();
            tracing::warn!(event = "audit_peer_lost", %peer, reason = what, "the peer of the audit stream is not there; tried again every second");
            told = what;
        }
        let until = Instant::now() + RETRY_EVERY;
        while Instant::now() < until && !stop.load(Ordering::Acquire) {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn connected<S: Storage>(storage: &S, path: &Path, figures: &AuditFigures, stop: &AtomicBool) -> io::Result<()> {
    let mut stream = UnixStream::connect(path)?;
    let unclear = || io::Error::other("it does not say which line it has last, as a number, its hash and a line feed");
    let Peer::Has(last, hash) = Peer::ask(&mut stream)? else { return Err(unclear()) };
    stream.set_write_timeout(Some(WRITE_PATIENCE))?;
    tracing::info!(event = "audit_peer", peer = %path.display(), behind = last, "the peer of the audit stream is connected");
    let last = match has(storage, last, hash)? {
        true => last,
        false => {
            let peer = path.display();
            tracing::warn!(
                event = "audit_peer_apart", %peer, line = last,
                "the audit stream does not have the last line of its peer; the peer is sent everything from the oldest line on"
            );
            0
        }
    };
    let first_file = if last == 0 { 1 } else { file_with(storage, last.saturating_add(1))? };
    let mut lines = Follower::from_file(storage.clone(), first_file);
    let (mut line, mut batch, mut newest) = (Vec::new(), Vec::new(), last);
    // Whether what comes is behind the peer's last line. From then on all is sent as it stands, whatever its number.
    let mut is_behind = false;
    let mut ending = None;
    loop {
        while batch.len() < SEND_BYTES {
            if !lines.next(&mut line)? {
                is_behind = true;
                break;
            }
            let n = Line::read(&line).map_or(0, |line| line.n);
            is_behind |= n > last;
            if is_behind || n == 0 {
                batch.extend_from_slice(&line);
                newest = if n > 0 { n } else { newest };
            }
        }
        if !batch.is_empty() {
            if ending.is_some() {
                stream.set_write_timeout(Some(END_PATIENCE))?;
            }
            stream.write_all(&batch)?;
            figures.sent(newest);
            batch.clear();
            continue;
        }
        if is_gone(&mut stream)? {
            return Err(io::Error::other("it has closed the connection"));
        }
        match ending {
            Some(_) => return Ok(()),
            // What was written before the end was asked for is looked for once more.
            None if stop.load(Ordering::Acquire) => ending = Some(()),
            None => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// Whether the peer has closed its end. What else it says is thrown away.
fn is_gone(stream: &mut UnixStream) -> io::Result<bool> {
    stream.set_nonblocking(true)?;
    let read = stream.read(&mut [0; HELLO_BYTES_MAX]);
    stream.set_nonblocking(false)?;
    match read {
        Ok(0) => Ok(true),
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the stream has this line, with this hash if one is given; true as well if its file was removed, which tells nothing.
fn has<S: Storage>(storage: &S, last: u64, hash: Option<Hash>) -> io::Result<bool> {
    let fits = |own: Option<Hash>| hash.map_or(true, |hash| own == Some(hash));
    if last == 0 {
        return Ok(true);
    }
    let mut lines = Follower::from_file(storage.clone(), file_with(storage, last)?);
    let mut line = Vec::new();
    while lines.next(&mut line)? {
        let Some(read) = Line::read(&line) else { continue };
        if read.n == last {
            return Ok(fits(split(&line).map(|(_, own)| own)));
        }
        if read.n > last {
            // The first line that is here; it says which hash the one before has.
            return Ok(read.n > last + 1 || fits(read.prev.as_deref().and_then(bytes_of_hex)));
        }
    }
    Ok(false)
}

/// The file with this line, or the oldest one if it is not there any more.
fn file_with<S: Storage>(storage: &S, n: u64) -> io::Result<u32> {
    let numbers = files(storage)?;
    let mut line = Vec::new();
    for number in numbers.iter().rev() {
        let mut lines = Lines::of(storage.open(&file_name(*number))?);
        let begins = lines.next(&mut line)? == Next::Line && Line::read(&line).is_some_and(|first| first.n <= n);
        if begins {
            return Ok(*number);
        }
    }
    Ok(numbers.first().copied().unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain::Chain;
    use crate::audit::write::After;
    use crate::domain::{LogId, UnixMs};
    use crate::ledger::{MemoryStorage, StorageFile};
    use std::os::unix::net::UnixListener;

    /// A stream of two files, with five lines each.
    fn stream() -> MemoryStorage {
        let (storage, mut chain) = (MemoryStorage::new(), Chain::BEGINNING);
        for number in 1..=2 {
            let mut out = Vec::new();
            chain.write_begin(&mut out, UnixMs(1), LogId([7; 16]), After::Full);
            (0..4).for_each(|_| chain.write_checkpoint(&mut out, UnixMs(2), None));
            storage.create(&file_name(number)).unwrap().write_at(&out, 0).unwrap();
        }
        storage
    }

    /// The numbers of the lines that a peer gets that says this.
    fn received(said: &[u8], lines: usize) -> Vec<u64> {
        received_from(&stream(), said, lines)
    }

    fn received_from(storage: &MemoryStorage, said: &[u8], lines: usize) -> Vec<u64> {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("peer.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (figures, stop) = (AuditFigures::default(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| deliver(storage, &path, &figures, &stop));
            let (mut peer, _) = listener.accept().unwrap();
            peer.write_all(said).unwrap();
            let (mut got, mut numbers) = (Vec::new(), Vec::new());
            peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            while numbers.len() < lines {
                let mut byte = [0];
                if peer.read_exact(&mut byte).is_err() {
                    // Too few have come: the other thread is to end all the same.
                    break;
                }
                got.push(byte[0]);
                if byte[0] == b'\n' {
                    numbers.push(Line::read(&got).unwrap().n);
                    got.clear();
                }
            }
            stop.store(true, Ordering::Release);
            let mut rest = Vec::new();
            peer.read_to_end(&mut rest).unwrap();
            assert!(rest.is_empty(), "nothing is sent twice");
            assert_eq!(figures.sent_line(), if lines == 0 { 0 } else { 10 });
            numbers
        })
    }

    #[test]
    fn a_peer_goes_on_where_it_says_that_it_stands() {
        assert_eq!(received(b"0\n", 10), (1..=10).collect::<Vec<u64>>());
        assert_eq!(received(b"3\n", 7), (4..=10).collect::<Vec<u64>>());
        assert_eq!(received(b"7\n", 3), [8, 9, 10]);
        assert_eq!(received(b"hello\n", 0), Vec::<u64>::new());
    }

    /// What a peer says that has this line, with its own hash or with another one.
    fn hello(storage: &MemoryStorage, n: u64, is_own: bool) -> Vec<u8> {
        let mut lines = Follower::from_file(storage.clone(), 1);
        let (mut line, mut hash) = (Vec::new(), [1; 32]);
        while is_own && lines.next(&mut line).unwrap() {
            if Line::read(&line).unwrap().n == n {
                hash = split(&line).unwrap().1;
            }
        }
        format!("{n} {}\n", crate::domain::hex(&hash)).into_bytes()
    }

    #[test]
    fn a_peer_whose_last_line_the_stream_does_not_have_gets_everything() {
        let all: Vec<u64> = (1..=10).collect();
        let storage = stream();
        for n in [3, 5, 6, 9] {
            let rest: Vec<u64> = (n + 1..=10).collect();
            assert_eq!(received(&hello(&storage, n, true), rest.len()), rest);
            assert_eq!(received(&hello(&storage, n, false), 10), all, "another line has its number");
        }
        assert_eq!(received(&hello(&storage, 77, false), 10), all, "numbers have begun anew");
        assert_eq!(received(b"77\n", 10), all);
        assert_eq!(received(b"3 77\n", 0), Vec::<u64>::new(), "that is no hash");
        // Whose last lines were removed gets what is there.
        let (third, fifth) = (hello(&storage, 3, true), hello(&storage, 5, true));
        storage.remove(&file_name(1)).unwrap();
        for said in [third, fifth, hello(&storage, 5, false)] {
            assert_eq!(received_from(&storage, &said, 5), (6..=10).collect::<Vec<u64>>());
        }
    }
}
