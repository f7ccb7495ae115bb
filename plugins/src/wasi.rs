//! What WASI gives to a guest: a clock, random numbers, and nothing else.

pub(crate) mod prompt;

use std::convert::Infallible;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _, TryRng};
use sha2::{Digest as _, Sha256};
use wasmtime_wasi::{HostMonotonicClock, WasiCtx, WasiCtxBuilder};

use crate::limits::RANDOM;
use crate::stderr::Stderr;

/// What an instance sees of WASI, and what it says on its standard error.
pub(crate) struct Wasi {
    pub(crate) context: WasiCtx,
    pub(crate) stderr: Stderr,
}

/// The context of an instance that serves: no arguments, no environment, no directory, no network; the last words on standard error are
/// kept, other output goes nowhere.
pub(crate) fn serving() -> Wasi {
    built(&mut builder())
}

/// The context of the instance whose memory becomes an image. Its hash maps are seeded with what `seed` says, and `drawn` tells
/// whether it asked for numbers that no other instance may have.
pub(crate) fn configuring(seed: u128, drawn: &Drawn) -> Wasi {
    let noting = || Noting { rng: StdRng::from_rng(&mut rand::rng()), drawn: drawn.clone() };
    built(builder().insecure_random_seed(seed).secure_random(noting()).insecure_random(noting()))
}

fn built(builder: &mut WasiCtxBuilder) -> Wasi {
    let stderr = Stderr::default();
    Wasi { context: builder.stderr(stderr.clone()).build(), stderr }
}

fn builder() -> WasiCtxBuilder {
    let mut builder = WasiCtx::builder();
    // A socket is refused when it is made, so that none is ever open.
    builder.allow_tcp(false).allow_udp(false).monotonic_clock(Monotonic).max_random_size(RANDOM);
    builder
}

/// One monotonic clock for all instances: a time that `configure` read, or that went through the store, means the same in each.
struct Monotonic;

static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

impl HostMonotonicClock for Monotonic {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        u64::try_from(BEGINNING.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Whether random numbers were drawn.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drawn(Arc<AtomicBool>);

impl Drawn {
    pub(crate) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Random numbers that are noticed.
struct Noting {
    rng: StdRng,
    drawn: Drawn,
}

impl TryRng for Noting {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.drawn.0.store(true, Ordering::Relaxed);
        Ok(self.rng.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.drawn.0.store(true, Ordering::Relaxed);
        Ok(self.rng.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.drawn.0.store(true, Ordering::Relaxed);
        self.rng.fill_bytes(bytes);
        Ok(())
    }
}

/// What the hash maps of images are seeded with: another number for each plugin and configuration, which stays the same over restarts,
/// so that the image does and its compiled code is found again, and which nobody outside can know.
pub(crate) struct Seeds([u8; 32]);

impl Seeds {
    /// The secret in this file, which is made when there is none.
    ///
    /// # Errors
    /// The file can be neither read nor written.
    pub(crate) fn open(file: &Path) -> Result<Self, String> {
        if let Ok(secret) = std::fs::read(file)
            && let Ok(secret) = secret.try_into()
        {
            return Ok(Self(secret));
        }
        let mut secret = [0; 32];
        rand::rng().fill_bytes(&mut secret);
        let beside = file.with_extension("new");
        let opened = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside);
        let written = opened.and_then(|mut file| file.write_all(&secret)).and_then(|()| std::fs::rename(&beside, file));
        written.map(|()| Self(secret)).map_err(|error| format!("cannot write {}: {error}", file.display()))
    }

    /// The seed of one plugin with one configuration.
    pub(crate) fn of(&self, digest: &str, config: &str) -> u128 {
        let mut hash = Sha256::new();
        for part in [self.0.as_slice(), digest.as_bytes(), config.as_bytes()] {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        hash.finalize().iter().take(16).fold(0, |seed, byte| seed << 8 | u128::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_stay_and_differ() {
        let directory = std::env::temp_dir().join(format!("weir-seeds-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("seed");
        let first = Seeds::open(&file).unwrap().of("a", "b");
        let again = Seeds::open(&file).unwrap();
        assert_eq!(first, again.of("a", "b"), "the same after a restart");
        assert_ne!(first, again.of("a", "c"));
        assert_ne!(again.of("ab", "c"), again.of("a", "bc"));
        std::fs::write(&file, "short").unwrap();
        assert_ne!(first, Seeds::open(&file).unwrap().of("a", "b"), "another installation has another secret");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn drawing_is_noticed() {
        let drawn = Drawn::default();
        let mut rng = Noting { rng: StdRng::from_seed([1; 32]), drawn: drawn.clone() };
        assert!(!drawn.any());
        rng.next_u32();
        assert!(drawn.any());
    }
}
