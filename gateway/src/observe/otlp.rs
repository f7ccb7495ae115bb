//! Sending spans to an OpenTelemetry collector over OTLP/gRPC. Nobody ever waits for the collector: what it does not take is dropped
//! and counted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter as OtlpExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::metrics::{Metrics, Signal};
use super::record::AccessRecord;
use super::spans;

/// Makes spans of records and sends them in batches, at least once a second.
#[derive(Debug)]
pub struct Exporter {
    processor: BatchSpanProcessor,
    progress: Arc<Progress>,
    scope: InstrumentationScope,
}

/// Why an [`Exporter`] cannot be built. Whether the collector answers is not known then and no error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The endpoint is not one that can be spoken to.
    #[error("telemetry.otlp = \"{0}\": only http:// endpoints can be used, such as http://127.0.0.1:4317 (OTLP over gRPC)")]
    Scheme(String),
    /// The exporter refused the endpoint.
    #[error("telemetry.otlp: {0}")]
    Endpoint(#[from] ExporterBuildError),
    /// The thread of the exporter could not be started.
    #[error("cannot start the telemetry exporter: {0}")]
    Start(#[from] io::Error),
}

impl Exporter {
    /// An exporter for the collector at `endpoint`, an `http://host:port` URL; it connects in the background and again whenever it must.
    ///
    /// # Errors
    ///
    /// When the endpoint is malformed or needs TLS, or a thread cannot be started.
    pub fn new(endpoint: &str, metrics: Arc<Metrics>) -> Result<Self, Error> {
        if !endpoint.starts_with("http://") {
            return Err(Error::Scheme(endpoint.to_owned()));
        }
        let runtime = Runtime::start()?;
        let inside = runtime.handle.enter();
        let otlp = OtlpExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_TIMEOUT).build()?;
        drop(inside);
        Ok(Self::with(otlp, metrics, runtime))
    }

    fn with(exporter: impl SpanExporter + 'static, metrics: Arc<Metrics>, runtime: Runtime) -> Self {
        let progress = Arc::new(Progress::new(metrics));
        let observed = Observed { exporter, progress: Arc::clone(&progress), runtime };
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(DELAY)
            .build();
        let mut processor = BatchSpanProcessor::builder(observed).with_batch_config(config).build();
        processor.set_resource(&resource());
        let scope = InstrumentationScope::builder("weir").with_version(env!("CARGO_PKG_VERSION")).build();
        Self { processor, progress, scope }
    }

    /// Queues the spans of an exchange; never waits. Spans that find the queue full are counted as dropped.
    pub fn export(&self, record: &AccessRecord) {
        spans::build(record, &self.scope, |span| {
            if self.progress.admit() {
                self.processor.on_end(span);
            }
        });
    }

    /// Sends what is queued, for as long as `timeout`; what is left then is counted as dropped. Returns whether nothing was left.
    pub fn shutdown(&self, timeout: Duration) -> bool {
        let ended = self.processor.shutdown_with_timeout(timeout);
        if let Err(error) = &ended {
            tracing::warn!(%error, "the last spans were not exported");
        }
        self.progress.give_up();
        ended.is_ok()
    }
}

/// About 64 MiB of spans when the collector is gone.
const QUEUE: usize = 65_536;
const BATCH: usize = 2_048;
const DELAY: Duration = Duration::from_secs(1);
/// For one batch, its retries and the connection.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// The gRPC channel needs a runtime for as long as it lives; workers have better things to do.
#[derive(Debug)]
struct Runtime {
    handle: Handle,
    /// Ends the runtime when dropped.
    _running: oneshot::Sender<()>,
}

impl Runtime {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let handle = runtime.handle().clone();
        let (_running, stopped) = oneshot::channel();
        thread::Builder::new().name("weir-otlp".to_owned()).spawn(move || {
            // The error says that the sender is gone, which is the signal.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Self { handle, _running })
    }
}

/// `OTEL_RESOURCE_ATTRIBUTES` adds to it; the name stays ours.
fn resource() -> Resource {
    Resource::builder()
        .with_service_name("weir")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build()
}

/// What became of the spans.
#[derive(Debug)]
struct Progress {
    metrics: Arc<Metrics>,
    /// Admitted and not yet exported or failed. Held below the processor's queue size, so that its own silent drop never happens.
    waiting: AtomicU64,
    failing: AtomicBool,
    /// What is still queued has been counted as dropped and shall not be sent.
    over: AtomicBool,
}

impl Progress {
    fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, waiting: AtomicU64::new(0), failing: AtomicBool::new(false), over: AtomicBool::new(false) }
    }

    fn admit(&self) -> bool {
        let admitted = self.waiting.load(Ordering::Relaxed) < QUEUE as u64;
        if admitted {
            self.waiting.fetch_add(1, Ordering::Relaxed);
        } else {
            self.metrics.dropped(Signal::Span, 1);
        }
        admitted
    }

    fn settle(&self, spans: u64, result: &OTelSdkResult) {
        // Saturating, for `give_up` may have counted this batch already.
        let settle = |waiting: u64| Some(waiting.saturating_sub(spans));
        let waiting = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, settle).unwrap_or_default();
        match result {
            Ok(()) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("spans are exported again");
                }
            }
            Err(error) => {
                self.metrics.dropped(Signal::Span, waiting.min(spans));
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "spans cannot be exported: they are dropped and counted");
                }
            }
        }
    }

    fn give_up(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.metrics.dropped(Signal::Span, self.waiting.swap(0, Ordering::Relaxed));
    }
}

