use std::sync::{
    atomic::{AtomicUsize, Ordering},
    mpsc,
};

use tokio::time::{advance, timeout};

use super::*;

/// A name server whose answers the test gives; counts how often it is asked.
struct NameServer {
    asked: Arc<AtomicUsize>,
    answers: mpsc::Sender<io::Result<Vec<SocketAddr>>>,
}

fn scripted() -> (NameServer, Resolver) {
    let (answers, next) = mpsc::channel();
    let (asked, next) = (Arc::new(AtomicUsize::new(0)), Mutex::new(next));
    let server = NameServer { asked: Arc::clone(&asked), answers };
    let resolver = Resolver::with(Arc::new(move |_name| {
        asked.fetch_add(1, Ordering::SeqCst);
        next.lock().unwrap().recv().map_err(io::Error::other)?
    }));
    (server, resolver)
}

impl NameServer {
    fn answer(&self, answer: io::Result<Vec<SocketAddr>>) {
        self.answers.send(answer).unwrap();
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, last], 0))
}

async fn resolve(resolver: &Resolver) -> Result<Vec<SocketAddr>, ResolveError> {
    resolver.clone().addresses("glacier.test".to_owned()).await
}

#[tokio::test]
async fn everybody_who_wants_a_name_waits_for_one_look_up() {
    let (server, resolver) = scripted();
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let resolver = resolver.clone();
            tokio::spawn(async move { resolve(&resolver).await })
        })
        .collect();
    server.answer(Ok(vec![address(1), address(2)]));
    for one in waiting {
        assert_eq!(one.await.unwrap(), Ok(vec![address(1), address(2)]));
    }
    assert_eq!(server.asked(), 1);
}

/// A look-up that nobody waits for any more is neither repeated nor lost.
#[tokio::test]
async fn a_look_up_slower_than_its_callers_serves_the_next_one() {
    let (server, resolver) = scripted();
    for _ in 0..3 {
        timeout(Duration::from_millis(5), resolve(&resolver)).await.unwrap_err();
    }
    server.answer(Ok(vec![address(1)]));
    assert_eq!(resolve(&resolver).await, Ok(vec![address(1)]));
    assert_eq!(resolve(&resolver).await, Ok(vec![address(1)]));
    assert_eq!(server.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_found_is_used_for_five_seconds_and_then_asked_for_again() {
    let (server, resolver) = scripted();
    server.answer(Ok(vec![address(1)]));
    assert_eq!(resolve(&resolver).await, Ok(vec![address(1)]));
    advance(Duration::from_millis(4_999)).await;
    assert_eq!((resolve(&resolver).await, server.asked()), (Ok(vec![address(1)]), 1));
    advance(Duration::from_millis(1)).await;
    server.answer(Ok(vec![address(2)]));
    assert_eq!((resolve(&resolver).await, server.asked()), (Ok(vec![address(2)]), 2));
}

#[tokio::test]
async fn a_failed_look_up_is_not_kept() {
    let (server, resolver) = scripted();
    server.answer(Err(io::Error::other("SERVFAIL")));
    assert_eq!(resolve(&resolver).await, Err(ResolveError::Failed));
    server.answer(Ok(vec![]));
    assert_eq!(resolve(&resolver).await, Err(ResolveError::NoAddress));
    server.answer(Ok(vec![address(1)]));
    assert_eq!(resolve(&resolver).await, Ok(vec![address(1)]));
}

#[tokio::test]
async fn a_look_up_that_panics_is_a_failure_and_the_next_one_is_anew() {
    let calls = AtomicUsize::new(0);
    let resolver = Resolver::with(Arc::new(move |_name| {
        assert!(calls.fetch_add(1, Ordering::SeqCst) > 0, "the first one fails");
        Ok(vec![address(1)])
    }));
    assert_eq!(resolve(&resolver).await, Err(ResolveError::CutShort));
    assert_eq!(resolve(&resolver).await, Ok(vec![address(1)]));
}
