//! The task that serves one connection: read, hand in every complete request, write every reply that may leave, again.
//!
//! A connection is read only when nothing of it is unanswered, so that what one client can have in flight is bounded by the
//! pipeline depth and what it sends meanwhile waits in the kernel. What its input buffer takes beyond a small one it takes from a room
//! that all connections share; when that is used up, the request that needs more of it is refused and its connection closed.
use super::admission::Admission;
use super::connection::Phase;
use super::core::SharedCore;
use super::front::Fed;
use crate::http;
use monoio::buf::IoBufMut;
use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt};
use monoio::net::TcpStream;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// Bytes that a fresh input buffer holds; it grows for a request that is larger, and for a client that sends more at once.
const INPUT_BYTES: usize = 8 << 10;
/// Bytes that the input buffer of a client holds that has filled a smaller one: what is read together is committed together.
const INPUT_BUSY_BYTES: usize = 32 << 10;
/// Bytes by which the input buffer grows for a large request, at least.
const INPUT_STEP_BYTES: usize = 64 << 10;
/// An input buffer above this is given back when little is left in it.
const INPUT_KEEP_BYTES: usize = 64 << 10;
/// Bytes that the input buffers of all connections may have above `INPUT_KEEP_BYTES`. Strangers can send large bodies as well, and
/// there are many connections: without this they could take a request's worth of memory each.
pub const LARGE_INPUT_BYTES_MAX: usize = 256 << 20;
/// An output buffer above this is given back when it is written.
const OUTPUT_KEEP_BYTES: usize = 64 << 10;
/// What a client may still send after the last reply before the connection is closed for good.
const LINGER_BYTES_MAX: usize = 1 << 20;
/// Time between two looks whether requests that are late on purpose still are to be.
const LATE_LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a connection has of the room for large requests; given back when it ends.
struct Room {
    shared: Arc<Admission>,
    bytes: usize,
}

impl Room {
    /// Takes or gives back what a buffer of this capacity needs; false if there is not so much.
    fn fits(&mut self, capacity: usize) -> bool {
        let needed = capacity.saturating_sub(INPUT_KEEP_BYTES);
        if needed > self.bytes && !self.shared.admit_many(needed - self.bytes) {
            return false;
        }
        self.shared.release(self.bytes.saturating_sub(needed));
        self.bytes = needed;
        true
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.shared.release(self.bytes);
    }
}

/// What the task does next.
enum Next {
    Write(Vec<u8>),
    Read,
    Close,
}

/// Serves the connection at `place` until it ends, then removes it.
pub async fn serve(core: SharedCore, mut stream: TcpStream, place: u32) {
    let ended = converse(&core, &mut stream, place).await;
    if ended.is_ok() {
        linger(&core, &mut stream, place).await;
    }
    // The table forgets the connection, and with it the descriptor, before the stream closes it.
    let mut core = core.borrow_mut();
    core.front.close(place, ended.is_err());
    core.want_flush();
}

/// Errs if the connection broke or was cut, and there is nobody to linger for.
async fn converse(core: &SharedCore, stream: &mut TcpStream, place: u32) -> Result<(), ()> {
    let mut room = Room { shared: core.borrow().front.large_input(), bytes: 0 };
    let mut input = Vec::with_capacity(INPUT_BYTES);
    let mut filled = false;
    let mut output = Vec::new();
    let mut framer = http::Framer::default();
    loop {
        let waiting_us = if input.is_empty() { None } else { wait_if_late(core, place).await };
        let fed = {
            let mut core = core.borrow_mut();
            core.empty_inbox();
            let core = &mut *core;
            let fed = core.front.feed(place, &mut framer, &mut input, waiting_us, &mut core.engine);
            core.hand_over_early();
            core.want_flush();
            fed
        };
        loop {
            match next(core, place, &mut output).await {
                Next::Write(bytes) => {
                    let (result, mut bytes) = stream.write_all(bytes).await;
                    result.map_err(drop)?;
                    bytes.clear();
                    output = if bytes.capacity() > OUTPUT_KEEP_BYTES { Vec::new() } else { bytes };
                }
                Next::Read => break,
                Next::Close => return Ok(()),
            }
        }
        match fed {
            Fed::More => continue,
            Fed::All { request_bytes_max } => {
                if prepare(&mut input, &mut filled, request_bytes_max, &mut room) {
                    input = read(stream, input, &mut filled).await.map_err(drop)?;
                } else {
                    core.borrow_mut().front.refuse_for_room(place, &input);
                }
            }
        }
    }
}

/// Lets requests that have just arrived wait if they are to be late on purpose, while the core serves other connections; returns since when
/// they wait, in microseconds of its clock. What has arrived together is late together.
async fn wait_if_late(core: &SharedCore, place: u32) -> Option<u64> {
    let (late, since_us) = core.borrow_mut().front.lateness(place)?;
    loop {
        let waited = {
            let front = &core.borrow().front;
            if !front.is_late() {
                return Some(since_us);
            }
            Duration::from_micros(front.now_us().saturating_sub(since_us))
        };
        let left = late.saturating_sub(waited);
        if left.is_zero() {
            return Some(since_us);
        }
        monoio::time::sleep(left.min(LATE_LOOK_EVERY)).await;
    }
}

