//! Counters, gauges and histograms of the gateway, rendered in the Prometheus text format.
//!
//! What a request touches is written by its own thread without a lock or a locked instruction, and summed when somebody looks. Label
//! values are names from the configuration and closed sets: never addresses, paths or anything else a client chooses.

mod cells;
mod render;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::record::{AccessRecord, ConnectionRecord, DecidedBy};

pub use cells::{Active, Family};
pub use render::CONTENT_TYPE;

use cells::Shards;

/// All metrics of one gateway. Shared behind an `Arc`; every method may be called from any thread.
#[derive(Debug, Default)]
pub struct Metrics {
    shards: Shards,
    outside: Mutex<Outside>,
    accept_failures: AtomicU64,
    dropped_lines: AtomicU64,
    dropped_spans: AtomicU64,
}

/// A kind of telemetry that can be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Lines of the access log.
    Log,
    /// Spans.
    Span,
}

impl Metrics {
    /// Counts a finished exchange, its policy calls and its attempts.
    pub fn exchange(&self, record: &AccessRecord) {
        self.shards.exchange(record);
    }

    /// Counts a connection that never became a request: by reason when the gateway refused it, else as `policy_denied`.
    pub fn lost_connection(&self, record: &ConnectionRecord) {
        let reason = match record.decided_by {
            DecidedBy::Gateway | DecidedBy::Upstream => record.reason.as_str(),
            // The words of a policy are not ours to bound.
            DecidedBy::Policy(_) => "policy_denied",
        };
        self.shards.lost_connection(reason, &record.decisions);
    }

    /// Counts a connection that was refused without a line of its own.
    pub fn refused_connection(&self, reason: &'static str) {
        self.shards.lost_connection(reason, &[]);
    }

    /// Counts a connection that the gateway ended for what its client did on it.
    pub fn closed_connection(&self, reason: &'static str) {
        self.shards.closed_connection(reason);
    }

    /// Counts an attempt to accept that failed for want of file descriptors or memory.
    pub fn accept_failed(&self) {
        self.accept_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection as accepted, and as active until the guard is dropped.
    #[must_use]
    pub fn connection(&self) -> Active {
        self.shards.connection()
    }

    /// Counts a request as active until the guard is dropped.
    #[must_use]
    pub fn request(&self) -> Active {
        self.shards.request()
    }

    /// Counts telemetry that was given up: a full queue, a full disk, a dead collector.
    pub fn dropped(&self, signal: Signal, count: u64) {
        self.dropped_counter(signal).fetch_add(count, Ordering::Relaxed);
    }

    /// How much telemetry was given up so far.
    #[must_use]
    pub fn dropped_total(&self, signal: Signal) -> u64 {
        self.dropped_counter(signal).load(Ordering::Relaxed)
    }

    /// The generation of `weir.toml` that is live.
    pub fn config_generation(&self, generation: u64) {
        self.outside(|outside| outside.config_generation = generation);
    }

    /// Counts a reload of the configuration by its result; a success also sets the time of the last one to now.
    pub fn reload(&self, ok: bool) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.outside(|outside| {
            let (count, time) = if ok { (&mut outside.reloads, now) } else { (&mut outside.failed_reloads, outside.last_reload) };
            *count += 1;
            outside.last_reload = time;
        });
    }

    /// A generation of a plugin went live: counts the load and sets the gauge.
    pub fn plugin_live(&self, plugin: &str, generation: u64) {
        self.outside(|outside| {
            let plugin = outside.plugins.entry(plugin.to_owned()).or_default();
            plugin.generation = generation;
            plugin.loads += 1;
        });
    }

    /// A file of a plugin was rejected.
    pub fn plugin_rejected(&self, plugin: &str) {
        self.outside(|outside| outside.plugins.entry(plugin.to_owned()).or_default().rejections += 1);
    }

    /// Forgets sites, policies or upstreams that are gone: their series end. Names come and go with the configuration for as long as a
    /// process runs.
    pub fn retain(&self, family: Family, keep: impl Fn(&str) -> bool) {
        self.shards.retain(family, keep);
    }

    /// Forgets plugins whose file is gone and that nothing runs any more.
    pub fn retain_plugins(&self, keep: impl Fn(&str) -> bool) {
        self.outside(|outside| outside.plugins.retain(|name, _| keep(name)));
    }

    /// Whether a server of an upstream is eligible.
    pub fn upstream_healthy(&self, upstream: &str, server: &str, healthy: bool) {
        self.outside(|outside| outside.health.insert((upstream.to_owned(), server.to_owned()), healthy));
    }

