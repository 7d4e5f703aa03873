//! A relay between gateway and emulator that can cut the link, refuse, swallow connections, and be restored, always at
//! the same address.
//!
//! Only for what the emulator's own faults cannot do: those begin where a connection has been accepted.

use std::{net::SocketAddr, time::Duration};

use glacier_gateway::glacier::{Endpoint, GlacierSettings};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

/// On loopback a connection that does not come about at once does not come about.
const FULL_AFTER: Duration = Duration::from_millis(200);

pub(crate) struct Relay {
    address: SocketAddr,
    target: SocketAddr,
    door: Door,
}

/// What a new connection meets.
enum Door {
    /// Forwards, in a task that holds the listener and all connections.
    Open(JoinHandle<()>),
    /// The port is taken, so that nobody else gets it, but nobody listens.
    Refusing { _bound: TcpSocket },
    /// A listener with a full backlog: the kernel answers no SYN.
    Swallowing { _listener: TcpListener, _queued: Vec<TcpStream> },
}

impl Relay {
    /// Puts itself, open, before the endpoint in `settings`.
    pub(crate) fn insert(settings: &mut GlacierSettings) -> Self {
        let relay = Self::before(settings.endpoint.authority().parse().unwrap());
        let url = format!("http://{}", relay.address);
        settings.endpoint = Endpoint::resolve(settings.endpoint.region(), false, Some(&url)).unwrap();
        relay
    }

    /// An open one before `target`.
    pub(crate) fn before(target: SocketAddr) -> Self {
        let socket = bind("127.0.0.1:0".parse().unwrap());
        Self { address: socket.local_addr().unwrap(), target, door: open(socket, target) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets all connections and refuses new ones.
    pub(crate) async fn cut(&mut self) {
        let bound = bind(self.address);
        self.close().await;
        self.door = Door::Refusing { _bound: bound };
    }

    /// Resets all connections and lets new ones come neither about nor to an end.
    pub(crate) async fn swallow(&mut self) {
        let bound = bind(self.address);
        self.close().await;
        let listener = bound.listen(0).unwrap();
        let mut queued = Vec::new();
        while let Ok(connected) = timeout(FULL_AFTER, TcpStream::connect(self.address)).await {
            queued.push(connected.unwrap());
        }
        self.door = Door::Swallowing { _listener: listener, _queued: queued };
    }

    /// Forwards again.
    pub(crate) async fn restore(&mut self) {
        let bound = bind(self.address);
        self.close().await;
        self.door = open(bound, self.target);
    }

    /// When this returns, nobody listens.
    async fn close(&mut self) {
        let closed = Door::Refusing { _bound: bind(self.address) };
        if let Door::Open(mut task) = std::mem::replace(&mut self.door, closed) {
            task.abort();
            let ended = (&mut task).await;
            assert!(ended.unwrap_err().is_cancelled(), "the relay panicked");
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Door::Open(task) = &self.door {
            task.abort();
        }
    }
}

/// The port stays ours while doors change: sockets that share it overlap.
fn bind(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

fn open(socket: TcpSocket, target: SocketAddr) -> Door {
    let listener = socket.listen(1024).unwrap();
    Door::Open(tokio::spawn(async move {
        // Aborted, all of them, with this task.
        let mut connections = JoinSet::new();
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            connections.spawn(async move {
                // A link that is cut says no goodbye: closing resets.
                near.set_zero_linger().unwrap();
                let mut far = TcpStream::connect(target).await.unwrap();
                // How a connection ends is the business of its two ends.
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    }))
}
