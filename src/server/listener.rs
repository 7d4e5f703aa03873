//! Accepting without spinning.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// So that connections are accepted again within a second of there being descriptors again.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The next connection. Errors that belong to one connection are passed over; others, such as running out of descriptors,
/// would come back at once, so they are waited out.
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut pause = FIRST_PAUSE;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match stream.set_nodelay(true) {
                Ok(()) => return (stream, peer),
                Err(error) => tracing::debug!(%peer, %error, "a connection was gone before it was served"),
            },
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, pause_ms = pause.as_millis(), "cannot accept connections; pausing");
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
