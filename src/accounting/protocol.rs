//! What a wallet and `ron-accounting` say to each other: one line each way, JSON in both, and the lines of counters as they stand in the
//! files.
//!
//! | said to the daemon | it answers |
//! |---|---|
//! | a line of counters | `{"through":N}` once that is on the disk |
//! | `{"v":1,"ask":"through","log":"…"}` | `{"through":N}` |
//! | `{"v":1,"ask":"set_aside","log":"…"}` | `{"through":0}` |
//! | `{"v":1,"ask":"files"}` | `{"directory":"/…","logs":["…"]}` |
//!
//! Whatever it does not do it answers with `{"error":"…"}`, and the connection stays. A line that is too long ends it.
use serde::{Deserialize, Serialize};

use super::line::{Line, LineFault};
use crate::domain::{bytes_of_hex, hex, LogId};

const VERSION: u8 = 1;
/// What a question begins with, and no line of counters does.
const QUESTION: &[u8] = br#"{"v":1,"ask":"#;
/// Longest line to the daemon, in bytes.
pub(crate) const REQUEST_BYTES_MAX: usize = 8 << 20;
/// Longest answer, in bytes: room for the names of all ledgers that a daemon may keep.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What the daemon is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// How far this ledger is counted.
    Through(LogId),
    /// To move what is counted of this ledger aside.
    SetAside(LogId),
    /// Where its files are, and of which ledgers.
    Files,
    /// To keep a line.
    Keep(Line),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    v: u8,
    ask: Ask,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<String>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ask {
    Through,
    SetAside,
    Files,
}

impl Request {
    /// Reads a line with its line feed.
    ///
    /// # Errors
    /// Why it is none, for the one who sent it.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        if !line.starts_with(QUESTION) {
            return Line::parse(line).map(Request::Keep).map_err(|fault: LineFault| fault.to_string());
        }
        let asked: Asked = serde_json::from_slice(line).map_err(|error| format!("this is no question: {error}"))?;
        let log = asked.log.as_deref().map(|log| bytes_of_hex(log).map(LogId).ok_or("the name of a ledger is 32 digits in hex"));
        match (asked.ask, log.transpose()?) {
            (Ask::Through, Some(log)) => Ok(Request::Through(log)),
            (Ask::SetAside, Some(log)) => Ok(Request::SetAside(log)),
            (Ask::Files, None) => Ok(Request::Files),
            (Ask::Files, Some(_)) => Err("this question is about all ledgers; leave the name out".to_owned()),
            (Ask::Through | Ask::SetAside, None) => Err("name the ledger: \"log\":\"32 digits in hex\"".to_owned()),
        }
    }

    /// The ledger that it is about, if it is about one.
    pub fn log(&self) -> Option<LogId> {
        match self {
            Request::Through(log) | Request::SetAside(log) => Some(*log),
            Request::Keep(line) => Some(line.log),
            Request::Files => None,
        }
    }

    /// The question as a line.
    ///
    /// # Panics
    /// For a line of counters, which is one already: the caller's mistake.
    pub fn question(&self) -> String {
        let (ask, log) = match self {
            Request::Through(log) => (Ask::Through, Some(log)),
            Request::SetAside(log) => (Ask::SetAside, Some(log)),
            Request::Files => (Ask::Files, None),
            Request::Keep(_) => unreachable!("a line is sent as it stands"),
        };
        let asked = Asked { v: VERSION, ask, log: log.map(|log| hex(&log.0)) };
        serde_json::to_string(&asked).expect("a question is plain data") + "\n"
    }
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub(crate) enum Answer {
    /// The last entry that is counted.
    Through {
        /// Its number; 0 if none is counted.
        through: u64,
    },
    /// Where the files are.
    Files {
        /// The absolute path of the directory, as the daemon sees it.
        directory: String,
        /// The names of the ledgers, each of which has a directory of its name in there.
        logs: Vec<String>,
    },
    /// Nothing was done.
    Error {
        /// Why.
        error: String,
    },
}

impl Answer {
    /// The answer as a line.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("an answer is plain data") + "\n"
    }
}

/// What must hold of lines to and from the daemon, whatever they hold; `src/fuzzing.rs` feeds it.
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing {
    use super::*;

    /// A line to the daemon: a question that was understood is written again as one with the same meaning.
    pub(crate) fn requests(input: &[u8]) {
        match Request::parse(input) {
            Ok(Request::Keep(line)) => assert!(line.from <= line.through && line.from.0 > 0),
            Ok(question) => assert_eq!(Request::parse(question.question().as_bytes()), Ok(question)),
            Err(why) => assert!(!why.is_empty()),
        }
        if let Ok(answer) = serde_json::from_slice::<Answer>(input) {
            assert_eq!(serde_json::from_str::<Answer>(&answer.line()).ok(), Some(answer));
        }
    }

    /// Inputs from which a fuzzer of [`requests`] begins.
    pub(crate) fn requests_seeds() -> Vec<Vec<u8>> {
        let log = LogId([7; 16]);
        let questions = [Request::Through(log), Request::SetAside(log), Request::Files].map(|request| request.question());
        let line = r#"{"v":1,"log":"07070707070707070707070707070707","from_seq":1,"through_seq":2,"deltas":[["a","roc","issue","credit",1,"5"]]"#;
        let check = hex(&blake3::hash(line.as_bytes()).as_bytes()[..16]);
        let line = format!("{line},\"check\":\"{check}\"}}\n");
        assert!(matches!(Request::parse(line.as_bytes()), Ok(Request::Keep(_))));
        let answers = [r#"{"through":9}"#, r#"{"directory":"/d","logs":["07"]}"#, r#"{"error":"no"}"#].map(str::to_owned);
        questions.into_iter().chain([line]).chain(answers).map(String::into_bytes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read_back_and_everything_else_is_refused_with_a_reason() {
        let log = LogId([0xab; 16]);
        for request in [Request::Through(log), Request::SetAside(log), Request::Files] {
            assert_eq!(Request::parse(request.question().as_bytes()), Ok(request));
        }
        for (bad, told) in [
            (r#"{"v":1,"ask":"through"}"#, "name the ledger"),
            (r#"{"v":1,"ask":"through","log":"xy"}"#, "32 digits"),
            (r#"{"v":1,"ask":"files","log":"abababababababababababababababab"}"#, "leave the name out"),
            (r#"{"v":1,"ask":"more"}"#, "unknown variant"),
            (r#"{"v":1,"ask":"files","x":1}"#, "unknown field"),
            ("", "cut short"),
            ("{}\n", "cut short"),
        ] {
            let refused = Request::parse(bad.as_bytes()).unwrap_err();
            assert!(refused.contains(told), "{bad}: {refused}");
        }
    }
}
