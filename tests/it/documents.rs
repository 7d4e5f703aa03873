//! What the documents claim, compared with the code.

use std::{collections::BTreeSet, fs, path::Path};

use clap::CommandFactory as _;
use glacier_gateway::{config::Cli, policy::Policy};

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// Words of capitals and underscores for which `is_word` holds.
fn words(text: &str, is_word: impl Fn(&str) -> bool) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit()))
        .filter(|word| word.contains('_') && is_word(word))
        .map(str::to_owned)
        .collect()
}

/// The reasons that the code can give.
fn reasons() -> BTreeSet<String> {
    const PREFIXES: [&str; 8] =
        ["CALLER_", "GLACIER_", "GATEWAY_", "JOB_", "REQUEST_", "VAULT_", "INVALID_REQUEST", "DEADLINE_"];
    let code = read("src/grpc/status.rs");
    let quoted = code.split('"').skip(1).step_by(2);
    let reasons: BTreeSet<_> = quoted
        .filter(|text| PREFIXES.iter().any(|prefix| text.starts_with(prefix)))
        .filter(|text| text.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .map(str::to_owned)
        .collect();
    assert!(reasons.len() >= 17, "{reasons:?}");
    reasons
}

#[test]
fn the_readme_and_the_proto_name_exactly_the_reasons_that_there_are() {
    let reasons = reasons();
    let is_reason = |word: &str| {
        let prefixes = ["CALLER_", "GLACIER_", "GATEWAY_", "JOB_", "REQUEST_", "VAULT_"];
        let ours = prefixes.iter().any(|prefix| word.starts_with(prefix));
        (ours && !word.starts_with("GLACIER_GATEWAY")) || matches!(word, "INVALID_REQUEST" | "DEADLINE_EXCEEDED")
    };
    let proto = read("proto/glacier/jobs/v1/job_service.proto");
    let (rpc, _messages) = proto.split_once("message DescribeJobRequest").unwrap();
    assert_eq!(words(rpc, is_reason), reasons);
    assert_eq!(words(&read("README.md"), is_reason), reasons);
}

#[test]
fn the_policy_in_the_readme_is_one() {
    let readme = read("README.md");
    let (_, from) = readme.split_once("```toml\n").unwrap();
    let (example, _) = from.split_once("```").unwrap();
    let policy = Policy::parse(example).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(policy.len(), 2);
}

#[test]
fn every_flag_that_the_readme_names_exists() {
    let known: BTreeSet<String> = Cli::command()
        .get_subcommands()
        .flat_map(|command| {
            command.get_arguments().filter_map(|a| a.get_long().map(|long| format!("--{long}"))).collect::<Vec<_>>()
        })
        .collect();
    let readme = read("README.md");
    let ours = readme
        .split(|c: char| c.is_whitespace() || matches!(c, '`' | ',' | ';' | ')'))
        .filter(|word| word.starts_with("--") && word.len() > 3);
    for flag in ours.filter(|flag| !["--release", "--no-default-features", "--features"].contains(flag)) {
        assert!(known.contains(flag), "the README names {flag}");
    }
}

/// OpenTelemetry's variables, in the code by their last words where there is one for spans alone, too.
#[test]
fn the_operators_page_names_exactly_the_otel_variables_that_are_read() {
    let code = read("src/config/traces.rs");
    let (code, _tests) = code.split_once("#[cfg(test)]").unwrap();
    let is_variable = |word: &&str| word.len() > 2 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let read_ones: BTreeSet<_> = code
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(is_variable)
        .map(|word| if word.starts_with("OTEL_") { word.to_owned() } else { format!("OTEL_EXPORTER_OTLP_{word}") })
        .collect();
    let is_whole = |word: &str| word.starts_with("OTEL_") && !word.ends_with('_');
    assert_eq!(words(&read("deploy/README.md"), is_whole), read_ones);
}

#[test]
fn every_setting_of_serve_has_a_variable_named_after_it() {
    let command = Cli::command();
    let serve = command.find_subcommand("serve").unwrap();
    for argument in serve.get_arguments().filter(|a| !["check_config", "live", "help"].contains(&a.get_id().as_str())) {
        let flag = argument.get_long().unwrap();
        let variable = format!("GLACIER_GATEWAY_{}", flag.to_uppercase().replace('-', "_"));
        assert_eq!(argument.get_env().and_then(|name| name.to_str()), Some(variable.as_str()), "--{flag}");
        assert!(argument.get_help().is_some(), "--{flag} has no help");
    }
}
