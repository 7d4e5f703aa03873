//! Looks up the name of Glacier's host: once for all who wait.
//!
//! `getaddrinfo` blocks a thread of the runtime's pool, and goes on when the connection that wanted the name has long been
//! given up. With a look-up per connection, a dead name server would fill the pool (512 threads) with look-ups that
//! nobody waits for, and everything else that needs a thread would wait behind them. So a name has at most one look-up
//! under way, whoever asks joins it, and what it finds is kept for a moment: a look-up slower than the connect timeout
//! still serves the next attempt.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::{sync::watch, task::spawn_blocking, time::Instant};

/// How long what was found is used without asking again. AWS's names live for a minute; this only has to span the pause
/// between two attempts.
const KEPT: Duration = Duration::from_secs(5);

/// The addresses of a host name; blocks while it looks them up.
pub(crate) type LookUp = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// A resolver for the HTTP client. Clones share their look-ups.
#[derive(Clone)]
pub(crate) struct Resolver {
    look_up: Arc<LookUp>,
    names: Arc<Mutex<HashMap<String, watch::Receiver<Option<Found>>>>>,
}

/// What a look-up came to.
#[derive(Debug, Clone)]
struct Found {
    addresses: Result<Vec<SocketAddr>, ResolveError>,
    at: Instant,
}

/// Why there are no addresses. The system's own words would repeat the name and say little.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum ResolveError {
    #[error("the name does not resolve")]
    Failed,
    #[error("the name resolves to no address")]
    NoAddress,
    #[error("the look-up was cut short")]
    CutShort,
}

impl Resolver {
    /// Asks the operating system.
    pub(crate) fn of_the_system() -> Self {
        // The port is set by whoever connects.
        Self::with(Arc::new(|name| Ok((name, 0).to_socket_addrs()?.collect())))
    }

    /// Asks `look_up`.
    pub(crate) fn with(look_up: Arc<LookUp>) -> Self {
        Self { look_up, names: Arc::default() }
    }

    async fn addresses(self, name: String) -> Result<Vec<SocketAddr>, ResolveError> {
        let mut look_up = self.under_way_or_new(name);
        let found = look_up.wait_for(Option::is_some).await.map_err(|_| ResolveError::CutShort)?;
        found.as_ref().map_or(Err(ResolveError::CutShort), |found| found.addresses.clone())
    }

    fn under_way_or_new(&self, name: String) -> watch::Receiver<Option<Found>> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(&name)
            && is_usable(known)
        {
            return known.clone();
        }
        let (tell, told) = watch::channel(None);
        names.insert(name.clone(), told.clone());
        let look_up = Arc::clone(&self.look_up);
        spawn_blocking(move || {
            let addresses = match look_up(&name) {
                Ok(addresses) if addresses.is_empty() => Err(ResolveError::NoAddress),
                Ok(addresses) => Ok(addresses),
                Err(error) => {
                    tracing::debug!(%error, "a name does not resolve");
                    Err(ResolveError::Failed)
                }
            };
            tell.send_replace(Some(Found { addresses, at: Instant::now() }));
        });
        told
    }
}

/// Whether a look-up is under way, or has found something that is not too old. A failure is not kept: those who waited for
/// it have heard it.
fn is_usable(look_up: &watch::Receiver<Option<Found>>) -> bool {
    match &*look_up.borrow() {
        None => look_up.has_changed().is_ok(),
        Some(found) => found.addresses.is_ok() && found.at.elapsed() < KEPT,
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let addresses = self.clone().addresses(name.as_str().to_owned());
        Box::pin(async move {
            let addresses = addresses.await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests;
