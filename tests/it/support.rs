//! What the tests share.

pub(crate) mod fake;

pub(crate) mod gateway;
