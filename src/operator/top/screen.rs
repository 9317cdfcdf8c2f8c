//! The terminal: a screen of its own without a cursor, keys one by one, and everything as it was before once this value is gone, however the
//! command ends.
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::termios::{tcgetattr, tcgetwinsize, tcsetattr, LocalModes, OptionalActions, Termios};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{self, IsTerminal, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Leaves the lines of the shell alone, hides the cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
/// Shows both again.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// Size of a terminal that does not tell it: columns and rows.
const SIZE_DEFAULT: (usize, usize) = (80, 24);
/// Longest time for which a signal is not noticed, where there are no keys to wait for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Ctrl-C, as a key: it is no signal while keys come one by one.
const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const ESCAPE: u8 = 27;

/// What ends a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The time is over.
    Time,
    /// Somebody wants it to end: a key or a signal.
    End,
}

/// Signals that ask the command to end.
#[derive(Debug)]
pub struct Ending(Arc<AtomicBool>);

impl Ending {
    /// From now on these signals end nothing by themselves.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn listen() -> io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&asked))?;
        }
        Ok(Self(asked))
    }

    fn asked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Waits so long, or until a signal or, with `keys`, a key asks to end.
    pub fn wait(&self, time: Duration, keys: bool) -> Woken {
        let until = Instant::now() + time;
        while !self.asked() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Woken::Time;
            }
            let some = left.min(LOOK_EVERY);
            if !keys {
                std::thread::sleep(some);
            } else if pressed(some) {
                return Woken::End;
            }
        }
        Woken::End
    }
}

/// Whether a key was pressed meanwhile that ends the command. Others are passed over.
fn pressed(within: Duration) -> bool {
    let stdin = io::stdin();
    let within = Timespec { tv_sec: 0, tv_nsec: within.subsec_nanos().into() };
    let mut wanted = [PollFd::new(&stdin, PollFlags::IN)];
    // An interrupted poll is a signal, which the caller looks for.
    if !poll(&mut wanted, Some(&within)).is_ok_and(|ready| ready > 0) {
        return false;
    }
    let mut keys = [0u8; 64];
    match stdin.lock().read(&mut keys) {
        // The terminal is gone.
        Ok(0) | Err(_) => true,
        Ok(count) => keys[..count] == [ESCAPE] || keys[..count].iter().any(|key| matches!(*key, b'q' | b'Q' | CTRL_C | CTRL_D)),
    }
}

/// The screen while frames are drawn.
pub struct Screen {
    /// How the terminal was; nothing if keys do not come from one.
    before: Option<Termios>,
}

impl Screen {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// If it cannot be written to.
    pub fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = if stdin.is_terminal() { tcgetattr(&stdin).ok() } else { None };
        if let Some(before) = &before {
            let mut keys = before.clone();
            keys.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
            tcsetattr(&stdin, OptionalActions::Now, &keys)?;
        }
        // From here on the drop puts everything back.
        let screen = Self { before };
        write_now(ENTER)?;
        Ok(screen)
    }

    /// Whether keys come one by one.
    pub fn has_keys(&self) -> bool {
        self.before.is_some()
    }

    /// Draws a frame in place of the one before, as far as it fits.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn draw(&self, lines: &[String], rows: usize) -> io::Result<()> {
        let mut text = String::from("\x1b[H");
        for (index, line) in lines.iter().take(rows).enumerate() {
            text.push_str(if index == 0 { "" } else { "\r\n" });
            text.push_str(line);
            text.push_str("\x1b[K");
        }
        text.push_str("\x1b[J");
        write_now(&text)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // If the terminal is gone there is nothing to put back.
        let _ = write_now(LEAVE);
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

fn write_now(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Columns and rows of the terminal; `COLUMNS` wins, for whoever prints into a pipe.
pub fn size() -> (usize, usize) {
    let named = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).filter(|columns| *columns > 0);
    let told = tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
    let (columns, rows) = told.map_or(SIZE_DEFAULT, |size| (size.ws_col.into(), size.ws_row.into()));
    (named.unwrap_or(columns), rows)
}
