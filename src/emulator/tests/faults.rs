//! Each fault as the socket sees it.

use futures_util::FutureExt;
use tokio::time::Instant;

use super::*;

/// An emulator with one completed job, and a request for it.
async fn with_a_job() -> (Emulator, Parts) {
    let emulator = emulator().await;
    let id = emulator.store().add(VAULT, EmulatedJob::select().already_completed(Duration::from_mins(1)));
    let request = signed(&emulator, &describe_path(&id));
    (emulator, request)
}

#[tokio::test]
async fn scripted_answers_come_instead_of_the_ordinary_one_and_only_as_often_as_scripted() {
    let (emulator, request) = with_a_job().await;
    let faults = emulator.faults();
    let mut line = Line::to(&emulator).await;
    faults.next(Fault::throttled());
    faults.next(Fault::error(500, "ServiceUnavailableException").with_error_header("ServiceUnavailableException"));
    faults.next(Fault::html(502));
    faults.next(Fault::redirect("http://127.0.0.1:1/elsewhere"));
    faults.next(Fault::garbage(&b"{\"JobId\": \xff"[..]));
    faults.next(Fault::respond(201, &[("date", "Tue, 14 Nov 2023 22:23:20 GMT"), ("x-own", "1")], "{}"));
    let throttled = line.ask(&request).await.unwrap();
    assert_eq!(throttled.error(), (400, "ThrottlingException".to_owned()));
    assert_eq!(throttled.json()["type"], "Client");
    let failed = line.ask(&request).await.unwrap();
    let named = failed.header("x-amzn-errortype").unwrap().to_owned();
    assert!(failed.status == 500 && failed.json()["type"] == "Server" && named.starts_with("ServiceUnavailableExc"));
    let page = line.ask(&request).await.unwrap();
    assert!(page.status == 502 && page.body.starts_with(b"<html>") && page.header("content-type") == Some("text/html"));
    let moved = line.ask(&request).await.unwrap();
    assert_eq!((moved.status.as_u16(), moved.header("location")), (307, Some("http://127.0.0.1:1/elsewhere")));
    assert_eq!(line.ask(&request).await.unwrap().body, b"{\"JobId\": \xff");
    let created = line.ask(&request).await.unwrap();
    assert_eq!((created.status.as_u16(), created.header("x-own")), (201, Some("1")));
    assert_eq!(created.header("date"), Some("Tue, 14 Nov 2023 22:23:20 GMT"));
    assert_eq!(line.ask(&request).await.unwrap().status, 200);
    assert_eq!((faults.queued(), emulator.connection_count()), (0, 1));
}

#[tokio::test]
async fn a_body_that_is_cut_ends_with_the_connection() {
    let (emulator, request) = with_a_job().await;
    let whole = ask(&emulator, &request).await;
    for bytes in [0, 1, 100, whole.body.len()] {
        emulator.faults().next(Fault::cut(bytes));
        let heard = ask(&emulator, &request).await;
        assert_eq!((heard.status.as_u16(), heard.cut, heard.body.as_slice()), (200, true, &whole.body[..bytes]));
    }
    emulator.faults().next(Fault::pass().reset_after(10));
    assert!(ask(&emulator, &request).await.cut);
}

#[tokio::test]
async fn a_body_that_drips_comes_whole_in_the_end() {
    let (emulator, request) = with_a_job().await;
    emulator.faults().next(Fault::garbage("0123456789").dripping(3, Duration::from_millis(20)));
    let start = Instant::now();
    let heard = ask(&emulator, &request).await;
    assert_eq!((heard.body.as_slice(), heard.cut), (&b"0123456789"[..], false));
    assert!(start.elapsed() >= Duration::from_millis(80));
    emulator.faults().next(Fault::delay(Duration::from_millis(30)));
    let start = Instant::now();
    assert_eq!(ask(&emulator, &request).await.status, 200);
    assert!(start.elapsed() >= Duration::from_millis(30));
}

#[tokio::test]
async fn an_endless_body_goes_on_for_as_long_as_it_is_read() {
    let (emulator, request) = with_a_job().await;
    emulator.faults().next(Fault::endless());
    let mut line = Line::to(&emulator).await;
    line.send(&request).await;
    let (status, headers) = line.head().await.unwrap();
    assert!(status == 200 && headers["transfer-encoding"] == "chunked");
    let mut megabytes = vec![0; 4 << 20];
    timeout(LIMIT, line.0.read_exact(&mut megabytes)).await.unwrap().unwrap();
    emulator.stop().await;
}

#[tokio::test]
async fn connections_end_the_way_the_fault_says() {
    let (emulator, request) = with_a_job().await;
    let faults = emulator.faults();
    faults.next(Fault::close());
    let mut line = Line::to(&emulator).await;
    line.send(&request).await;
    assert_eq!(line.end().await, Ok(0));

    faults.next(Fault::reset());
    let mut line = Line::to(&emulator).await;
    line.send(&request).await;
    assert_eq!(line.end().await, Err(io::ErrorKind::ConnectionReset));

    faults.next(Fault::close_idle());
    let mut line = Line::to(&emulator).await;
    let heard = line.ask(&request).await.unwrap();
    assert_eq!((heard.status.as_u16(), heard.cut, heard.header("connection")), (200, false, None));
    assert_eq!(line.end().await, Ok(0));
}

#[tokio::test]
async fn one_that_never_answers_does_not_keep_the_others_waiting_and_ends_with_the_emulator() {
    let (emulator, request) = with_a_job().await;
    let job_id = emulator.store().job_ids().remove(0);
    emulator.faults().for_job(&job_id).always(Fault::never());
    let mut line = Line::to(&emulator).await;
    line.send(&request).await;
    emulator.wait_for_requests_for(&job_id, 1).await;
    assert_eq!(get(&emulator, &describe_path("other")).await.status, 404);
    emulator.stop().await;
    assert_eq!(line.end().await, Ok(0));
}

#[tokio::test]
async fn a_held_answer_is_an_old_answer() {
    let emulator = emulator().await;
    let id = emulator.store().add(VAULT, EmulatedJob::archive(Tier::Expedited));
    let request = signed(&emulator, &describe_path(&id));
    let gate = Gate::shut();
    emulator.faults().next(Fault::pass().behind(&gate));
    let mut slow = Line::to(&emulator).await;
    slow.send(&request).await;
    emulator.wait_for_requests(1).await;
    emulator.store().complete(&id);
    assert_eq!(ask(&emulator, &request).await.json()["StatusCode"], "Succeeded");
    gate.open();
    assert_eq!(slow.hear().await.unwrap().json()["StatusCode"], "InProgress");

    let hold = emulator.faults().hold();
    slow.send(&request).await;
    emulator.wait_for_requests(3).await;
    assert!(slow.hear().now_or_never().is_none());
    hold.release();
    assert_eq!(slow.hear().await.unwrap().status, 200);
}
