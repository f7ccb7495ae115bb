//! Which connection a request gets: a kept one, or the first of several that race. Nothing of the request is sent here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};

use super::attempt::AttemptError;
use super::connect::{ConnectError, Sender, connect};
use super::group::Group;
use super::health::MIN_PAUSE;
use super::journey::Journey;
use super::pool::Pool;
use super::probe::jittered;
use super::server::Server;

/// A connection to a server.
#[derive(Debug)]
pub struct Dialled<'g> {
    /// Which server.
    pub server: &'g Arc<Server>,
    /// The connection.
    pub sender: Sender,
    /// Whether it carried another exchange before: its server may be closing it at this moment.
    pub reused: bool,
    /// When the way to it began.
    pub started: Instant,
}

/// A kept connection to the server, or a new one. While a new one is not there after `timeouts.race`, the next server is tried beside
/// it; the first to be there wins, and the others are kept for later requests.
///
/// # Errors
/// No connection to any server the journey may try: the last failure.
pub async fn dial<'g>(
    pool: &Pool,
    group: &'g Group,
    first: &'g Arc<Server>,
    journey: &mut Journey<'_>,
    now: Instant,
) -> Result<Dialled<'g>, AttemptError> {
    match pool.take(first.id, now) {
        Some(sender) => Ok(Dialled { server: first, sender, reused: true, started: now }),
        None => Box::pin(dial_new(pool, group, first, journey)).await,
    }
}

/// As [`dial`], but not over a kept connection to the first server.
///
/// # Errors
/// As [`dial`].
pub async fn dial_new<'g>(
    pool: &Pool,
    group: &'g Group,
    first: &'g Arc<Server>,
    journey: &mut Journey<'_>,
) -> Result<Dialled<'g>, AttemptError> {
    let mut race = Race::new(pool, group);
    race.enter(first);
    loop {
        let next = race.next_entry().filter(|_| journey.may_try(group, Instant::now()).is_some());
        let Some((runner, result)) = race.arrival(next).await else {
            race.suspect_last();
            if let Some(won) = race.enter_or_take(journey) {
                return Ok(race.won(won, journey));
            }
            continue;
        };
        match result {
            Ok(sender) => {
                let Runner { server, started, .. } = runner;
                return Ok(race.won(Dialled { server, sender, reused: false, started }, journey));
            }
            Err(error) => {
                let error = AttemptError::Connect(error);
                journey.note_failed(runner.server, runner.started, error.stage());
                if let Some(won) = race.enter_or_take(journey) {
                    return Ok(race.won(won, journey));
                }
                if race.runners.is_empty() {
                    return Err(error);
                }
            }
        }
    }
}

type Arrival = (u32, Result<Sender, ConnectError>);

/// Servers that are being connected to for one request.
struct Race<'a, 'g> {
    pool: &'a Pool,
    group: &'g Group,
    runners: Vec<Runner<'g>>,
    count: u32,
    finish: mpsc::UnboundedSender<Arrival>,
    finished: mpsc::UnboundedReceiver<Arrival>,
}

struct Runner<'g> {
    number: u32,
    server: &'g Arc<Server>,
    started: Instant,
}

impl<'a, 'g> Race<'a, 'g> {
    fn new(pool: &'a Pool, group: &'g Group) -> Self {
        let (finish, finished) = mpsc::unbounded_channel();
        Self { pool, group, runners: Vec::new(), count: 0, finish, finished }
    }

    /// Connects in a task of its own, so that a connection nobody waits for any more still becomes one.
    fn enter(&mut self, server: &'g Arc<Server>) {
        let number = self.count;
        self.count += 1;
        self.runners.push(Runner { number, server, started: Instant::now() });
        let server = Arc::clone(server);
        let (pool, finish, timeouts) = (self.pool.clone(), self.finish.clone(), self.group.timeouts);
        tokio::task::spawn_local(async move {
            let result = connect(&server, timeouts.connect).await;
            note(&pool, &server, &result, timeouts.connect, timeouts.idle);
            if let Ok(Sender::Http2(sender)) = &result {
                pool.share(server.id, sender);
            }
            if let Err(mpsc::error::SendError((_, Ok(sender)))) = finish.send((number, result)) {
                pool.keep_new(server.id, sender, timeouts.idle);
            }
        });
    }

