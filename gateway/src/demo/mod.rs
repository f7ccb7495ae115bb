//! `weir demo`: a whole gateway with a sample application behind it, from nothing.
//!
//! The [`origin`] answers like the protected application, [`files`] writes what the gateway reads (with a country database from
//! [`mmdb`]), [`cases`] are the six things to try, and [`checks`] tries them with the [`client`]; the last one is [`swap`].

mod cases;
mod checks;
mod client;
mod files;
pub mod mmdb;
mod origin;
mod swap;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use thiserror::Error;

use self::cases::Case;
use self::client::{Client, ClientError};
use self::files::{Directory, FilesError, Settings};
use self::origin::Origin;
use crate::cli::print;
use crate::config;
use crate::runtime::run;

/// Port of the TLS listener when the user names none.
pub const TLS_PORT: u16 = 8443;

/// Port of the plain listener when the user names none.
pub const PLAIN_PORT: u16 = 8080;

/// How the demo runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Try the six cases, print a table, and end. Otherwise print them and serve until a signal.
    pub check: bool,
    /// Port of the TLS listener on 127.0.0.1, [`TLS_PORT`] by default; 0 lets the system choose.
    pub tls: u16,
    /// Port of the plain listener on 127.0.0.1, [`PLAIN_PORT`] by default; 0 lets the system choose.
    pub plain: u16,
    /// Write the demo's files here and leave them. By default they are temporary.
    pub keep: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { check: false, tls: TLS_PORT, plain: PLAIN_PORT, keep: None }
    }
}

#[derive(Debug, Error)]
enum DemoError {
    #[error("cannot write the demo's files: {0}")]
    Files(#[from] FilesError),
    #[error("cannot start the sample application: {0}")]
    Origin(io::Error),
    #[error(transparent)]
    Gateway(#[from] config::Errors),
    #[error("the gateway does not listen with TLS")]
    NoListener,
    #[error("cannot check: {0}")]
    Client(#[from] ClientError),
    #[error("cannot check: {0}")]
    Runtime(io::Error),
}

impl DemoError {
    const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Files(_) => Some("the files go to the directory for temporary files; TMPDIR or --keep names another"),
            Self::Gateway(_) => {
                Some("when a port is in use, choose others with --tls-port and --plain-port; 0 takes any free one")
            }
            Self::Origin(_) | Self::NoListener | Self::Client(_) | Self::Runtime(_) => None,
        }
    }
}

/// Runs the demo: until SIGINT or SIGTERM, or with [`Options::check`] until the six cases were tried. Succeeds when nothing went
/// wrong and, checking, every case behaves.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    match serve(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            error.to_string().lines().for_each(|line| print::err(&format!("error: {line}")));
            if let Some(hint) = error.hint() {
                print::err(&format!("hint: {hint}"));
            }
            ExitCode::FAILURE
        }
    }
}

/// Whether everything behaved.
fn serve(options: &Options) -> Result<bool, DemoError> {
    let Options { check, tls, plain, ref keep } = *options;
    let origin = Origin::start(files::ORIGIN_HOST).map_err(DemoError::Origin)?;
    let directory = Directory::create(keep.clone())?;
    directory.fill(Settings { tls, plain, origin: origin.address(), log_to_file: check })?;
    let running = run::start(&directory.configuration(), run::Origin::default())?;
    let addresses: Vec<(String, SocketAddr)> = running.addresses().to_vec();
    let listener = addresses.iter().find(|(url, _)| url.starts_with("https://")).ok_or(DemoError::NoListener)?.1;
    let cases = cases::cases(&directory, listener.port());
    if check {
        let outcomes = try_cases(&cases, listener, &directory);
        running.stop();
        let outcomes = outcomes?;
        print::out(&checks::table(&outcomes));
        return Ok(outcomes.iter().all(checks::Outcome::behaves));
    }
    print::out(&introduction(&directory, &addresses, &cases));
    running.wait();
    Ok(true)
}

fn try_cases(cases: &[Case], listener: SocketAddr, directory: &Directory) -> Result<Vec<checks::Outcome>, DemoError> {
    let client = Client::new(listener, &directory.certificate())?;
    checks::check(cases, &client, &directory.decisions()).map_err(DemoError::Runtime)
}

/// What is running where, and what to try.
fn introduction(directory: &Directory, addresses: &[(String, SocketAddr)], cases: &[Case]) -> String {
    let urls: Vec<&str> = addresses.iter().map(|(url, _)| url.as_str()).collect();
    let mut text = format!(
        "Weir is running in front of a sample application.\n\n  \
         configuration  {}\n  \
         plugins        {} (watched: drop a .wasm there)\n  \
         listening      {}\n  \
         decision log   below, one JSON object per request\n\n\
         Try these in another terminal. X-Forwarded-For plays the client's address.\n",
        directory.configuration().display(),
        directory.plugins().display(),
        urls.join("  "),
    );
    for (number, case) in (1..).zip(cases) {
        text.push_str(&format!("\n{number}. {}: expect {}\n   {}\n", case.title, case.expectation, case.line));
    }
    text.push_str("\nCtrl-C ends the demo.\n");
    text
}