    /// Forgets the servers that are no longer configured; `keep` is asked with the upstream and the server.
    pub fn retain_servers(&self, keep: impl Fn(&str, &str) -> bool) {
        self.outside(|outside| outside.health.retain(|(upstream, server), _| keep(upstream, server)));
    }

    /// Everything in the Prometheus text format, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        self.render_with(std::iter::empty::<(&str, &str, &str, u64)>())
    }

    /// As [`Metrics::render`], with the counters that plugins keep: `(name, label, plugin, value)` each, rendered as labels of one
    /// family so that a plugin cannot invent a metric of the gateway's.
    #[must_use]
    pub fn render_with<N, L, P>(&self, extra: impl IntoIterator<Item = (N, L, P, u64)>) -> String
    where
        N: AsRef<str>,
        L: AsRef<str>,
        P: AsRef<str>,
    {
        let mut text = render::Text::default();
        self.shards.render(&mut text);
        self.outside(|outside| outside.render(&mut text));
        text.family("weir_accept_failures_total", "counter", "Attempts to accept that failed for want of descriptors or memory.");
        text.sample("weir_accept_failures_total", &[], self.accept_failures.load(Ordering::Relaxed));
        text.family("weir_telemetry_dropped_total", "counter", "Log lines and spans given up rather than waited for.");
        for (signal, name) in [(Signal::Log, "log"), (Signal::Span, "span")] {
            text.sample("weir_telemetry_dropped_total", &[("signal", name)], self.dropped_total(signal));
        }
        text.family("weir_plugin_counter_total", "counter", "Counters kept by plugins.");
        for (name, label, plugin, value) in extra {
            let labels = [("plugin", plugin.as_ref()), ("name", name.as_ref()), ("label", label.as_ref())];
            text.sample("weir_plugin_counter_total", &labels, value);
        }
        text.finish()
    }

    fn dropped_counter(&self, signal: Signal) -> &AtomicU64 {
        match signal {
            Signal::Log => &self.dropped_lines,
            Signal::Span => &self.dropped_spans,
        }
    }

    fn outside<R>(&self, change: impl FnOnce(&mut Outside) -> R) -> R {
        // Every change leaves the numbers valid, so a panic of another holder spoiled nothing.
        change(&mut self.outside.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What other parts of the gateway report now and then.
#[derive(Debug, Default)]
struct Outside {
    config_generation: u64,
    reloads: u64,
    failed_reloads: u64,
    /// Unix seconds; 0 before the first.
    last_reload: u64,
    plugins: BTreeMap<String, Plugin>,
    health: BTreeMap<(String, String), bool>,
}

#[derive(Debug, Default)]
struct Plugin {
    generation: u64,
    loads: u64,
    rejections: u64,
}

impl Outside {
    fn render(&self, text: &mut render::Text) {
        text.family("weir_build_info", "gauge", "The version that runs.");
        text.sample("weir_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        text.family("weir_config_generation", "gauge", "Generation of the configuration that is live.");
        text.sample("weir_config_generation", &[], self.config_generation);
        text.family("weir_config_reloads_total", "counter", "Reloads of the configuration by result.");
        text.sample("weir_config_reloads_total", &[("result", "ok")], self.reloads);
        text.sample("weir_config_reloads_total", &[("result", "rejected")], self.failed_reloads);
        text.family("weir_config_last_reload_success_timestamp_seconds", "gauge", "Unix time of the last reload that worked.");
        text.sample("weir_config_last_reload_success_timestamp_seconds", &[], self.last_reload);
        text.family("weir_plugin_generation", "gauge", "Generation of the plugin that is live.");
        for (name, plugin) in &self.plugins {
            text.sample("weir_plugin_generation", &[("plugin", name)], plugin.generation);
        }
        text.family("weir_plugin_loads_total", "counter", "Files of a plugin by what became of them.");
        for (name, plugin) in &self.plugins {
            text.sample("weir_plugin_loads_total", &[("plugin", name), ("result", "ok")], plugin.loads);
            text.sample("weir_plugin_loads_total", &[("plugin", name), ("result", "rejected")], plugin.rejections);
        }
        text.family("weir_upstream_healthy", "gauge", "1 while the server is eligible.");
        for ((upstream, server), healthy) in &self.health {
            text.sample("weir_upstream_healthy", &[("upstream", upstream), ("server", server)], u8::from(*healthy));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::fixture;
    use super::*;

    /// The value of a sample, written as in the output.
    #[track_caller]
    fn value(text: &str, sample: &str) -> f64 {
        let found = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("{sample} is missing in\n{text}")).parse().unwrap()
    }

    #[test]
    fn exchanges_of_all_threads_are_summed() {
        let metrics = Metrics::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        metrics.exchange(&fixture::relayed());
                        metrics.exchange(&fixture::denied());
                    }
                });
            }
        });
        let text = metrics.render();
        assert_eq!(value(&text, r#"weir_requests_total{site="partner-a",status="2xx",decided_by="upstream"}"#), 400.0);
        assert_eq!(value(&text, r#"weir_requests_total{site="partner-a",status="4xx",decided_by="policy"}"#), 400.0);
        assert_eq!(value(&text, r#"weir_request_duration_seconds_bucket{site="partner-a",le="0.005"}"#), 400.0);
        assert_eq!(value(&text, r#"weir_request_duration_seconds_bucket{site="partner-a",le="0.05"}"#), 800.0);
        assert_eq!(value(&text, r#"weir_request_duration_seconds_bucket{site="partner-a",le="+Inf"}"#), 800.0);
        assert_eq!(value(&text, r#"weir_request_duration_seconds_count{site="partner-a"}"#), 800.0);
        assert!((value(&text, r#"weir_request_duration_seconds_sum{site="partner-a"}"#) - 400.0 * 0.032_625).abs() < 1e-6);
        assert_eq!(
            value(&text, r#"weir_policy_decisions_total{policy="ips",phase="request-body",verdict="deny",mode="enforce"}"#),
            400.0
        );
        assert_eq!(value(&text, r#"weir_policy_duration_seconds_bucket{policy="geoip",phase="request",le="0.0000005"}"#), 400.0);
        assert_eq!(value(&text, r#"weir_upstream_attempts_total{upstream="automate",outcome="ok"}"#), 800.0);
        assert_eq!(value(&text, r#"weir_upstream_attempts_total{upstream="automate",outcome="refused"}"#), 400.0);
        assert_eq!(value(&text, r#"weir_response_bytes_total{site="partner-a"}"#), 400.0 * 3_462.0);
        assert!(!text.contains(r#"status="5xx""#), "what never happened costs no line");
    }

    #[test]
    fn guards_count_what_is_active_wherever_they_end() {
        let metrics = Metrics::default();
        let connection = metrics.connection();
        let requests = [metrics.request(), metrics.request()];
        let text = metrics.render();
        assert_eq!(value(&text, "weir_active_connections"), 1.0);
        assert_eq!(value(&text, "weir_active_requests"), 2.0);
        std::thread::spawn(move || drop((connection, requests))).join().unwrap();
        let text = metrics.render();
        assert_eq!(value(&text, "weir_active_connections"), 0.0);
        assert_eq!(value(&text, "weir_active_requests"), 0.0);
        assert_eq!(value(&text, "weir_connections_total"), 1.0);
    }

    #[test]
    fn registries_on_one_thread_do_not_mix() {
        let (one, other) = (Metrics::default(), Metrics::default());
        one.exchange(&fixture::relayed());
        other.exchange(&fixture::relayed());
        one.exchange(&fixture::relayed());
        let sample = r#"weir_requests_total{site="partner-a",status="2xx",decided_by="upstream"}"#;
        assert_eq!((value(&one.render(), sample), value(&other.render(), sample)), (2.0, 1.0));
    }

    #[test]
    fn names_that_are_gone_are_forgotten_and_begin_anew_when_they_come_back() {
        let metrics = Metrics::default();
        let record = |site: &str| AccessRecord { site: Some(site.into()), ..fixture::relayed() };
        let sample = |site: &str| format!("weir_requests_total{{site=\"{site}\",status=\"2xx\",decided_by=\"upstream\"}}");
        let mut longest = 0;
        for turn in 0..1_000 {
            // As when sites, policies and files are renamed again and again.
            let name = format!("site-{turn}");
            metrics.exchange(&record(&name));
            metrics.exchange(&record("stays"));
            metrics.plugin_live(&name, 1);
            longest = longest.max(metrics.render().lines().count());
            metrics.retain(Family::Sites, |own| own == "stays");
            metrics.retain_plugins(|_| false);
        }
        let text = metrics.render();
        assert!(longest <= text.lines().count() + 40, "{longest} lines at most, and now {}", text.lines().count());
        assert!(!text.contains("site-"), "{text}");
        assert_eq!(value(&text, &sample("stays")), 1_000.0, "the others go on");
        metrics.exchange(&record("site-7"));
        assert_eq!(value(&metrics.render(), &sample("site-7")), 1.0);
    }

    #[test]
    fn what_other_threads_counted_is_forgotten_too() {
        let metrics = Metrics::default();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let metrics = &metrics;
            scope.spawn(move || {
                // One exchange each time it is told.
                while told.recv().is_ok_and(|done: std::sync::mpsc::Sender<()>| {
                    metrics.exchange(&fixture::denied());
                    done.send(()).is_ok()
                }) {}
            });
            let count = || {
                let (done, counted) = std::sync::mpsc::channel();
                tell.send(done).unwrap();
                counted.recv().unwrap();
            };
            let sample = r#"weir_policy_decisions_total{policy="ips",phase="request-body",verdict="deny",mode="enforce"}"#;
            count();
            count();
            assert_eq!(value(&metrics.render(), sample), 2.0);
            metrics.retain(Family::Policies, |name| name != "ips");
            assert!(!metrics.render().contains("policy=\"ips\""));
            count();
            assert_eq!(value(&metrics.render(), sample), 1.0, "the thread counts where everybody looks");
            drop(tell);
        });
    }

    #[test]
    fn lost_connections_count_by_reason_and_the_set_of_reasons_is_bounded() {
        let metrics = Metrics::default();
        metrics.lost_connection(&fixture::connection());
        let by_policy = ConnectionRecord {
            decided_by: DecidedBy::Policy("acl".into()),
            reason: "whatever it says".to_owned(),
            ..fixture::connection()
        };
        metrics.lost_connection(&by_policy);
        for index in 0..1000 {
            metrics.lost_connection(&ConnectionRecord { reason: format!("r{index}"), ..fixture::connection() });
        }
        let text = metrics.render();
        assert_eq!(value(&text, r#"weir_connections_refused_total{reason="tls_handshake_failed"}"#), 1.0);
        assert_eq!(value(&text, r#"weir_connections_refused_total{reason="policy_denied"}"#), 1.0);
        assert!(value(&text, r#"weir_connections_refused_total{reason="other"}"#) >= 900.0);
    }

    #[test]
    fn requests_without_a_site_or_status_are_counted_too() {
        let metrics = Metrics::default();
        metrics.exchange(&AccessRecord {
            site: None,
            status: 0,
            decided_by: DecidedBy::Gateway,
            duration: Duration::from_secs(60),
            ..fixture::relayed()
        });
        let text = metrics.render();
        assert_eq!(value(&text, r#"weir_requests_total{site="",status="none",decided_by="gateway"}"#), 1.0);
        assert_eq!(value(&text, r#"weir_request_duration_seconds_bucket{site="",le="10"}"#), 0.0);
    }

    #[test]
    fn reports_from_outside_are_rendered_and_labels_escaped() {
        let metrics = Metrics::default();
        metrics.config_generation(7);
        metrics.reload(true);
        metrics.reload(false);
        metrics.plugin_live("ips", 3);
        metrics.plugin_rejected("ips");
        metrics.upstream_healthy("automate", "https://10.0.0.5", true);
        metrics.upstream_healthy("gone", "https://10.0.0.9", true);
        metrics.retain_servers(|upstream, _| upstream == "automate");
        metrics.dropped(Signal::Span, 5);
        let text = metrics.render_with([("hits", "a\"b\\c\nd", "ips", 9)]);
        assert_eq!(value(&text, "weir_config_generation"), 7.0);
        assert_eq!(value(&text, r#"weir_config_reloads_total{result="rejected"}"#), 1.0);
        assert!(value(&text, "weir_config_last_reload_success_timestamp_seconds") > 1.7e9);
        assert_eq!(value(&text, r#"weir_plugin_generation{plugin="ips"}"#), 3.0);
        assert_eq!(value(&text, r#"weir_plugin_loads_total{plugin="ips",result="rejected"}"#), 1.0);
        assert_eq!(value(&text, r#"weir_upstream_healthy{upstream="automate",server="https://10.0.0.5"}"#), 1.0);
        assert!(!text.contains("10.0.0.9"));
        assert_eq!(value(&text, r#"weir_telemetry_dropped_total{signal="span"}"#), 5.0);
        assert_eq!(value(&text, r#"weir_plugin_counter_total{plugin="ips",name="hits",label="a\"b\\c\nd"}"#), 9.0);
    }
}
