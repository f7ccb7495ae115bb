//! Every default, with its reason. `docs/reference/configuration.md` shows them; a test keeps the two the same.

use std::time::Duration;

/// Directory watched for plugins.
pub(super) const PLUGINS: &str = "plugins";
/// Private directory: compiled cache, last good generation, join keys.
pub(super) const STATE: &str = "state";
/// The admin socket's name inside the state directory, which only the gateway's user can enter.
pub(super) const ADMIN_SOCKET: &str = "admin.sock";

// Everything is traced until someone decides that it is too much: the first trace must not need tuning.
pub(super) const SAMPLE: f64 = 1.0;

// Room for a large cookie jar and a Kerberos ticket; HAProxy stops at 15 KiB, nginx at 32 KiB.
pub(super) const HEAD_BYTES: usize = 32 << 10;
// Longest target that Windows clients, common CDNs and caches agree on.
pub(super) const URI_BYTES: usize = 8 << 10;
// What Envoy and HAProxy allow; browsers send about twenty.
pub(super) const FIELDS: usize = 100;
// A site behind one address with hundreds of agents that each check in with a connection of their own; a third of that is a browser-heavy
// office. nginx and HAProxy have no default.
pub(super) const CONNECTIONS_PER_ADDRESS: u32 = 512;
// Spreads long-lived clients over workers and processes anew; at ten requests a second it takes a quarter of an hour.
pub(super) const CONNECTION_REQUESTS: u64 = 10_000;
// What nginx does: changes of certificates and of who may connect reach everybody within the hour.
pub(super) const CONNECTION_AGE: Duration = Duration::from_secs(3600);
// A handshake is two round trips: five seconds covers a satellite link, and half-open ones must not pile up.
pub(super) const TLS_HANDSHAKE: Duration = Duration::from_secs(5);
// A head fits in a few packets; whoever needs longer is slow on purpose.
pub(super) const REQUEST_HEAD: Duration = Duration::from_secs(10);
// Between nginx (75 s) and the pause between two clicks; agents that check in less often open a new connection anyway.
pub(super) const IDLE: Duration = Duration::from_secs(60);
// A client that sends nothing for this long in the middle of a body has gone.
pub(super) const BODY_IDLE: Duration = Duration::from_secs(30);
// A modem sends ten times as much. Slower is a client that wants to hold a connection of the upstream.
pub(super) const BODY_RATE: usize = 256;
// A client that takes nothing for this long holds an upstream connection for no use.
pub(super) const WRITE_IDLE: Duration = Duration::from_secs(30);
// Tunnels are quiet by nature: remote-control sessions send keep-alives, some only every half hour.
pub(super) const TUNNEL_IDLE: Duration = Duration::from_secs(3600);
// Long enough for ordinary answers, shorter than the 90 s after which service managers kill.
pub(super) const DRAIN: Duration = Duration::from_secs(30);
// Most clients ask again within it and learn by an answer that the connection ends; thousands of agents come back spread, not at once.
pub(super) const DRAIN_IDLE: Duration = Duration::from_secs(5);
// A remote-control session may be finished, and a forgotten one does not keep the old process for a day.
pub(super) const DRAIN_TUNNELS: Duration = Duration::from_secs(600);
// Compiling every plugin anew, after a change of the engine, takes about half of it on two cores.
pub(super) const UPGRADE: Duration = Duration::from_secs(30);

// A shadow changes nothing, so that there is no reason to look at less than everything until its time is felt.
pub(super) const SHADOW_SHARE: f64 = 1.0;
// One in twenty is no accident; a rare query of death costs its own requests only.
pub(super) const QUARANTINE_FAILURES: f64 = 0.05;
// Below a hundred calls five failures are one client that tries again.
pub(super) const QUARANTINE_CALLS: u64 = 100;
// Long enough for a quiet site to make so many calls, short enough that old sins are forgotten.
pub(super) const QUARANTINE_WITHIN: Duration = Duration::from_secs(30);

// A connect takes one round trip, and one lost packet another second: later the next server is the better bet.
pub(super) const CONNECT: Duration = Duration::from_secs(1);
// Twice what a connection over a continent takes with TLS; two racing servers stay below half a second.
pub(super) const RACE: Duration = Duration::from_millis(250);
// Reports of a protected application take tens of seconds; nginx waits as long.
pub(super) const FIRST_BYTE: Duration = Duration::from_secs(60);
// Shorter than what servers usually keep, so that they rarely close a connection just as it is reused.
pub(super) const UPSTREAM_IDLE: Duration = Duration::from_secs(30);

// One retry for the server that failed, one for the next.
pub(super) const RETRY_ATTEMPTS: u32 = 2;
// At worst a fifth more load on upstreams that are already failing.
pub(super) const RETRY_BUDGET: f64 = 0.2;
// A server that dies must not cost the GETs it held; the methods that may be repeated are those that HTTP defines as safe.
pub(super) const RETRY_SAFE: bool = true;

// A restarting server is good for a moment and gone again; agents that move twice are worse off than agents that move late.
pub(super) const FAILBACK_AFTER: Duration = Duration::from_secs(10);
// Cold caches and connection pools get a tenth of the load first.
pub(super) const FAILBACK_RAMP: Duration = Duration::from_secs(10);

// With two failures needed, a dead server is known within about four seconds.
pub(super) const HEALTH_EVERY: Duration = Duration::from_secs(2);
// A health page that takes longer is not healthy.
pub(super) const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);
// One lost packet is no outage.
pub(super) const HEALTH_FALL: u32 = 2;
// Coming back is slower than going, so that a restarting server does not flap.
pub(super) const HEALTH_RISE: u32 = 3;
// An application pool that is recycled stalls for 30 to 45 s every hour or so: that is no outage.
pub(super) const HEALTH_STALL: Duration = Duration::from_secs(60);
