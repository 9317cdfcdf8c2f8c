//! Accepts connections on a core's own listener, within the cap on connections of the whole server.
//!
//! A connection over the cap gets a whole reply before its request is read, and a short while in which to read it. It is in no
//! table: the sweep does not know it.
use super::core::SharedCore;
use super::front::Front;
use super::serve::serve;
use super::site::Site;
use crate::api::{reply, Method, Route};
use crate::domain::{Code, Refusal};
use crate::http;
use crate::telemetry::{MethodIndex, RouteIndex, Tally};
use monoio::io::{AsyncWriteRent, AsyncWriteRentExt, CancelHandle, CancelableAsyncReadRent, Canceller};
use monoio::net::{TcpListener, TcpStream};
use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
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

/// How long a refused client may go on sending before the connection is closed under it; without that it could lose the reply.
const REFUSED_LINGER: Duration = Duration::from_millis(500);
/// Refused connections of one core that are waited for at once; more are closed right after the reply.
const REFUSED_LINGERING_MAX: usize = 64;
/// Bytes that are read at once of what a refused client sends.
const REFUSED_READ_BYTES: usize = 4 << 10;

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
pub async fn accept(core: SharedCore, listener: TcpListener, cancel: CancelHandle, site: Arc<Site>) {
    let lingering = Rc::new(Cell::new(0));
    loop {
        if core.borrow().draining {
            return;
        }
        match listener.cancelable_accept(cancel.clone()).await {
            Ok((stream, _)) if site.connections.admit() => admit(&core, stream),
            Ok((stream, _)) => {
                let reply = over_cap(&mut core.borrow_mut().front);
                monoio::spawn(refuse(stream, reply, lingering.clone()));
            }
            Err(_) if core.borrow().draining => return,
            Err(error) => {
                core.borrow_mut().front.stats.tally(Tally::AcceptFault);
                tracing::warn!(event = "accept_failed", %error, "could not accept a connection; see limits.connections and ulimit -n");
                if lacks_resources(&error) {
                    monoio::time::sleep(BACKOFF).await;
                }
            }
        }
    }
}

/// Whether the system had no descriptors or memory for one more; other faults concern one connection only.
fn lacks_resources(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let lacking = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|number| lacking.iter().any(|errno| errno.raw_os_error() == number))
}

fn admit(shared: &SharedCore, stream: TcpStream) {
    let mut core = shared.borrow_mut();
    core.front.stats.tally(Tally::ConnectionAccepted);
    let now_ms = core.front.now_ms();
    let place = core.front.connections.insert(stream.as_raw_fd(), now_ms);
    drop(core);
    monoio::spawn(serve(shared.clone(), stream, place));
}

/// The reply to a connection over the cap, counted like any other.
fn over_cap(front: &mut Front) -> Vec<u8> {
    let corr = front.made_corr();
    let refusal = Refusal::new(Code::RetryLater, "too many connections; retry later or raise limits.connections");
    front.stats.tally(Tally::ConnectionRefused);
    if let Some(reason) = refusal.reason {
        front.stats.rejected(reason);
    }
    front.stats.answered(RouteIndex(Route::Unknown as u8), MethodIndex(Method::Other as u8), refusal.status, 0);
    let corr_field = ("X-Corr-ID", corr.as_bytes());
    let retry = reply::refusal_headers(&refusal).iter().map(|(name, value)| (*name, value.as_bytes()));
    let fields: Vec<(&str, &[u8])> = [corr_field].into_iter().chain(retry).collect();
    let head = http::ReplyHead {
        status: refusal.status,
        date: front.date(),
        content_type: "application/json",
        connection: http::Connection::Closes,
        to_head: false,
        extra: &fields,
    };
    let mut out = Vec::with_capacity(512);
    let begun = http::begin(&mut out, &head);
    reply::refusal(&mut out, &refusal, corr.as_str());
    http::finish(&mut out, begun);
    out
}

/// Writes the reply and throws away what the client still sends, for a short while, so that it can read the reply.
async fn refuse(mut stream: TcpStream, reply: Vec<u8>, lingering: Rc<Cell<usize>>) {
    // The reply fits the buffer of a fresh socket, so this does not wait. The client may be gone already.
    if stream.write_all(reply).await.0.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    if lingering.get() >= REFUSED_LINGERING_MAX {
        return;
    }
    lingering.set(lingering.get() + 1);
    let canceller = Canceller::new();
    let handle = canceller.handle();
    monoio::spawn(async move {
        monoio::time::sleep(REFUSED_LINGER).await;
        canceller.cancel();
    });
    let deadline = Instant::now() + REFUSED_LINGER;
    let mut buffer = Vec::with_capacity(REFUSED_READ_BYTES);
    while Instant::now() < deadline {
        let (result, back) = stream.cancelable_read(buffer, handle.clone()).await;
        if !matches!(result, Ok(1..)) {
            break;
        }
        buffer = back;
    }
    lingering.set(lingering.get() - 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_refused_even_if_it_could_be_shared() {
        let first = bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let address = first[0].local_addr().unwrap();
        assert_eq!(first[1].local_addr().unwrap(), address);
        assert_eq!(bind(address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
