//! The `#[policy]` attribute of `weir-sdk`.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::punctuated::Punctuated;
use syn::{Error, Expr, ExprLit, ImplItem, ItemImpl, Lit, LitInt, LitStr, Meta, Result, Token, parse::Parser, spanned::Spanned};

/// The phases in the order of the contract: method of the trait, variant of `Phase`.
const PHASES: [(&str, &str); 6] = [
    ("connection", "Connection"),
    ("request", "Request"),
    ("request_body", "RequestBody"),
    ("response", "Response"),
    ("response_body", "ResponseBody"),
    ("complete", "Complete"),
];

const CAPABILITIES: [&str; 5] = ["log", "geoip", "kv", "metrics", "http-out"];

/// Exports a `Policy` as a Weir plugin: put it on `impl Policy for YourType`.
///
/// Arguments, all optional: `name = "my-policy"` (default: the package's name), `schema = "schema.json"` (JSON Schema of the
/// configuration, relative to the package), `capabilities("geoip", "kv")`, `request_body = 65536` (bytes of the request body
/// that `request_body` sees; required when that phase is written).
#[proc_macro_attribute]
pub fn policy(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let item: Tokens = item.into();
    match expand(arguments.into(), item.clone()) {
        Ok(tokens) => tokens.into(),
        Err(error) => {
            let error = error.to_compile_error();
            quote!(#item #error).into()
        }
    }
}

#[derive(Default)]
struct Arguments {
    name: Option<LitStr>,
    schema: Option<LitStr>,
    capabilities: Vec<LitStr>,
    request_body: Option<LitInt>,
}

fn expand(arguments: Tokens, item: Tokens) -> Result<Tokens> {
    let arguments = parse_arguments(arguments)?;
    let block: ItemImpl =
        syn::parse2(item).map_err(|error| Error::new(error.span(), "#[policy] goes on `impl Policy for YourType { .. }`"))?;
    let is_policy =
        block.trait_.as_ref().is_some_and(|(_, path, _)| path.segments.last().is_some_and(|last| last.ident == "Policy"));
    if !is_policy {
        return Err(Error::new(block.self_ty.span(), "#[policy] goes on `impl Policy for YourType { .. }`"));
    }
    if !block.generics.params.is_empty() {
        return Err(Error::new(block.generics.span(), "a plugin exports one concrete policy: remove the generic parameters"));
    }
    if !block.items.iter().any(|item| matches!(item, ImplItem::Type(own) if own.ident == "Config")) {
        let message = "say what the configuration is: `type Config = YourConfig;`, or `type Config = NoConfig;` for none";
        return Err(Error::new(block.self_ty.span(), message));
    }
    let written =
        |name: &str| block.items.iter().any(|item| matches!(item, ImplItem::Fn(function) if function.sig.ident == name));
    if written("request_body") && arguments.request_body.is_none() {
        let message = "the request_body phase needs a window: #[policy(request_body = 65536)]";
        return Err(Error::new(block.self_ty.span(), message));
    }
    let phases = PHASES.iter().filter(|(method, _)| written(method)).map(|(_, variant)| {
        let variant = syn::Ident::new(variant, block.self_ty.span());
        quote!(::weir_sdk::Phase::#variant)
    });
    let about = about(&arguments, phases);
    let export = export(&block.self_ty);
    Ok(quote!(#block #about #export))
}

fn parse_arguments(tokens: Tokens) -> Result<Arguments> {
    let mut arguments = Arguments::default();
    for meta in Punctuated::<Meta, Token![,]>::parse_terminated.parse2(tokens)? {
        let name = meta.path().get_ident().map(ToString::to_string).unwrap_or_default();
        match (name.as_str(), &meta) {
            ("name", Meta::NameValue(pair)) => arguments.name = Some(string(&pair.value)?),
            ("schema", Meta::NameValue(pair)) => arguments.schema = Some(string(&pair.value)?),
            ("request_body", Meta::NameValue(pair)) => match &pair.value {
                Expr::Lit(ExprLit { lit: Lit::Int(bytes), .. }) => arguments.request_body = Some(bytes.clone()),
                other => return Err(Error::new(other.span(), "request_body is a number of bytes")),
            },
            ("capabilities", Meta::List(list)) => {
                for capability in list.parse_args_with(Punctuated::<LitStr, Token![,]>::parse_terminated)? {
                    if !CAPABILITIES.contains(&capability.value().as_str()) {
                        let message = format!("no such capability; there are {}", CAPABILITIES.join(", "));
                        return Err(Error::new(capability.span(), message));
                    }
                    arguments.capabilities.push(capability);
                }
            }
            _ => {
                let message = "unknown argument; there are name, schema, capabilities(..) and request_body";
                return Err(Error::new(meta.span(), message));
            }
        }
    }
    Ok(arguments)
}

fn string(value: &Expr) -> Result<LitStr> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Ok(text.clone()),
        other => Err(Error::new(other.span(), "expected a string literal")),
    }
}

fn about(arguments: &Arguments, phases: impl Iterator<Item = Tokens>) -> Tokens {
    let name = arguments.name.as_ref().map_or_else(|| quote!(env!("CARGO_PKG_NAME")), |name| quote!(#name));
    let capabilities = &arguments.capabilities;
    let request_body = arguments.request_body.as_ref().map_or_else(|| quote!(0), |bytes| quote!(#bytes));
    let schema = arguments
        .schema
        .as_ref()
        .map_or_else(|| quote!(""), |file| quote!(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/", #file))));
    quote! {
        /// What this plugin says about itself.
        #[allow(dead_code)]
        pub(crate) const ABOUT: ::weir_sdk::__private::About = ::weir_sdk::__private::About {
            name: #name,
            version: env!("CARGO_PKG_VERSION"),
            phases: &[#(#phases),*],
            capabilities: &[#(#capabilities),*],
            request_body: #request_body,
            schema: #schema,
        };
    }
}

fn export(policy: &syn::Type) -> Tokens {
    quote! {
        /// Lies at the root of the crate, wherever the policy is: a second policy is an error that says so.
        #[doc(hidden)]
        #[macro_export]
        macro_rules! a_plugin_exports_one_policy {
            () => {};
        }

        impl ::weir_sdk::__private::Described for #policy {
            const ABOUT: ::weir_sdk::__private::About = ABOUT;
        }

        /// Uses the policy on targets that export nothing, where it would count as dead code.
        #[cfg(not(target_family = "wasm"))]
        #[doc(hidden)]
        pub fn __weir_policy(config: &str) -> Result<impl Sized + use<>, String> {
            ::weir_sdk::testing::configure::<#policy>(config)
        }

        #[cfg(target_family = "wasm")]
        const _: () = {
            use ::weir_sdk::__private::bindings::exports::weir::policy::{handler::Guest, lean_handler as lean};
            use ::weir_sdk::__private::bindings::weir::policy::types as wit;
            use ::weir_sdk::__private::handle;

            thread_local! {
                static POLICY: ::std::cell::OnceCell<#policy> = const { ::std::cell::OnceCell::new() };
            }

            fn with<T>(call: impl FnOnce(&#policy) -> T) -> T {
                POLICY.with(|policy| call(policy.get().expect("the gateway configures an instance before any phase")))
            }

            struct Plugin;

            impl Guest for Plugin {
                fn describe() -> String {
                    ::weir_sdk::__private::describe(&ABOUT)
                }
                fn configure(config: String) -> Result<String, String> {
                    let (policy, needs) = handle::configure::<#policy>(&config)?;
                    POLICY.with(|own| own.set(policy)).map_err(|_| "configured twice".to_owned())?;
                    Ok(needs)
                }
                fn on_connection(connection: &wit::Connection) -> wit::Verdict {
                    with(|policy| handle::connection(policy, connection))
                }
                fn on_request(request: &wit::Request) -> wit::Verdict {
                    with(|policy| handle::request(policy, request))
                }
                fn on_request_body(request: &wit::Request, window: Vec<u8>, complete: bool) -> wit::Verdict {
                    with(|policy| handle::request_body(policy, request, &window, complete))
                }
                fn on_response(request: &wit::Request, response: &wit::Response) -> wit::Verdict {
                    with(|policy| handle::response(policy, request, response))
                }
                fn on_response_body(request: &wit::Request, chunk: Vec<u8>, last: bool) -> Vec<u8> {
                    with(|policy| handle::response_body(policy, request, chunk, last))
                }
                fn on_complete(request: &wit::Request, outcome: wit::Outcome) {
                    with(|policy| handle::complete(policy, request, &outcome));
                }
            }

            impl lean::Guest for Plugin {
                fn on_request() -> lean::Answer {
                    with(handle::lean_request)
                }
                fn on_response() -> lean::Answer {
                    with(handle::lean_response)
                }
                fn whole_answer() -> wit::Verdict {
                    handle::whole_answer()
                }
            }

            ::weir_sdk::__private::export_policy!(Plugin with_types_in ::weir_sdk::__private::bindings);
        };
    }
}
