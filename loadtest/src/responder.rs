//! The bare responder: what this machine's loopback, event loop and HTTP parser give when a request costs nothing.
//!
//! Same runtime and ring flags as the server, same parser, keep-alive, pipelining with one write per batch, and a fixed
//! reply of a receipt's size. It checks nothing and keeps nothing, so no server on this runtime can be faster.

use std::{io::Read, net::SocketAddr};

use monoio::{
    buf::IoBufMut,
    io::{AsyncReadRent, AsyncWriteRentExt},
    net::{TcpListener, TcpStream},
};

use crate::fault::Fault;

/// Room for requests of one read.
const INPUT_BYTES: usize = 64 * 1024;
/// Headers of a request at most.
const HEADERS_MAX: usize = 32;
/// Entries of the ring.
const RING_ENTRIES: u32 = 4096;

/// Answers on a free loopback port, which is printed, until standard input ends: so it never outlives who started it.
///
/// # Errors
/// [`Fault::Io`] if the ring or the listener cannot be had.
pub fn run() -> Result<(), Fault> {
    std::thread::spawn(|| {
        let mut nothing = [0; 1];
        while matches!(std::io::stdin().read(&mut nothing), Ok(bytes) if bytes > 0) {}
        std::process::exit(0);
    });
    serve(|address| println!("{address}"))
}

/// Answers for ever. `started` is told the address.
///
/// # Errors
/// [`Fault::Io`] if the ring or the listener cannot be had.
pub fn serve(started: impl FnOnce(SocketAddr)) -> Result<(), Fault> {
    let mut ring = io_uring::IoUring::<io_uring::squeue::Entry, io_uring::cqueue::Entry>::builder();
    ring.setup_coop_taskrun().setup_single_issuer();
    let builder = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().with_entries(RING_ENTRIES).uring_builder(ring);
    let mut runtime = builder.build().map_err(Fault::io("building an io_uring; is it allowed here?"))?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(Fault::io("listening on loopback"))?;
        started(listener.local_addr().map_err(Fault::io("listening on loopback"))?);
        loop {
            let (stream, _peer) = listener.accept().await.map_err(Fault::io("accepting a connection"))?;
            monoio::spawn(answer(stream));
        }
    })
}

/// One connection, until it ends or sends something that is not HTTP.
async fn answer(mut stream: TcpStream) {
    let reply = reply();
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut input: Vec<u8> = Vec::with_capacity(INPUT_BYTES);
    let mut out: Vec<u8> = Vec::with_capacity(INPUT_BYTES);
    loop {
        let start = input.len();
        if start == input.capacity() {
            return;
        }
        let (read, slice) = stream.read(input.slice_mut(start..)).await;
        input = slice.into_inner();
        if !matches!(read, Ok(bytes) if bytes > 0) {
            return;
        }
        let mut used = 0;
        while let Some(length) = match request_bytes(&input[used..]) {
            Ok(complete) => complete,
            Err(NotHttp) => return,
        } {
            used += length;
            out.extend_from_slice(&reply);
        }
        input.drain(..used);
        if !out.is_empty() {
            let (written, buffer) = stream.write_all(out).await;
            out = buffer;
            out.clear();
            if written.is_err() {
                return;
            }
        }
    }
}

/// What arrived can never become a request.
#[derive(Debug)]
struct NotHttp;

/// The length of the first complete request.
fn request_bytes(bytes: &[u8]) -> Result<Option<usize>, NotHttp> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(NotHttp),
    };
    let mut body = 0;
    for header in request.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(header.value).map_err(|_| NotHttp)?;
            body = text.parse::<usize>().map_err(|_| NotHttp)?;
        }
    }
    Ok(head.checked_add(body).filter(|end| *end <= bytes.len()))
}

/// A receipt's look and size, so that both sides move as many bytes as with the server.
fn reply() -> Vec<u8> {
    let zeros = "0".repeat(64);
    let body = format!(
        r#"{{"txid":"tx_00000000000000000000000000","op":"transfer","from":"load:00000000","to":"load:00000000","asset":"roc","amount_minor":"100","nonce":1,"idem":"00000000-000000000000","ts":1700000000000,"ledger_seq_start":1000000,"ledger_seq_end":1000000,"ledger_root":"{zeros}","settlement_status":"accepted","receipt_hash":"b3:{zeros}"}}"#
    );
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Corr-ID: 0000000000000000\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    (head + &body).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_only_when_it_is_complete() {
        let request = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcPOST";
        let complete = request.len() - 4;
        for cut in 0..complete {
            assert_eq!(request_bytes(&request[..cut]).unwrap(), None, "cut at {cut}");
        }
        assert_eq!(request_bytes(request).unwrap(), Some(complete));
        assert!(request_bytes(b"\x01\x02\r\n\r\n").is_err());
    }

    #[test]
    fn the_reply_is_one_that_the_generator_reads_and_of_a_receipts_size() {
        let reply = reply();
        let (parsed, used) = crate::reply::parse(&reply).unwrap().unwrap();
        assert_eq!((parsed.status, used), (200, reply.len()));
        assert!((400..480).contains(&parsed.body.len()), "{} bytes", parsed.body.len());
    }
}
