//! What the tests share.

pub(crate) mod endpoint;
pub(crate) mod fake;
pub(crate) mod gateway;
pub(crate) mod process;
