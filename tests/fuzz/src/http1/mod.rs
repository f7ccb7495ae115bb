pub mod body;
pub mod head;
pub mod response;
pub mod wire;
