//! Lines of policies in the operator's log, cut at 8 KiB per exchange.

use crate::pool::GuestState;

/// How important a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// Log bytes a call outside an exchange (describe, configure) may write.
pub(crate) const BYTES_OUTSIDE_EXCHANGE: usize = 8 * 1024;

impl GuestState {
    pub(crate) fn log(&mut self, level: Level, message: &str) {
        let left = match self.exchange.as_deref_mut() {
            Some(exchange) => &mut exchange.log_bytes_left,
            None => &mut self.log_bytes_left,
        };
        if *left == 0 {
            self.shared.counters.cut_log_line();
            return;
        }
        let mut end = message.len().min(*left);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        *left = left.saturating_sub(message.len().max(1));
        let message = message.get(..end).unwrap_or_default();
        let policy = &*self.policy;
        match level {
            Level::Debug => tracing::debug!(policy, "{message}"),
            Level::Info => tracing::info!(policy, "{message}"),
            Level::Warn => tracing::warn!(policy, "{message}"),
            Level::Error => {
                tracing::error!(policy, "{message}");
                self.last_error = Some(message.to_owned());
            }
        }
    }
}
