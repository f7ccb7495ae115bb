//! The country database: one shared mapping, replaced as a whole when the file is replaced.

mod map;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use maxminddb::{Reader, path};
use thiserror::Error;

/// An ISO 3166-1 alpha-2 code in upper case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Country([u8; 2]);

impl Country {
    /// The code as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("??")
    }

    fn parse(code: &str) -> Option<Self> {
        let bytes: [u8; 2] = code.as_bytes().try_into().ok()?;
        bytes.iter().all(u8::is_ascii_alphabetic).then(|| Self(bytes.map(|byte| byte.to_ascii_uppercase())))
    }
}

impl std::fmt::Display for Country {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Why a database was not taken.
#[derive(Debug, Error)]
pub enum DatabaseError {
    /// Cannot be read or copied.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// Not in MaxMind format.
    #[error("{0} is not a MaxMind country database: {1}")]
    Format(PathBuf, String),
}

/// The database in use, if any. Look-ups take no lock.
#[derive(Debug, Default)]
pub struct Countries {
    current: ArcSwapOption<Database>,
}

/// A database that was read and checked.
#[derive(Debug)]
pub struct Database {
    reader: Reader<map::Mapped>,
}

impl Countries {
    /// The country of an address; `None` when there is no database or it does not know.
    #[must_use]
    pub fn country(&self, ip: IpAddr) -> Option<Country> {
        let database = self.current.load();
        let found = database.as_ref()?.reader.lookup(ip).ok()?;
        // MaxMind's own layout, then the flat one of the freely licensed databases.
        let nested: Option<&str> = found.decode_path(&path!["country", "iso_code"]).ok().flatten();
        let code = nested.or_else(|| found.decode_path(&path!["country_code"]).ok().flatten())?;
        Country::parse(code)
    }

    /// Takes a database into use, or none.
    pub fn replace(&self, database: Option<Database>) {
        self.current.store(database.map(Arc::new));
    }
}

impl Database {
    /// Reads a database.
    ///
    /// The file is copied into `private` first, because a mapping of a file that somebody overwrites in place is a crash.
    ///
    /// # Errors
    /// The file cannot be read or copied, or is no database.
    pub fn open(file: &Path, private: &Path) -> Result<Self, DatabaseError> {
        let bytes = std::fs::read(file).map_err(|error| DatabaseError::Read(file.to_owned(), error))?;
        let format = |error: String| DatabaseError::Format(file.to_owned(), error);
        let checked = Reader::from_source(bytes.as_slice()).map_err(|error| format(error.to_string()))?;
        if checked.metadata().node_count == 0 {
            return Err(format("it is empty".to_owned()));
        }
        let mapped = map::copy_and_map(&bytes, private).map_err(|error| DatabaseError::Read(private.to_owned(), error))?;
        let reader = Reader::from_source(mapped).map_err(|error| format(error.to_string()))?;
        Ok(Self { reader })
    }
}
