//! The rules of the house, checked over its sources: who may import what, and how long a file may be.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Longest file, in lines of code: blank lines, comments and test modules aside.
const LONGEST_FILE: usize = 400;

struct Source {
    /// Below `src/`, without the ending: `grpc/health`.
    room: String,
    /// Without comments and without the test module at its end.
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(source(&root, &path));
            }
        }
    }
    assert!(found.len() > 25, "the sources were not found");
    found
}

fn source(root: &Path, path: &PathBuf) -> Source {
    let text = fs::read_to_string(path).unwrap();
    let name = path.strip_prefix(root).unwrap().with_extension("").to_str().unwrap().to_owned();
    let is_test_file = name.ends_with("/tests");
    let before_tests = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code = if is_test_file { "" } else { before_tests };
    let code: Vec<_> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    Source { room: name, code: code.join("\n") }
}

/// Whether `code` names the crate or module `name` in a path: `name::`.
fn names(code: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = &code[at + name.len()..];
        before.is_none_or(|c| !is_word(c)) && (after.starts_with("::") || after.starts_with(';'))
    })
}

fn in_rooms(room: &str, rooms: &[&str]) -> bool {
    rooms.iter().any(|r| room == *r || room.strip_prefix(r).is_some_and(|rest| rest.starts_with('/')))
}

#[test]
fn each_dependency_stays_in_its_rooms() {
    let rules: [(&[&str], &[&str]); 15] = [
        (&["tonic", "tonic_health", "tonic_reflection", "tonic_prost"], &["grpc", "server", "proto"]),
        // In `traces` it is a module of OpenTelemetry's.
        (&["tonic_types"], &["grpc", "server", "proto", "traces"]),
        (&["reqwest"], &["glacier", "network", "credentials"]),
        (&["aws_sigv4"], &["glacier"]),
        (
            &["aws_config", "aws_runtime", "aws_sdk_sso", "aws_sdk_sts", "aws_smithy_types", "aws_types"],
            &["credentials"],
        ),
        (&["aws_credential_types", "aws_smithy_runtime_api"], &["credentials", "glacier"]),
        (&["moka", "foldhash"], &["cache"]),
        (&["hyper", "hyper_util"], &["server", "admin", "emulator"]),
        (&["tokio_rustls", "rustls", "x509_parser"], &["server"]),
        (&["prometheus_client"], &["metrics"]),
        (&["toml"], &["policy"]),
        (&["flate2"], &["grpc"]),
        (&["opentelemetry", "opentelemetry_sdk", "opentelemetry_otlp"], &["traces"]),
        (&["rustix"], &["server"]),
        (&["clap", "humantime"], &["config", "main"]),
    ];
    for Source { room, code } in sources() {
        for (crates, rooms) in rules {
            for name in crates {
                assert!(!names(&code, name) || in_rooms(&room, rooms), "{room} names {name}, which lives in {rooms:?}");
            }
        }
    }
}

#[test]
fn moka_is_imported_by_one_file() {
    let importers: Vec<_> = sources().into_iter().filter(|s| names(&s.code, "moka")).map(|s| s.room).collect();
    assert_eq!(importers, ["cache"]);
}

