//! What the tests share.

#[cfg(feature = "traces")]
pub(crate) mod collector;
pub(crate) mod endpoint;
pub(crate) mod fake;
pub(crate) mod file;
pub(crate) mod gateway;
pub(crate) mod page;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod raw;
pub(crate) mod relay;
pub(crate) mod tls;
pub(crate) mod tls_caller;
