//! The bytes of a client's HTTP/1 connection, followed from head to head. Bytes in, and out comes how many of them may go to the parser.

use super::chunks::{BadChunk, Chunks};
use super::raw::{self, Framing, Reading};
use super::{Limits, Refusal};

/// How far a connection was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Head,
    Body {
        left: u64,
        upgrade: bool,
    },
    Chunks {
        chunks: Chunks,
        upgrade: bool,
    },
    /// After a head that asks for an upgrade: the answer decides what the next bytes are.
    Fork,
    /// No HTTP any more.
    Tunnel,
    /// Nothing more passes.
    End,
}

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fed {
    /// So many of them may pass. The others are to be shown again, with more behind them.
    pub pass: usize,
    /// What there is to know about the first byte that may not.
    pub then: Then,
}

/// Why bytes may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// They are no whole head yet.
    More,
    /// [`Stream::resolve`] first.
    Fork,
    /// A head that is refused; no byte from it on will ever pass.
    Refused(Refusal),
    /// A chunked body broke off in the wrong way; no byte will ever pass again.
    Broken(BadChunk),
}

/// A connection in progress.
#[derive(Debug)]
pub struct Stream {
    at: At,
    limits: Limits,
    heads: u64,
}

impl Stream {
    /// A connection from which nothing was read.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { at: At::Head, limits, heads: 0 }
    }

    /// Heads that passed so far.
    #[must_use]
    pub const fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether everything read so far is whole requests.
    #[must_use]
    pub fn is_between_requests(&self) -> bool {
        self.at == At::Head
    }

    /// Whether [`Stream::resolve`] is due before anything else passes.
    #[must_use]
    pub fn is_forked(&self) -> bool {
        self.at == At::Fork
    }

    /// Whether so many bytes without a whole head are too many.
    #[must_use]
    pub const fn is_too_long(&self, bytes: usize) -> bool {
        bytes > self.limits.head_bytes
    }

    /// Reads on. `bytes` begins where the last call stopped passing.
    pub fn feed(&mut self, bytes: &[u8]) -> Fed {
        let mut pass = 0;
        loop {
            let rest = bytes.get(pass..).unwrap_or_default();
            let stop = |then| Fed { pass, then };
            if rest.is_empty() && !matches!(self.at, At::Body { left: 0, .. }) {
                return stop(if self.at == At::Fork { Then::Fork } else { Then::More });
            }
            match &mut self.at {
                At::Head => match raw::read(rest, self.limits) {
                    Reading::Partial => return stop(Then::More),
                    Reading::Whole(head) => {
                        pass += head.length;
                        self.heads += 1;
                        self.at = match head.body {
                            Framing::Length(0) => after(head.upgrade),
                            Framing::Length(left) => At::Body { left, upgrade: head.upgrade },
                            Framing::Chunked => At::Chunks { chunks: Chunks::default(), upgrade: head.upgrade },
                        };
                    }
                    Reading::Refused(refusal) => {
                        self.at = At::End;
                        return stop(Then::Refused(refusal));
                    }
                },
                At::Body { left: 0, upgrade } => self.at = after(*upgrade),
                At::Body { left, .. } => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= here as u64;
                    pass += here;
                }
                At::Chunks { chunks, upgrade } => match chunks.read(rest) {
                    Ok(read) => {
                        pass += read;
                        if chunks.is_done() {
                            self.at = after(*upgrade);
                        }
                    }
                    Err(bad) => {
                        self.at = At::End;
                        return stop(Then::Broken(bad));
                    }
                },
                At::Fork => return stop(Then::Fork),
                At::Tunnel => return Fed { pass: bytes.len(), then: Then::More },
                At::End => return stop(Then::More),
            }
        }
    }

    /// The answer to a request for an upgrade is known: the connection has become a tunnel, or goes on with HTTP.
    pub fn resolve(&mut self, tunnel: bool) {
        if self.at == At::Fork {
            self.at = if tunnel { At::Tunnel } else { At::Head };
        }
    }
}

