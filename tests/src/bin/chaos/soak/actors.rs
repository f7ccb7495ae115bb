//! Those who change the gateway and those who behave badly, each a thread.

use std::io;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use weir_tests::{Gateway, sockets, tool, wasm};

use crate::configs::HOST;
use crate::sessions;

/// From one reload, one swap, one broken-off request, one run of h2load and one short tunnel to the next.
const RELOAD: Duration = Duration::from_secs(5);
const SWAP: Duration = Duration::from_secs(3);
const ABORT: Duration = Duration::from_millis(50);
const H2: Duration = Duration::from_secs(1);
const TUNNEL: Duration = Duration::from_millis(100);
/// How long a swap may take.
const LIVE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

/// What an actor needs.
#[derive(Clone, Debug)]
pub(super) struct Gates {
    pub(super) gateway: Arc<Gateway>,
    pub(super) stop: Arc<AtomicBool>,
}

/// What an actor did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) what: &'static str,
    pub(super) done: u64,
    pub(super) failures: Vec<String>,
}

/// One deed; its number counts from 1.
type Deed = fn(&Gateway, u64) -> Result<(), String>;

/// Starts all.
pub(super) fn start(gates: &Gates) -> Vec<JoinHandle<Count>> {
    let mut actors: Vec<(&'static str, Duration, Deed)> = vec![
        ("reloads", RELOAD, reload),
        ("plugin swaps", SWAP, swap),
        ("broken-off requests", ABORT, abort),
        ("short tunnels", TUNNEL, short_tunnel),
    ];
    if tool::find("h2load").is_some() {
        actors.push(("runs of h2load", H2, h2));
    } else {
        tool::skipped("no HTTP/2: h2load is not installed (apt-get install nghttp2-client)");
    }
    let act = |(what, every, deed): (&'static str, Duration, Deed)| {
        let gates = gates.clone();
        std::thread::spawn(move || repeat(&gates, what, every, deed))
    };
    actors.into_iter().map(act).collect()
}

fn repeat(gates: &Gates, what: &'static str, every: Duration, deed: Deed) -> Count {
    let mut count = Count { what, ..Count::default() };
    loop {
        let next = Instant::now() + every;
        while Instant::now() < next {
            if gates.stop.load(Ordering::SeqCst) {
                return count;
            }
            std::thread::sleep(POLL.min(every));
        }
        count.done += 1;
        if let Err(failure) = deed(&gates.gateway, count.done) {
            count.failures.push(failure);
        }
    }
}

/// A change that matters to nobody, but makes another snapshot.
fn reload(gateway: &Gateway, number: u64) -> Result<(), String> {
    let (old, new) = if number.is_multiple_of(2) { ("61s", "60s") } else { ("60s", "61s") };
    gateway.rewrite(|text| text.replace(&format!("first_byte = \"{old}\""), &format!("first_byte = \"{new}\"")));
    let answer = gateway.admin("POST /v1/reload");
    if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
}

/// The same plugin with another digest.
fn swap(gateway: &Gateway, number: u64) -> Result<(), String> {
    let file = gateway.plugin_file("noop");
    wasm::move_over(&wasm::changed(&wasm::guest("noop"), &format!("swap {number}")), &file);
    let (digest, started) = (wasm::digest(&file), Instant::now());
    while !gateway.is_live("noop", &digest) {
        if started.elapsed() > LIVE {
            return Err(format!("swap {number} is not live after {LIVE:?}"));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// A client that goes: in the head, in the body, while it is answered, in a handshake.
fn abort(gateway: &Gateway, number: u64) -> Result<(), String> {
    let broken = |address, bytes: &[u8]| -> io::Result<()> {
        let stream = TcpStream::connect(address)?;
        io::Write::write_all(&mut &stream, bytes)?;
        std::thread::sleep(Duration::from_millis(number % 20));
        sockets::reset(stream)
    };
    let head = format!("GET /download/1000000 HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    let done = match number % 4 {
        0 => broken(gateway.plain(), head.as_bytes().get(..20).unwrap_or_default()),
        1 => broken(gateway.plain(), format!("POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 1000\r\n\r\nhalf").as_bytes()),
        2 => broken(gateway.plain(), head.as_bytes()),
        _ => broken(gateway.tls(), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    };
    done.map_err(|error| error.to_string())
}

/// A tunnel that is opened, used once and closed. While the primary dies there may be none.
fn short_tunnel(gateway: &Gateway, _: u64) -> Result<(), String> {
    if let Ok(mut tunnel) = sessions::tunnel(gateway.plain()) {
        drop(tunnel.send("hello").and_then(|()| tunnel.exactly(5)));
    }
    Ok(())
}

/// Many streams over few connections.
fn h2(gateway: &Gateway, _: u64) -> Result<(), String> {
    let address = gateway.tls();
    let output = Command::new("h2load")
        .args(["-n", "50", "-c", "2", "-m", "5", &format!("--connect-to={address}"), &format!("https://{HOST}/h2")])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    let text = tool::text(&output);
    if all_succeeded(&text) { Ok(()) } else { Err(summary(&text)) }
}

/// The lines that count.
fn summary(text: &str) -> String {
    text.lines().filter(|line| line.starts_with("requests:") || line.starts_with("status codes:")).collect::<Vec<_>>().join("; ")
}

/// `requests: 50 total, 50 started, 50 done, 50 succeeded, 0 failed, 0 errored, 0 timeout`
fn all_succeeded(text: &str) -> bool {
    let Some(line) = text.lines().find_map(|line| line.strip_prefix("requests: ")) else { return false };
    let of = |what: &str| line.split(", ").find_map(|part| part.strip_suffix(what)?.trim().parse::<u64>().ok());
    of("total").is_some_and(|total| total > 0 && of("succeeded") == Some(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h2load_says_whether_all_succeeded() {
        let line = |succeeded: u32| {
            format!("finished\nrequests: 50 total, 50 started, 50 done, {succeeded} succeeded, 0 failed, 0 errored, 0 timeout\n")
        };
        assert!(all_succeeded(&line(50)));
        assert!(!all_succeeded(&line(49)) && !all_succeeded("") && !all_succeeded("requests: 0 total, 0 succeeded"));
        assert!(summary(&line(49)).starts_with("requests: 50 total"));
    }
}
