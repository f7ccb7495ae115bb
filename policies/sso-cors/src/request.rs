//! The request phase: from the public name to the one the application believes in.

use weir_sdk::{Head, Reply};

use crate::authority::{parse_port, split_port};
use crate::config::Site;
use crate::cors::{self, Known};
use crate::query;
use crate::state::State;
use crate::url::{Form, Start};

/// The fields of a request head that this policy reads.
#[derive(Debug, Default)]
pub(crate) struct Inbound<'a> {
    method: &'a [u8],
    target: &'a [u8],
    /// The Host, when it is the first field: most clients write it there, and that saves asking the gateway.
    pub(crate) host: Option<&'a [u8]>,
    origin: Field<'a>,
    referer: Field<'a>,
    requested_method: Option<&'a [u8]>,
    requested_headers: Option<&'a [u8]>,
}

/// A header that is meant to stand once.
#[derive(Clone, Copy, Debug, Default)]
struct Field<'a> {
    value: Option<&'a [u8]>,
    repeated: bool,
}

/// What to do with a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan<'a> {
    /// Answer instead of asking the upstream. Nothing is edited then.
    pub(crate) reply: Option<Reply>,
    /// Give the upstream the origin's name as Host.
    pub(crate) rename_host: bool,
    pub(crate) origin: Option<Vec<u8>>,
    pub(crate) referer: Option<Vec<u8>>,
    pub(crate) target: Option<Vec<u8>>,
    /// What the response phase needs; empty when it needs nothing.
    pub(crate) state: Vec<u8>,
    /// An `Origin` that this site does not know.
    pub(crate) foreign_origin: Option<&'a [u8]>,
}

impl<'a> Inbound<'a> {
    pub(crate) fn read(head: &'a Head) -> Self {
        let mut line = head.first_line().splitn(2, |byte| *byte == b' ');
        let (method, target) = (line.next().unwrap_or_default(), line.next().unwrap_or_default());
        let mut own = Self { method, target, ..Self::default() };
        for (number, (name, value)) in head.headers().enumerate() {
            match name {
                "host" if number == 0 => own.host = Some(value),
                "origin" => own.origin.add(value),
                "referer" => own.referer.add(value),
                "access-control-request-method" => own.requested_method = Some(value),
                "access-control-request-headers" => own.requested_headers = Some(value),
                _ => {}
            }
        }
        own
    }

    /// Decides. `authority` is the host and port the client asked for.
    pub(crate) fn plan(&self, site: &Site, authority: &[u8], spoke_https: impl Fn() -> bool) -> Plan<'a> {
        let (host, port) = split_port(authority);
        let is_public_host = site.public.is_host(host);
        let port = port.filter(|_| is_public_host).and_then(parse_port);
        let inward = site.inward(port);
        let known = self.origin.value.map(|origin| match self.origin.repeated {
            true => Known::Foreign,
            false => cors::classify(origin, site, &inward, &spoke_https),
        });
        let mut plan = Plan { foreign_origin: self.origin.value.filter(|_| known == Some(Known::Foreign)), ..Plan::default() };
        if let (Some(origin), Some(known)) = (self.origin.value, known)
            && site.answers_preflight
            && self.requested_method.is_some()
            && self.method == b"OPTIONS"
        {
            plan.reply = Some(cors::answer(origin, known, self.requested_headers));
            return plan;
        }
        plan.rename_host = is_public_host && site.public.port.is_none_or(|own| port.is_none_or(|port| port == own));
        plan.origin =
            self.origin.value.filter(|_| known == Some(Known::Public)).and_then(|origin| inward.replace(origin, Form::Plain));
        let named = |text: &&[u8]| site.public_finder.occurs(text);
        plan.referer = self.referer.value.filter(|_| !self.referer.repeated).filter(named).and_then(|referer| {
            let start = Start::read(referer, Form::Plain)?;
            cors::is_public(referer, &start, &inward, &spoke_https).then(|| inward.replace_at(referer, &start))?
        });
        plan.target = Some(self.target).filter(named).and_then(|target| query::rewrite(target, &site.query, &inward));
        let listed = self.origin.value.filter(|_| known == Some(Known::Listed));
        plan.state = State { port: port.filter(|_| site.public.port.is_none()), origin: listed }.write();
        plan
    }
}

impl<'a> Field<'a> {
    const fn add(&mut self, value: &'a [u8]) {
        self.repeated = self.value.is_some();
        self.value = Some(value);
    }
}
