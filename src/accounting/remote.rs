//! Counters that are kept by `ron-accounting`, as the wallet sees it: a connection that is made when it is needed, and answers that come
//! in time or count as none.
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{recv, RecvFlags};

use super::protocol::{Answer, Request, ANSWER_BYTES_MAX};
use super::sink::{Sink, SinkFault, Stretch};
use crate::domain::{LogId, Seq};
use crate::ledger::connect_to;
use crate::stream::Until;

/// How long an answer to a question may take.
const QUESTION_PATIENCE: Duration = Duration::from_secs(1);
/// How long a line may take until it is kept: the daemon waits for its disk.
const LINE_PATIENCE: Duration = Duration::from_secs(10);

/// The daemon behind a socket.
#[derive(Debug)]
pub struct Remote {
    socket: PathBuf,
    connection: Option<UnixStream>,
}

impl Remote {
    /// The daemon behind this socket, which need not be there yet.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket, connection: None }
    }

    /// Where the daemon has its files, and the ledgers that it counts.
    ///
    /// # Errors
    /// If it is not there, or does not answer.
    pub fn files(&mut self) -> Result<(PathBuf, Vec<String>), SinkFault> {
        match self.ask_again(&Request::Files)? {
            Answer::Files { directory, logs } => Ok((directory.into(), logs)),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Asks what may be asked twice: a connection that was cut since the last question is made anew.
    fn ask_again(&mut self, request: &Request) -> Result<Answer, SinkFault> {
        let question = request.question();
        let had_connection = self.connection.is_some();
        match self.exchange(&question, QUESTION_PATIENCE) {
            Err(_) if had_connection => self.exchange(&question, QUESTION_PATIENCE),
            answered => answered,
        }
    }

    /// One line and its answer. Without an answer in time the connection is given up: what it still might say is of the past.
    fn exchange(&mut self, line: &str, patience: Duration) -> Result<Answer, SinkFault> {
        let until = Instant::now() + patience;
        let exchanged = self.connected().and_then(|stream| {
            let answered = say_and_hear(&stream, line, until)?;
            self.connection = Some(stream);
            Ok(answered)
        });
        let what = |error: io::Error| match error.kind() {
            io::ErrorKind::TimedOut => format!("it does not answer within {patience:?}"),
            _ => error.to_string(),
        };
        match exchanged {
            Err(error) => Err(SinkFault::Absent { socket: self.socket.clone(), what: what(error) }),
            Ok(Answer::Error { error }) => Err(self.refused(error)),
            Ok(answer) => Ok(answer),
        }
    }

    /// The connection, which is put back once it has answered; a fresh one if it was cut meanwhile.
    fn connected(&mut self) -> io::Result<UnixStream> {
        if let Some(stream) = self.connection.take().filter(is_quiet) {
            return Ok(stream);
        }
        let stream = connect_to(&self.socket)?;
        stream.set_nonblocking(false)?;
        Ok(stream)
    }

    fn through_of(&self, answer: &Answer) -> Result<Seq, SinkFault> {
        match answer {
            Answer::Through { through } => Ok(Seq(*through)),
            other => Err(self.unexpected(other)),
        }
    }

    fn unexpected(&self, answer: &Answer) -> SinkFault {
        self.refused(format!("it answers something else than it was asked: {}", answer.line().trim_end()))
    }

    fn refused(&self, what: String) -> SinkFault {
        SinkFault::Refused { socket: self.socket.clone(), what }
    }
}

impl Sink for Remote {
    fn through(&mut self, log: LogId) -> Result<Seq, SinkFault> {
        let answer = self.ask_again(&Request::Through(log))?;
        self.through_of(&answer)
    }

    fn append(&mut self, stretch: Stretch, line: &str) -> Result<(), SinkFault> {
        let answer = self.exchange(line, LINE_PATIENCE)?;
        let through = self.through_of(&answer)?;
        if through != stretch.through {
            return Err(self.refused(format!("it says that it has entry {} now, not {}", through.0, stretch.through.0)));
        }
        Ok(())
    }

    fn set_aside(&mut self, log: LogId) -> Result<(), SinkFault> {
        self.exchange(&Request::SetAside(log).question(), LINE_PATIENCE).map(|_| ())
    }
}

/// Where the daemon behind this socket has its files, and the ledgers that it counts.
///
/// # Errors
/// If it is not there, or does not answer.
pub fn files_behind(socket: &Path) -> Result<(PathBuf, Vec<String>), SinkFault> {
    Remote::new(socket.to_owned()).files()
}

/// Whether nothing is to be read of a connection, neither bytes nor its end.
fn is_quiet(stream: &UnixStream) -> bool {
    recv(stream, &mut [0][..], RecvFlags::PEEK | RecvFlags::DONTWAIT).is_err_and(|error| error == Errno::WOULDBLOCK)
}

fn say_and_hear(stream: &UnixStream, line: &str, until: Instant) -> io::Result<Answer> {
    let mut stream = Until::new(stream, until);
    stream.write_all(line.as_bytes())?;
    let (mut heard, mut chunk) = (Vec::new(), [0; 512]);
    loop {
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            return Err(io::Error::other("it has closed the connection"));
        }
        heard.extend_from_slice(&chunk[..read]);
        if heard.ends_with(b"\n") {
            return serde_json::from_slice(&heard).map_err(|error| io::Error::other(format!("its answer is none: {error}")));
        }
        if heard.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::other("its answer has no end"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    const LOG: LogId = LogId([7; 16]);

    /// A daemon that answers each connection's lines with these, and then closes it.
    fn daemon(answers: &'static [&'static str]) -> (tempfile::TempDir, Remote) {
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap());
                for answer in answers {
                    let mut line = String::new();
                    if lines.read_line(&mut line).is_ok_and(|read| read > 0) {
                        // Whoever asked may have gone.
                        let _ = stream.write_all(answer.as_bytes());
                    }
                }
            }
        });
        (place, Remote::new(socket))
    }

    #[test]
    fn a_daemon_that_is_gone_is_told_and_one_that_came_back_is_asked_again() {
        let place = tempfile::tempdir().unwrap();
        let mut gone = Remote::new(place.path().join("none"));
        assert!(gone.through(LOG).unwrap_err().to_string().contains("No such file"));
        // Each connection has one answer: the second question finds it closed, and makes another.
        let (_place, mut remote) = daemon(&["{\"through\":5}\n"]);
        assert_eq!(remote.through(LOG).unwrap(), Seq(5));
        assert_eq!(remote.through(LOG).unwrap(), Seq(5));
        // A line is as well served, if it is known before that the connection was cut.
        while remote.connection.as_ref().is_some_and(is_quiet) {
            std::thread::yield_now();
        }
        remote.append(Stretch { log: LOG, from: Seq(5), through: Seq(5) }, "x\n").unwrap();
    }

    #[test]
    fn a_line_is_not_sent_twice_because_nobody_knows_what_became_of_the_first() {
        // The second line of a connection is taken, and the connection cut.
        let (_place, mut remote) = daemon(&["{\"through\":5}\n", ""]);
        assert_eq!(remote.through(LOG).unwrap(), Seq(5));
        let stretch = Stretch { log: LOG, from: Seq(6), through: Seq(7) };
        let lost = remote.append(stretch, "x\n").unwrap_err().to_string();
        assert!(lost.contains("closed the connection"), "{lost}");
        assert!(remote.append(stretch, "x\n").unwrap_err().to_string().contains("entry 5 now, not 7"));
    }

    #[test]
    fn nonsense_silence_and_refusals_are_told() {
        for (answers, told) in [
            (&["{\"error\":\"no room\"}\n"][..], "no room"),
            (&["hello\n"][..], "its answer is none"),
            (&["{\"directory\":\"/d\",\"logs\":[]}\n"][..], "something else than it was asked"),
            (&["", ""][..], "does not answer within 1s"),
        ] {
            let (_place, mut remote) = daemon(answers);
            let refused = remote.through(LOG).unwrap_err().to_string();
            assert!(refused.contains(told), "{refused}");
        }
    }
}