/// An exporter whose results are counted and whose time is limited.
#[derive(Debug)]
struct Observed<E> {
    exporter: E,
    progress: Arc<Progress>,
    /// Held here, so that it outlives the last export.
    runtime: Runtime,
}

impl<E: SpanExporter> SpanExporter for Observed<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        if self.progress.over.load(Ordering::Relaxed) {
            return Err(OTelSdkError::AlreadyShutdown);
        }
        let spans = batch.len() as u64;
        // The processor polls this on a thread without a runtime; the timer of ours also bounds a connection that never comes about.
        let limit = {
            let _inside = self.runtime.handle.enter();
            tokio::time::sleep(EXPORT_TIMEOUT)
        };
        let result = tokio::select! {
            result = self.exporter.export(batch) => result,
            () = limit => Err(OTelSdkError::Timeout(EXPORT_TIMEOUT)),
        };
        self.progress.settle(spans, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Instant;

    use super::super::fixture;
    use super::*;

    /// A collector in memory that can be made to fail.
    #[derive(Clone, Debug, Default)]
    struct Collector(Arc<CollectorState>);

    #[derive(Debug, Default)]
    struct CollectorState {
        refuses: AtomicBool,
        spans: Mutex<Vec<SpanData>>,
        resource: Mutex<Option<Resource>>,
    }

    impl SpanExporter for Collector {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            if self.0.refuses.load(Ordering::Relaxed) {
                return Err(OTelSdkError::InternalFailure("refused".to_owned()));
            }
            self.0.spans.lock().unwrap().extend(batch);
            Ok(())
        }

        fn set_resource(&mut self, resource: &Resource) {
            *self.0.resource.lock().unwrap() = Some(resource.clone());
        }
    }

    fn exporter(collector: &Collector) -> (Exporter, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::default());
        (Exporter::with(collector.clone(), Arc::clone(&metrics), Runtime::start().unwrap()), metrics)
    }

    #[test]
    fn all_spans_of_an_exchange_arrive_with_the_service_name() {
        let collector = Collector::default();
        let (exporter, metrics) = exporter(&collector);
        exporter.export(&fixture::denied());
        assert!(exporter.shutdown(Duration::from_secs(10)));
        let spans = collector.0.spans.lock().unwrap();
        assert_eq!(spans.len(), 5);
        assert!(spans.iter().all(|span| span.span_context.trace_id() == spans[0].span_context.trace_id()));
        let resource = collector.0.resource.lock().unwrap().clone().unwrap();
        assert_eq!(resource.get(&"service.name".into()).unwrap().as_str(), "weir");
        assert_eq!(metrics.dropped_total(Signal::Span), 0);
    }

    #[test]
    fn a_refusing_collector_costs_spans_and_is_forgiven() {
        let collector = Collector::default();
        let (exporter, metrics) = exporter(&collector);
        collector.0.refuses.store(true, Ordering::Relaxed);
        exporter.export(&fixture::denied());
        let _ = exporter.processor.force_flush();
        assert_eq!(metrics.dropped_total(Signal::Span), 5);
        assert!(exporter.progress.failing.load(Ordering::Relaxed));
        collector.0.refuses.store(false, Ordering::Relaxed);
        exporter.export(&fixture::relayed());
        assert!(exporter.shutdown(Duration::from_secs(10)));
        assert!(!exporter.progress.failing.load(Ordering::Relaxed));
        assert_eq!((collector.0.spans.lock().unwrap().len(), metrics.dropped_total(Signal::Span)), (2, 5));
    }

    #[test]
    fn a_dead_collector_never_blocks_and_every_span_is_accounted_for() {
        // Bound but never accepted: connections open in the backlog, and nothing ever answers.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let metrics = Arc::new(Metrics::default());
        let exporter = Exporter::new(&format!("http://{}", silent.local_addr().unwrap()), Arc::clone(&metrics)).unwrap();
        let record = fixture::denied();
        let started = Instant::now();
        let exchanges = QUEUE as u64 / 4;
        for _ in 0..exchanges {
            exporter.export(&record);
        }
        assert!(started.elapsed() < EXPORT_TIMEOUT, "queueing waited for the collector");
        let overflow = exchanges * 5 - QUEUE as u64;
        assert_eq!(metrics.dropped_total(Signal::Span), overflow);
        assert!(!exporter.shutdown(Duration::from_millis(100)));
        assert_eq!(metrics.dropped_total(Signal::Span), exchanges * 5);
    }

    #[test]
    fn endpoints_that_cannot_work_are_refused() {
        for endpoint in ["https://collector:4317", "collector:4317", "http://", "unix:///run/otlp"] {
            assert!(Exporter::new(endpoint, Arc::default()).is_err(), "{endpoint}");
        }
    }
}
