//! The gateway, through the generated bindings of the contract.

/// Generated from the newest version of the contract.
#[allow(missing_docs, clippy::all, clippy::pedantic, unused_qualifications, unreachable_pub)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "wit/0.1.2",
        world: "lean-policy",
        pub_export_macro: true,
        export_macro_name: "export_policy",
        default_bindings_module: "weir_sdk::__private::bindings",
        generate_all,
    });
}

pub(crate) use bindings::exports::weir::policy::lean_handler::Answer;
pub(crate) use bindings::weir::policy::types::{Connection, Header, IpAddress, Request, Response};
pub use bindings::weir::policy::types::{EditError, Finding, Outcome};
pub(crate) use bindings::weir::policy::{current, geoip, http_out, kv, kv_atomic, log, metrics};
