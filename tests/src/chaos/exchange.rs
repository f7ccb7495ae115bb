//! One connection of the upstream, and what goes wrong on it.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::ID;
use super::fault::Fault;
use super::journal::Entry;
use super::server::{HEALTH, STATISTICS, Shared, lock};
use crate::sockets;
use crate::wire::{Framing, Head, Wire};

/// Stack of a connection's thread, in bytes; there are many.
pub(super) const STACK: usize = 256 * 1024;
/// From byte to byte of what is slow.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest silence: longer than anybody waits.
const SILENCE: Duration = Duration::from_secs(600);
/// Bytes of a download's piece, and from one to the next.
const PIECE: usize = 16 * 1024;
const PIECE_PAUSE: Duration = Duration::from_millis(50);
/// The answer to the key of RFC 6455, section 1.3, which clients of the tunnel send: HAProxy verifies it.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Interim answers of [`Fault::ManyInterim`].
const INTERIM: usize = 100;

/// Answers requests until the connection ends.
///
/// # Errors
/// The connection's.
pub(super) fn converse(shared: &Shared, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut wire = Wire::new(Box::new(stream.try_clone()?));
    while let Some(head) = wire.head()? {
        let target = head.first_line.split(' ').nth(1).unwrap_or_default().to_owned();
        if target == HEALTH || target == STATISTICS {
            wire.send(&answer("", &own_text(shared, &target)))?;
            continue;
        }
        let (number, id) = count(shared, &head)?;
        let behaviour = *lock(&shared.behaviour);
        let fault = behaviour.fault_of(number);
        wire.body(head.framing().unwrap_or(Framing::Empty), &mut |_| {})?;
        if let Some((journal, id)) = shared.journal.as_ref().zip(id.as_deref()) {
            journal.add(Entry::Executed, id)?;
        }
        std::thread::sleep(behaviour.delay);
        if head.get("upgrade").is_some() {
            return tunnel(&mut wire);
        }
        if let Some(length) = target.strip_prefix("/download/").and_then(|length| length.parse().ok()) {
            download(&mut wire, length)?;
            continue;
        }
        let bytes = answer(head.get(ID).unwrap_or_default(), "done\n");
        match fault {
            Some(fault) => return misbehave(shared, fault, &mut wire, stream, &bytes),
            None => wire.send(&bytes)?,
        }
    }
    Ok(())
}

fn own_text(shared: &Shared, target: &str) -> String {
    if target == HEALTH {
        return "healthy\n".to_owned();
    }
    format!("{} {}\n", shared.requests.load(Ordering::SeqCst), shared.writes.load(Ordering::SeqCst))
}

/// Counts a request; answers its number, and its id when it must not be executed twice.
fn count(shared: &Shared, head: &Head) -> io::Result<(u64, Option<String>)> {
    let number = shared.requests.fetch_add(1, Ordering::SeqCst) + 1;
    if !head.first_line.starts_with("POST ") {
        return Ok((number, None));
    }
    shared.writes.fetch_add(1, Ordering::SeqCst);
    let id = head.get(ID).unwrap_or("none").to_owned();
    if let Some(journal) = &shared.journal {
        journal.add(Entry::Seen, &id)?;
    }
    Ok((number, Some(id)))
}

fn answer(id: &str, text: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n{ID}: {id}\r\ncontent-length: {}\r\n\r\n{text}", text.len())
        .into_bytes()
}

/// Every byte comes back.
fn tunnel(wire: &mut Wire) -> io::Result<()> {
    let upgrade = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket";
    wire.send(format!("{upgrade}\r\nsec-websocket-accept: {ACCEPT}\r\n\r\n").as_bytes())?;
    loop {
        let bytes = wire.some()?;
        if bytes.is_empty() {
            return Ok(());
        }
        wire.send(&bytes)?;
    }
}

/// A body that takes its time.
fn download(wire: &mut Wire, length: usize) -> io::Result<()> {
    wire.send(
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {length}\r\n\r\n").as_bytes(),
    )?;
    let mut left = length;
    while left > 0 {
        let piece = left.min(PIECE);
        wire.send(&vec![b'd'; piece])?;
        left -= piece;
        std::thread::sleep(PIECE_PAUSE);
    }
    Ok(())
}

/// Does what the fault says and ends the connection.
fn misbehave(shared: &Shared, fault: Fault, wire: &mut Wire, stream: TcpStream, bytes: &[u8]) -> io::Result<()> {
    let end_of_head = bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
    let (head, body) = bytes.split_at(end_of_head);
    match fault {
        Fault::DieMidResponse => {
            wire.send(head)?;
            wire.send(body.get(..1).unwrap_or_default())?;
            if shared.may_die {
                std::process::abort();
            }
            sockets::reset(stream)
        }
        Fault::SlowHead => trickle(wire, bytes),
        Fault::SlowBody => {
            wire.send(head)?;
            trickle(wire, body)
        }
        Fault::ResetAfterHead => {
            wire.send(head)?;
            sockets::reset(stream)
        }
        Fault::ShortBody => {
            wire.send(head)?;
            wire.send(body.get(..1).unwrap_or_default())?;
            stream.shutdown(Shutdown::Both)
        }
        Fault::Garbage => {
            wire.send(b"\x00\x16\x03ICY 200 nothing of this is HTTP\n\n")?;
            stream.shutdown(Shutdown::Both)
        }
        Fault::HalfClose => {
            stream.shutdown(Shutdown::Write)?;
            // Until the other end has noticed.
            while !wire.some()?.is_empty() {}
            Ok(())
        }
        Fault::ManyInterim => {
            for number in 0..INTERIM {
                wire.send(format!("HTTP/1.1 103 Early Hints\r\nx-number: {number}\r\n\r\n").as_bytes())?;
            }
            wire.send(bytes)
        }
        Fault::CloseOnReuse => wire.send(bytes).and_then(|()| rest(wire)),
        Fault::Silence => {
            std::thread::sleep(SILENCE);
            Ok(())
        }
    }
}

/// Waits for the request that is not answered.
fn rest(wire: &mut Wire) -> io::Result<()> {
    wire.some().map(drop)
}

fn trickle(wire: &mut Wire, bytes: &[u8]) -> io::Result<()> {
    for byte in bytes {
        wire.send(std::slice::from_ref(byte))?;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
