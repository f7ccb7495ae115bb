//! The client's flow-control windows, for the answers that are under way: whether it is the client that keeps them from going on.

use std::time::{Duration, Instant};

/// Least that must flow within the limit while the client's windows are closed. sozu asks for the same; a modem does better.
pub const FLOOR: u64 = 16 * 1024;
/// A window with less room than this is closed: drops keep it from ever getting there, and no client that reads leaves so little.
const CLOSED: i64 = 1024;
/// Windows before anybody said anything.
const DEFAULT: i64 = 65_535;
/// More answers are never under way: hyper is told to take no more streams.
pub const MAX_RESPONSES: usize = 256;

/// Windows of a connection and of its unfinished answers.
#[derive(Debug)]
pub struct Windows {
    /// Of a new stream.
    initial: i64,
    connection: i64,
    /// Stream and window of every answer whose head is out and whose end is not. A short list: searched from its end.
    responses: Vec<(u32, i64)>,
    /// Bytes of DATA sent.
    sent: u64,
    /// Since when answers are held, and what had been sent then.
    held: Option<(Instant, u64)>,
}

impl Default for Windows {
    fn default() -> Self {
        Self { initial: DEFAULT, connection: DEFAULT, responses: Vec::new(), sent: 0, held: None }
    }
}

impl Windows {
    /// An answer's head was sent, and its body will follow.
    pub fn open(&mut self, stream: u32) {
        if self.responses.len() < MAX_RESPONSES && self.find(stream).is_none() {
            self.responses.push((stream, self.initial));
        }
    }

    /// Bytes of an answer were sent.
    pub fn sent(&mut self, stream: u32, bytes: u32) {
        self.sent += u64::from(bytes);
        self.connection -= i64::from(bytes);
        if let Some(window) = self.find(stream) {
            *window -= i64::from(bytes);
        }
    }

    /// An answer has ended, or its stream has.
    pub fn close(&mut self, stream: u32) {
        if let Some(index) = self.responses.iter().rposition(|(open, _)| *open == stream) {
            self.responses.swap_remove(index);
        }
    }

    /// The client gave room, to a stream or (0) to the connection.
    pub fn update(&mut self, stream: u32, room: u32) {
        if stream == 0 {
            self.connection += i64::from(room);
        } else if let Some(window) = self.find(stream) {
            *window += i64::from(room);
        }
    }

    /// The client said how large the windows of its streams are; that holds for the open ones too.
    pub fn initial(&mut self, size: u32) {
        let change = i64::from(size) - self.initial;
        self.initial += change;
        self.responses.iter_mut().for_each(|(_, window)| *window += change);
    }

    /// Whether answers are under way.
    #[must_use]
    pub fn is_answering(&self) -> bool {
        !self.responses.is_empty()
    }

    /// Whether an answer waits for the client to open a window.
    #[must_use]
    pub fn is_held(&self) -> bool {
        !self.responses.is_empty() && (self.connection < CLOSED || self.responses.iter().any(|(_, window)| *window < CLOSED))
    }

    /// Looks at the clock: whether answers were held for `limit` with less than [`FLOOR`] sent. To be asked often within the limit.
    pub fn is_stalled(&mut self, limit: Duration, now: Instant) -> bool {
        if !self.is_held() {
            self.held = None;
            return false;
        }
        let sent = self.sent;
        let (since, before) = *self.held.get_or_insert((now, sent));
        if sent - before >= FLOOR {
            self.held = Some((now, sent));
            return false;
        }
        now.saturating_duration_since(since) >= limit
    }

    fn find(&mut self, stream: u32) -> Option<&mut i64> {
        self.responses.iter_mut().rev().find(|(open, _)| *open == stream).map(|(_, window)| window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn an_answer_is_held_by_its_window_or_by_the_connections() {
        let mut windows = Windows::default();
        assert!(!windows.is_held(), "nothing is under way");
        windows.initial(0);
        assert!(!windows.is_held());
        windows.open(1);
        assert!(windows.is_held(), "a window of nothing");
        windows.initial(5000);
        assert!(!windows.is_held(), "a new size holds for open streams too");
        windows.sent(1, 5000);
        assert!(windows.is_held());
        windows.update(1, 1);
        assert!(windows.is_held(), "a drop is no room");
        windows.update(1, 2000);
        assert!(!windows.is_held());
        windows.initial(0);
        assert!(windows.is_held(), "a window may become negative");
        windows.close(1);
        assert!(!windows.is_held());

        windows.initial(1 << 20);
        windows.open(3);
        windows.sent(3, 65_535 - 100);
        assert!(windows.is_held(), "the connection's window is used up");
        windows.update(0, 50_000);
        assert!(!windows.is_held());
    }

    #[test]
    fn drops_into_a_closed_window_do_not_count_as_progress() {
        let start = Instant::now();
        let mut windows = Windows::default();
        windows.initial(0);
        windows.open(1);
        for second in 0..30 {
            windows.update(1, 1);
            windows.sent(1, 1);
            assert!(!windows.is_stalled(LIMIT, start + Duration::from_secs(second)), "{second} s");
        }
        assert!(windows.is_stalled(LIMIT, start + LIMIT));
    }

    #[test]
    fn a_slow_reader_that_reads_is_let_live() {
        let start = Instant::now();
        let mut windows = Windows::default();
        windows.initial(0);
        windows.open(1);
        for second in 0..600 {
            windows.update(1, 1000);
            windows.sent(1, 1000);
            assert!(!windows.is_stalled(LIMIT, start + Duration::from_secs(second)), "{second} s");
        }
    }

    #[test]
    fn an_answer_that_the_server_does_not_go_on_with_is_nobodys_fault() {
        let start = Instant::now();
        let mut windows = Windows::default();
        windows.open(1);
        assert!(!windows.is_stalled(LIMIT, start));
        assert!(!windows.is_stalled(LIMIT, start + Duration::from_secs(36_000)));
    }

    #[test]
    fn the_list_has_an_end() {
        let mut windows = Windows::default();
        (0..10_000).for_each(|stream| windows.open(stream));
        assert_eq!(windows.responses.len(), MAX_RESPONSES);
        (0..10_000).for_each(|stream| windows.close(stream));
        assert!(!windows.is_answering());
    }
}
