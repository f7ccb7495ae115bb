//! The trait a policy implements.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{Connection, Outcome, Request, Response, Verdict};

/// A configured policy. One value serves many exchanges: keep what belongs to one exchange in [`Request::set_state`].
///
/// Write only the phases you need; the [`policy`](crate::policy) attribute lists them in the plugin's description, and the
/// gateway never calls the others.
pub trait Policy: Sized + 'static {
    /// The policy's configuration, from the `config` table of `weir.toml`.
    type Config: DeserializeOwned;

    /// Called once before any traffic; every instance begins with the memory it leaves (so draw nothing secret here). An error refuses the plugin with this text, so name the key and the remedy.
    ///
    /// # Errors
    /// Whatever makes the configuration unusable.
    fn configure(config: Self::Config) -> Result<Self, String>;

    /// What this configuration needs; by default everything the plugin describes.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// A connection, before a byte of HTTP was parsed. Asked once per connection and site.
    fn connection(&self, _connection: Connection<'_>) -> Verdict {
        Verdict::Next
    }

    /// A request head.
    fn request(&self, _request: Request<'_>) -> Verdict {
        Verdict::Next
    }

    /// The first bytes of a request body, up to the window the policy asked for; `complete` when that is all of it.
    fn request_body(&self, _request: Request<'_>, _window: &[u8], _complete: bool) -> Verdict {
        Verdict::Next
    }

    /// The upstream's response head.
    fn response(&self, _request: Request<'_>, _response: Response<'_>) -> Verdict {
        Verdict::Next
    }

    /// A piece of the response body; what is returned replaces it.
    fn response_body(&self, _request: Request<'_>, chunk: Vec<u8>, _last: bool) -> Vec<u8> {
        chunk
    }

    /// The end of an exchange.
    fn complete(&self, _request: Request<'_>, _outcome: &Outcome) {}
}

/// The points at which a gateway calls a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// [`Policy::connection`]
    Connection,
    /// [`Policy::request`]
    Request,
    /// [`Policy::request_body`]
    RequestBody,
    /// [`Policy::response`]
    Response,
    /// [`Policy::response_body`]
    ResponseBody,
    /// [`Policy::complete`]
    Complete,
}

impl Phase {
    /// The name in the contract.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Request => "request",
            Self::RequestBody => "request-body",
            Self::Response => "response",
            Self::ResponseBody => "response-body",
            Self::Complete => "complete",
        }
    }
}

/// What one configuration of a policy needs of what the plugin describes. `None` = all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The phases to be called in.
    pub phases: Option<Vec<Phase>>,
    /// The window of the request body in bytes.
    pub request_body: Option<usize>,
    /// Which responses [`Policy::response`] is asked about.
    pub response_when: Option<ResponseWhen>,
}

impl Needs {
    /// Only these phases.
    #[must_use]
    pub fn only(phases: &[Phase]) -> Self {
        Self { phases: Some(phases.to_vec()), ..Self::default() }
    }

    /// Only responses for which this holds.
    #[must_use]
    pub fn response_when(self, when: ResponseWhen) -> Self {
        Self { response_when: Some(when), ..self }
    }
}

/// A condition on a response, looked at by the gateway instead of asking the policy: any part of it is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseWhen {
    /// It has one of these headers.
    pub headers: Vec<String>,
    /// The value of one of its headers holds one of these texts, in whatever case.
    pub containing: Vec<String>,
    /// The policy kept state for the exchange in an earlier phase.
    pub state: bool,
}

/// The configuration of a policy that has none.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}
