//! Where a URL leads: a host and a port that a connection is made to.
use std::io::{self, ErrorKind};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Instant;

use super::left;

/// The authority of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Host and port as they stand in the URL.
    pub authority: String,
    name: String,
    port: u16,
}

impl Host {
    /// That of `http://HOST[:PORT][/PATH]`, and the path, which may be empty; `None` for anything else.
    pub fn of_url(url: &str) -> Option<(Self, &str)> {
        let rest = url.strip_prefix("http://")?;
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (name, port) = match authority.rsplit_once(':') {
            Some((name, port)) if !name.starts_with('[') || name.ends_with(']') => {
                (name, port.parse().ok().filter(|port| *port > 0)?)
            }
            Some(_) | None => (authority, 80),
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
        if name.is_empty() || !name.bytes().all(of_name) || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        Some((Self { authority: authority.to_owned(), name: name.to_owned(), port }, path))
    }

    /// A connection to the first of its addresses that takes one before the deadline. The look-up of its name has the bounds of the
    /// system's resolver.
    ///
    /// # Errors
    /// If it has no address, with [`ErrorKind::NotFound`], or none takes a connection.
    pub fn connect(&self, deadline: Instant) -> io::Result<TcpStream> {
        let addresses = (self.name.as_str(), self.port).to_socket_addrs();
        let addresses =
            addresses.map_err(|error| io::Error::new(ErrorKind::NotFound, format!("its host is not found: {error}")))?;
        let mut fault = io::Error::from(ErrorKind::AddrNotAvailable);
        for address in addresses {
            match left(deadline).and_then(|left| TcpStream::connect_timeout(&address, left)) {
                Ok(stream) => return Ok(stream),
                Err(error) => fault = error,
            }
        }
        Err(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_host_a_port_and_a_path_or_nothing() {
        let of = |url| Host::of_url(url).map(|(host, path)| (host.name, host.port, path.to_owned()));
        let found = |name: &str, port, path: &str| Some((name.to_owned(), port, path.to_owned()));
        assert_eq!(of("http://a.b"), found("a.b", 80, ""));
        assert_eq!(of("http://a:4318/v1/x?y"), found("a", 4318, "/v1/x?y"));
        assert_eq!(of("http://[::1]:80/"), found("::1", 80, "/"));
        assert_eq!(of("http://[fe80::1%lo]"), found("fe80::1%lo", 80, ""));
        for none in [
            "https://a",
            "a:1",
            "http://",
            "http://:80",
            "http://a:",
            "http://a:99999",
            "http://a:0",
            "http://u@a",
            "http://ä",
            "http://a!b:1",
            "http://a/ b",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
