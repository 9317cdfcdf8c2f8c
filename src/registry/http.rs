//! A registry behind HTTP as a source: one GET at a time, with a bound for each part of it.
//!
//! What was taken last is asked for with `If-None-Match`, and with `?wait=SECONDS`: a registry that knows it answers when there is
//! something new, or after that time; one that does not answers at once. Redirects are not followed and proxies of the environment
//! not used: a topology comes from the address that was configured, or not at all. The look-up of a name has the bounds of the system's
//! resolver: one of our own would need a thread for each question.
use std::time::Duration;

use ureq::http::header::{ETAG, IF_NONE_MATCH};
use ureq::http::{HeaderValue, Uri};
use ureq::{Agent, Error};

use super::source::{Answer, SourceFault, TOPOLOGY_PATH};
use super::topology::FILE_BYTES_MAX;
use super::Registry;

/// Longest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Longest entity tag that is sent back, in bytes.
const TAG_BYTES_MAX: usize = 256;
/// Longest time for which a registry is asked to wait for something new; one that waits is asked again at once.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A registry behind HTTP and the entity tag of what was taken last.
#[derive(Debug)]
pub(super) struct HttpSource {
    agent: Agent,
    uri: String,
    timeout: Duration,
    wait: Duration,
    /// That of the answer which came last.
    read: Option<HeaderValue>,
    /// That of the answer which was taken last.
    taken: Option<HeaderValue>,
}

impl HttpSource {
    /// The registry at this URL, `http://host[:port][/path]`. Each part of an exchange may take `timeout`, and a registry that can wait
    /// is asked to do so for `wait`, in whole seconds.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn new(url: &str, timeout: Duration, wait: Duration) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url} is no URL: {error}"))?;
        let uri = match uri.path() {
            "" | "/" => format!("{}{TOPOLOGY_PATH}", url.trim_end_matches('/')),
            _ => url.to_owned(),
        };
        let config = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .max_idle_connections(0)
            .max_response_header_size(HEAD_BYTES_MAX)
            .user_agent(concat!("svc-wallet/", env!("CARGO_PKG_VERSION")))
            .accept("application/json")
            .timeout_connect(Some(timeout))
            .timeout_recv_body(Some(timeout))
            .build();
        let wait = Duration::from_secs(wait.min(WAIT_MAX).as_secs());
        Ok(Self { agent: config.new_agent(), uri, timeout, wait, read: None, taken: None })
    }

    /// For how long a registry that can wait does so, before it says that there is nothing new.
    pub fn wait(&self) -> Duration {
        self.wait
    }

    /// What the registry says; `at_once` does not let it wait.
    pub fn ask(&mut self, at_once: bool) -> Result<Answer, SourceFault> {
        let wait = if at_once || self.taken.is_none() { Duration::ZERO } else { self.wait };
        let mut request = self.agent.get(&self.uri);
        if let Some(tag) = &self.taken {
            request = request.header(IF_NONE_MATCH, tag);
        }
        if !wait.is_zero() {
            request = request.query("wait", wait.as_secs().to_string());
        }
        // The library lets the bound of each part hold for the part behind it as well, from its own end on: so the head and the body
        // have a whole, and not only between two reads.
        let answered_within = Some(self.timeout + wait);
        let request = request.config().timeout_send_request(answered_within).timeout_recv_response(answered_within).build();
        let response = request.call().map_err(|error| self.fault(&error))?;
        self.read = response.headers().get(ETAG).filter(|tag| tag.len() <= TAG_BYTES_MAX).cloned();
        match response.status().as_u16() {
            200 => {}
            304 if self.taken.is_some() => return Ok(Answer::Unchanged),
            304 => return Err(SourceFault::Refused("it answers 304 to a question for everything".to_owned())),
            status @ 300..=399 => {
                return Err(SourceFault::Refused(format!("it answers {status}, and redirects are not followed")))
            }
            status => return Err(SourceFault::Refused(format!("it answers with status {status}"))),
        }
        let mut body = response.into_body();
        // A body of exactly so many bytes ends there, which is seen only by reading on.
        let text = body.with_config().limit(FILE_BYTES_MAX + 1).read_to_vec().map_err(|error| self.fault(&error))?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(too_large());
        }
        Registry::parse(&text).map(Answer::Topology).map_err(|fault| SourceFault::Refused(fault.to_string()))
    }

    /// What came last has been taken.
    pub fn taken(&mut self) {
        self.taken = self.read.take();
    }

    fn fault(&self, error: &Error) -> SourceFault {
        match error {
            Error::BodyExceedsLimit(_) => too_large(),
            Error::LargeResponseHeader(..) => {
                SourceFault::Refused(format!("the head of its answer is larger than {HEAD_BYTES_MAX} bytes"))
            }
            Error::Timeout(_) => SourceFault::Unreachable(format!("it does not answer within {:?}", self.timeout)),
            Error::HostNotFound => SourceFault::Unreachable("its host is not known".to_owned()),
            Error::Io(error) => SourceFault::Unreachable(error.to_string()),
            Error::Protocol(error) => SourceFault::Refused(format!("its answer is no HTTP/1.1: {error}")),
            // The enum may grow.
            other => SourceFault::Unreachable(other.to_string()),
        }
    }
}

fn too_large() -> SourceFault {
    SourceFault::Refused(format!("its answer is too large; a registry has {FILE_BYTES_MAX} bytes at most"))
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
