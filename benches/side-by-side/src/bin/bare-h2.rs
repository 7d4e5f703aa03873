//! As little as a gRPC answer can cost with the `h2` crate: no router, no codec, no task per call, the request is not even
//! read, and the socket does without vectored writes, so that many answers leave in one.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::{
    RecvStream,
    server::{self, SendResponse},
};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use side_by_side::{Outcome, job, serving};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};

/// A socket that says it has no vectored writes: h2 then copies small payloads into one buffer.
struct Plain(TcpStream);

impl AsyncRead for Plain {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Plain {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        false
    }
}

async fn connection(stream: TcpStream, frame: Bytes) -> Outcome<()> {
    stream.set_nodelay(true)?;
    let mut connection = server::Builder::new()
        .max_concurrent_streams(200)
        .initial_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .handshake::<_, Bytes>(Plain(stream))
        .await?;
    // The header lines that the gateway's answer has, one of them different each time.
    let mut head = Response::new(());
    let headers = head.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("cache-status", HeaderValue::from_static("glacier-gateway; hit; ttl=86339"));
    headers.insert(header::AGE, HeaderValue::from_static("61"));
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));

    let mut ready = Vec::new();
    while poll_fn(|cx| poll_ready(&mut connection, &mut ready, cx)).await? {
        for (_request, mut respond) in ready.drain(..) {
            let mut head = head.clone();
            let id = format!("{:032x}", fastrand::u128(..));
            head.headers_mut().insert("x-request-id", HeaderValue::try_from(id)?);
            let mut stream = respond.send_response(head, false)?;
            stream.send_data(frame.clone(), false)?;
            stream.send_trailers(trailers.clone())?;
        }
    }
    Ok(())
}

type Call = (Request<RecvStream>, SendResponse<Bytes>);

/// Takes all calls that have arrived; `false` if there will be none. Each poll of h2 flushes what was answered, so one
/// answer after each would be one write each.
fn poll_ready(
    connection: &mut server::Connection<Plain, Bytes>,
    ready: &mut Vec<Call>,
    cx: &mut Context<'_>,
) -> Poll<Result<bool, h2::Error>> {
    loop {
        match connection.poll_accept(cx) {
            Poll::Ready(Some(Ok(call))) => ready.push(call),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
            Poll::Ready(None) => return Poll::Ready(Ok(!ready.is_empty())),
            Poll::Pending if ready.is_empty() => return Poll::Pending,
            Poll::Pending => return Poll::Ready(Ok(true)),
        }
    }
}

async fn serve(address: SocketAddr, frame: Bytes) -> Outcome<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let frame = frame.clone();
        tokio::spawn(async move {
            if let Err(error) = connection(stream, frame).await {
                eprintln!("{error}");
            }
        });
    }
}

fn main() -> Outcome<()> {
    let (address, completion) = serving::arguments()?;
    let frame = Bytes::from(job::frame(&job::fixed_response(0, completion)));
    serving::runtime()?.block_on(serve(address, frame))
}
