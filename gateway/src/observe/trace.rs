//! W3C trace context, the identifiers of an exchange, and the head sampling decision.

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};

use super::record::TraceIds;

/// What a `traceparent` header says about the caller's span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// 16 bytes, big endian; never zero.
    pub trace_id: u128,
    /// 8 bytes, big endian; never zero.
    pub span_id: u64,
    /// Whether the caller records its spans.
    pub sampled: bool,
}

/// Reads a `traceparent` header value. `None` when it is malformed: the trace then starts anew, as the recommendation asks.
///
/// Versions after 00 are read by the rules of 00 and may carry more fields; version ff is invalid.
#[must_use]
pub fn parse(value: &[u8]) -> Option<Parent> {
    let (head, rest) = value.split_at_checked(LENGTH)?;
    let (version, head) = head.split_first_chunk::<2>()?;
    let (trace_id, head) = head.strip_prefix(b"-")?.split_first_chunk::<32>()?;
    let (span_id, head) = head.strip_prefix(b"-")?.split_first_chunk::<16>()?;
    let flags = head.strip_prefix(b"-")?;

    let tail_allowed = match hex(version)? {
        0 => rest.is_empty(),
        255 => false,
        _ => rest.is_empty() || rest.starts_with(b"-"),
    };
    let (trace_id, span_id) = (hex(trace_id)?, u64::try_from(hex(span_id)?).ok()?);
    let sampled = hex(flags)? & 1 == 1;
    (tail_allowed && trace_id != 0 && span_id != 0).then_some(Parent { trace_id, span_id, sampled })
}

/// The `traceparent` value (version 00, ASCII) that names `span_id` as the parent.
#[must_use]
pub fn format(trace_id: u128, span_id: u64, sampled: bool) -> [u8; LENGTH] {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    let (trace_id, span_id) = (trace_id.to_be_bytes(), span_id.to_be_bytes());
    for (place, bytes) in [(3..35, trace_id.as_slice()), (36..52, &span_id), (53..55, &[u8::from(sampled)])] {
        write_bytes(text.get_mut(place).unwrap_or_default(), bytes);
    }
    text
}

/// Bytes in a `traceparent` of version 00.
pub const LENGTH: usize = 55;

/// 128 random bits, never zero: a request id or a trace id.
///
/// Unique in practice but not secret: they come from a small generator seeded by the operating system once per thread.
#[must_use]
pub fn random_u128() -> u128 {
    (u128::from(random_u64()) << 64) | u128::from(random_u64())
}

/// 64 random bits, never zero: a span id. Not secret, as [`random_u128`].
#[must_use]
pub fn random_u64() -> u64 {
    thread_local!(static GENERATOR: RefCell<Xoshiro> = RefCell::new(Xoshiro::seeded()));
    GENERATOR.with_borrow_mut(|generator| {
        loop {
            let value = generator.next();
            if value != 0 {
                return value;
            }
        }
    })
}

/// Keeps a share of traces, chosen by trace id: every service that samples the same ratio keeps the same traces.
///
/// The rule is the one of OpenTelemetry's `TraceIdRatioBased`, compared on 63 bits of the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    bound: u64,
}

impl Sampler {
    /// `ratio` from 0.0 (none) to 1.0 (all); values outside are clamped, NaN keeps none.
    #[must_use]
    pub fn new(ratio: f64) -> Self {
        // A cast from float saturates and turns NaN into zero, so the bound is always in 0..=2^63.
        Self { bound: (ratio.clamp(0.0, 1.0) * ALL as f64) as u64 }
    }

    /// Whether the trace is kept.
    #[must_use]
    pub const fn keeps(self, trace_id: u128) -> bool {
        (trace_id as u64) >> 1 < self.bound
    }

    /// The decision as one number, for an atomic; [`Sampler::from_bound`] reads it back.
    pub(super) const fn bound(self) -> u64 {
        self.bound
    }

    pub(super) const fn from_bound(bound: u64) -> Self {
        Self { bound }
    }
}

const ALL: u64 = 1 << 63;

/// The ids of a new exchange: the caller's trace and its decision when there is a parent, else a new trace sampled by `sampler`.
#[must_use]
pub fn begin(parent: Option<Parent>, sampler: Sampler) -> TraceIds {
    let span_id = random_u64();
    match parent {
        Some(Parent { trace_id, span_id: parent, sampled }) => TraceIds { trace_id, span_id, parent: Some(parent), sampled },
        None => {
            let trace_id = random_u128();
            TraceIds { trace_id, span_id, parent: None, sampled: sampler.keeps(trace_id) }
        }
    }
}

/// Lower-case hex as the recommendation demands; upper case makes the header invalid.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value, digit| {
        let nibble = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some((value << 4) | u128::from(nibble))
    })
}

