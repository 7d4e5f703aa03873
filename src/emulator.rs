//! An emulated Amazon Glacier over HTTP, for the demo and the tests: a real server, on loopback.
//!
//! It answers DescribeJob and ListJobs as the developer guide, the service model and traffic quoted in public say that the
//! real one does, verifies signatures with code of its own, and does on request what networks and services do at their worst.
//!
//! ```text
//! server     listener, connections, the path of one request
//!   faults   which requests meet which fault
//!     fault  what becomes of one answer
//!     gate   what holds answers back
//!   glacier  the answer when nothing does: version, signature, account, route
//!     signature   SigV4 from the verifying side, and the credentials
//!     store       vaults and jobs
//!       job       a description, and the life that changes it
//!   body     the answer's body, delivered as the fault wants it
//!   requests what was asked
//! clock      how fast jobs progress, and what the server's clock says
//! dates      how Glacier writes dates
//! ```
//!
//! It shares no code with the gateway but the wall clock, so that neither confirms the other's mistakes. It reads no
//! environment and listens on loopback only. Absent on purpose: every call that changes something (jobs are made with
//! [`Store::add`]), TLS, and HTTP/2.

mod body;
mod clock;
mod dates;
mod fault;
mod faults;
mod gate;
mod glacier;
mod job;
mod requests;
mod server;
mod signature;
mod store;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    panic::resume_unwind,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicUsize, atomic::Ordering},
    time::Duration,
};

use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

pub use self::{
    clock::EmulatedClock,
    fault::Fault,
    faults::{Faults, JobFaults},
    gate::{Gate, Hold},
    job::{EmulatedJob, Tier, random_job_id},
    requests::SeenRequest,
    signature::EmulatedCredentials,
    store::{DEFAULT_VAULT, Store},
};
use self::{requests::RequestLog, server::World};

/// What an emulator is like.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The region of its ARNs, and the one that signatures must be for.
    pub region: String,
    /// 12 digits: the account that owns the vaults.
    pub account_id: String,
    /// Who may ask. The first with the right access key id counts.
    pub credentials: Vec<EmulatedCredentials>,
    /// How fast jobs progress. Emulators that share a clock progress together.
    pub clock: EmulatedClock,
    /// How long after completion a job is forgotten, on the emulator's clock (so divided by its speed in real time).
    pub remembered: Duration,
}

impl Default for Settings {
    /// us-east-1, account 123456789012, the key pair of AWS's examples, real pace, 24 hours.
    fn default() -> Self {
        Self {
            region: "us-east-1".to_owned(),
            account_id: "123456789012".to_owned(),
            credentials: vec![EmulatedCredentials::default()],
            clock: EmulatedClock::real(),
            remembered: job::REMEMBERED,
        }
    }
}

/// A running emulator. Dropping it ends it soon; [`stop`](Self::stop) ends it before it returns.
#[derive(Debug)]
pub struct Emulator {
    address: SocketAddr,
    world: Arc<World>,
    /// Dropping it, too, tells the server to stop.
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Emulator {
    /// Binds 127.0.0.1 at `port` (0 takes a free one) and serves. Connections are accepted from the moment this returns.
    pub async fn start(port: u16, settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let Settings { region, account_id, credentials, clock, remembered } = settings;
        let world = Arc::new(World {
            store: Store::new(clock.clone(), &region, &account_id, remembered),
            region,
            account_id,
            clock,
            credentials: Mutex::new(credentials),
            faults: Faults::default(),
            requests: RequestLog::new(),
            connections: AtomicUsize::new(0),
        });
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(server::serve(listener, Arc::clone(&world), stopped));
        Ok(Self { address, world, stop, server })
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its vaults and jobs.
    pub fn store(&self) -> &Store {
        &self.world.store
    }

    /// Its script of faults.
    pub fn faults(&self) -> &Faults {
        &self.world.faults
    }

    /// Its time.
    pub fn clock(&self) -> &EmulatedClock {
        &self.world.clock
    }

    /// From now on these credentials are known, and no others.
    pub fn replace_credentials(&self, credentials: Vec<EmulatedCredentials>) {
        *self.credentials() = credentials;
    }

    /// From now on these credentials are answered with `ExpiredTokenException`.
    pub fn expire_credentials(&self, access_key_id: &str) {
        for known in self.credentials().iter_mut().filter(|known| known.access_key_id == access_key_id) {
            known.expired = true;
        }
    }

    /// The last 10,000 requests, oldest first. A request is seen when its answer has been made, not when it is out.
    pub fn requests(&self) -> Vec<SeenRequest> {
        self.world.requests.last()
    }

    /// How many requests there were in all.
    pub fn request_count(&self) -> usize {
        self.world.requests.total()
    }

    /// How many DescribeJob requests there were for a job, in whatever vault.
    pub fn requests_for(&self, job_id: &str) -> usize {
        self.world.requests.total_for(job_id)
    }

    /// How many connections were accepted in all.
    pub fn connection_count(&self) -> usize {
        self.world.connections.load(Ordering::SeqCst)
    }

    /// Waits until there were `n` requests in all.
    pub async fn wait_for_requests(&self, n: usize) {
        self.world.requests.reached(n).await;
    }

    /// Waits until there were `n` requests for a job.
    pub async fn wait_for_requests_for(&self, job_id: &str, n: usize) {
        self.world.requests.reached_for(job_id, n).await;
    }

    /// Stops listening, cuts all connections, and returns when the port is free. Panics if a request made the emulator
    /// panic, so that no test passes over it.
    pub async fn stop(self) {
        let Self { stop, server, .. } = self;
        // If the server is gone already, it panicked, and the join says so.
        let _ = stop.send(());
        if let Err(error) = server.await
            && error.is_panic()
        {
            resume_unwind(error.into_panic());
        }
    }

    fn credentials(&self) -> MutexGuard<'_, Vec<EmulatedCredentials>> {
        self.world.credentials.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
