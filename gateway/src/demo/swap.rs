//! Proves a hot swap: another build of a plugin takes over while requests keep being answered.

use std::cell::Cell;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cases::Swap;
use super::checks::{LOOK_AGAIN, Misbehaviour, compare_answer};
use super::client::Client;
use super::files;
use crate::admin;
use crate::config::AdminAddress;

/// How long settling, compiling and publishing may take. Builds without optimisation compile slowly.
const LIVE_LIMIT: Duration = Duration::from_secs(60);

/// Requests that the new build must have served before the proof ends.
const SERVED_AFTER: u64 = 20;

/// Replaces the plugin while agents check in one after the other, until the new build is live and has served some of them.
///
/// # Errors
/// The first request that was not answered as expected, or why the new build is not live.
pub(super) async fn check(swap: &Swap, client: &Client) -> Result<String, Misbehaviour> {
    let digest = weir_plugins::digest(&tokio::fs::read(&swap.spare).await?);
    if is_live(swap, &digest).await? {
        return Err(Misbehaviour::Differs(format!("{} is already the other build", swap.plugin)));
    }
    let served = Cell::new(0);
    let is_done = Cell::new(false);
    let replace = async {
        wait_until(|| served.get() >= SERVED_AFTER, "requests are not answered").await?;
        let started = Instant::now();
        files::replace(&swap.spare, &swap.loaded)?;
        while !is_live(swap, &digest).await? {
            if started.elapsed() > LIVE_LIMIT {
                return Err(Misbehaviour::Differs(format!("{} is not live after {} s", swap.plugin, LIVE_LIMIT.as_secs())));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let took = started.elapsed();
        let before = served.get();
        wait_until(|| served.get() >= before + SERVED_AFTER, "requests are not answered by the new build").await?;
        is_done.set(true);
        Ok(took)
    };
    let (took, ()) = tokio::try_join!(replace, check_in_until(swap, client, &served, &is_done))?;
    Ok(format!("{:.12} live after {} ms, {} requests, none failed", digest, took.as_millis(), served.get()))
}

async fn check_in_until(swap: &Swap, client: &Client, served: &Cell<u64>, is_done: &Cell<bool>) -> Result<(), Misbehaviour> {
    let (call, expected) = &swap.meanwhile;
    while !is_done.get() {
        compare_answer(expected, &client.send(call).await?)?;
        served.set(served.get() + 1);
    }
    Ok(())
}

async fn wait_until(condition: impl Fn() -> bool, otherwise: &str) -> Result<(), Misbehaviour> {
    let started = Instant::now();
    while !condition() {
        if started.elapsed() > LIVE_LIMIT {
            return Err(Misbehaviour::Differs(otherwise.to_owned()));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// Whether the admin API shows the plugin live with this digest.
async fn is_live(swap: &Swap, digest: &str) -> Result<bool, Misbehaviour> {
    let admin = AdminAddress::Unix(swap.admin_socket.clone());
    // Requests go on while the admin API is asked.
    let asked = tokio::task::spawn_blocking(move || admin::call(&admin, "GET", "/v1/plugins")).await;
    match asked.map_err(|error| Misbehaviour::Admin(error.to_string()))? {
        Ok((200, listed)) => shows_live(&listed, swap.plugin, digest),
        Ok((status, _)) => Err(Misbehaviour::Admin(format!("status {status}"))),
        Err(error) => Err(Misbehaviour::Admin(error.to_string())),
    }
}

/// A refused file is an error: waiting would not help.
fn shows_live(listed: &Value, plugin: &str, digest: &str) -> Result<bool, Misbehaviour> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let rows = listed.get("plugins").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let row = rows.iter().find(|row| text(row.get("name")) == plugin);
    let row = row.ok_or_else(|| Misbehaviour::Admin(format!("{plugin} is not listed")))?;
    if let Some(rejected) = row.get("rejected")
        && text(rejected.get("digest")) == digest
    {
        return Err(Misbehaviour::Differs(format!("the other build was refused: {}", text(rejected.get("reason")))));
    }
    Ok(text(row.get("state")) == "live" && text(row.get("digest")) == digest)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(rows: &Value, expected: Result<bool, &str>) {
        let shown = shows_live(&json!({ "plugins": rows }), "geoip", "aa").map_err(|error| error.to_string());
        match expected {
            Ok(live) => assert_eq!(shown, Ok(live), "{rows}"),
            Err(part) => assert!(shown.as_ref().is_err_and(|error| error.contains(part)), "{rows}: {shown:?}"),
        }
    }

    #[test]
    fn a_plugin_is_live_with_its_digest() {
        let row =
            |name: &str, digest: &str, state: &str| json!({ "name": name, "digest": digest, "state": state, "rejected": null });
        let refused = |digest: &str| json!({ "name": "geoip", "digest": "bb", "state": "live", "rejected": { "digest": digest, "reason": "why" } });
        check(&json!([row("ips", "aa", "live"), row("geoip", "aa", "live")]), Ok(true));
        check(&json!([row("geoip", "bb", "live")]), Ok(false));
        check(&json!([row("geoip", "aa", "removed")]), Ok(false));
        check(&json!([refused("cc")]), Ok(false));
        check(&json!([refused("aa")]), Err("was refused: why"));
        check(&json!([row("ips", "aa", "live")]), Err("geoip is not listed"));
        check(&json!(null), Err("geoip is not listed"));
    }
}
