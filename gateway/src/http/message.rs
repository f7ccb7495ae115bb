//! Requests and responses inside the gateway. Their fields stay the text they came in; where HTTP/2 is spoken, hyper reads and writes
//! them as maps, and they are converted there.

use http::{HeaderMap, Method, StatusCode, Uri, Version};

use crate::fields::Fields;

/// The head of a request.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The target.
    pub uri: Uri,
    /// As spoken by the client.
    pub version: Version,
    /// All fields.
    pub headers: Fields,
}

/// The head of a response.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// The status.
    pub status: StatusCode,
    /// All fields.
    pub headers: Fields,
}

/// A request.
#[derive(Debug)]
pub struct Request<B> {
    /// Its head, which moves from step to step.
    pub head: Box<RequestHead>,
    /// Its body.
    pub body: B,
}

/// A response.
#[derive(Debug)]
pub struct Response<B> {
    /// Its head.
    pub head: ResponseHead,
    /// Its body.
    pub body: B,
}

impl<B> Response<B> {
    /// With another body.
    pub fn map<C>(self, change: impl FnOnce(B) -> C) -> Response<C> {
        Response { head: self.head, body: change(self.body) }
    }
}

impl<B> From<http::Request<B>> for Request<B> {
    fn from(request: http::Request<B>) -> Self {
        let (parts, body) = request.into_parts();
        let headers = Fields::from(&parts.headers);
        let head = RequestHead { method: parts.method, uri: parts.uri, version: parts.version, headers };
        Self { head: Box::new(head), body }
    }
}

impl<B> From<Request<B>> for http::Request<B> {
    fn from(request: Request<B>) -> Self {
        let Request { head, body } = request;
        let mut request = Self::new(body);
        *request.headers_mut() = HeaderMap::from(&head.headers);
        (*request.method_mut(), *request.uri_mut(), *request.version_mut()) = (head.method, head.uri, head.version);
        request
    }
}

impl<B> From<http::Response<B>> for Response<B> {
    fn from(response: http::Response<B>) -> Self {
        let (parts, body) = response.into_parts();
        Self { head: ResponseHead { status: parts.status, headers: Fields::from(&parts.headers) }, body }
    }
}

impl<B> From<Response<B>> for http::Response<B> {
    fn from(response: Response<B>) -> Self {
        let Response { head, body } = response;
        let mut response = Self::new(body);
        *response.headers_mut() = HeaderMap::from(&head.headers);
        *response.status_mut() = head.status;
        response
    }
}
