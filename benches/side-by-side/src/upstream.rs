//! As much of Glacier as the harness needs: HTTP/1.1 from a thread per connection, every job of every vault exists, and a
//! vault named `slow-300` takes 300 ms.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use side_by_side::{
    Outcome,
    job::{self, Completion},
};

/// A running upstream.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    calls: Arc<AtomicU64>,
}

impl Upstream {
    pub(crate) fn start(completion: Completion) -> Outcome<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (address, calls) = (listener.local_addr()?, Arc::new(AtomicU64::new(0)));
        let counter = Arc::clone(&calls);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counter = Arc::clone(&counter);
                // A client that goes away ends its thread.
                thread::spawn(move || drop(serve(stream, &counter, completion)));
            }
        });
        Ok(Self { address, calls })
    }

    /// How often it was asked.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }
}

fn serve(stream: TcpStream, calls: &AtomicU64, completion: Completion) -> Outcome<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    let (mut request, mut line) = (String::new(), String::new());
    loop {
        request.clear();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        while line.trim_end() != "" || line.is_empty() {
            line.clear();
            reader.read_line(&mut line)?;
        }
        line.clear();
        calls.fetch_add(1, Ordering::SeqCst);
        // GET /account/vaults/vault/jobs/id HTTP/1.1
        let path = request.split(' ').nth(1).unwrap_or_default();
        let parts: Vec<_> = path.split('/').collect();
        let &[_, _, _, vault, _, id] = parts.as_slice() else { return Err("not DescribeJob".into()) };
        if let Some(milliseconds) = vault.strip_prefix("slow-") {
            thread::sleep(Duration::from_millis(milliseconds.parse()?));
        }
        let body = job::json(vault, id, completion)?;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-amzn-requestid: AAABZpJrTyioDC_HsOmHae8EZp_uBSJr6cnGOLKp_XJCl-Q";
        write!(writer, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
    }
}
