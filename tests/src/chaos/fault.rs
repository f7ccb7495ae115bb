//! What goes wrong.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// One way to misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process ends in the middle of an answer. In [`ChaosUpstream`](super::ChaosUpstream) the connection does.
    DieMidResponse,
    /// The head of the answer comes byte by byte.
    SlowHead,
    /// The body of the answer comes byte by byte.
    SlowBody,
    /// A reset after the head of the answer.
    ResetAfterHead,
    /// An orderly end before the body is whole.
    ShortBody,
    /// Bytes that are no HTTP.
    Garbage,
    /// The upstream's half of the connection ends after the request, without an answer.
    HalfClose,
    /// A hundred interim answers before the answer.
    ManyInterim,
    /// The connection ends when a second request comes over it.
    CloseOnReuse,
    /// The request is never answered.
    Silence,
}

impl Fault {
    /// All, with their names.
    pub const ALL: [(&'static str, Self); 10] = [
        ("die-mid-response", Self::DieMidResponse),
        ("slow-head", Self::SlowHead),
        ("slow-body", Self::SlowBody),
        ("reset-after-head", Self::ResetAfterHead),
        ("short-body", Self::ShortBody),
        ("garbage", Self::Garbage),
        ("half-close", Self::HalfClose),
        ("many-1xx", Self::ManyInterim),
        ("close-on-reuse", Self::CloseOnReuse),
        ("silence", Self::Silence),
    ];
}

/// How an upstream answers: well, but for every so many requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// What goes wrong, and with which request of so many: 1 is every request.
    pub fault: Option<(Fault, u64)>,
    /// How long an answer takes.
    pub delay: Duration,
}

impl Behaviour {
    /// Every request ends like this.
    #[must_use]
    pub const fn always(fault: Fault) -> Self {
        Self { fault: Some((fault, 1)), delay: Duration::ZERO }
    }

    /// What happens to the request with this number, counted from 1.
    #[must_use]
    pub const fn fault_of(&self, number: u64) -> Option<Fault> {
        match self.fault {
            Some((fault, every)) if number.is_multiple_of(every) => Some(fault),
            _ => None,
        }
    }
}

/// `--fault` names no fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownFault(String);

impl fmt::Display for UnknownFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Fault::ALL.iter().map(|(name, _)| *name).collect();
        write!(f, "`{}` is none of {}, with `/N` for one request in N", self.0, names.join(", "))
    }
}

impl std::error::Error for UnknownFault {}

/// `reset-after-head`, or `reset-after-head/10` for one request in ten.
impl FromStr for Behaviour {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        let unknown = || UnknownFault(text.to_owned());
        let (name, every) = text.split_once('/').unwrap_or((text, "1"));
        let every: u64 = every.parse().ok().filter(|every| *every > 0).ok_or_else(unknown)?;
        let (_, fault) = Fault::ALL.iter().find(|(own, _)| *own == name).ok_or_else(unknown)?;
        Ok(Self { fault: Some((*fault, every)), delay: Duration::ZERO })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_named() {
        assert_eq!("garbage".parse(), Ok(Behaviour::always(Fault::Garbage)));
        let tenth: Behaviour = "short-body/10".parse().unwrap();
        assert_eq!(tenth.fault, Some((Fault::ShortBody, 10)));
        for wrong in ["", "kind", "garbage/0", "garbage/x"] {
            assert!(wrong.parse::<Behaviour>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn one_in_so_many_goes_wrong() {
        let tenth: Behaviour = "garbage/10".parse().unwrap();
        let wrong: Vec<u64> = (1..=30).filter(|number| tenth.fault_of(*number).is_some()).collect();
        assert_eq!(wrong, [10, 20, 30]);
        assert_eq!(Behaviour::default().fault_of(10), None);
    }
}
