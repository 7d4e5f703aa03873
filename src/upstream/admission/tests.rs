//! Each brake refuses, and lets go again.

use super::*;
use crate::caller::CallerIdentity;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn admission(limits: &FetchLimits) -> Admission {
    Admission::new(limits, AdmissionMetrics::default())
}

fn with_places(in_flight: usize, waiting: usize) -> Admission {
    admission(&FetchLimits { in_flight, waiting, ..FetchLimits::default() })
}

fn caller(name: &str) -> Arc<CallerIdentity> {
    Arc::new(CallerIdentity::Spiffe(format!("spiffe://test/{name}")))
}

/// Far beyond every wait that admission knows.
fn never() -> Instant {
    Instant::now() + 100 * SECOND
}

/// An admission that Glacier has just throttled, with the turn taken that it still gives at once.
async fn throttled() -> Admission {
    let admission = admission(&FetchLimits::default());
    let place = admission.enter(None).await.unwrap();
    place.turn(never()).await.unwrap().answered(true);
    drop(place.turn(never()).await.unwrap());
    drop(place);
    admission
}

#[tokio::test(start_paused = true)]
async fn beyond_the_queue_the_answer_is_immediate_and_later_there_is_room_again() {
    let admission = with_places(1, 0);
    let place = admission.enter(None).await.unwrap();
    let began = Instant::now();
    assert_eq!(admission.enter(None).await.err(), Some(NotAdmitted::QueueFull));
    assert_eq!(began.elapsed(), Duration::ZERO);
    drop(place);
    assert!(admission.enter(None).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_left_after_the_longest_wait() {
    let admission = with_places(1, 1);
    let _place = admission.enter(None).await.unwrap();
    let began = Instant::now();
    assert_eq!(admission.enter(None).await.err(), Some(NotAdmitted::NoPlace));
    assert_eq!(began.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_place_that_becomes_free_is_taken() {
    let admission = with_places(1, 1);
    let place = admission.enter(None).await.unwrap();
    let (entered, ()) = tokio::join!(admission.enter(None), async { drop(place) });
    assert!(entered.is_ok());
}

/// Ten overloads in a row, and the queue is as long as at first.
#[tokio::test(start_paused = true)]
async fn a_queue_that_was_full_is_whole_again_after_each_overload() {
    let admission = with_places(1, 3);
    for round in 0..10 {
        let place = admission.enter(None).await.unwrap();
        let waiting = futures_util::future::join_all((0..5).map(|_| admission.enter(None)));
        let refused: Vec<_> = waiting.await.into_iter().map(|entered| entered.err().unwrap()).collect();
        let expected = [[NotAdmitted::NoPlace; 3].as_slice(), &[NotAdmitted::QueueFull; 2]].concat();
        assert_eq!(refused, expected, "{round}");
        drop(place);
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_half_of_the_places_waits_for_its_own_and_gets_them_again() {
    let admission = with_places(2, 10);
    let noisy = caller("noisy");
    let share = || admission.share(Some(&noisy)).unwrap().unwrap();
    let shares = [share(), share(), share()];
    let place = admission.enter(Some(&shares[0])).await.unwrap();
    assert_eq!(admission.enter(Some(&shares[1])).await.err(), Some(NotAdmitted::NoPlaceOfItsOwn));
    assert!(admission.enter(None).await.is_ok(), "the other place is for others");
    drop(place);
    assert!(admission.enter(Some(&shares[2])).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn turns_are_free_until_glacier_throttles() {
    let admission = admission(&FetchLimits::default());
    let place = admission.enter(None).await.unwrap();
    let began = Instant::now();
    for _ in 0..1000 {
        place.turn(never()).await.unwrap().answered(false);
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_comes_in_time_is_waited_for_and_another_is_held_back_at_once() {
    let admission = throttled().await;
    let (first, second) = (admission.enter(None).await.unwrap(), admission.enter(None).await.unwrap());
    let began = Instant::now();
    let waits = first.turn(never());
    let held_back = async {
        let Err(NotAdmitted::HeldBack { turn_in }) = second.turn(never()).await else { panic!("it was not held back") };
        assert_eq!(began.elapsed(), Duration::ZERO);
        turn_in
    };
    let (turn, turn_in) = tokio::join!(waits, held_back);
    let sent = turn.unwrap();
    let waited = began.elapsed();
    assert!(waited <= SECOND, "{waited:?}");
    assert!(turn_in > SECOND && turn_in <= 2 * waited + MS, "the one behind it: {turn_in:?}");
    sent.answered(true);
}

/// The wait for a place and for the first turn are one; a retry has a wait of its own.
#[tokio::test(start_paused = true)]
async fn a_fetch_waits_once_before_its_first_request_and_once_before_each_retry() {
    let admission = throttled().await;
    let place = admission.enter(None).await.unwrap();
    tokio::time::sleep(SECOND / 2).await;
    // Somebody else takes the turn that has come meanwhile.
    let other = admission.enter(None).await.unwrap();
    tokio::time::sleep(SECOND / 2).await;
    drop(other.turn(never()).await.unwrap());
    assert!(matches!(place.turn(never()).await, Err(NotAdmitted::HeldBack { .. })), "its second is over");
    assert!(place.turn(never()).await.is_ok(), "and this is another");
    // But no wait is longer than the fetch.
    assert!(matches!(place.turn(Instant::now() + SECOND / 10).await, Err(NotAdmitted::HeldBack { .. })));
}

/// Held back for ever so long, and none of it counts: the first answer that Glacier gives lets more go.
#[tokio::test(start_paused = true)]
async fn what_is_held_back_never_slows_recovery() {
    let admission = throttled().await;
    for _ in 0..60 {
        tokio::time::sleep(SECOND).await;
        let place = admission.enter(None).await.unwrap();
        place.turn(never()).await.unwrap().answered(true);
        for _ in 0..1000 {
            let place = admission.enter(None).await.unwrap();
            assert!(place.turn(Instant::now()).await.is_err());
        }
    }
    let recovered = Instant::now();
    let mut refused_until = recovered;
    while recovered.elapsed() < 35 * SECOND {
        tokio::time::sleep(SECOND / 100).await;
        let place = admission.enter(None).await.unwrap();
        match place.turn(never()).await {
            Ok(turn) => turn.answered(false),
            Err(_) => refused_until = Instant::now(),
        }
    }
    assert!(refused_until - recovered < 10 * SECOND, "{:?}", refused_until - recovered);
    assert_eq!(admission.rate_limit(), None);
}

/// Those who wait go as soon as the rate lets them, not when it would have before.
#[tokio::test(start_paused = true)]
async fn a_rate_that_rises_lets_those_go_who_wait() {
    let admission = throttled().await;
    let sent = lock(&admission.turns).limit.wait(Instant::now(), 0);
    tokio::time::sleep(sent).await;
    let probe = admission.enter(None).await.unwrap();
    let probe = probe.turn(never()).await.unwrap();
    tokio::time::sleep(10 * SECOND).await;
    // A second's worth at the old rate is saved up; it is taken first.
    drop(admission.enter(None).await.unwrap().turn(never()).await.unwrap());
    let waits = admission.enter(None).await.unwrap();
    let began = Instant::now();
    let (turn, ()) = tokio::join!(waits.turn(never()), async {
        tokio::time::sleep(100 * MS).await;
        probe.answered(false);
    });
    turn.unwrap().answered(false);
    assert!(began.elapsed() < 150 * MS, "{:?}", began.elapsed());
}

/// D16 while Glacier throttles: one caller asks all the time, another once a second; what little there is, is for both.
#[tokio::test(start_paused = true)]
async fn a_noisy_caller_does_not_take_all_turns() {
    let admission = Arc::new(throttled().await);
    let ask = |name: &str| {
        let (admission, caller) = (Arc::clone(&admission), caller(name));
        tokio::spawn(async move {
            let Ok(share) = admission.share(Some(&caller)) else { return 0 };
            let place = admission.enter(share.as_ref()).await.unwrap();
            let Ok(turn) = place.turn(never()).await else { return 0 };
            // All the time at the least rate.
            turn.answered(true);
            1
        })
    };
    let (mut noisy, mut quiet) = (Vec::new(), Vec::new());
    for tick in 0..6000 {
        noisy.push(ask("noisy"));
        if tick % 100 == 50 {
            quiet.push(ask("quiet"));
        }
        tokio::time::sleep(10 * MS).await;
    }
    let sum = async |calls: Vec<tokio::task::JoinHandle<u32>>| {
        let mut sum = 0;
        for call in calls {
            sum += call.await.unwrap();
        }
        sum
    };
    let (noisy, quiet) = (sum(noisy).await, sum(quiet).await);
    assert!((50..=70).contains(&(noisy + quiet)), "about one in a second: {noisy} and {quiet}");
    assert!(quiet >= 20, "{quiet} of 60, beside {noisy}");
    assert!(noisy >= 20, "{noisy}, beside {quiet}");
}

/// Whoever goes away while it waits holds up nobody.
#[tokio::test(start_paused = true)]
async fn who_leaves_the_line_leaves_its_turn_to_the_next() {
    let admission = throttled().await;
    let (leaves, stays) = (admission.enter(None).await.unwrap(), admission.enter(None).await.unwrap());
    let began = Instant::now();
    let mut leaving = Box::pin(leaves.turn(never()));
    assert!(futures_util::poll!(&mut leaving).is_pending());
    assert!(stays.turn(never()).await.is_err(), "there is no room for two");
    drop(leaving);
    assert!(stays.turn(never()).await.is_ok());
    assert!(began.elapsed() <= SECOND);
    assert!(lock(&admission.turns).line.is_empty());
}
