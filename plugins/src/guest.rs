//! What an instance exports: the phases of the contract, and those of them that cost less where it has these, too.

use wasmtime::component::InstancePre;
use wasmtime::{AsContextMut, Store};

use crate::contract::bindings::exports::weir::policy::{handler, lean_handler};
use crate::pool::GuestState;

/// A linked plugin.
#[derive(Clone)]
pub(crate) struct GuestPre {
    linked: InstancePre<GuestState>,
    handler: handler::GuestIndices,
    lean: Option<lean_handler::GuestIndices>,
}

/// The functions of one instance.
pub(crate) struct Guest {
    pub(crate) handler: handler::Guest,
    /// Plugins built for a contract before 0.1.2 have none, nor have those of other languages.
    pub(crate) lean: Option<lean_handler::Guest>,
}

impl GuestPre {
    /// Finds the exports of a plugin.
    ///
    /// # Errors
    /// It has not those of the contract.
    pub(crate) fn new(linked: InstancePre<GuestState>) -> wasmtime::Result<Self> {
        let handler = handler::GuestIndices::new(&linked)?;
        let lean = lean_handler::GuestIndices::new(&linked).ok();
        Ok(Self { linked, handler, lean })
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
        let lean = self.lean.as_ref().map(|lean| lean.load(store.as_context_mut(), &instance)).transpose()?;
        Ok((Guest { handler, lean }, instance))
    }
}
