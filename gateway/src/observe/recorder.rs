//! The one place where finished records go. The caller pays for counters and, when somebody wants the record, for one `try_send`; the
//! lines and the spans are made on a thread of their own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use std::{io, path::PathBuf};

use tokio::sync::broadcast;

use super::access_log::{Output, Sink, render, render_connection};
use super::metrics::{Metrics, Signal};
use super::otlp::{self, Exporter};
use super::record::{AccessRecord, ConnectionRecord, TraceIds};
use super::spans;
use super::trace::{self, Parent, Sampler};
