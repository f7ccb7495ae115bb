//! What a client can do to a server with frames of HTTP/2 that its parser accepts one by one. [`frames`] finds the frames in the bytes
//! of both directions, [`account`] keeps count and says when it is enough, [`windows`] knows who keeps a response from going on.
//!
//! Some floods end in the parser already (h2): small DATA frames it cannot get rid of, CONTINUATION frames, streams reset before they
//! were accepted. What it says in its GOAWAY is read here, so that the log has one word for each attack, whoever noticed it.

pub mod account;
pub mod frames;
pub mod windows;

use std::time::Duration;

pub use account::Account;

/// Why a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// Streams opened and reset before they were answered.
    RapidReset = 1,
    /// Broken frames that make the server reset streams (CVE-2025-8671).
    MadeYouReset,
    /// A header block in too many pieces.
    ContinuationFlood,
    /// A header list far above the limit.
    HeaderFlood,
    /// DATA frames with little or nothing in them.
    DataFlood,
    /// SETTINGS, each of which must be acknowledged.
    SettingsFlood,
    /// PING, each of which must be answered.
    PingFlood,
    /// PRIORITY and other frames that mean nothing.
    PriorityFlood,
    /// Many small updates of flow-control windows.
    WindowUpdateFlood,
    /// Answers that the client keeps from going on, by not opening its windows.
    Stalled,
    /// A frame or header block that does not come to its end.
    SlowHead,
    /// Frames that are no HTTP/2, found by the parser.
    ProtocolError,
}

impl Reason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::RapidReset,
        Self::MadeYouReset,
        Self::ContinuationFlood,
        Self::HeaderFlood,
        Self::DataFlood,
        Self::SettingsFlood,
        Self::PingFlood,
        Self::PriorityFlood,
        Self::WindowUpdateFlood,
        Self::Stalled,
        Self::SlowHead,
        Self::ProtocolError,
    ];

    /// The `reason` of the decision log and of the metric.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RapidReset => "h2_rapid_reset",
            Self::MadeYouReset => "h2_made_you_reset",
            Self::ContinuationFlood => "h2_continuation_flood",
            Self::HeaderFlood => "h2_header_flood",
            Self::DataFlood => "h2_data_flood",
            Self::SettingsFlood => "h2_settings_flood",
            Self::PingFlood => "h2_ping_flood",
            Self::PriorityFlood => "h2_priority_flood",
            Self::WindowUpdateFlood => "h2_window_update_flood",
            Self::Stalled => "h2_stalled",
            Self::SlowHead => "request_head_timeout",
            Self::ProtocolError => "h2_protocol_error",
        }
    }
}

/// What one connection may take its time for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first byte of a frame other than DATA, or of a header block, to its end.
    pub head: Duration,
    /// How long answers may go on with less than [`windows::FLOOR`] when the client's windows are what holds them.
    pub stall: Duration,
}
