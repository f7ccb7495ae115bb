//! Session tickets, under keys that a successor can be left: whoever has a ticket resumes across an upgrade.
//!
//! A key encrypts for six hours and decrypts for twelve. rustls' own ticketers do the same, but let nobody have their keys.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};

/// Seconds for which a key encrypts, and for which a ticket is good.
const LIFETIME: u32 = 6 * 3600;
const NAME: usize = 16;

/// A key as it travels to a successor.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketKey {
    name: [u8; NAME],
    key: [u8; 32],
    /// Seconds since 1970.
    made: u64,
}

/// Whoever logs a manifest logs no key.
impl fmt::Debug for TicketKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TicketKey").field("made", &self.made).finish_non_exhaustive()
    }
}

/// Makes and reads tickets. Made once per process: a reload must not end every session.
pub struct Tickets {
    /// Newest first, never empty, at most two.
    keys: ArcSwap<Vec<Arc<Key>>>,
}

struct Key {
    bytes: TicketKey,
    cipher: RandomizedNonceKey,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Tickets").finish_non_exhaustive()
    }
}

impl Tickets {
    /// Starts with the keys of a predecessor, or a new one.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn new(inherited: &[TicketKey]) -> Result<Self, String> {
        let now = now();
        let mut keys: Vec<Arc<Key>> = inherited.iter().take(2).filter_map(Key::from_bytes).filter(|key| key.reads(now)).collect();
        if keys.is_empty() {
            keys.push(Key::generate(now).ok_or("cannot make a TLS ticket key")?);
        }
        Ok(Self { keys: ArcSwap::from_pointee(keys) })
    }

    /// The keys, for a successor.
    #[must_use]
    pub fn export(&self) -> Vec<TicketKey> {
        self.keys.load().iter().map(|key| key.bytes.clone()).collect()
    }

    fn seal(&self, plain: &[u8], now: u64) -> Option<Vec<u8>> {
        let keys = self.keys.load();
        let current = keys.first().filter(|key| key.writes(now)).cloned();
        let key = match current {
            Some(key) => key,
            // Two workers may both rotate; the key that loses has made a few tickets that nobody reads.
            None => self.rotate(now)?,
        };
        let mut sealed = plain.to_vec();
        let nonce = key.cipher.seal_in_place_append_tag(Aad::from(key.bytes.name), &mut sealed).ok()?;
        Some([&key.bytes.name, nonce.as_ref().as_slice(), &sealed].concat())
    }

    fn open(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let keys = self.keys.load();
        let key = keys.iter().find(|key| key.bytes.name == *name && key.reads(now))?;
        let mut plain = sealed.to_vec();
        let length = key.cipher.open_in_place(Nonce::from(nonce), Aad::from(*name), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }

    fn rotate(&self, now: u64) -> Option<Arc<Key>> {
        let new = Key::generate(now)?;
        let previous = self.keys.load().first().cloned();
        self.keys.store(Arc::new([Some(Arc::clone(&new)), previous].into_iter().flatten().collect()));
        Some(new)
    }
}

impl Key {
    fn generate(now: u64) -> Option<Arc<Self>> {
        let mut bytes = TicketKey { name: [0; NAME], key: [0; 32], made: now };
        aws_lc_rs::rand::fill(&mut bytes.name).ok()?;
        aws_lc_rs::rand::fill(&mut bytes.key).ok()?;
        Self::from_bytes(&bytes)
    }

    fn from_bytes(bytes: &TicketKey) -> Option<Arc<Self>> {
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &bytes.key).ok()?;
        Some(Arc::new(Self { bytes: bytes.clone(), cipher }))
    }

    const fn writes(&self, now: u64) -> bool {
        now.saturating_sub(self.bytes.made) < LIFETIME as u64
    }

    const fn reads(&self, now: u64) -> bool {
        now.saturating_sub(self.bytes.made) < 2 * LIFETIME as u64
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, now())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, now())
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_reads_the_tickets_of_its_predecessor_and_a_stranger_does_not() {
        let old = Tickets::new(&[]).unwrap();
        let ticket = old.encrypt(b"session").unwrap();
        let travelled: Vec<TicketKey> = serde_json::from_str(&serde_json::to_string(&old.export()).unwrap()).unwrap();
        let new = Tickets::new(&travelled).unwrap();
        assert_eq!(new.decrypt(&ticket).unwrap(), b"session");
        assert_eq!(Tickets::new(&[]).unwrap().decrypt(&ticket), None);
    }

    #[test]
    fn keys_rotate_and_old_tickets_are_read_once_more_as_long() {
        let tickets = Tickets::new(&[]).unwrap();
        let start = now();
        let lifetime = u64::from(LIFETIME);
        let first = tickets.seal(b"one", start).unwrap();
        let second = tickets.seal(b"two", start + lifetime).unwrap();
        assert_ne!(first[..NAME], second[..NAME], "another key");
        assert_eq!(tickets.open(&first, start + 2 * lifetime - 1).unwrap(), b"one");
        assert_eq!(tickets.open(&first, start + 2 * lifetime), None);
        let third = tickets.seal(b"three", start + 2 * lifetime).unwrap();
        assert_eq!(tickets.open(&second, start + 2 * lifetime).unwrap(), b"two");
        assert_eq!(tickets.open(&third, start + 2 * lifetime).unwrap(), b"three");
        assert_eq!(tickets.export().len(), 2);
    }

    #[test]
    fn a_changed_ticket_is_none() {
        let tickets = Tickets::new(&[]).unwrap();
        let ticket = tickets.encrypt(b"session").unwrap();
        for index in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[index] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "byte {index}");
        }
        assert_eq!(tickets.decrypt(&ticket[..10]), None);
        assert_eq!(format!("{:?}", tickets.export()), format!("[TicketKey {{ made: {}, .. }}]", tickets.export()[0].made));
    }
}
