//! Configuring a plugin once for all instances of a policy, or finding out why each has to do it itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::Store;
use wasmtime::component::Instance as Component;

use crate::engine::{Host, MAX_MEMORY};
use crate::error::LoadError;
use crate::generation::PolicySpec;
use crate::guest::GuestPre;
use crate::image;
use crate::load::{Draft, LOAD_TICKS, LOAD_WALL, Plugin, failed, wall};
use crate::pool::{GuestState, store};
use crate::wasi::{self, Drawn};

/// How much slower the code of drafts is than the code that serves, at most: a `configure` that fits its limits in one fits them in
/// the other.
const DRAFT_FACTOR: u32 = 2;

/// How the instances of a generation begin.
pub(crate) enum Start {
    /// With the memory that one `configure` has left, which gave this answer.
    Image { pre: GuestPre, answer: String },
    /// As the plugin is: `configure` is called in each, for this reason.
    Each { pre: GuestPre, reason: String },
}

impl Start {
    pub(crate) const fn pre(&self) -> &GuestPre {
        match self {
            Self::Image { pre, .. } | Self::Each { pre, .. } => pre,
        }
    }
}

/// What came of an attempt to configure once.
enum Attempt {
    Image(Vec<u8>, String),
    Impossible(String),
}

impl Host {
    /// Configures a plugin for a policy. Takes up to seconds: never call it on a worker.
    pub(crate) fn start(&self, spec: &PolicySpec, plugin: &Arc<Plugin>, config: &str) -> Result<Start, LoadError> {
        let draft = self.draft(plugin)?;
        match self.apart(self.configure(spec, plugin, draft, config))?? {
            Attempt::Image(image, answer) => Ok(Start::Image { pre: self.serving(&image)?, answer }),
            Attempt::Impossible(reason) => {
                tracing::info!(policy = &*spec.name, plugin = &*plugin.name, "each instance is configured by itself: {reason}");
                Ok(Start::Each { pre: self.whole(plugin)?, reason })
            }
        }
    }

    async fn configure(&self, spec: &PolicySpec, plugin: &Plugin, draft: Draft, config: &str) -> Result<Attempt, LoadError> {
        if let Some(obstacle) = draft.obstacle {
            return Ok(Attempt::Impossible(obstacle));
        }
        let staged = self.shared(&plugin.name).granted(&spec.http_out).staged();
        let drawn = Drawn::default();
        let wasi = wasi::configuring(self.seeds.of(&plugin.digest, config), &drawn);
        let mut store = store(&self.draft_engine, &spec.name, spec.mode, spec.limits, staged.own.clone(), wasi);
        let wait = LOAD_WALL * DRAFT_FACTOR;
        store.data_mut().cpu_left = Duration::from_millis(LOAD_TICKS) * DRAFT_FACTOR;
        store.data_mut().wall_until = Instant::now() + wait;
        store.set_epoch_deadline(1);
        let _running = self.clock.begin();
        let called = tokio::time::timeout(wait, call(&draft.pre, &mut store, config)).await;
        let (instance, answer) = match called {
            Ok(Ok(called)) => called,
            Ok(Err(error)) => return Err(failed("configure", &error, store.data(), DRAFT_FACTOR)),
            Err(_) => return Err(LoadError::Call { phase: "configure", error: wall(wait) }),
        };
        let answer = answer.map_err(LoadError::Configure)?;
        if drawn.any() {
            return Ok(Attempt::Impossible("configure drew random numbers, which instances must not share".to_owned()));
        }
        if store.data().holds_handles() {
            return Ok(Attempt::Impossible("configure left handles of the host open".to_owned()));
        }
        store.data_mut().allow_memory(MAX_MEMORY);
        store.set_hostcall_fuel(MAX_MEMORY * 2);
        store.data_mut().cpu_left = Duration::from_millis(LOAD_TICKS);
        let image = tokio::time::timeout(LOAD_WALL, image::snapshot(&plugin.content, &mut store, instance)).await;
        match image {
            Ok(Ok(image)) => {
                staged.commit();
                Ok(Attempt::Image(image, answer))
            }
            Ok(Err(reason)) => Ok(Attempt::Impossible(reason)),
            Err(_) => Ok(Attempt::Impossible("reading its memory took too long".to_owned())),
        }
    }
}

/// A new instance, and what `configure` says in it.
async fn call(
    pre: &GuestPre,
    store: &mut Store<GuestState>,
    config: &str,
) -> wasmtime::Result<(Component, Result<String, String>)> {
    let (guest, instance) = pre.instantiate_whole(store).await?;
    let answer = guest.handler.call_configure(&mut *store, config).await?;
    Ok((instance, answer))
}
