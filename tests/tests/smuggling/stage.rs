//! Where cases are played: one gateway, and for each player a site, an origin and a bystander of its own, so that whatever an origin
//! sees belongs to the case that is being played.

use std::io;
use std::time::Duration;

use weir_tests::recording::{Body, Recording, Seen, Strict};
use weir_tests::{Answer, Connection, Gateway, Request, Setup, eventually, setup};

use super::table::{Case, Detail, Verdict};

/// Players at once.
const PLAYERS: usize = 4;
/// Failures that are shown.
const SHOWN: usize = 25;

/// How the bytes of a case reach the gateway.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Delivery {
    Whole,
    Bytes,
    /// A segment ends after every CR and every LF.
    Lines,
}

/// All of them.
pub(crate) const DELIVERIES: [Delivery; 3] = [Delivery::Whole, Delivery::Bytes, Delivery::Lines];

/// One site with everything around it.
pub(crate) struct Player<'a> {
    gateway: &'a Gateway,
    host: String,
    origin: &'a Recording,
    bystander: Connection,
    played: usize,
}

/// Plays every case in these deliveries.
pub(crate) fn play(cases: &[Case], deliveries: &[Delivery]) {
    let origins: Vec<Recording> = (0..PLAYERS).map(|_| Recording::start()).collect();
    let sites = origins.iter().enumerate().fold(Setup::empty(), |setup, (number, origin)| {
        setup.section(&setup::site(&format!("site{number}"), &[&format!("site{number}.test")], &origin.url()))
    });
    let gateway = sites.start();
    let failures = std::thread::scope(|scope| {
        let players: Vec<_> = origins
            .iter()
            .enumerate()
            .map(|(number, origin)| {
                let mut player = Player::new(&gateway, number, origin);
                scope.spawn(move || player.play(cases.iter().skip(number).step_by(PLAYERS), deliveries))
            })
            .collect();
        players.into_iter().flat_map(|player| player.join().expect("a player that panics")).collect::<Vec<String>>()
    });
    let shown = failures.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} of {} failed:\n{shown}", failures.len(), cases.len() * deliveries.len());
}

impl<'a> Player<'a> {
    fn new(gateway: &'a Gateway, number: usize, origin: &'a Recording) -> Self {
        Self { gateway, host: format!("site{number}.test"), origin, bystander: gateway.connect(), played: 0 }
    }

    fn play<'b>(&mut self, cases: impl Iterator<Item = &'b Case>, deliveries: &[Delivery]) -> Vec<String> {
        let mut failures = Vec::new();
        for case in cases {
            for delivery in deliveries {
                if let Err(why) = self.case(case, *delivery) {
                    failures.push(format!("{delivery:?}: {}\n    {why}", case.name));
                }
            }
        }
        failures
    }

    fn case(&mut self, case: &Case, delivery: Delivery) -> Result<(), String> {
        let mut client = self.gateway.connect();
        let bytes = case.bytes(&self.host);
        // The gateway may close before it has read everything.
        drop(deliver(&mut client, &bytes, delivery));
        if case.fin {
            drop(client.finish());
        }
        let done = match &case.verdict {
            Verdict::Refused { status, reason } => self.refused(&mut client, *status, reason).map(|()| Vec::new()),
            Verdict::Accepted(detail) => self.accepted(&mut client, &bytes, case.fin).map(|after| {
                let mut expected = vec![Expected { line: first_line(&bytes), detail: detail.clone() }];
                expected.extend(after);
                expected
            }),
            Verdict::Broken => self.broken(&mut client).map(|()| Vec::new()),
        };
        drop(client);
        let canary = self.canary()?;
        let seen = self.origin.take();
        let mut expected = done.map_err(|why| format!("{why}\n    the origin saw {seen:?}"))?;
        let refused = matches!(case.verdict, Verdict::Refused { .. });
        expected.push(canary);
        check(&seen, &expected, refused).map_err(|why| format!("{why}\n    the origin saw {seen:?}"))
    }

    fn refused(&self, client: &mut Connection, status: u16, reason: &str) -> Result<(), String> {
        let answer = client.answer().map_err(|error| format!("no answer: {error}"))?;
        if answer.status != status || answer.header("connection") != Some("close") {
            return Err(format!("answered with {answer:?}"));
        }
        if !client.is_closed() {
            return Err("the connection goes on".to_owned());
        }
        let line = self.gateway.log_of(&answer);
        if (line["reason"] == reason || reason == "*") && line["decided_by"] == "gateway" {
            Ok(())
        } else {
            Err(format!("logged as {line}"))
        }
    }

    /// The answer belongs to the request, and the next request on the connection, if it goes on, gets its own.
    fn accepted(&self, client: &mut Connection, bytes: &[u8], fin: bool) -> Result<Option<Expected>, String> {
        let last = fin || is_last(bytes);
        let answer = if bytes.starts_with(b"HEAD ") { client.answer_to_head() } else { client.answer() };
        let answer = answer.map_err(|error| format!("no answer: {error}"))?;
        if answer.status != 200 {
            return Err(format!("answered with {answer:?}"));
        }
        if answer.header("connection") == Some("close") || last {
            let closed = client.is_closed();
            return if closed { Ok(None) } else { Err("more than one answer, or an open connection".to_owned()) };
        }
        let after = format!("/after/{}", self.played);
        let answer = client.ask(&Request::get(&after).host(&self.host)).map_err(|error| format!("out of step: {error}"))?;
        own(&answer, &after)?;
        Ok(Some(Expected::get(&after)))
    }

    /// Told or not, the client is closed, and so is the connection to the origin.
    fn broken(&self, client: &mut Connection) -> Result<(), String> {
        match client.answer() {
            Ok(answer) if answer.status < 400 => return Err(format!("answered with {answer:?}")),
            Ok(_) if !client.is_closed() => return Err("the connection goes on".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err("neither answered nor closed".to_owned()),
            _ => {}
        }
        eventually(Duration::from_secs(10), "the origin's connection ends", || self.origin.pending() == 0);
        Ok(())
    }

    /// A bystander's request gets its own answer.
    fn canary(&mut self) -> Result<Expected, String> {
        self.played += 1;
        let target = format!("/canary/{}", self.played);
        let answer = self.bystander.ask(&Request::get(&target).host(&self.host));
        own(&answer.map_err(|error| format!("the bystander got no answer: {error}"))?, &target)?;
        Ok(Expected::get(&target))
    }
}

