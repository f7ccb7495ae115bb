//! Two upgraded connections joined into a tunnel (WebSocket and whatever else answers 101).

use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::finish::{End, Finish};

/// Bytes in flight in one direction.
const BUFFER: usize = 16 * 1024;
/// For the end of one direction to be taken.
const GOODBYE: Duration = Duration::from_secs(5);

/// Relays bytes both ways until one side ends or nothing moves for `idle`, then ends the exchange.
pub async fn tunnel(client: OnUpgrade, upstream: OnUpgrade, idle: Duration, mut finish: Box<Finish>) {
    let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else {
        finish.end(End::ClientGone);
        return;
    };
    let (client_read, client_write) = tokio::io::split(TokioIo::new(client));
    let (upstream_read, upstream_write) = tokio::io::split(TokioIo::new(upstream));
    let (up, down) = tokio::join!(copy(client_read, upstream_write, idle), copy(upstream_read, client_write, idle));
    finish.bytes_in.fetch_add(up, Ordering::Relaxed);
    finish.record.bytes_out += down;
    finish.end(End::Complete);
}

type Io = TokioIo<Upgraded>;

/// One direction: a closed side is passed on as a closed side, so that half-closed tunnels work.
async fn copy(mut from: ReadHalf<Io>, mut to: WriteHalf<Io>, idle: Duration) -> u64 {
    let mut buffer = vec![0; BUFFER];
    let mut total = 0;
    while let Ok(Ok(count)) = tokio::time::timeout(idle, from.read(&mut buffer)).await {
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        // rustls buffers: without the flush a message would wait for the next one.
        let passed = async {
            to.write_all(bytes).await?;
            to.flush().await
        };
        if !matches!(tokio::time::timeout(idle, passed).await, Ok(Ok(()))) {
            break;
        }
        total += count as u64;
    }
    // A peer that is gone, or does not read, needs no goodbye.
    drop(tokio::time::timeout(GOODBYE, to.shutdown()).await);
    total
}
