pub mod authority;
pub mod guard;