const fn after(upgrade: bool) -> At {
    if upgrade { At::Fork } else { At::Head }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { head_bytes: 512, target_bytes: 64, fields: 8 };

    /// What passed in one piece, and why it stopped; the same in every split.
    #[track_caller]
    fn feed(bytes: &[u8]) -> (usize, Then, u64) {
        let mut stream = Stream::new(LIMITS);
        let fed = stream.feed(bytes);
        for split in 0..=bytes.len() {
            let mut halves = Stream::new(LIMITS);
            let first = halves.feed(&bytes[..split]);
            let stopped = matches!(first.then, Then::Refused(_) | Then::Broken(_));
            let second = if stopped { Fed { pass: 0, then: first.then } } else { halves.feed(&bytes[first.pass..]) };
            let both = (first.pass + second.pass, second.then, halves.heads());
            // A broken body is known where it breaks: bytes before that have passed or not, as they came.
            if !matches!(fed.then, Then::Broken(_)) {
                assert_eq!(both, (fed.pass, fed.then, stream.heads()), "split at {split}: {}", bytes.escape_ascii());
            }
        }
        (fed.pass, fed.then, stream.heads())
    }

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    #[test]
    fn whole_requests_pass_and_a_piece_of_a_head_waits() {
        assert_eq!(feed(GET), (GET.len(), Then::More, 1));
        assert_eq!(feed(&[GET, GET, &GET[..9]].concat()), (2 * GET.len(), Then::More, 2));
        let post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(feed(&[post, GET].concat()), (post.len() + GET.len(), Then::More, 2));
        let chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        assert_eq!(feed(&[chunked, GET].concat()), (chunked.len() + GET.len(), Then::More, 2));
    }

    #[test]
    fn nothing_passes_from_a_refused_head_on() {
        let bad = b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(feed(&[GET, bad, GET].concat()), (GET.len(), Then::Refused(Refusal::BadTarget), 1));
        let mut stream = Stream::new(LIMITS);
        assert_eq!(stream.feed(bad).then, Then::Refused(Refusal::BadTarget));
        assert_eq!(stream.feed(GET), Fed { pass: 0, then: Then::More });
        let broken = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nX";
        assert!(matches!(feed(broken).1, Then::Broken(_)));
    }

    #[test]
    fn bytes_behind_an_upgrade_wait_for_its_answer() {
        let upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
        let both = [upgrade, GET].concat();
        assert_eq!(feed(&both), (upgrade.len(), Then::Fork, 1));
        for (tunnel, tail, heads) in [(false, GET, 2), (true, &b"\x81\x05hello"[..], 1)] {
            let mut stream = Stream::new(LIMITS);
            assert_eq!(stream.feed(&both).then, Then::Fork);
            stream.resolve(tunnel);
            assert_eq!(stream.feed(tail), Fed { pass: tail.len(), then: Then::More });
            assert_eq!(stream.heads(), heads);
        }
        // Without both fields there is nothing to upgrade.
        let alone = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";
        assert_eq!(feed(&[alone, GET].concat()), (alone.len() + GET.len(), Then::More, 2));
    }

    #[track_caller]
    fn refused(head: &[u8], refusal: Refusal) {
        assert_eq!(feed(head), (0, Then::Refused(refusal), 0), "{}", head.escape_ascii());
    }

    #[test]
    fn what_hyper_would_mend_is_refused() {
        use Refusal::{
            AmbiguousLength, BadContentLength, BadField, BadMethod, BadTarget, BadTransferEncoding, BadVersion, BareLineFeed,
            DuplicateHost, HeadTooLarge, TargetTooLong, TooManyFields, UnexpectedBody, UnexpectedTransferEncoding,
        };
        for (head, refusal) in [
            (&b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"[..], AmbiguousLength),
            (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", AmbiguousLength),
            (b"GET / HTTP/1.1\nHost: a\n\n", BareLineFeed),
            (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", BareLineFeed),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\n", BareLineFeed),
            (b"GET / HTTP/1.1\r\nHost\n: a\r\n\r\n", BareLineFeed),
            (b"GET / HTTP/1.1\r\nX: a\rTransfer-Encoding: chunked\r\n\r\n", BadField),
            (b"GET / HTTP/1.1\r\nX: a\r\n\rTransfer-Encoding: chunked\r\n\r\n", BadField),
            (b"GET / HTTP/1.1\r\nX: a\r\n folded\r\n\r\n", BadField),
            (b"GET / HTTP/1.1\r\nX : a\r\n\r\n", BadField),
            (b"GET / HTTP/1.1\r\nX\r\n\r\n", BadField),
            (b"GET / HTTP/1.1\r\n: a\r\n\r\n", BadField),
            (b"GET / HTTP/1.1\r\nX: 1234567\x00\r\n\r\n", BadField),
            (b"GET / HTTP/1.1\r\nX: 12\x7f\r\n\r\n", BadField),
            (b"GET / HTTP/1.1\r\nX\x80: a\r\n\r\n", BadField),
            (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", DuplicateHost),
            (b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", BadMethod),
            (b"\nGET / HTTP/1.1\r\n\r\n", BadMethod),
            (b"get / HTTP/1.1\r\n\r\n", BadMethod),
            (b"GET  / HTTP/1.1\r\n\r\n", BadTarget),
            (b"GET /  HTTP/1.1\r\n\r\n", BadVersion),
            (b"GET\t/ HTTP/1.1\r\n\r\n", BadMethod),
            (b"GET /\r\n\r\n", BadTarget),
            (b"GET /a#b HTTP/1.1\r\n\r\n", BadTarget),
            (b"GET /\xc3\xa9 HTTP/1.1\r\n\r\n", BadTarget),
            (b"GET /<a> HTTP/1.1\r\n\r\n", BadTarget),
            (b"GET a:b:c HTTP/1.1\r\n\r\n", BadTarget),
            (b"GET http://[ HTTP/1.1\r\n\r\n", BadTarget),
            (b"GET / HTTP/1.2\r\n\r\n", BadVersion),
            (b"GET / http/1.1\r\n\r\n", BadVersion),
            (b"GET / HTTP/1.10\r\n\r\n", BadField),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BadVersion),
            (b"\x16\x03\x01\x02\x00\x01", BadMethod),
            (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", UnexpectedTransferEncoding),
            (b"GET / HTTP/1.0\r\nContent-Length: 5\r\n\r\n", UnexpectedBody),
            (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", BadContentLength),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", BadTransferEncoding),
        ] {
            refused(head, refusal);
        }
        let long = |prefix: &str, length: usize, suffix: &str| format!("{prefix}{}{suffix}", "x".repeat(length)).into_bytes();
        for (head, refusal) in [
            (long("GET /", 400, " HTTP/1.1\r\n\r\n"), TargetTooLong),
            (long("GET /", 600, ""), TargetTooLong),
            (long("GET / HTTP/1.1\r\nX: ", 600, "\r\n\r\n"), HeadTooLarge),
            (long("GET / HTTP/1.1\r\nX: ", 600, ""), HeadTooLarge),
            (long("GET / HTTP/1.1\r\n", 300, ": a\r\n\r\n"), BadField),
            ([b"GET / HTTP/1.1\r\n".as_slice(), &b"X: a\r\n".repeat(9), b"\r\n"].concat(), TooManyFields),
        ] {
            let fed = Stream::new(LIMITS).feed(&head);
            assert_eq!(fed, Fed { pass: 0, then: Then::Refused(refusal) }, "{}", head.escape_ascii());
        }
    }

    #[test]
    fn ordinary_heads_pass() {
        for head in [
            &b"\r\nGET / HTTP/1.1\r\n\r\n"[..],
            b"GET / HTTP/1.0\r\n\r\n",
            b"GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\nHost:a\r\n\r\n",
            b"CONNECT a.example:443 HTTP/1.1\r\n\r\n",
            b"GET /x\"{}|?y=1&z=[{}|^\\] HTTP/1.1\r\nX:\t tab\tand \xe9 \r\nY:\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 0\r\nExpect: 100-Continue\r\n\r\n",
        ] {
            assert_eq!(feed(head), (head.len(), Then::More, 1), "{}", head.escape_ascii());
        }
    }
}
