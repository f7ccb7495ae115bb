//! What the gateway says about itself: one record per exchange becomes metrics at once, and a log line and spans on another thread.
//!
//! * [`record`]: the plain data written while a request runs.
//! * [`recorder`]: the handle that takes finished records, and the thread behind it.
//! * [`access_log`]: a record as one JSON line, and where the lines go.
//! * [`trace`]: W3C trace context, identifiers, head sampling.
//! * [`spans`]: a record as OpenTelemetry spans.
//! * [`otlp`]: sending spans to a collector, never waiting for it.
//! * [`metrics`]: counters and histograms in the Prometheus text format.

pub mod access_log;
mod background;
#[cfg(test)]
mod fixture;
mod json;
pub mod metrics;
pub mod otlp;
pub mod record;
pub mod recorder;
pub mod spans;
pub mod trace;

pub use access_log::Output;
pub use metrics::Metrics;
pub use record::{AccessRecord, Attempt, ConnectionRecord, DecidedBy, TraceIds};
pub use recorder::{Recorder, Settings, Skipped, Subscription};
