//! A page of the admin port, fetched as simply as HTTP/1.1 allows.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, ToSocketAddrs},
};

use super::gateway::PATIENCE;

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Page {
    pub(crate) async fn get(address: impl ToSocketAddrs, path: &str) -> Self {
        Self::ask(address, "GET", path).await
    }

    pub(crate) async fn ask(address: impl ToSocketAddrs, method: &str, path: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self::ask_on(stream, method, path).await.expect("an answer")
    }

    /// `None` if the connection ends without an answer.
    pub(crate) async fn ask_on(mut stream: TcpStream, method: &str, path: &str) -> Option<Self> {
        let exchange = async {
            stream.write_all(format!("{method} {path} HTTP/1.1\r\nhost: admin\r\n\r\n").as_bytes()).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            let (head, body) = answer.split_once("\r\n\r\n")?;
            let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
            Some(Self { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
        };
        tokio::time::timeout(PATIENCE, exchange).await.expect("it ends in time")
    }

    /// Waits until the page has this status.
    pub(crate) async fn wait_for(address: impl ToSocketAddrs + Copy, path: &str, status: u16) {
        let seen = async {
            while Self::get(address, path).await.status != status {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.expect("the status in time");
    }

    /// Waits until this is one of the lines of the page.
    pub(crate) async fn wait_for_line(address: impl ToSocketAddrs + Copy, path: &str, line: &str) {
        let seen = async {
            while !Self::get(address, path).await.has(line) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("{line:?} never came"));
    }

    /// Whether this is one of the lines.
    pub(crate) fn has(&self, line: &str) -> bool {
        self.body.lines().any(|found| found == line)
    }
}
