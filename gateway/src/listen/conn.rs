//! One connection, from the accepted socket to HTTP: PROXY header, ClientHello, TLS handshake, connection phase.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ipnet::IpNet;
use tokio::net::TcpStream;
use weir_plugins::capability::http_out::CallOut;
use weir_plugins::{ConnectionFacts, Decision, Exchange, Finding, Phase, TraceContext, Verdict};

use super::accept::{Listening, Permit};
use super::io::{Activity, Timed, Waits};
use super::{proxy_protocol, serve};
use crate::conn::{ClientIp, ConnInfo, PeerAddr, TlsInfo};
use crate::http::forwarded;
use crate::http1::server;
use crate::http1::wire::Io;
use crate::observe::metrics::Active;
use crate::observe::record::{ConnectionRecord, DecidedBy};
use crate::runtime::snapshot::{Site, Snapshot};
use crate::runtime::worker::Worker;
use crate::tls::handshake::{self, HandshakeError};

/// A connection, shared by the exchanges on it.
#[derive(Debug)]
pub struct Conn {
    /// Frozen after the handshake.
    pub info: Arc<ConnInfo>,
    /// What is going on on it, for its deadlines.
    pub activity: Arc<Activity>,
    verdicts: RefCell<Vec<Asked>>,
    retiring: Cell<bool>,
    _permit: Permit,
    _active: Active,
}

/// The connection phase's answer for one site and one snapshot.
#[derive(Debug)]
struct Asked {
    site: Arc<str>,
    generation: u64,
    verdict: Verdict,
    tags: Vec<(String, String)>,
    /// For the record of the first exchange.
    decisions: Vec<Decision>,
    /// As `decisions`.
    findings: Vec<Finding>,
    /// As `decisions`, which they count from.
    calls: Vec<CallOut>,
}

/// Sites whose verdict a connection remembers: it asks for one, or for the few that share a certificate.
const MAX_VERDICTS: usize = 16;

/// Serves a connection to its end.
pub async fn run(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr, listening: Arc<Listening>, permit: Permit) {
    let snapshot = worker.snapshot();
    // Answers are written whole: waiting for an acknowledgement would only delay them.
    drop(stream.set_nodelay(true));
    let mut stream = stream;
    let mut client = ClientIp(peer.ip().to_canonical());
    if listening.proxy_protocol && forwarded::is_trusted(peer.ip(), &snapshot.config.trusted_proxies) {
        let read = tokio::time::timeout(snapshot.config.limits.tls_handshake, proxy_protocol::read(&mut stream)).await;
        match read {
            Ok(Ok(Some(address))) => client = ClientIp(address),
            Ok(Ok(None)) => {}
            Ok(Err(reason)) => return lost(&worker, &listening, peer, client, None, "bad_proxy_header", reason),
            Err(_) => return lost(&worker, &listening, peer, client, None, "proxy_header_timeout", String::new()),
        }
    }
    let limits = &snapshot.config.limits;
    let opened = Opened { worker: &worker, listening: &listening, peer, client };
    if !listening.tls {
        let conn = opened.conn(None, permit);
        return server::serve(worker, conn, Io::Tcp(stream)).await;
    }
    let Some(config) = &snapshot.tls else { return };
    let limit = limits.tls_handshake;
    let admit = |sni: Option<&str>| is_refused_by_outage(&snapshot, sni);
    // On the heap, as the other steps that come once: what a connection holds while it waits for requests is smaller without them.
    match Box::pin(tokio::time::timeout(limit, handshake::accept(stream, config, admit))).await {
        Ok(Ok((stream, info))) => {
            let is_h2 = info.alpn.as_deref() == Some("h2");
            let conn = opened.conn(Some(info), permit);
            if let Some(record) = conn.denied_silently(&snapshot).await {
                return worker.shared.recorder.record_connection(record);
            }
            if !is_h2 {
                return server::serve(worker, conn, Io::Accepted(Box::new(stream))).await;
            }
            // Frames that start no request (SETTINGS, PING) must not look like a slow head.
            let age = age(limits.connection_age, peer);
            let waits = Waits { idle: limits.idle, head: limits.idle, write: limits.write_idle, age };
            let stream = Timed::new(stream, Arc::clone(&conn.activity), waits);
            Box::pin(serve::http2(worker, conn, stream)).await;
        }
        Ok(Err(HandshakeError { info, reason, detail })) => {
            lost(&worker, &listening, peer, client, info, reason, detail);
        }
        Err(_) => lost(&worker, &listening, peer, client, None, "tls_handshake_timeout", format!("not done within {limit:?}")),
    }
}

