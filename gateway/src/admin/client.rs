//! How the command line reaches a running gateway.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::config::AdminAddress;

/// Why a running gateway could not be asked.
#[derive(Debug, Error)]
pub enum AdminError {
    /// Nobody answers.
    #[error("no gateway answers at {0}: {1}")]
    NotRunning(String, String),
    /// It answered something else.
    #[error("the gateway's answer is not understood: {0}")]
    BadAnswer(String),
}

/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// How long an order may take: a reload compiles every plugin at most.
const PATIENCE: Duration = Duration::from_secs(120);

/// Asks the gateway at `address`. Answers status and JSON.
///
/// # Errors
/// Nobody answers, or not in JSON.
pub fn call(address: &AdminAddress, method: &str, path: &str) -> Result<(u16, Value), AdminError> {
    let not_running = |error: String| {
        let place = match address {
            AdminAddress::Unix(path) => path.display().to_string(),
            AdminAddress::Tcp { address, .. } => address.to_string(),
        };
        AdminError::NotRunning(place, error)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| not_running(error.to_string()))?;
    let asked = async {
        match address {
            AdminAddress::Unix(socket) => {
                let stream = UnixStream::connect(socket).await.map_err(|error| not_running(error.to_string()))?;
                ask(stream, method, path, String::new()).await
            }
            AdminAddress::Tcp { address, token } => {
                let token = std::fs::read_to_string(token).map_err(|error| not_running(format!("token: {error}")))?;
                let stream = TcpStream::connect(address).await.map_err(|error| not_running(error.to_string()))?;
                ask(stream, method, path, format!("Bearer {}", token.trim())).await
            }
        }
    };
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(not_running("no answer in time".to_owned())))
    })
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    method: &str,
    path: &str,
    token: String,
) -> Result<(u16, Value), AdminError> {
    let bad = |error: String| AdminError::BadAnswer(error);
    let (mut sender, driver) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| bad(error.to_string()))?;
    let mut request = http::Request::builder().method(method).uri(path).header(http::header::HOST, "weir");
    if !token.is_empty() {
        request = request.header(http::header::AUTHORIZATION, token);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| bad(error.to_string()))?;
    // The sender ends with the exchange, and with it the driver.
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(|error| bad(error.to_string()))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|error| bad(error.to_string()))?;
        Ok((status, body.to_bytes()))
    };
    let (answer, _) = tokio::join!(exchange, driver);
    let (status, bytes) = answer?;
    let json = serde_json::from_slice(&bytes).map_err(|_| bad(String::from_utf8_lossy(&bytes).chars().take(200).collect()))?;
    Ok((status, json))
}
