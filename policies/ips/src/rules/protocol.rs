//! Messages that are not what the protocol (or any decent client) allows.

use super::Category::ProtocolViolation as Protocol;
use super::Severity::{Critical, Error, Info, Notice, Warning};
use super::{Matcher, Rule, Targets, rule};

/// A NUL byte in path or query.
pub const NUL_BYTE: &str = "protocol-1";
/// Overlong UTF-8 in path or query.
pub const OVERLONG_UTF8: &str = "protocol-2";
/// `%` without two hexadecimal digits.
pub const MALFORMED_ENCODING: &str = "protocol-3";
/// Percent-encoded twice.
pub const DOUBLE_ENCODING: &str = "protocol-4";
/// A path that servers read differently.
pub const AMBIGUOUS_PATH: &str = "protocol-5";
/// `contentlength` disagrees with Content-Length.
pub const AGENT_LENGTH: &str = "protocol-6";
/// An agent's body of unknown length.
pub const UNKNOWN_LENGTH: &str = "protocol-7";
/// TRACE, TRACK, DEBUG.
pub const TRACE_METHOD: &str = "protocol-8";
/// A WebDAV method.
pub const WEBDAV_METHOD: &str = "protocol-9";
/// More parameters than any form has.
pub const MANY_PARAMETERS: &str = "protocol-10";
/// A body longer than the window.
pub const PARTIAL_BODY: &str = "protocol-11";
/// A multipart body that cannot be taken apart.
pub const BROKEN_MULTIPART: &str = "protocol-12";
/// A charset that hides text.
pub const ODD_CHARSET: &str = "protocol-13";
/// JSON nested too deep.
pub const DEEP_JSON: &str = "protocol-14";
/// Too many ranges.
pub const MANY_RANGES: &str = "protocol-15";
/// `%uXXXX`.
pub const PERCENT_U: &str = "protocol-16";

const MESSAGE: Targets = Targets::MESSAGE;
const TARGET: Targets = Targets::PATH.union(Targets::QUERY).union(Targets::NAMES);

/// The rules of this category.
pub(super) const RULES: &[Rule] = &[
    rule(NUL_BYTE, Protocol, Critical, TARGET, Matcher::Message, "A NUL byte in path or query"),
    rule(OVERLONG_UTF8, Protocol, Critical, TARGET, Matcher::Message, "Overlong UTF-8 in path or query: %c0%af"),
    rule(
        MALFORMED_ENCODING,
        Protocol,
        Notice,
        TARGET,
        Matcher::Message,
        "A percent sign without two hexadecimal digits in path or query",
    ),
    rule(DOUBLE_ENCODING, Protocol, Notice, TARGET, Matcher::Message, "Percent-encoding of percent-encoding in path or query"),
    rule(
        AMBIGUOUS_PATH,
        Protocol,
        Warning,
        Targets::PATH,
        Matcher::Message,
        "A path that servers read differently: dot segments, backslash, trailing dot",
    ),
    rule(
        AGENT_LENGTH,
        Protocol,
        Warning,
        MESSAGE,
        Matcher::Message,
        "The agent's contentlength header disagrees with Content-Length",
    ),
    rule(
        UNKNOWN_LENGTH,
        Protocol,
        Notice,
        MESSAGE,
        Matcher::Message,
        "A request to the agent endpoint with a body of unknown length",
    ),
    rule(TRACE_METHOD, Protocol, Critical, MESSAGE, Matcher::Message, "A method for debugging: TRACE, TRACK, DEBUG"),
    rule(WEBDAV_METHOD, Protocol, Warning, MESSAGE, Matcher::Message, "A WebDAV method"),
    rule(MANY_PARAMETERS, Protocol, Warning, MESSAGE, Matcher::Message, "More than 255 parameters"),
    rule(
        PARTIAL_BODY,
        Protocol,
        Info,
        MESSAGE,
        Matcher::Message,
        "The body is longer than the window: only its beginning was inspected",
    ),
    rule(BROKEN_MULTIPART, Protocol, Error, MESSAGE, Matcher::Message, "A multipart body that cannot be taken apart"),
    rule(ODD_CHARSET, Protocol, Critical, MESSAGE, Matcher::Message, "A body charset that hides its text: UTF-7, EBCDIC"),
    rule(DEEP_JSON, Protocol, Warning, MESSAGE, Matcher::Message, "JSON nested more than 64 levels deep"),
    rule(MANY_RANGES, Protocol, Error, MESSAGE, Matcher::Message, "More than 10 ranges in one request"),
    rule(PERCENT_U, Protocol, Warning, TARGET, Matcher::Message, "%uXXXX in path or query, which only IIS reads"),
];
