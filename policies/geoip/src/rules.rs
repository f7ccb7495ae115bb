//! What a country means: the resolved rules and their judgement.

use crate::country::Countries;

/// The whole configuration, resolved.
#[derive(Debug)]
pub(crate) struct Rules {
    /// For requests without a class, or of a class without a rule of its own.
    pub(crate) default: Rule,
    /// Value of the tag `class`, and its rule. A handful, so a scan beats a map.
    pub(crate) classes: Vec<(String, Rule)>,
    pub(crate) private_allowed: bool,
    /// 400 to 599, or 0 to close without an answer.
    pub(crate) status: u16,
    pub(crate) per_request: bool,
}

/// The lists that hold for one class.
#[derive(Debug)]
pub(crate) struct Rule {
    /// Empty: every country that is not denied.
    pub(crate) allow: Countries,
    pub(crate) deny: Countries,
    pub(crate) unknown_allowed: bool,
}

/// Why an address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The country is on the deny list.
    CountryDenied,
    /// There is an allow list, and the country is not on it.
    CountryNotAllowed,
    /// The database does not know the address.
    CountryUnknown,
    /// The address is private, and private addresses are refused.
    PrivateDenied,
}

impl Rules {
    /// The rule of a value of the tag `class`.
    pub(crate) fn of_class(&self, class: &str) -> &Rule {
        self.classes.iter().find(|(name, _)| name == class).map_or(&self.default, |(_, rule)| rule)
    }
}

impl Rule {
    /// Whether every address passes, so that the country need not be looked up.
    pub(crate) fn is_open(&self) -> bool {
        self.unknown_allowed && self.deny.is_empty() && (self.allow.is_empty() || self.allow.is_every())
    }

    /// Judges a country code in upper case; `None` when the database does not know the address.
    pub(crate) fn judge(&self, country: Option<&str>) -> Result<(), Refusal> {
        match country {
            None if self.unknown_allowed => Ok(()),
            None => Err(Refusal::CountryUnknown),
            Some(code) if self.deny.contains(code) => Err(Refusal::CountryDenied),
            Some(code) if self.allow.is_empty() || self.allow.contains(code) => Ok(()),
            Some(_) => Err(Refusal::CountryNotAllowed),
        }
    }
}

impl Refusal {
    /// The closed set of this policy's reasons.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::CountryDenied => "country_denied",
            Self::CountryNotAllowed => "country_not_allowed",
            Self::CountryUnknown => "country_unknown",
            Self::PrivateDenied => "private_denied",
        }
    }
}
