//! The side of the process that comes: takes what it is left, and takes over when it is told to.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::message::{self, FORMAT, Manifest, Message, VARIABLE};
use crate::config::Errors;
use crate::runtime::sockets::Inherited;

/// The process that started this one, to replace it.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
}

/// For each answer of the predecessor. It answers at once or kills this process; when it can do neither it has gone.
const PATIENCE: Duration = Duration::from_secs(60);

impl Predecessor {
    /// The predecessor, when there is one, and what it leaves. Call first of all.
    ///
    /// # Errors
    /// What comes is no hand-over that this version knows.
    pub fn find() -> io::Result<Option<(Self, Manifest, Inherited)>> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut predecessor = Self { stream };
        let manifest: Manifest = predecessor.hear()?;
        if manifest.format != FORMAT {
            let text = format!("version {} hands over in format {}, this one knows {FORMAT}", manifest.version, manifest.format);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let descriptors = message::receive(&predecessor.stream, manifest.descriptors.len())?;
        let inherited = Inherited::from_predecessor(manifest.descriptors.iter().cloned().zip(descriptors));
        Ok(Some((predecessor, manifest, inherited)))
    }

    /// Tells why this process ends.
    pub fn failed(mut self, errors: &Errors) {
        // Nobody left to hear it: standard error has it too.
        drop(self.say(&Message::Failed { errors: errors.to_json() }));
    }

    /// Says that all is loaded, and waits for the word to serve. A predecessor that is no more is replaced at once.
    ///
    /// # Errors
    /// It says something else.
    pub fn take_over(&mut self) -> io::Result<()> {
        let ready = Message::Ready { version: env!("CARGO_PKG_VERSION").to_owned() };
        let heard = self.say(&ready).and_then(|()| self.hear::<Message>());
        match heard {
            Ok(Message::Go) => Ok(()),
            Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "the predecessor said something else than go")),
            Err(error) => {
                tracing::warn!(pid = std::process::id(), "the predecessor has gone ({error}): taking over");
                Ok(())
            }
        }
    }

    /// Says that this process serves: the predecessor drains.
    pub fn serving(mut self) {
        // One that has gone needs no word.
        drop(self.say(&Message::Serving));
        // The stream is standard input too, and that stays open: whoever reads it finds its end.
        drop(self.stream.shutdown(Shutdown::Both));
    }

    fn say(&mut self, message: &Message) -> io::Result<()> {
        self.stream.write_all(&message::frame(message)?)
    }

    fn hear<T: serde::de::DeserializeOwned>(&mut self) -> io::Result<T> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head)?;
        let mut json = vec![0; message::length(head)?];
        self.stream.read_exact(&mut json)?;
        Ok(serde_json::from_slice(&json)?)
    }
}
