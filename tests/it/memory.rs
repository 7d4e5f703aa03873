//! What hostile connections may make a gateway keep: the memory of a process of its own, while they are open.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{
    gateway::PATIENCE,
    process::Served,
    raw::{CHECK, DESCRIBE_JOB, REFLECTION, WATCH},
};

const MIB: usize = 1024 * 1024;
const LIMIT: usize = 64 * MIB;
const CONNECTIONS: usize = 20;
/// As many as a connection may have.
const CALLS: u32 = 200;
/// So many that each call comes to nearly the 16 KiB that its headers may have: each counts 34 bytes.
const FIELDS: usize = 440;
const UNKNOWN: &str = "/nobody.v1.Service/Method";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const END_HEADERS: u8 = 4;
const TOKEN: &[u8] = b"all read";
/// The head of a `WINDOW_UPDATE` of the connection.
const CONNECTION_WINDOW: &[u8] = &[0, 0, 4, 8, 0, 0, 0, 0, 0];

async fn serve() -> Served {
    let endpoint = "http://127.0.0.1:1";
    let log = "warn,glacier_gateway::commands::serve=info";
    let health = "127.0.0.1:0";
    Served::start(&["--region", "us-east-1", "--endpoint-url", endpoint, "--health-listen", health, "--log", log]).await
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block. The first one of a connection puts a field into HPACK's table, and each field takes a byte from then on.
fn block(path: &str, fields: usize, is_first: bool) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let [path, authority, kind, name, value] = [path, "gateway", "application/grpc", "x", "y"].map(text);
    // POST, http, and names by their numbers in the static table.
    let head = [&b"\x83\x86\x04"[..], &path, b"\x01", &authority, b"\x0f\x10", &kind].concat();
    let indexed = if is_first { [b"\x40", &name[..], &value].concat() } else { Vec::new() };
    [head, indexed, vec![0xbe; fields]].concat()
}

/// A connection on which calls are begun and none is finished, once the gateway has read all of it.
async fn attack(address: &str, window: u32, calls: u32, headers: impl Fn(bool) -> Vec<u8>, data: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let window = [&[0, 4], &window.to_be_bytes()[..]].concat();
    stream
        .write_all(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &window)].concat())
        .await
        .unwrap();
    // More may be sent than HTTP/2 begins with once the gateway has said so.
    read_past(&mut stream, CONNECTION_WINDOW).await;
    let mut bytes = Vec::new();
    for call in 0..calls {
        bytes.extend(frame(HEADERS, END_HEADERS, 2 * call + 1, &headers(call == 0)));
        if !data.is_empty() {
            bytes.extend(frame(DATA, 0, 2 * call + 1, data));
        }
    }
    bytes.extend(frame(PING, 0, 0, TOKEN));
    stream.write_all(&bytes).await.unwrap();
    read_past(&mut stream, TOKEN).await;
    stream
}

async fn read_past(stream: &mut TcpStream, wanted: &[u8]) {
    let mut told = Vec::new();
    let read = async {
        while !told.windows(wanted.len()).any(|seen| seen == wanted) {
            assert!(stream.read_buf(&mut told).await.unwrap() > 0, "closed");
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("read in time");
}

/// D18: by method and on both ports, 2 MiB are sent each time.
#[tokio::test]
async fn open_calls_with_the_most_header_fields_take_little_memory_however_often_they_come() {
    let gateway = serve().await;
    let (main, health) = (gateway.address.as_str(), gateway.health_address.as_deref().unwrap());
    let before = gateway.resident();
    let on_main = [DESCRIBE_JOB, CHECK, WATCH, REFLECTION, UNKNOWN].map(|path| (main, path));
    let on_health = [CHECK, WATCH].map(|path| (health, path));
    for (address, path) in on_main.into_iter().chain(on_health) {
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS {
            held.push(attack(address, 65_535, CALLS, |is_first| block(path, FIELDS, is_first), &[]).await);
        }
        let during = gateway.resident();
        println!("{path}: {} KiB before, {} KiB during", before / 1024, during / 1024);
        assert!(during < LIMIT, "{path}: {} MiB", during / MIB);
    }
}

/// D19: 500 look-ups on each of 60 streams of each connection, of whose answers none is taken, or the first byte.
#[tokio::test]
async fn answers_of_reflection_that_are_not_taken_are_not_piled_up() {
    let gateway = serve().await;
    let lookup = [&[0, 0, 0, 0, 19, 0x22, 17], &b"google.rpc.Status"[..]].concat();
    let before = gateway.resident();
    for window in [0, 1] {
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS {
            let data = lookup.repeat(500);
            held.push(attack(&gateway.address, window, 60, |is_first| block(REFLECTION, 0, is_first), &data).await);
        }
        let during = gateway.resident();
        println!("window {window}: {} KiB before, {} KiB during", before / 1024, during / 1024);
        // Without limits it is twice as much.
        assert!(during < before + 20 * MIB, "window {window}: {} MiB", (during - before) / MIB);
    }
}