#[test]
fn the_rooms_keep_their_distance() {
    // A room, and what it may not import.
    let rules: [(&str, &[&str]); 16] = [
        ("credentials", &["admin", "cache", "describe", "glacier", "grpc", "server", "app", "commands", "emulator"]),
        ("glacier", &["grpc", "describe", "cache", "server", "app", "commands", "emulator"]),
        ("grpc", &["glacier", "cache", "server", "app", "commands", "emulator"]),
        ("describe", &["glacier", "grpc", "server", "app", "commands", "emulator"]),
        ("cache", &["describe", "glacier", "grpc", "server", "app", "commands", "emulator"]),
        ("freshness", &["cache", "describe", "glacier", "grpc", "server", "app", "commands", "emulator"]),
        ("upstream", &["cache", "describe", "glacier", "grpc", "server", "app", "commands", "emulator"]),
        ("server", &["cache", "describe", "glacier", "grpc", "app", "commands", "emulator"]),
        ("emulator", &["cache", "describe", "glacier", "grpc", "server", "app", "commands"]),
        ("admin", &["cache", "describe", "glacier", "grpc", "app", "commands", "emulator"]),
        ("metrics", &["admin", "cache", "describe", "glacier", "grpc", "server", "app", "commands", "emulator"]),
        ("metrics", &["caller", "clock", "freshness", "job", "lifecycle", "telemetry", "upstream"]),
        ("policy", &["admin", "cache", "describe", "glacier", "grpc", "server", "app", "commands", "emulator"]),
        ("reload", &["admin", "cache", "describe", "glacier", "grpc", "server", "app", "commands", "emulator"]),
        ("traces", &["admin", "cache", "describe", "glacier", "grpc", "server", "app", "commands", "emulator"]),
        ("app", &["commands", "emulator"]),
    ];
    for Source { room, code } in sources() {
        for (keeper, forbidden) in rules.iter().filter(|(keeper, _)| in_rooms(&room, &[keeper])) {
            for other in *forbidden {
                let imports = names(
                    &code.replace(&format!("crate::{other}"), &format!("crate_room_{other}")),
                    &format!("crate_room_{other}"),
                ) || in_crate_group(&code, other);
                assert!(!imports, "{room} (of {keeper}) imports {other}");
            }
        }
    }
}

/// Whether a `use crate::{…}` group has an item of `module`.
fn in_crate_group(code: &str, module: &str) -> bool {
    code.split("use crate::{").skip(1).any(|rest| {
        let group = rest.split("};").next().unwrap_or_default();
        group.lines().any(|line| {
            let line = line.trim();
            line.split(", ").any(|item| item.starts_with(&format!("{module}::")) || item == module)
        })
    })
}

/// The door for the fuzz targets is opened beside what it leads to, and nobody walks through it from inside.
#[test]
fn no_room_uses_the_fuzzers_door() {
    for Source { room, code } in sources() {
        let named = code.replace("impl crate::fuzzing::Door {", "");
        assert!(!named.contains("fuzzing::") && !named.contains("Door::"), "{room} uses the door for the fuzz targets");
    }
}

#[test]
fn only_main_imports_config() {
    for Source { room, code } in sources() {
        let imports = names(&code, "crate::config") || names(&code, "config::self") || in_crate_group(&code, "config");
        assert!(!imports || room == "main", "{room} imports config: each layer owns the settings that it takes");
    }
}

#[test]
fn the_environment_and_the_wall_clock_have_one_door_each() {
    for Source { room, code } in sources() {
        let reads_environment = ["env::var", "env::vars"].iter().any(|call| code.contains(call));
        assert!(!reads_environment || in_rooms(&room, &["config"]), "{room} reads the environment");
        let reads_clock = code.contains("SystemTime::now") || code.contains("UtcDateTime::now");
        assert!(!reads_clock || room == "clock", "{room} reads the wall clock");
    }
}

/// Fields of the log have the words of the metrics; Rust's own are nobody's.
#[test]
fn no_field_of_the_log_is_shown_as_rust_would() {
    // Both are being rewritten.
    const SPARED: [&str; 2] = ["describe/flights", "glacier"];
    for Source { room, code } in sources() {
        for event in code.split("tracing::").skip(1) {
            let is_event = ["error!(", "warn!(", "info!(", "debug!(", "trace!("].iter().any(|m| event.starts_with(m));
            let fields = event.split_once(");").map_or(event, |(fields, _)| fields);
            let debugged = ["(?", " ?"].iter().any(|sigil| fields.contains(sigil));
            assert!(!is_event || !debugged || SPARED.contains(&&*room), "{room} logs a field as Debug: {fields}");
        }
    }
}

#[test]
fn no_file_has_outgrown_one_purpose() {
    for Source { room, code } in sources() {
        let lines = code.lines().filter(|line| !line.trim().is_empty()).count();
        assert!(lines <= LONGEST_FILE, "{room} has {lines} lines of code");
    }
}

#[test]
fn unsafe_code_is_forbidden_and_modules_have_no_mod_rs() {
    let sources = sources();
    let lib = sources.iter().find(|s| s.room == "lib").unwrap();
    assert!(lib.code.contains("#![forbid(unsafe_code)]"));
    assert!(sources.iter().all(|s| !s.room.ends_with("/mod")));
}