    /// Lets the next server in; answers its connection when it has one already.
    fn enter_or_take(&mut self, journey: &mut Journey<'_>) -> Option<Dialled<'g>> {
        let started = Instant::now();
        let server = journey.may_try(self.group, started)?;
        journey.try_now(server);
        if let Some(sender) = self.pool.take(server.id, started) {
            return Some(Dialled { server, sender, reused: true, started });
        }
        self.enter(server);
        None
    }

    /// When the next server may enter.
    fn next_entry(&self) -> Option<Instant> {
        self.runners.last().map(|runner| runner.started + self.group.timeouts.race)
    }

    /// The next runner to arrive or to fail; `None` when the time for the next entry comes first.
    async fn arrival(&mut self, next: Option<Instant>) -> Option<(Runner<'g>, Result<Sender, ConnectError>)> {
        loop {
            let (number, result) = match next {
                Some(next) => tokio::time::timeout_at(next.into(), self.finished.recv()).await.ok().flatten()?,
                None => self.finished.recv().await?,
            };
            if let Some(index) = self.runners.iter().position(|runner| runner.number == number) {
                return Some((self.runners.remove(index), result));
            }
        }
    }

    /// Whoever entered last has had its time: others go first until it is known how it is.
    fn suspect_last(&self) {
        if let Some(runner) = self.runners.last() {
            runner.server.on_connect_slow();
            check(Some(self.pool), runner.server, self.group.timeouts.connect, self.group.timeouts.idle);
        }
    }

    /// The race is over: whoever is still on the way lost it. A connection that came a moment later is kept.
    fn won(mut self, won: Dialled<'g>, journey: &mut Journey<'_>) -> Dialled<'g> {
        self.finished.close();
        while let Ok((number, result)) = self.finished.try_recv() {
            let runner = self.runners.iter().find(|runner| runner.number == number);
            if let (Some(runner), Ok(sender)) = (runner, result) {
                self.pool.keep_new(runner.server.id, sender, self.group.timeouts.idle);
            }
        }
        for runner in self.runners {
            journey.note_failed(runner.server, runner.started, ("connect", "raced"));
        }
        won
    }
}

fn note(pool: &Pool, server: &Arc<Server>, result: &Result<Sender, ConnectError>, limit: Duration, idle: Duration) {
    match result {
        Ok(_) => server.on_connected(),
        Err(error) => {
            server.on_connect_failed(error.cause());
            check(Some(pool), server, limit, idle);
        }
    }
}

/// Tries connections to a server in the background until it is known how it is, so that no client's request has to find out. One task
/// in the process does this for a server at a time.
///
/// A connection that is made goes to the pool, if there is one.
pub(super) fn check(pool: Option<&Pool>, server: &Arc<Server>, limit: Duration, idle: Duration) {
    if server.check_after().is_none() {
        return;
    }
    let Some(checking) = server.begin_checking() else { return };
    let wanted = server.wanted();
    let (pool, server) = (pool.cloned(), Arc::downgrade(server));
    tokio::task::spawn_local(async move {
        // The right is held, not the server: one that is configured no more is forgotten.
        let checking = checking;
        while let Some(pause) = server.upgrade().and_then(|server| server.check_after()) {
            pause_unless_wanted(pause, &wanted).await;
            let Some(server) = server.upgrade().filter(|server| server.check_after().is_some()) else { break };
            match connect(&server, limit).await {
                Ok(sender) => {
                    server.on_connected();
                    if let Some(pool) = &pool {
                        pool.keep_new(server.id, sender, idle);
                    }
                }
                Err(error) => server.on_connect_failed(error.cause()),
            }
        }
        drop(checking);
    });
}

/// While nobody can serve, every request would be one for this server: then a connection is tried every second, not every thirty.
async fn pause_unless_wanted(pause: Duration, wanted: &Notify) {
    let pause = jittered(pause);
    tokio::time::sleep(pause.min(MIN_PAUSE)).await;
    // Wanted or not, the pause is over.
    drop(tokio::time::timeout(pause.saturating_sub(MIN_PAUSE), wanted.notified()).await);
}
