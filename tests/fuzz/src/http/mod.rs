pub mod abuse;
pub mod authority;
pub mod guard;
pub mod message;
