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

            /// What a line of it begins with.
            pub(super) const fn line(self) -> &'static [u8] {
                match self {
                    $(Self::$known => concat!($text, ": ").as_bytes(),)*
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
                is_same(name, text.as_bytes()).then_some(known)
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

/// Whether a name is this one of the same length, which is lower case.
fn is_same(name: &[u8], text: &[u8]) -> bool {
    let same = |one: Option<&[u8; 8]>, other: Option<&[u8; 8]>| match (one, other) {
        (Some(one), Some(other)) => lower_word(u64::from_le_bytes(*one)) == u64::from_le_bytes(*other),
        _ => true,
    };
    if name.len() < 8 {
        return name.iter().zip(text).all(|(byte, other)| byte.to_ascii_lowercase() == *other);
    }
    // Both ends, which overlap, and what is between them.
    let middle = |name: &[u8]| name.get(8..16).and_then(|middle| <[u8; 8]>::try_from(middle).ok());
    same(name.first_chunk(), text.first_chunk())
        && same(name.last_chunk(), text.last_chunk())
        && (name.len() <= 16 || same(middle(name).as_ref(), middle(text).as_ref()))
}

/// Makes letters small, eight at a time.
pub(super) fn lower(name: &mut [u8]) {
    if name.len() < 8 {
        name.make_ascii_lowercase();
        return;
    }
    let small = |chunk: &mut [u8; 8]| *chunk = lower_word(u64::from_le_bytes(*chunk)).to_le_bytes();
    let (whole, _) = name.as_chunks_mut::<8>();
    whole.iter_mut().for_each(small);
    // The rest, with some that are small already.
    if let Some(last) = name.last_chunk_mut() {
        small(last);
    }
}

/// Sets bit 5 of those of eight bytes that are capital letters.
const fn lower_word(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    let low = word & !HIGH;
    let from_a = low + ONES * (0x80 - b'A' as u64);
    let past_z = low + ONES * (0x7f - b'Z' as u64);
    word | (((from_a ^ past_z) & !word & HIGH) >> 2)
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
