//! A forward proxy on loopback: it gives tunnels (`CONNECT`) to the names it knows and remembers what it was asked.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// The proxy. Dropping it ends it.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    /// What it answers in place of a tunnel.
    refusal: Arc<Mutex<Option<&'static str>>>,
    server: JoinHandle<()>,
}

impl Proxy {
    /// `targets` says where the names lead to that it is asked for, as `name:port`.
    pub(crate) async fn start(targets: impl IntoIterator<Item = (&'static str, u16)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heads, refusal) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<Option<&'static str>>>::default());
        let targets: Arc<HashMap<_, _>> = Arc::new(targets.into_iter().collect());
        let (log, word) = (Arc::clone(&heads), Arc::clone(&refusal));
        let server = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (log, word, targets) = (Arc::clone(&log), Arc::clone(&word), Arc::clone(&targets));
                tokio::spawn(async move {
                    let mut client = BufReader::new(client);
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") {
                        if client.read_line(&mut head).await.unwrap() == 0 {
                            return;
                        }
                    }
                    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
                    let port = target.and_then(|target| targets.get(target)).copied();
                    let refusal = word.lock().unwrap().or_else(|| port.is_none().then_some("403 Forbidden"));
                    log.lock().unwrap().push(head);
                    if let Some(refusal) = refusal {
                        let answer = format!("HTTP/1.1 {refusal}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                        client.write_all(answer.as_bytes()).await.unwrap();
                        return;
                    }
                    let mut server = TcpStream::connect(("127.0.0.1", port.unwrap())).await.unwrap();
                    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                    // How a tunnel ends is the business of its two ends.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { address, heads, refusal, server }
    }

    /// From now on it answers so, or gives tunnels again.
    pub(crate) fn refuse(&self, refusal: Option<&'static str>) {
        *self.refusal.lock().unwrap() = refusal;
    }

    /// The heads of all requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// The first lines of all requests so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.heads().iter().map(|head| head.lines().next().unwrap().to_owned()).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}
