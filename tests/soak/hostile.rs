//! Callers who mean no good: open calls with a thousand header fields, answers that are never taken, and connections that
//! never say who they are. They harm nobody, and cost little memory.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{vitals::Vitals, world::World};

/// Memory that all of this may take, with what honest callers take meanwhile.
const CEILING: usize = 64 * 1024 * 1024;
const CONNECTIONS: u32 = 20;
/// As many as a connection may have.
const CALLS: u32 = 200;
const STRANGERS: usize = 300;
/// So many that each call comes to nearly the 16 KiB that headers may have: 34 each, the rest aside.
const FIELDS: usize = 440;

const PATHS: [&str; 5] = [
    "/glacier.jobs.v1.JobService/DescribeJob",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/nobody.v1.Service/Method",
];

/// Until then.
pub(crate) async fn assail(world: Arc<World>, floor: Vitals, until: Instant) {
    let address = world.address();
    let mut assailants = JoinSet::new();
    for n in 0..CONNECTIONS {
        assailants.spawn(async move {
            while Instant::now() < until {
                let Ok(mut stream) = TcpStream::connect(address).await else { continue };
                // Who is closed is back.
                let _ = stream.write_all(&opening(PATHS[fastrand::usize(..PATHS.len())], n % 2 == 0)).await;
                sleep(Duration::from_millis(fastrand::u64(500..3000)).min(until - Instant::now().min(until))).await;
            }
        });
    }
    assailants.spawn(async move {
        let mut sitting = Vec::new();
        while Instant::now() < until {
            if let Ok(stream) = TcpStream::connect(address).await {
                sitting.push(stream);
            }
            if sitting.len() > STRANGERS {
                sitting.swap_remove(fastrand::usize(..sitting.len()));
            }
            sleep(Duration::from_millis(5)).await;
        }
    });
    let mut most = 0;
    while Instant::now() < until {
        let now = Vitals::read(&world);
        most = most.max(now.grown_since(&floor));
        sleep(Duration::from_millis(100)).await;
    }
    while let Some(ended) = assailants.join_next().await {
        ended.expect("a hostile caller does not panic");
    }
    println!("under attack: at most {} KiB above the floor", most / 1024);
    if most > CEILING {
        world.tally.violation(format!("memory: {} KiB above the floor under attack", most / 1024));
    }
}

/// As many calls as may be open, with as many fields as may be. Streams of reflection ask a lot, and no answer is taken.
fn opening(path: &str, takes_nothing: bool) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let no_window: &[u8] = &[0, 4, 0, 0, 0, 0];
    frame(&mut bytes, 4, 0, 0, if takes_nothing { no_window } else { &[] });
    // The lookup of "grpc.health.v1.Health", as a message.
    let lookup = [&[0, 0, 0, 0, 23, 0x22, 21], &b"grpc.health.v1.Health"[..]].concat();
    for call in 0..CALLS {
        let stream = 2 * call + 1;
        frame(&mut bytes, 1, 4, stream, &block(path, call == 0));
        if path.ends_with("ServerReflectionInfo") && call < 20 {
            frame(&mut bytes, 0, 0, stream, &lookup.repeat(500));
        }
    }
    bytes
}

fn frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    bytes.extend_from_slice(&length[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}

/// A header block (HPACK). The first one puts the field into the table of which all others take it.
fn block(path: &str, is_first: bool) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    // POST, http.
    let mut block = vec![0x83, 0x86];
    for (name, value) in [(&[0x04][..], path), (&[0x01], "gateway"), (&[0x0f, 0x10], "application/grpc")] {
        block.extend_from_slice(name);
        block.extend(text(value));
    }
    if is_first {
        block.push(0x40);
        block.extend(text("x"));
        block.extend(text("y"));
    }
    block.extend([0xbe; FIELDS]);
    block
}
