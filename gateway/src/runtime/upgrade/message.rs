//! The hand-over on the wire: frames of JSON over a socket pair that is the successor's standard input, and descriptors beside them.
//!
//! Old to new: a [`Manifest`], then its sockets. New to old: [`Message::Ready`] or [`Message::Failed`]. Old to new: [`Message::Go`], from
//! which on the successor may accept. New to old: [`Message::Serving`], after which the predecessor accepts no more.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use crate::tls::tickets::TicketKey;

/// The version of all that is in this module. A successor that does not know it says so and ends.
pub const FORMAT: u32 = 1;
/// Set in the environment of a successor: its standard input is the hand-over.
pub const VARIABLE: &str = "WEIR_HANDOVER";
/// Bytes of a frame: a hundred thousand servers that are down fit.
pub const MAX_FRAME: usize = 16 << 20;
/// Descriptors in one message; the kernel takes 253.
const BATCH: usize = 64;

/// What a process leaves to its successor.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The version of the process that goes.
    pub version: String,
    /// The descriptors that follow, in their order.
    pub descriptors: Vec<Passed>,
    /// Servers that are known to be down, or are held.
    #[serde(default)]
    pub down: Vec<Down>,
    /// The keys of session tickets, newest first, so that sessions can be resumed.
    #[serde(default)]
    pub tickets: Vec<TicketKey>,
}

/// One descriptor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Passed {
    /// A listening socket.
    Listener {
        /// The address as configured: port 0 stays port 0.
        configured: SocketAddr,
        /// See `listener.tls`.
        tls: bool,
        /// See `listener.proxy_protocol`.
        proxy_protocol: bool,
        /// Whether the service manager holds the socket too.
        shared: bool,
    },
    /// The listening socket of the admin API.
    Admin {
        /// As text.
        address: String,
    },
    /// A process that drains: a pidfd, so that it can be told to hurry and never mistaken for another.
    Draining {
        /// Its number, for logs.
        pid: u32,
    },
}

/// A server that is down or was of late.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Down {
    /// The upstream's name.
    pub upstream: String,
    /// The server's URL.
    pub server: String,
    /// Its priority.
    pub priority: u32,
    /// It is back, but has not been good for long enough to be preferred.
    #[serde(default)]
    pub held: bool,
}

/// What is said after the manifest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// All is loaded and bound; nothing is accepted yet.
    Ready {
        /// The version of the process that comes.
        version: String,
    },
    /// It cannot be: the mistakes, as `weir check --json` shows them.
    Failed {
        /// An array.
        errors: serde_json::Value,
    },
    /// The successor shall serve.
    Go,
    /// It does.
    Serving,
}

/// A frame: four bytes of length, most significant first, and JSON.
///
/// # Errors
/// It is too long.
pub fn frame(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(message)?;
    let length = u32::try_from(json.len()).ok().filter(|length| *length as usize <= MAX_FRAME);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the hand-over is too long"))?;
    Ok([&length.to_be_bytes(), json.as_slice()].concat())
}

/// The length of the frame behind these four bytes.
///
/// # Errors
/// It is too long to be one.
pub fn length(bytes: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(bytes) as usize;
    if length <= MAX_FRAME { Ok(length) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "this is no hand-over")) }
}

/// Splits descriptors into what one message holds.
pub fn batches<'a>(descriptors: &'a [BorrowedFd<'a>]) -> impl Iterator<Item = &'a [BorrowedFd<'a>]> {
    descriptors.chunks(BATCH)
}

/// Sends one batch, with one byte to carry it.
///
/// # Errors
/// The socket's.
pub fn send(socket: impl AsFd, batch: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(batch)) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    sendmsg(socket, &[IoSlice::new(b"+")], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives `count` descriptors. The socket blocks.
///
/// # Errors
/// The socket's, or fewer come.
pub fn receive(socket: impl AsFd, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut received: Vec<OwnedFd> = Vec::new();
    while received.len() < count {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let before = received.len();
        let got = recvmsg(&socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                received.extend(descriptors);
            }
        }
        if got.bytes == 0 || received.len() == before {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "descriptors are missing"));
        }
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn descriptors_arrive_in_their_order_behind_their_manifest() {
        let (mut old, mut new) = UnixStream::pair().unwrap();
        let manifest = Manifest { format: FORMAT, version: "1".to_owned(), ..Manifest::default() };
        old.write_all(&frame(&manifest).unwrap()).unwrap();
        let files: Vec<_> = (0..150).map(|_| UnixStream::pair().unwrap()).collect();
        let descriptors: Vec<_> = files.iter().map(|(one, _)| one.as_fd()).collect();
        batches(&descriptors).for_each(|batch| send(&old, batch).unwrap());
        old.write_all(&frame(&Message::Go).unwrap()).unwrap();

        let mut head = [0; 4];
        new.read_exact(&mut head).unwrap();
        let mut json = vec![0; length(head).unwrap()];
        new.read_exact(&mut json).unwrap();
        assert_eq!(serde_json::from_slice::<Manifest>(&json).unwrap().format, FORMAT);
        let received = receive(&new, 150).unwrap();
        for (number, (descriptor, (_, peer))) in received.into_iter().zip(&files).enumerate() {
            UnixStream::from(descriptor).write_all(&[u8::try_from(number).unwrap()]).unwrap();
            let mut byte = [0];
            (&*peer).read_exact(&mut byte).unwrap();
            assert_eq!(usize::from(byte[0]), number);
        }
        new.read_exact(&mut head).unwrap();
        assert_eq!(length(head).unwrap(), br#""go""#.len());
    }

    #[test]
    fn a_predecessor_that_ends_in_the_middle_is_an_error() {
        let (old, new) = UnixStream::pair().unwrap();
        let (other, _peer) = UnixStream::pair().unwrap();
        send(&old, &[other.as_fd()]).unwrap();
        drop(old);
        assert_eq!(receive(&new, 2).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(length([0xff; 4]).is_err());
    }
}
