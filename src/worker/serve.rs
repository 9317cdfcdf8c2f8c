//! The task that serves one connection: read, hand in every complete request, write every reply that may leave, again.
//!
//! A connection is read only when nothing of it is unanswered, so that what one client can have in flight is bounded by the
//! pipeline depth and what it sends meanwhile waits in the kernel.
use super::connection::Phase;
use super::core::SharedCore;
use super::front::Fed;
use crate::http;
use monoio::buf::IoBufMut;
use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt};
use monoio::net::TcpStream;
use std::future::poll_fn;
use std::task::Poll;

/// Bytes that a fresh input buffer holds; it grows for a request that is larger, and for a client that sends more at once.
const INPUT_BYTES: usize = 8 << 10;
/// Bytes that the input buffer of a client holds that has filled a smaller one: what is read together is committed together.
const INPUT_BUSY_BYTES: usize = 32 << 10;
/// Bytes by which the input buffer grows for a large request, at least.
const INPUT_STEP_BYTES: usize = 64 << 10;
/// An input buffer above this is given back when little is left in it.
const INPUT_KEEP_BYTES: usize = 64 << 10;
/// An output buffer above this is given back when it is written.
const OUTPUT_KEEP_BYTES: usize = 64 << 10;
/// What a client may still send after the last reply before the connection is closed for good.
const LINGER_BYTES_MAX: usize = 1 << 20;

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
    let mut input = Vec::with_capacity(INPUT_BYTES);
    let mut filled = false;
    let mut output = Vec::new();
    let mut framer = http::Framer::default();
    loop {
        let fed = {
            let mut core = core.borrow_mut();
            core.empty_inbox();
            let core = &mut *core;
            let fed = core.front.feed(place, &mut framer, &mut input, &mut core.engine);
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
            Fed::All { request_bytes_max } => input = read(stream, input, &mut filled, request_bytes_max).await.map_err(drop)?,
        }
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

/// Reads once; errs at the end of the stream. `filled` is kept between reads and says that one of them had no room left.
async fn read(
    stream: &mut TcpStream,
    mut input: Vec<u8>,
    filled: &mut bool,
    request_bytes_max: usize,
) -> std::io::Result<Vec<u8>> {
    if input.len() < INPUT_BYTES && input.capacity() > INPUT_KEEP_BYTES {
        let mut small = Vec::with_capacity(INPUT_BYTES);
        small.extend_from_slice(&input);
        input = small;
    }
    if input.is_empty() && input.capacity() < INPUT_BUSY_BYTES && std::mem::take(filled) {
        input = Vec::with_capacity(INPUT_BUSY_BYTES);
    }
    if input.len() == input.capacity() {
        let room = request_bytes_max.saturating_sub(input.len()).max(1);
        input.reserve(INPUT_STEP_BYTES.max(input.len()).min(room));
    }
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