/// A request the origin must have seen.
struct Expected {
    /// Method and target.
    line: String,
    detail: Detail,
}

impl Expected {
    fn get(target: &str) -> Self {
        Self { line: format!("GET {target}"), detail: Detail { body: "-".to_owned(), ..Detail::default() } }
    }
}

fn own(answer: &Answer, target: &str) -> Result<(), String> {
    let own = answer.status == 200 && answer.text() == format!("GET {target}");
    if own { Ok(()) } else { Err(format!("asked for {target}, got {answer:?}")) }
}

/// Method and target as sent.
fn first_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.trim_start().lines().next().unwrap_or_default();
    line.rsplit_once(' ').map_or_else(String::new, |(asked, _)| asked.to_owned())
}

/// A connection of HTTP/1.0 carries one request in every case of the table.
fn is_last(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    line.ends_with(b" HTTP/1.0")
}

fn check(seen: &Seen, expected: &[Expected], refused: bool) -> Result<(), String> {
    if !seen.faults.is_empty() || seen.pending > 0 {
        return Err("the origin got what is no request".to_owned());
    }
    if seen.requests.len() != expected.len() {
        return Err(format!("{} requests instead of {}", seen.requests.len(), expected.len()));
    }
    if refused && seen.broken > 0 {
        return Err("part of a refused request reached the origin".to_owned());
    }
    seen.requests.iter().zip(expected).try_for_each(|(request, expected)| compare(request, expected))
}

fn compare(request: &Strict, expected: &Expected) -> Result<(), String> {
    let Expected { line, detail } = expected;
    let method = line.split(' ').next().unwrap_or_default();
    let line = detail.target.as_ref().map_or_else(|| line.clone(), |target| format!("{method} {target}"));
    if request.asked() != line {
        return Err(format!("asked {:?} instead of {line:?}", request.asked()));
    }
    let body = body(&request.body);
    let (kind, any) = detail.body.split_once(':').unwrap_or_default();
    let same = body == detail.body || (any == "*" && body.split(':').next() == Some(kind));
    if !same {
        return Err(format!("a body {body:?} instead of {:?}", detail.body));
    }
    let host = request.all("host").concat();
    for (name, value) in &detail.with {
        let value = value.replace("{host}", host.split(':').next().unwrap_or_default());
        if request.all(name) != [value.as_str()] {
            return Err(format!("{name}: {:?} instead of {value:?}", request.all(name)));
        }
    }
    let foreign = detail.without.iter().find(|name| !request.all(name).is_empty());
    foreign.map_or(Ok(()), |name| Err(format!("{name} reached the origin")))
}

fn body(body: &Body) -> String {
    match body {
        Body::None => "-".to_owned(),
        Body::Length(bytes) => format!("{}:{}", bytes.len(), String::from_utf8_lossy(bytes)),
        Body::Chunked(bytes, trailers) => {
            let trailers = trailers.iter().map(|trailer| format!("|{trailer}"));
            format!("chunked:{}{}", String::from_utf8_lossy(bytes), trailers.collect::<String>())
        }
    }
}

fn deliver(client: &mut Connection, bytes: &[u8], delivery: Delivery) -> io::Result<()> {
    match delivery {
        Delivery::Whole => client.send(bytes),
        Delivery::Bytes => bytes.chunks(1).try_for_each(|byte| client.send(byte)),
        Delivery::Lines => bytes.split_inclusive(|byte| matches!(byte, b'\r' | b'\n')).try_for_each(|piece| client.send(piece)),
    }
}
