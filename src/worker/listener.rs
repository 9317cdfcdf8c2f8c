//! Accepts connections on a core's own listener, within the core's share of the connection cap.
use super::core::SharedCore;
use super::serve::serve;
use crate::telemetry::Tally;
use monoio::io::{AsyncWriteRentExt, CancelHandle};
use monoio::net::{TcpListener, TcpStream};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Pending connections that the kernel keeps for a listener.
const BACKLOG: i32 = 4096;
/// Pause after a failed accept, so that a lack of descriptors does not become a busy loop.
const BACKOFF: Duration = Duration::from_millis(50);

/// How long an address that is taken is tried again: the ring of a process that was just killed can hold its listener a little
/// longer than the process lives.
const BIND_PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two tries.
const BIND_PAUSE: Duration = Duration::from_millis(20);

/// What a connection over the cap is told.
const OVER_CAP: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\n\
Content-Length: 141\r\n\r\n{\"code\":\"RETRY_LATER\",\"http\":503,\"message\":\"too many connections; retry later or raise limits.connections\",\
\"retryable\":true,\"corr_id\":\"none\"}";

/// Binds one listener per core to the same address; the kernel spreads connections over them.
///
/// # Errors
/// If the address is taken by another process or cannot be used. A process that shares the port through SO_REUSEPORT, as
/// another server of this kind would, counts as taken: it would get a part of the requests.
pub fn bind(address: SocketAddr, cores: usize) -> io::Result<Vec<std::net::TcpListener>> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = |share: bool, address: SocketAddr| -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec().nonblocking(), Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(share)?;
        socket.bind(&address.into())?;
        Ok(socket)
    };
    let deadline = Instant::now() + BIND_PATIENCE;
    let alone = loop {
        match socket(false, address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => std::thread::sleep(BIND_PAUSE),
            bound => break bound?,
        }
    };
    let address = alone.local_addr()?.as_socket().unwrap_or(address);
    drop(alone);
    let listeners = (0..cores).map(|_| {
        let socket = socket(true, address)?;
        socket.set_tcp_nodelay(true)?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    });
    listeners.collect()
}

/// Accepts until cancelled.
pub async fn accept(core: SharedCore, listener: TcpListener, cancel: CancelHandle, connections_max: usize) {
    loop {
        if core.borrow().draining {
            return;
        }
        match listener.cancelable_accept(cancel.clone()).await {
            Ok((stream, _)) => admit(&core, stream, connections_max),
            Err(_) if core.borrow().draining => return,
            Err(error) => {
                core.borrow_mut().front.stats.tally(Tally::AcceptFault);
                tracing::warn!(event = "accept_failed", %error, "could not accept a connection; see limits.connections and ulimit -n");
                monoio::time::sleep(BACKOFF).await;
            }
        }
    }
}

fn admit(shared: &SharedCore, mut stream: TcpStream, connections_max: usize) {
    let mut core = shared.borrow_mut();
    if core.front.connections.open() >= connections_max {
        core.front.stats.tally(Tally::ConnectionRefused);
        monoio::spawn(async move {
            // The client may be gone already; there is nothing more to tell it.
            let _ = stream.write_all(OVER_CAP).await;
        });
        return;
    }
    core.front.stats.tally(Tally::ConnectionAccepted);
    let now_ms = core.front.now_ms();
    let place = core.front.connections.insert(stream.as_raw_fd(), now_ms);
    drop(core);
    monoio::spawn(serve(shared.clone(), stream, place));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_says_how_long_it_is() {
        let text = std::str::from_utf8(OVER_CAP).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }

    #[test]
    fn a_taken_port_is_refused_even_if_it_could_be_shared() {
        let first = bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let address = first[0].local_addr().unwrap();
        assert_eq!(first[1].local_addr().unwrap(), address);
        assert_eq!(bind(address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
