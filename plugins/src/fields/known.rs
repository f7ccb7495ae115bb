//! Names that are compared by number.

/// Fields that have a number.
macro_rules! known {
    ($($known:ident = $text:literal when ($length:literal, $first:literal),)*) => {
        /// A name that the gateway looks for, removes or adds.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Known {
            $(#[doc = concat!("`", $text, "`")] $known,)*
        }

        impl Known {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$known,)*];

            /// In lower case.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$known => $text,)*
                }
            }

            /// The one of this name, in any case. The length and the first letter leave at most one to compare with.
            #[must_use]
            pub fn of(name: &[u8]) -> Option<Self> {
                let first = name.first()?.to_ascii_lowercase();
                let (known, text) = match (name.len(), first) {
                    $(($length, $first) => (Self::$known, $text),)*
                    _ => return None,
                };
                name.eq_ignore_ascii_case(text.as_bytes()).then_some(known)
            }
        }
    };
}

known! {
    Accept = "accept" when (6, b'a'),
    Allow = "allow" when (5, b'a'),
    Authorization = "authorization" when (13, b'a'),
    CacheControl = "cache-control" when (13, b'c'),
    Connection = "connection" when (10, b'c'),
    ContentLength = "content-length" when (14, b'c'),
    ContentType = "content-type" when (12, b'c'),
    Cookie = "cookie" when (6, b'c'),
    Date = "date" when (4, b'd'),
    Expect = "expect" when (6, b'e'),
    Forwarded = "forwarded" when (9, b'f'),
    Host = "host" when (4, b'h'),
    Http2Settings = "http2-settings" when (14, b'h'),
    IdempotencyKey = "idempotency-key" when (15, b'i'),
    KeepAlive = "keep-alive" when (10, b'k'),
    Proxy = "proxy" when (5, b'p'),
    ProxyAuthenticate = "proxy-authenticate" when (18, b'p'),
    ProxyAuthorization = "proxy-authorization" when (19, b'p'),
    ProxyConnection = "proxy-connection" when (16, b'p'),
    RetryAfter = "retry-after" when (11, b'r'),
    Te = "te" when (2, b't'),
    Traceparent = "traceparent" when (11, b't'),
    Trailer = "trailer" when (7, b't'),
    TransferEncoding = "transfer-encoding" when (17, b't'),
    Upgrade = "upgrade" when (7, b'u'),
    XForwardedFor = "x-forwarded-for" when (15, b'x'),
    XForwardedHost = "x-forwarded-host" when (16, b'x'),
    XForwardedProto = "x-forwarded-proto" when (17, b'x'),
    XRealIp = "x-real-ip" when (9, b'x'),
    XRequestId = "x-request-id" when (12, b'x'),
}

/// Some of the known names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownSet(pub(super) u64);

impl KnownSet {
    /// A set of these.
    #[must_use]
    pub const fn of(mut names: &[Known]) -> Self {
        let mut bits = 0;
        while let [first, rest @ ..] = names {
            bits |= 1 << *first as u64;
            names = rest;
        }
        Self(bits)
    }

    /// Whether the name is one of them.
    #[must_use]
    pub const fn has(self, known: Known) -> bool {
        self.0 & (1 << known as u64) != 0
    }

    /// Whether any of the other's names is one of them.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}
