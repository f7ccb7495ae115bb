pub mod abuse;
pub mod authority;
pub mod guard;
