//! The fuzz targets over their corpora: what was thought of, and what fuzzing found, on the stable toolchain.

#[expect(unreachable_pub, reason = "a library of its own, for libFuzzer")]
#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::{collections::BTreeMap, fs, panic::catch_unwind, path::Path};

/// Each corpus was begun with at least this many cases.
const FEWEST_CASES: usize = 25;

type Target = fn(&[u8]);

fn corpora() -> BTreeMap<String, Vec<(String, Vec<u8>)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let name = |entry: &fs::DirEntry| entry.file_name().into_string().unwrap();
    let cases = |folder: &fs::DirEntry| {
        let files = fs::read_dir(folder.path()).unwrap().map(Result::unwrap);
        files.map(|file| (name(&file), fs::read(file.path()).unwrap())).collect()
    };
    fs::read_dir(root).unwrap().map(Result::unwrap).map(|folder| (name(&folder), cases(&folder))).collect()
}

#[test]
fn every_case_of_every_corpus_keeps_the_invariants() {
    let targets: [(&str, Target); 4] = [
        ("describe_job_answer", targets::describe_job_answer),
        ("error_answer", targets::error_answer),
        ("grpc_timeout", targets::grpc_timeout),
        ("signed_path", targets::signed_path),
    ];
    let corpora = corpora();
    assert!(corpora.keys().eq(targets.iter().map(|(name, _)| name)), "one corpus for each target");
    for (target, run) in targets {
        let cases = &corpora[target];
        assert!(cases.len() >= FEWEST_CASES, "{target} has only {} cases", cases.len());
        for (case, input) in cases {
            // The panic's own message is in the test's output; this one says where it came from.
            assert!(catch_unwind(|| run(input)).is_ok(), "{target}/{case} breaks an invariant");
        }
    }
}

/// A replay that cannot fail would prove nothing: the corpora reach both sides of each decision.
#[test]
fn the_corpora_hold_good_and_bad_cases_alike() {
    use glacier_gateway::{fuzzing::Door, job::JobKey};
    let corpora = corpora();
    let sides = |target: &str, good: &dyn Fn(&[u8]) -> bool| {
        let cases = &corpora[target];
        let good = cases.iter().filter(|(_, input)| good(input)).count();
        (good, cases.len() - good)
    };
    let key = JobKey::parse("-", "examplevault", "fuzzed-job").unwrap();
    let described = |input: &[u8]| Door::interpret(http::StatusCode::OK, &http::HeaderMap::new(), input, &key).is_ok();
    let legal = |input: &[u8]| {
        let text = String::from_utf8_lossy(input);
        let parts: Vec<_> = text.splitn(3, '\n').collect();
        matches!(parts[..], [account, vault, job] if JobKey::parse(account, vault, job).is_ok())
    };
    for (target, (good, bad)) in [
        ("describe_job_answer", sides("describe_job_answer", &described)),
        ("grpc_timeout", sides("grpc_timeout", &|input| Door::timeout(input).is_some())),
        ("signed_path", sides("signed_path", &legal)),
    ] {
        assert!(good >= 6 && bad >= 6, "{target}: {good} good and {bad} bad cases");
    }
}
