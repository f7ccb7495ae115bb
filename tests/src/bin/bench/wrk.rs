//! The `wrk` program as a load generator.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use weir_tests::Scratch;
use weir_tests::process::ProcessError;

use crate::error::Error;
use crate::load::{CONNECTIONS, HEADERS, HOST, Sample, TARGET, Target};

/// How much longer than asked for it may run.
const GRACE: Duration = Duration::from_secs(15);
/// From one site to the next: a prime, so that all come in turn and neighbours do not follow each other.
const STRIDE: usize = 7919;

/// The program, and the script that tells it the headers.
#[derive(Debug)]
pub(crate) struct Wrk {
    program: PathBuf,
    script: PathBuf,
}

impl Wrk {
    /// Writes the script.
    pub(crate) fn new(program: PathBuf, scratch: &Scratch) -> Self {
        let mut script = String::new();
        for (name, value) in HEADERS {
            let _ = writeln!(script, "wrk.headers[\"{name}\"] = \"{value}\"");
        }
        Self { program, script: scratch.write("request.lua", script) }
    }

    /// Asks for as many hosts in turn, not in order: `site0.bench.test` and so on. It holds `requests` of them whatever the count, so that
    /// its own work, and with it how many requests reach the gateway at once, stays the same.
    pub(crate) fn for_sites(program: PathBuf, scratch: &Scratch, count: usize, requests: usize) -> Self {
        let mut script = String::new();
        for (name, value) in HEADERS {
            let _ = writeln!(script, "wrk.headers[\"{name}\"] = \"{value}\"");
        }
        let _ = writeln!(
            script,
            "local requests, number = {{}}, 0
init = function(args)
  for request = 0, {requests} - 1 do
    wrk.headers[\"Host\"] = string.format(\"site%d.bench.test\", request % {count})
    requests[request] = wrk.format(\"GET\", \"{TARGET}\")
  end
end
request = function()
  number = (number + {STRIDE}) % {requests}
  return requests[number]
end"
        );
        Self { program, script: scratch.write(&format!("sites{count}.lua"), script) }
    }

    /// One run with one thread.
    ///
    /// # Errors
    /// It cannot be run, does not end in time, or prints no figures.
    pub(crate) fn drive(&self, target: &Target, seconds: u32) -> Result<Sample, Error> {
        let text = self.run(target, seconds)?;
        let failed = || Error::Load { target: target.name.to_owned(), reason: format!("wrk printed no figures:\n{text}") };
        sample(&text).ok_or_else(failed)
    }

    fn run(&self, target: &Target, seconds: u32) -> Result<String, Error> {
        let failed = |source| Error::from(ProcessError::Start { program: "wrk".to_owned(), source });
        let scheme = if target.traffic.is_tls() { "https" } else { "http" };
        let mut child = Command::new(&self.program)
            .args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{seconds}s"), "--latency", "-s"])
            .arg(&self.script)
            .arg(format!("{scheme}://{HOST}:{}{TARGET}", target.address.port()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        // What it prints fits in a pipe, so it can be read when it has ended.
        let deadline = Instant::now() + Duration::from_secs(u64::from(seconds)) + GRACE;
        while child.try_wait().map_err(failed)?.is_none() {
            if Instant::now() > deadline {
                drop(child.kill());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut text = String::new();
        if let Some(mut output) = child.stdout.take() {
            output.read_to_string(&mut text).map_err(failed)?;
        }
        Ok(text)
    }
}

/// What a run printed; nothing when a figure is missing.
fn sample(text: &str) -> Option<Sample> {
    let lines = || text.lines().map(str::trim);
    let after = |prefix: &str| lines().find_map(|line| line.strip_prefix(prefix)).map(str::trim);
    let requests = lines().find_map(|line| line.split_once(" requests in ")?.0.parse().ok())?;
    Some(Sample {
        requests,
        per_second: after("Requests/sec:")?.parse().ok()?,
        p50_us: microseconds(after("50%")?)?,
        p99_us: microseconds(after("99%")?)?,
        refused: after("Non-2xx or 3xx responses:").map_or(Some(0), |count| count.parse().ok())?,
        errors: after("Socket errors:").map_or(0, sum),
        resumed: None,
    })
}

/// `connect 0, read 3, write 0, timeout 1`
fn sum(counts: &str) -> u64 {
    counts.split(|letter: char| !letter.is_ascii_digit()).filter_map(|count| count.parse::<u64>().ok()).sum()
}

/// `2.05ms`
fn microseconds(text: &str) -> Option<f64> {
    let unit = text.find(|letter: char| letter.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at_checked(unit)?;
    let scale = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
Running 4s test @ http://localhost:19000/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.11ms  400.00us  19.00ms   99.00%
    Req/Sec    28.00k     1.00k   30.00k    70.00%
  Latency Distribution
     50%  980.00us
     75%    1.20ms
     90%    1.50ms
     99%    2.25ms
  112345 requests in 4.00s, 130.00MB read
";

    #[test]
    fn the_figures_are_read() {
        let text = format!("{OUTPUT}Requests/sec:  28086.25\nTransfer/sec:     32.50MB\n");
        let expected = Sample {
            requests: 112_345,
            per_second: 28_086.25,
            p50_us: 980.0,
            p99_us: 2250.0,
            refused: 0,
            errors: 0,
            resumed: None,
        };
        assert_eq!(sample(&text), Some(expected));
    }

    #[test]
    fn refusals_and_broken_connections_are_counted() {
        let text = format!(
            "{OUTPUT}  Socket errors: connect 1, read 20, write 0, timeout 300\n  Non-2xx or 3xx responses: 17\nRequests/sec: 1.00\n"
        );
        let sample = sample(&text).unwrap();
        assert_eq!((sample.refused, sample.errors), (17, 321));
    }

    #[test]
    fn a_run_without_figures_is_none() {
        assert_eq!(sample(OUTPUT), None);
        assert_eq!(sample("unable to connect to localhost:1 Connection refused\n"), None);
    }

    #[test]
    fn times_have_units() {
        let cases = [
            ("12.00us", Some(12.0)),
            ("1.50ms", Some(1500.0)),
            ("2.00s", Some(2e6)),
            ("1.00m", Some(60e6)),
            ("7", None),
            ("7x", None),
        ];
        for (text, expected) in cases {
            assert_eq!(microseconds(text), expected, "{text}");
        }
    }
}