/// Up to a tenth less for each connection, so that those that came together do not all come again together.
#[must_use]
pub fn age(limit: Duration, peer: SocketAddr) -> Duration {
    limit - (limit / 10).mul_f32(f32::from(peer.port().wrapping_mul(40_503)) / 65_536.0)
}

/// While every server of a site is down, its connections are refused when the site says so: agents then use their own secondary.
fn is_refused_by_outage(snapshot: &Snapshot, sni: Option<&str>) -> Option<&'static str> {
    let site = snapshot.hosts.find(sni.unwrap_or_default())?;
    let down = site.refuse_when_down && site.group.as_ref().is_some_and(|group| group.is_down(Instant::now()));
    down.then_some("upstream_down")
}

struct Opened<'a> {
    worker: &'a Rc<Worker>,
    listening: &'a Listening,
    peer: SocketAddr,
    client: ClientIp,
}

impl Opened<'_> {
    fn conn(&self, tls: Option<TlsInfo>, permit: Permit) -> Rc<Conn> {
        let info = info(self.worker, self.listening, self.peer, self.client, tls);
        let active = self.worker.shared.recorder.metrics().connection();
        Rc::new(Conn {
            info,
            activity: Arc::default(),
            verdicts: RefCell::default(),
            retiring: Cell::new(false),
            _permit: permit,
            _active: active,
        })
    }
}

fn info(worker: &Worker, listening: &Listening, peer: SocketAddr, client: ClientIp, tls: Option<TlsInfo>) -> Arc<ConnInfo> {
    let country = worker.country(client);
    let client_text = forwarded::address_value(client.0);
    Arc::new(ConnInfo { listener: Arc::clone(&listening.name), peer: PeerAddr(peer), client, client_text, tls, country })
}

/// Records a connection that ended before it was one.
pub fn lost(
    worker: &Rc<Worker>,
    listening: &Listening,
    peer: SocketAddr,
    client: ClientIp,
    tls: Option<TlsInfo>,
    reason: &str,
    detail: String,
) {
    let site = tls.as_ref().and_then(|tls| tls.sni.as_deref()).and_then(|sni| worker.snapshot().hosts.find(sni).cloned());
    let info = info(worker, listening, peer, client, tls);
    worker.shared.recorder.record_connection(connection_record(info, site.map(|site| Arc::clone(&site.name)), reason, detail));
}

/// A connection that ended before it was one.
pub fn connection_record(conn: Arc<ConnInfo>, site: Option<Arc<str>>, reason: &str, detail: String) -> ConnectionRecord {
    let (time, decided_by, reason) = (SystemTime::now(), DecidedBy::Gateway, reason.to_owned());
    ConnectionRecord { time, conn, site, decided_by, reason, detail, decisions: Vec::new(), findings: Vec::new() }
}

impl Conn {
    /// The connection takes no more requests than it has; of HTTP/2, where an answer cannot say so itself.
    pub fn retire(&self) {
        self.retiring.set(true);
    }

    /// Whether [`Conn::retire`] was called, or the connection is old.
    #[must_use]
    pub fn is_retiring(&self) -> bool {
        self.retiring.get() || self.activity.is_old()
    }

    /// Whether the other end is a proxy whose forwarding headers are believed.
    #[must_use]
    pub fn is_trusted(&self, proxies: &[IpNet]) -> bool {
        !proxies.is_empty() && forwarded::is_trusted(self.info.client.0, proxies)
    }