/// Fills `digits` with the low nibbles of `value`, most significant first.
pub(super) fn write_hex(digits: &mut [u8], mut value: u128) {
    for digit in digits.iter_mut().rev() {
        let nibble = (value & 0xf) as u8;
        *digit = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
        value >>= 4;
    }
}

/// Writes each byte as two digits.
pub fn write_bytes(digits: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
    for ([high, low], byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        (*high, *low) = (digit(byte >> 4), digit(byte & 0xf));
    }
}

/// xoshiro256++ by Blackman and Vigna.
struct Xoshiro([u64; 4]);

impl Xoshiro {
    /// The keys of `RandomState` come from the operating system and differ for every instance, which makes its hashes a seed without
    /// one more dependency.
    fn seeded() -> Self {
        Self(std::array::from_fn(|index| RandomState::new().hash_one(index)))
    }

    fn next(&mut self) -> u64 {
        let [a, b, c, d] = self.0;
        let (mixed_c, mixed_d) = (c ^ a, d ^ b);
        self.0 = [a ^ mixed_d, b ^ mixed_c, mixed_c ^ (b << 17), mixed_d.rotate_left(45)];
        a.wrapping_add(d).rotate_left(23).wrapping_add(a)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn traceparent_is_read_by_the_rules_of_the_recommendation() {
        let parent = |sampled| {
            Some(Parent { trace_id: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, span_id: 0xb7ad_6b71_6920_3331, sampled })
        };
        let later = format!("cc{}", &GOOD[2..]);
        let cases: &[(&str, Option<Parent>)] = &[
            (GOOD, parent(true)),
            (&GOOD.replace("-01", "-00"), parent(false)),
            (&GOOD.replace("-01", "-03"), parent(true)),
            (&later, parent(true)),
            (&format!("{later}-more"), parent(true)),
            (&format!("{later}more"), None),
            (&format!("{GOOD}-more"), None),
            (&format!("ff{}", &GOOD[2..]), None),
            (&GOOD.to_uppercase(), None),
            (&GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)), None),
            (&GOOD.replace("b7ad6b7169203331", &"0".repeat(16)), None),
            (&GOOD.replace("-b7", "_b7"), None),
            (&GOOD[..54], None),
            (&GOOD.replace("-01", "-0g"), None),
            ("", None),
        ];
        for (value, expected) in cases {
            assert_eq!(parse(value.as_bytes()), *expected, "{value}");
        }
    }

    #[test]
    fn a_formatted_traceparent_reads_back() {
        let parent = parse(GOOD.as_bytes()).unwrap();
        assert_eq!(&format(parent.trace_id, parent.span_id, parent.sampled), GOOD.as_bytes());
        assert_eq!(parse(&format(1, 2, false)), Some(Parent { trace_id: 1, span_id: 2, sampled: false }));
    }

    #[test]
    fn the_generator_is_xoshiro256plusplus() {
        // First outputs for the state 1, 2, 3, 4, as published with the reference implementation's ports.
        let mut generator = Xoshiro([1, 2, 3, 4]);
        assert_eq!([generator.next(), generator.next(), generator.next()], [41_943_041, 58_720_359, 3_588_806_011_781_223]);
    }

    #[test]
    fn ids_differ_between_calls_and_threads() {
        let ids: Vec<u128> = (0..4)
            .map(|_| std::thread::spawn(|| (0..1000).map(|_| random_u128()).collect::<Vec<_>>()))
            .flat_map(|thread| thread.join().unwrap())
            .collect();
        assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 4000);
    }

    #[test]
    fn a_ratio_keeps_its_share_of_traces() {
        for (ratio, expected) in [(0.0, 0), (-1.0, 0), (f64::NAN, 0), (1.0, 10_000), (7.0, 10_000), (0.25, 2_500)] {
            let sampler = Sampler::new(ratio);
            let kept: i32 = (0..10_000).map(|_| i32::from(sampler.keeps(random_u128()))).sum();
            assert!((kept - expected).abs() < 250, "{ratio}: {kept}");
            if ratio != 0.25 {
                assert_eq!(kept, expected, "{ratio}");
            }
        }
    }

    #[test]
    fn the_callers_decision_wins_over_the_ratio() {
        let parent = Parent { trace_id: 7, span_id: 8, sampled: true };
        let ids = begin(Some(parent), Sampler::new(0.0));
        assert!(ids.sampled && ids.trace_id == 7 && ids.parent == Some(8) && ids.span_id != 8);
        assert!(!begin(Some(Parent { sampled: false, ..parent }), Sampler::new(1.0)).sampled);
        assert!(begin(None, Sampler::new(1.0)).sampled);
    }
}
