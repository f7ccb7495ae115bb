//! What an instance exports: the phases of the contract, and those of them that cost less where it has these, too.

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, ComponentExportIndex, InstancePre, Lift, TypedFunc};
use wasmtime::{AsContextMut, Engine, Store};

use crate::contract::bindings::exports::weir::policy::handler;
use crate::contract::bindings::exports::weir::policy::lean_handler::Answer;
use crate::contract::bindings::weir::policy::types::Verdict;
use crate::engine::Linkers;
use crate::error::LoadError;
use crate::pool::GuestState;

/// A linked plugin.
#[derive(Clone)]
pub(crate) struct GuestPre {
    linked: InstancePre<GuestState>,
    handler: handler::GuestIndices,
    lean: Option<LeanIndices>,
    /// Whether nothing that it imports can make it wait.
    pub(crate) prompt: bool,
}

/// The functions of one instance.
pub(crate) struct Guest {
    pub(crate) handler: handler::Guest,
    /// Plugins built for a contract before 0.1.2 have none, nor have those of other languages.
    pub(crate) lean: Option<Lean>,
}

/// `lean-handler`, whose functions are called on either stack (`call.rs`).
pub(crate) struct Lean {
    pub(crate) on_request: TypedFunc<(), (Answer,)>,
    pub(crate) on_response: TypedFunc<(), (Answer,)>,
    pub(crate) whole_answer: TypedFunc<(), (Verdict,)>,
}

#[derive(Clone)]
struct LeanIndices {
    on_request: ComponentExportIndex,
    on_response: ComponentExportIndex,
    whole_answer: ComponentExportIndex,
}

impl GuestPre {
    /// Finds the exports of a plugin, and links what it imports.
    ///
    /// # Errors
    /// It has not the exports of the contract, or imports what the host has not.
    pub(crate) fn link(linkers: &Linkers, component: &Component) -> Result<Self, LoadError> {
        let lean = LeanIndices::of(component);
        // Only its functions are ever called on a worker's stack.
        let prompt = lean.is_some() && never_waits(component);
        let linker = if prompt { &linkers.prompt } else { &linkers.waiting };
        let linked = linker.instantiate_pre(component);
        let linked = linked.and_then(|linked| Ok(Self { handler: handler::GuestIndices::new(&linked)?, linked, lean, prompt }));
        linked.map_err(|error| LoadError::Compile(format!("{error:#}")))
    }

    pub(crate) async fn instantiate(&self, store: &mut Store<GuestState>) -> wasmtime::Result<Guest> {
        Ok(self.instantiate_whole(store).await?.0)
    }

    /// The same, with what else the instance exports.
    pub(crate) async fn instantiate_whole(
        &self,
        store: &mut Store<GuestState>,
    ) -> wasmtime::Result<(Guest, wasmtime::component::Instance)> {
        let instance = self.linked.instantiate_async(&mut *store).await?;
        let handler = self.handler.load(store.as_context_mut(), &instance)?;
        let lean = self.lean.as_ref().map(|lean| lean.load(store, &instance)).transpose()?;
        Ok((Guest { handler, lean }, instance))
    }
}

impl LeanIndices {
    fn of(component: &Component) -> Option<Self> {
        let interface = component.get_export_index(None, "weir:policy/lean-handler@0.1.2")?;
        let function = |name: &str| component.get_export_index(Some(&interface), name);
        Some(Self {
            on_request: function("on-request")?,
            on_response: function("on-response")?,
            whole_answer: function("whole-answer")?,
        })
    }

    fn load(&self, store: &mut Store<GuestState>, instance: &wasmtime::component::Instance) -> wasmtime::Result<Lean> {
        fn function<R: wasmtime::component::ComponentType + Lift + 'static>(
            store: &mut Store<GuestState>,
            instance: &wasmtime::component::Instance,
            index: &ComponentExportIndex,
        ) -> wasmtime::Result<TypedFunc<(), (R,)>> {
            instance.get_typed_func(store, index)
        }
        Ok(Lean {
            on_request: function(store, instance, &self.on_request)?,
            on_response: function(store, instance, &self.on_response)?,
            whole_answer: function(store, instance, &self.whole_answer)?,
        })
    }
}

/// Whether no function that it imports can wait: it asks no upstream and sets no alarm. Files and sockets, which there are none of, are
/// not worth a closer look.
fn never_waits(component: &Component) -> bool {
    let engine = component.engine();
    component.component_type().imports(engine).all(|(interface, item)| match interface.split('@').next() {
        Some("weir:policy/http-out") => !has_function(&item.ty, engine, |_| true),
        Some("wasi:clocks/monotonic-clock") => !has_function(&item.ty, engine, |name| name.starts_with("subscribe")),
        Some(name) => !name.starts_with("wasi:filesystem/") && !name.starts_with("wasi:sockets/"),
        None => true,
    })
}

fn has_function(item: &ComponentItem, engine: &Engine, wanted: impl Fn(&str) -> bool) -> bool {
    let ComponentItem::ComponentInstance(interface) = item else { return false };
    interface.exports(engine).any(|(name, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)) && wanted(name))
}
