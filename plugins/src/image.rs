//! The memory of a configured plugin as a component of its own, which begins where `configure` has ended.
//!
//! The tool for it (wasmtime-wizer) makes a copy of the component that also exports its memory and its globals; after `configure` has
//! run in the copy, they are read and become the initial memory and globals of a new component, which is compiled like any other.
//! What lives outside of memory and globals cannot be kept: tables that code changes, and handles of the host. A plugin that has such
//! things, or whose `configure` drew random numbers that nobody may share, is configured in each instance instead.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use wasmtime::Store;
use wasmtime::component::{Instance, Lift, WasmList};
use wasmtime_wizer::{ComponentInstanceState, Wizer};

use crate::pool::GuestState;

/// The plugin with its memory and globals exported, or why no image can be made of it.
pub(crate) fn instrument(plugin: &[u8]) -> Result<Vec<u8>, String> {
    let made = catch_unwind(AssertUnwindSafe(|| Wizer::new().instrument_component(plugin).map(|(_, instrumented)| instrumented)));
    made.map_err(|_| PANICKED.to_owned())?.map_err(|error| error.root_cause().to_string())
}

/// The plugin with the memory and the globals that this instance of its instrumented copy has now.
pub(crate) async fn snapshot(plugin: &[u8], store: &mut Store<GuestState>, instance: Instance) -> Result<Vec<u8>, String> {
    let wizer = Wizer::new();
    let mut reader = Reader { store, instance, failed: None };
    let image = guarded(async {
        let (context, _) = wizer.instrument_component(plugin)?;
        wizer.snapshot_component(&context, &mut reader).await
    });
    let image = image.await?.map_err(|error| error.root_cause().to_string())?;
    match reader.failed {
        Some(reason) => Err(reason),
        None => Ok(image),
    }
}

const PANICKED: &str = "the tool that makes it failed";

/// A mistake in the tool costs the image, not the thread.
async fn guarded<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(_) => Poll::Ready(Err(PANICKED.to_owned())),
    })
    .await
}

/// Reads memory and globals through what the instrumented copy exports. The first failure is kept, and what could not be read is empty.
struct Reader<'a> {
    store: &'a mut Store<GuestState>,
    instance: Instance,
    failed: Option<String>,
}

impl Reader<'_> {
    async fn read<R: Lift + Send + Sync + 'static>(&mut self, interface: &str, function: &str) -> Option<R> {
        let called = async {
            let interface = self.instance.get_export_index(&mut *self.store, None, interface);
            let index = self.instance.get_export_index(&mut *self.store, interface.as_ref(), function);
            let index = index.ok_or_else(|| wasmtime::format_err!("it lacks {function}"))?;
            let function = self.instance.get_typed_func::<(), (R,)>(&mut *self.store, index)?;
            Ok::<R, wasmtime::Error>(function.call_async(&mut *self.store, ()).await?.0)
        };
        match called.await {
            Ok(value) => Some(value),
            Err(error) => {
                self.failed.get_or_insert_with(|| format!("its memory cannot be read: {}", error.root_cause()));
                None
            }
        }
    }
}

impl ComponentInstanceState for Reader<'_> {
    async fn call_func_ret_list_u8(&mut self, interface: &str, function: &str, contents: impl FnOnce(&[u8]) + Send) {
        match self.read::<WasmList<u8>>(interface, function).await {
            Some(list) => contents(list.as_le_slice(&*self.store)),
            None => contents(&[]),
        }
    }

    async fn call_func_ret_s32(&mut self, interface: &str, function: &str) -> i32 {
        self.read(interface, function).await.unwrap_or_default()
    }

    async fn call_func_ret_s64(&mut self, interface: &str, function: &str) -> i64 {
        self.read(interface, function).await.unwrap_or_default()
    }

    async fn call_func_ret_f32(&mut self, interface: &str, function: &str) -> u32 {
        self.read::<f32>(interface, function).await.unwrap_or_default().to_bits()
    }

    async fn call_func_ret_f64(&mut self, interface: &str, function: &str) -> u64 {
        self.read::<f64>(interface, function).await.unwrap_or_default().to_bits()
    }
}
