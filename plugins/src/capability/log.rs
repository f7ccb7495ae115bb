//! Lines of policies in the operator's log, cut at so many bytes per exchange and lines per second.

use crate::limits::take_log;
use crate::pool::GuestState;

/// How important a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// Bytes of a guest's last words that are kept for the error of its call, whether they are logged or not.
const LAST_WORDS: usize = 1024;

impl GuestState {
    pub(crate) fn log(&mut self, level: Level, message: &str) {
        if level == Level::Error {
            self.last_error = Some(head(message, LAST_WORDS).to_owned());
        }
        let written = match self.exchange.as_deref_mut() {
            Some(exchange) => exchange.usages.of(self.policy_index).log(message.len(), &self.limits),
            None => take_log(&mut self.logged, message.len(), self.limits.log),
        };
        let Some(length) = written.filter(|_| self.shared.cuts.may_log()) else {
            self.shared.counters.cut_log_line();
            return;
        };
        let message = head(message, length);
        let policy = &*self.policy;
        match level {
            Level::Debug => tracing::debug!(policy, "{message}"),
            Level::Info => tracing::info!(policy, "{message}"),
            Level::Warn => tracing::warn!(policy, "{message}"),
            Level::Error => tracing::error!(policy, "{message}"),
        }
    }
}

/// As much of a text as fits.
fn head(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}
