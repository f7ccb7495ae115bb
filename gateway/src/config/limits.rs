//! `[limits]`: what one client may cost.

use std::time::Duration;

use super::error::Invalid;
use super::reader::Reader;
use super::{defaults, values};

/// `[limits]`. Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Request line and fields together, 8 KiB to 1 MiB. Default 32 KiB.
    pub head_bytes: usize,
    /// The request target, 256 bytes to 65,534, never above `head_bytes`. Default 8 KiB.
    pub uri_bytes: usize,
    /// Fields of a head, 1 to 1000. Default 100.
    pub fields: usize,
    /// Connections at a time, over all listeners. None: derived from the open-file limit when the listeners start.
    pub connections: Option<usize>,
    /// Connections at a time of one client address, IPv6 by /64; trusted proxies are not counted. Default 512.
    pub connections_per_address: u32,
    /// Requests of one connection, after which it is ended. Default 10,000.
    pub connection_requests: u64,
    /// Age of a connection, after which it is ended with its next request. Default 1 h, up to a tenth less for each connection.
    pub connection_age: Duration,
    /// From accept to the end of the TLS handshake. Default 5 s.
    pub tls_handshake: Duration,
    /// From a request's first byte to the end of its head. Default 10 s.
    pub request_head: Duration,
    /// A kept-alive connection without a request. Default 60 s.
    pub idle: Duration,
    /// Between two pieces of a request body. Default 30 s.
    pub body_idle: Duration,
    /// Least bytes of a request body in a second, over twice `body_idle` of waiting for the client. 0: none. Default 256.
    pub body_rate: usize,
    /// Bytes of a request body. None: no limit.
    pub body_bytes: Option<u64>,
    /// A client that takes nothing of its answer. Default 30 s.
    pub write_idle: Duration,
    /// A WebSocket or other tunnel without traffic in either direction. Default 1 h.
    pub tunnel_idle: Duration,
    /// What is left to running requests when the process stops. Default 30 s.
    pub drain: Duration,
    /// Within which idle connections are closed, one after another, when the process stops. Default 5 s.
    pub drain_idle: Duration,
    /// What is left to tunnels when a new binary has taken over. Default 10 min.
    pub drain_tunnels: Duration,
    /// For how long a process that was told to stop still accepts while `/readyz` says no. Default: not at all.
    pub drain_grace: Option<Duration>,
    /// For a new binary to be ready. Default 30 s.
    pub upgrade: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: defaults::HEAD_BYTES,
            uri_bytes: defaults::URI_BYTES,
            fields: defaults::FIELDS,
            connections: None,
            connections_per_address: defaults::CONNECTIONS_PER_ADDRESS,
            connection_requests: defaults::CONNECTION_REQUESTS,
            connection_age: defaults::CONNECTION_AGE,
            tls_handshake: defaults::TLS_HANDSHAKE,
            request_head: defaults::REQUEST_HEAD,
            idle: defaults::IDLE,
            body_idle: defaults::BODY_IDLE,
            body_rate: defaults::BODY_RATE,
            body_bytes: None,
            write_idle: defaults::WRITE_IDLE,
            tunnel_idle: defaults::TUNNEL_IDLE,
            drain: defaults::DRAIN,
            drain_idle: defaults::DRAIN_IDLE,
            drain_tunnels: defaults::DRAIN_TUNNELS,
            drain_grace: None,
            upgrade: defaults::UPGRADE,
        }
    }
}

// hyper needs a buffer of 8 KiB; above 1 MiB a thousand idle heads would cost a gigabyte.
const HEAD_RANGE: std::ops::RangeInclusive<u64> = 8 << 10..=1 << 20;
// The `http` crate holds targets of up to 65,534 bytes.
const URI_RANGE: std::ops::RangeInclusive<u64> = 256..=65_534;

/// `[limits]`.
pub(super) fn limits(reader: Option<Reader<'_, '_>>) -> Limits {
    let default = Limits::default();
    let Some(mut reader) = reader else { return default };
    let head_bytes = reader.or("head_bytes", default.head_bytes, values::size(HEAD_RANGE));
    let uri_bytes = reader.or("uri_bytes", default.uri_bytes, values::size(URI_RANGE));
    if uri_bytes > head_bytes {
        let message = format!("more than head_bytes ({uri_bytes} > {head_bytes} bytes)");
        reader.conflict("uri_bytes", Invalid::new(message).hint("the request target is part of the head"));
    }
    let limits = Limits {
        head_bytes,
        uri_bytes,
        fields: reader.or("fields", default.fields, values::count(1..=1000)),
        connections: reader.optional("connections", values::count(1..=10_000_000)),
        connections_per_address: reader.or(
            "connections_per_address",
            default.connections_per_address,
            values::count(1..=10_000_000),
        ),
        connection_requests: reader.or("connection_requests", default.connection_requests, values::count(1..=u64::MAX)),
        connection_age: reader.or("connection_age", default.connection_age, values::duration),
        tls_handshake: reader.or("tls_handshake", default.tls_handshake, values::duration),
        request_head: reader.or("request_head", default.request_head, values::duration),
        idle: reader.or("idle", default.idle, values::duration),
        body_idle: reader.or("body_idle", default.body_idle, values::duration),
        body_rate: reader.or("body_rate", default.body_rate, values::size(0..=1 << 20)),
        body_bytes: reader.optional("body_bytes", values::size(1..=1 << 50)).map(|bytes| bytes as u64),
        write_idle: reader.or("write_idle", default.write_idle, values::duration),
        tunnel_idle: reader.or("tunnel_idle", default.tunnel_idle, values::duration),
        drain: reader.or("drain", default.drain, values::duration),
        drain_idle: reader.or("drain_idle", default.drain_idle, values::duration),
        drain_tunnels: reader.or("drain_tunnels", default.drain_tunnels, values::duration),
        drain_grace: reader.optional("drain_grace", values::duration),
        upgrade: reader.or("upgrade", default.upgrade, values::duration),
    };
    reader.finish();
    limits
}
