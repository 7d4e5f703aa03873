//! How the harness's own servers are started: `server ADDRESS SECONDS`, where to listen and when the jobs completed.

use std::net::SocketAddr;

use tokio::runtime::{Builder, Runtime};

use crate::{Outcome, job::Completion};

/// The two arguments.
pub fn arguments() -> Outcome<(SocketAddr, Completion)> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(seconds)) = (arguments.next(), arguments.next()) else {
        return Err("two arguments: where to listen, and when the jobs completed in seconds after 1970".into());
    };
    Ok((address.parse()?, Completion::at(seconds.parse()?)))
}

/// The runtime that the gateway has, too: as many workers as the process may use cores.
pub fn runtime() -> Outcome<Runtime> {
    Ok(Builder::new_multi_thread().enable_all().build()?)
}
