//! The parts of a call, each alone: `cargo bench --bench parts`. What a whole call costs, `side-by-side` says.

#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up should stop")]

use std::hint::black_box;

use aws_credential_types::Credentials;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use glacier_gateway::{
    cache::{CacheSettings, Description, Finding, JobCache, Observation},
    clock::Clock,
    freshness::{FreshnessSettings, Lifetime},
    fuzzing::Door,
    glacier::Endpoint,
    job::{JobFacts, JobKey},
    metrics::{CacheOutcome, CallCode, TraceMetrics},
    proto::v1::GlacierJobDescription,
    traces::{TraceSettings, Tracer},
};
use http::{HeaderMap, Request, StatusCode};
use prost::Message as _;

const VAULT: &str = "examplevault";
const DOCUMENT: &[u8] = include_bytes!("../tests/fuzz/corpus/describe_job_answer/inventory-succeeded.json");

/// An id of the usual length, 92 characters.
fn key(number: u32) -> JobKey {
    JobKey::parse("123456789012", VAULT, &format!("{:x<84}{number:08}", "HkF9p6o7yjhFx-K3CGl6")).unwrap()
}

fn job() -> GlacierJobDescription {
    let asked = JobKey::parse("-", VAULT, "fuzzed-job").unwrap();
    Door::interpret(StatusCode::OK, &HeaderMap::new(), DOCUMENT, &asked).unwrap()
}

fn full_cache(entries: u32) -> JobCache {
    let clock = Clock::system();
    let cache = JobCache::new(
        &CacheSettings { capacity_bytes: 1024 * 1024 * 1024 },
        FreshnessSettings::default(),
        clock.clone(),
    );
    let now = clock.now();
    for number in 0..entries {
        let finding = Finding::Described(Description::new(job(), now.wall));
        cache.observe(&key(number), Observation { finding, asked_at: now });
    }
    cache.settle();
    cache
}

fn parts(criterion: &mut Criterion) {
    let text = format!("{:x<84}{:08}", "HkF9p6o7yjhFx-K3CGl6", 7);
    criterion.bench_function("key: parse", |b| {
        b.iter(|| JobKey::parse(black_box("123456789012"), black_box(VAULT), black_box(&text)));
    });
    for entries in [1_000, 100_000] {
        let cache = full_cache(entries);
        let keys: Vec<_> = (0..entries).map(key).collect();
        let random = || &keys[fastrand::usize(..keys.len())];
        criterion.bench_function(&format!("lookup: random among {entries}"), |b| {
            b.iter_batched(random, |key| cache.get(key), BatchSize::SmallInput);
        });
    }
    let (now, job) = (Clock::system().now(), job());
    let facts = JobFacts::of(&job);
    let settings = FreshnessSettings::default();
    let lifetime = Lifetime::of_description(&facts, now.wall, 0.5, &settings);
    criterion.bench_function("freshness: judge", |b| {
        b.iter(|| black_box(lifetime).judge(now.instant.elapsed(), black_box(None)));
    });
    criterion.bench_function("answer: facts, policy and bytes of a fetched job", |b| {
        b.iter_batched(|| job.clone(), |job| Description::new(job, now.wall), BatchSize::SmallInput);
    });
    criterion.bench_function("decode: Glacier's JSON", |b| {
        let asked = JobKey::parse("-", VAULT, "fuzzed-job").unwrap();
        let headers = HeaderMap::new();
        b.iter(|| Door::interpret(StatusCode::OK, &headers, black_box(DOCUMENT), &asked));
    });
    criterion.bench_function("sign: SigV4, and the URL", |b| {
        let (endpoint, asked) = (Endpoint::resolve("eu-west-1", false, None).unwrap(), key(1));
        let credentials = Credentials::new("AKIDEXAMPLE", "example", None, None, "bench");
        b.iter(|| Door::sign(&endpoint, black_box(&asked), &credentials, now.wall));
    });
    criterion.bench_function("encode: the message", |b| b.iter(|| black_box(&job).encode_to_vec()));
}

/// What the span of a call costs the call: recorded, or not.
fn spans(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _inside = runtime.enter();
    // Nobody listens, so most spans find no place.
    let settings = TraceSettings::new("http://127.0.0.1:9");
    let tracer = Tracer::start(Some(settings), &TraceMetrics::default()).unwrap();
    let from = |flags: &str| {
        let parent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
        Request::post("http://gateway:50051/").header("traceparent", parent).body(()).unwrap()
    };
    let peer = ([127, 0, 0, 1], 50_000).into();
    for (name, tracer, request) in [
        ("span: tracing is off", &Tracer::default(), from("01")),
        ("span: the caller does not record", &tracer, from("00")),
        ("span: recorded", &tracer, from("01")),
    ] {
        criterion.bench_function(name, |b| {
            b.iter(|| tracer.call(black_box(&request), peer).end(CallCode::Ok, Some(CacheOutcome::Hit)));
        });
    }
}

criterion_group!(benches, parts, spans);
criterion_main!(benches);
