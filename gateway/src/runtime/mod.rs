//! The life of the process: [`run`] starts and ends it, [`builder`] turns configuration and plugins into a [`snapshot`], [`worker`]s
//! serve, [`control`] watches and answers the operator.

pub mod beside;
pub mod builder;
pub mod control;
pub mod descriptors;
pub mod drain;
pub mod files;
pub mod listeners;
pub mod plugins;
pub mod run;
pub mod signing;
pub mod snapshot;
pub mod sockets;
pub mod trials;
pub mod upgrade;
pub mod wishes;
pub mod worker;