/// Waits until replies may be written or nothing is unanswered.
async fn next(core: &SharedCore, place: u32, output: &mut Vec<u8>) -> Next {
    poll_fn(|context| {
        let mut core = core.borrow_mut();
        let may_leave = core.replies_may_leave();
        let now_ms = core.front.now_ms();
        let connection = core.front.connections.get(place).expect("only the task that serves a connection removes it");
        if !connection.out.is_empty() && may_leave {
            connection.enter(Phase::Writing, now_ms);
            return Poll::Ready(Next::Write(std::mem::replace(&mut connection.out, std::mem::take(output))));
        }
        if connection.unanswered() > 0 || !connection.out.is_empty() {
            connection.enter(Phase::Answering, now_ms);
            connection.waker = Some(context.waker().clone());
            if !connection.out.is_empty() {
                // Its replies were there when the last wake-ups went out; the next ones have to find it again.
                core.front.wake_later(place);
            }
            return Poll::Pending;
        }
        if std::mem::take(&mut connection.continue_due) {
            return Poll::Ready(Next::Write(http::CONTINUE.to_vec()));
        }
        if connection.closing {
            return Poll::Ready(Next::Close);
        }
        connection.enter_reading(now_ms);
        Poll::Ready(Next::Read)
    })
    .await
}

/// Makes room in the input buffer for the next read; false if the room for large requests is used up. `filled` is kept between reads and
/// says that one of them had no room left.
fn prepare(input: &mut Vec<u8>, filled: &mut bool, request_bytes_max: usize, room: &mut Room) -> bool {
    if input.len() < INPUT_BYTES && input.capacity() > INPUT_KEEP_BYTES {
        let mut small = Vec::with_capacity(INPUT_BYTES);
        small.extend_from_slice(input);
        *input = small;
    }
    if input.is_empty() && input.capacity() < INPUT_BUSY_BYTES && std::mem::take(filled) {
        *input = Vec::with_capacity(INPUT_BUSY_BYTES);
    }
    let mut more = 0;
    if input.len() == input.capacity() {
        let left = request_bytes_max.saturating_sub(input.len()).max(1);
        more = INPUT_STEP_BYTES.max(input.len()).min(left);
    }
    let fits = room.fits(input.capacity() + more);
    if fits {
        input.reserve_exact(more);
    }
    fits
}

/// Reads once; errs at the end of the stream.
async fn read(stream: &mut TcpStream, input: Vec<u8>, filled: &mut bool) -> std::io::Result<Vec<u8>> {
    let (start, end) = (input.len(), input.capacity());
    let (result, slice) = stream.read(input.slice_mut(start..end)).await;
    let count = result?;
    if count == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    *filled |= count == end - start;
    Ok(slice.into_inner())
}

/// Lets the client read the last reply: closing with unread input would reset the connection under it.
async fn linger(core: &SharedCore, stream: &mut TcpStream, place: u32) {
    {
        let mut core = core.borrow_mut();
        let now_ms = core.front.now_ms();
        if let Some(connection) = core.front.connections.get(place) {
            connection.enter(Phase::Lingering, now_ms);
        }
    }
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut thrown_away = 0;
    let mut buffer = Vec::with_capacity(INPUT_BYTES);
    while thrown_away < LINGER_BYTES_MAX {
        let (result, back) = stream.read(buffer).await;
        match result {
            Ok(0) | Err(_) => return,
            Ok(count) => thrown_away += count,
        }
        buffer = back;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_requests_share_a_room_and_give_it_back() {
        let shared = Arc::new(Admission::new(LARGE_INPUT_BYTES_MAX));
        let mut rooms: Vec<Room> = Vec::new();
        let mut refused = 0;
        for _ in 0..400 {
            let mut room = Room { shared: shared.clone(), bytes: 0 };
            let (mut input, mut filled) = (Vec::with_capacity(INPUT_BYTES), false);
            while input.len() < 1 << 20 {
                if !prepare(&mut input, &mut filled, 2 << 20, &mut room) {
                    refused += 1;
                    break;
                }
                assert!(
                    input.capacity() > input.len() && input.capacity() - INPUT_KEEP_BYTES.min(input.capacity()) == room.bytes
                );
                input.resize(input.capacity(), 0);
            }
            rooms.push(room);
        }
        assert!(refused > 100, "{refused} of 400 found no room");
        let used: usize = rooms.iter().map(|room| room.bytes).sum();
        assert!(used == shared.in_flight() && used <= LARGE_INPUT_BYTES_MAX);
        // Small requests need none of it.
        let mut small = Room { shared: shared.clone(), bytes: 0 };
        assert!(prepare(&mut Vec::with_capacity(INPUT_BYTES), &mut false, 2 << 20, &mut small) && small.bytes == 0);
        // A buffer that is empty again becomes small, and what it had is there for others.
        let mut shrunk = Vec::with_capacity(1 << 20);
        assert!(prepare(&mut shrunk, &mut false, 2 << 20, &mut rooms[0]));
        assert_eq!((shrunk.capacity(), rooms[0].bytes), (INPUT_BYTES, 0));
        drop(rooms);
        assert_eq!(shared.in_flight(), 0);
    }
}