    /// What policies see of it.
    #[must_use]
    pub fn facts(&self) -> ConnectionFacts {
        let tls = self.info.tls.as_ref();
        let shared = |text: &String| Arc::from(text.as_str());
        ConnectionFacts {
            client_ip: self.info.client.0,
            peer_ip: canonical(self.info.peer),
            listener: Arc::clone(&self.info.listener),
            server_name: tls.and_then(|tls| tls.sni.as_ref()).map(shared),
            tls_version: tls.map(|tls| tls.version),
            ja4: tls.and_then(|tls| tls.ja4.as_ref()).map(shared),
        }
    }

    /// The connection phase's verdict for a site: asked once per connection and snapshot. Its tags go to every exchange, its
    /// decisions and findings to the first.
    pub async fn connection_verdict(
        &self,
        snapshot: &Arc<Snapshot>,
        site: &Arc<Site>,
        exchange: Option<&mut Exchange>,
        clock: &mut Instant,
    ) -> Verdict {
        let is_known = |asked: &Asked| asked.generation == snapshot.generation && asked.site == site.name;
        if !self.verdicts.borrow().iter().any(is_known) {
            let trace = exchange.as_ref().and_then(|exchange| exchange.trace);
            let asked = self.ask(snapshot, site, trace, clock).await;
            let mut verdicts = self.verdicts.borrow_mut();
            verdicts.retain(|asked| asked.generation == snapshot.generation);
            if verdicts.len() >= MAX_VERDICTS {
                verdicts.remove(0);
            }
            verdicts.push(asked);
        }
        let mut verdicts = self.verdicts.borrow_mut();
        let Some(asked) = verdicts.iter_mut().find(|asked| is_known(asked)) else { return Verdict::Continue };
        if let Some(exchange) = exchange {
            exchange.tags.extend(asked.tags.iter().cloned());
            let before = exchange.decisions.len();
            asked.calls.iter_mut().for_each(|call| call.decision += before);
            exchange.calls.append(&mut asked.calls);
            exchange.decisions.append(&mut asked.decisions);
            exchange.findings.append(&mut asked.findings);
        }
        asked.verdict.clone()
    }

    async fn ask(&self, snapshot: &Snapshot, site: &Arc<Site>, trace: Option<TraceContext>, clock: &mut Instant) -> Asked {
        let mut exchange = Exchange::connection(self.facts(), Arc::clone(&site.name));
        exchange.trace = trace;
        let mut slot = Some(Box::new(exchange));
        let verdict = site.chain.connection(&mut slot, clock).await;
        let kept = slot.map(|exchange| (exchange.tags, exchange.decisions, exchange.findings, exchange.calls));
        let (tags, decisions, findings, calls) = kept.unwrap_or_default();
        Asked { site: Arc::clone(&site.name), generation: snapshot.generation, verdict, tags, decisions, findings, calls }
    }

    /// The record of a connection that the connection phase wants closed before a byte of HTTP. Other refusals are answered over HTTP,
    /// with a reference id.
    async fn denied_silently(&self, snapshot: &Arc<Snapshot>) -> Option<ConnectionRecord> {
        let sni = self.info.tls.as_ref()?.sni.as_deref()?;
        let site = snapshot.hosts.find(sni).filter(|site| site.chain.wants(Phase::Connection))?;
        if self.is_trusted(&snapshot.config.trusted_proxies) {
            return None;
        }
        let Verdict::Deny(refusal) = self.connection_verdict(snapshot, site, None, &mut Instant::now()).await else {
            return None;
        };
        if refusal.status != 0 {
            return None;
        }
        // No exchange will take them.
        let asked = self.verdicts.take().into_iter().find(|asked| asked.site == site.name);
        let (decisions, findings) = asked.map(|asked| (asked.decisions, asked.findings)).unwrap_or_default();
        let name = Some(Arc::clone(&site.name));
        let record = connection_record(Arc::clone(&self.info), name, "policy_denied", refusal.reason);
        Some(ConnectionRecord { decided_by: DecidedBy::Policy(refusal.policy), decisions, findings, ..record })
    }
}

fn canonical(peer: PeerAddr) -> IpAddr {
    peer.0.ip().to_canonical()
}
