use clap::{CommandFactory as _, Parser as _};

use super::*;

fn serve(flags: &[&str]) -> Result<ServeSettings, Problems> {
    let cli = Cli::try_parse_from(["glacier-gateway", "serve"].iter().chain(flags)).unwrap();
    let Command::Serve(arguments) = cli.command else { unreachable!("serve was asked for") };
    arguments.validate(|_| None)
}

fn serve_in(environment: &[(&str, &str)]) -> Result<ServeSettings, Problems> {
    let cli = Cli::try_parse_from(["glacier-gateway", "serve"]).unwrap();
    let Command::Serve(arguments) = cli.command else { unreachable!("serve was asked for") };
    arguments.validate(|name| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn the_defaults_of_the_flags_are_the_layers_own() {
    let settings = serve(&["--region", "eu-west-1"]).unwrap();
    let defaults = AppSettings {
        listen: "127.0.0.1:50051".parse().unwrap(),
        admin_listen: Some("127.0.0.1:9090".parse().unwrap()),
        health_listen: None,
        tls: None,
        glacier: GlacierSettings::new(Endpoint::resolve("eu-west-1", false, None).unwrap()),
        describe: DescribeSettings::default(),
        freshness: FreshnessSettings::default(),
        cache: CacheSettings::default(),
        grpc: GrpcSettings::default(),
        policy: None,
        traces: None,
        server: ServerSettings::default(),
    };
    assert_eq!(format!("{:#?}", settings.app), format!("{defaults:#?}"));
    assert_eq!(settings.log, LogSettings::default());
}

#[test]
fn every_problem_is_in_one_message() {
    let problems = serve(&[
        "--listen",
        "nowhere",
        "--admin-listen",
        "on",
        "--fetch-budget",
        "8",
        "--attempt-timeout",
        "0s",
        "--max-fetches",
        "0",
        "--max-fetches-per-caller",
        "0",
        "--policy",
        "/nowhere",
        "--max-attempts",
        "11",
        "--max-streams",
        "many",
        "--cache-capacity",
        "128",
        "--reflection",
        "perhaps",
        "--log-format",
        "xml",
        "--log",
        "a=b=c",
        "--fips",
        "yes",
        "--drain",
        "400days",
    ])
    .unwrap_err()
    .to_string();
    let flags = [
        "--listen",
        "--admin-listen",
        "--fetch-budget",
        "--attempt-timeout",
        "--max-fetches:",
        "--max-fetches-per-caller:",
        "--policy: needs",
        "--policy: cannot",
        "--max-attempts",
        "--max-streams",
        "--cache-capacity",
        "--reflection",
        "--log-format",
        "--log:",
        "--fips",
        "--drain",
        "no region",
    ];
    for flag in flags {
        assert_eq!(problems.matches(&format!("\n  {flag}")).count(), 1, "{flag}\n{problems}");
    }
    assert_eq!(problems.lines().count(), flags.len() + 1, "{problems}");
}

#[test]
fn awss_variables_keep_their_meaning_and_order() {
    let endpoint = |environment: &[(&str, &str)]| serve_in(environment).unwrap().app.glacier.endpoint.to_string();
    assert_eq!(endpoint(&[("AWS_REGION", "eu-west-1")]), "https://glacier.eu-west-1.amazonaws.com");
    assert_eq!(endpoint(&[("AWS_DEFAULT_REGION", "cn-north-1")]), "https://glacier.cn-north-1.amazonaws.com.cn");
    assert_eq!(
        endpoint(&[("AWS_REGION", "us-east-1"), ("AWS_USE_FIPS_ENDPOINT", "true")]),
        "https://glacier-fips.us-east-1.amazonaws.com"
    );
    let both = [
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", "https://general:1"),
        ("AWS_ENDPOINT_URL_GLACIER", "https://special:2"),
    ];
    assert_eq!(endpoint(&both), "https://special:2");
    assert_eq!(endpoint(&both[..2]), "https://general:1");
}

#[test]
fn a_flag_comes_before_awss_variable() {
    let cli = Cli::try_parse_from(["glacier-gateway", "serve", "--region", "eu-west-1"]).unwrap();
    let Command::Serve(arguments) = cli.command else { unreachable!("serve was asked for") };
    let settings = arguments.validate(|name| (name == "AWS_REGION").then(|| "us-east-1".to_owned())).unwrap();
    assert_eq!(settings.app.glacier.endpoint.region(), "eu-west-1");
}

#[test]
fn metrics_and_probes_can_be_switched_off() {
    assert_eq!(serve(&["--region", "eu-west-1", "--admin-listen", "off"]).unwrap().app.admin_listen, None);
}

#[test]
fn attempts_are_one_to_ten() {
    let attempts = |text: &str| {
        serve(&["--region", "eu-west-1", &format!("--max-attempts={text}")]).map(|s| s.app.glacier.retry.max_attempts)
    };
    assert_eq!((attempts("1").unwrap(), attempts("10").unwrap()), (1, 10));
    for wrong in ["0", "11", "-1", "1.5", "many", ""] {
        let problem = attempts(wrong).unwrap_err().to_string();
        assert!(problem.contains("--max-attempts: must be a whole number from 1 to 10"), "{wrong}: {problem}");
    }
}

#[test]
fn a_region_without_a_fips_endpoint_is_a_problem() {
    let problems = serve(&["--region", "eu-west-1", "--fips", "true"]).unwrap_err();
    assert!(problems.to_string().contains("no FIPS endpoint"), "{problems}");
}

#[test]
fn a_job_id_may_begin_with_a_dash() {
    for job in ["-abc_DEF", "-hF9p6o7", "--Zz", "-V1", "-"] {
        let cli = Cli::try_parse_from(["glacier-gateway", "describe", "-v.1", job, "--max-age", "1s"]).unwrap();
        let Command::Describe(arguments) = cli.command else { unreachable!("describe was asked for") };
        assert_eq!((arguments.vault.as_str(), arguments.job.as_str()), ("-v.1", job));
        assert_eq!(arguments.max_age.map(|age| age.as_secs()), Some(1));
    }
}

#[test]
fn counts_that_no_process_can_have_are_problems() {
    for flag in ["--max-fetches", "--max-waiting-fetches", "--max-connections", "--max-streams"] {
        let problems = serve(&["--region", "eu-west-1", flag, "18446744073709551615"]).unwrap_err();
        assert!(problems.to_string().contains(flag), "{problems}");
    }
}

#[test]
fn a_variable_set_to_nothing_is_not_set() {
    let cli = Cli::try_parse_from(["glacier-gateway", "serve", "--region", "", "--endpoint-url", "", "--fips", ""]);
    let Command::Serve(arguments) = cli.unwrap().command else { unreachable!("serve was asked for") };
    let settings = arguments.validate(|name| match name {
        "AWS_REGION" => Some("us-east-1".to_owned()),
        "AWS_USE_FIPS_ENDPOINT" => Some("True".to_owned()),
        _ => None,
    });
    let endpoint = settings.unwrap().app.glacier.endpoint;
    assert_eq!(endpoint.to_string(), "https://glacier-fips.us-east-1.amazonaws.com");
}

#[test]
fn nobody_has_a_name_without_client_certificates_so_a_policy_needs_them() {
    let policy = |names| {
        let mut problems = Problems::default();
        let arguments = ["glacier-gateway", "serve", "--policy", concat!(env!("CARGO_MANIFEST_DIR"), "/no-policy")];
        let Command::Serve(arguments) = Cli::try_parse_from(arguments).unwrap().command else { unreachable!() };
        assert!(arguments.policy(names, &mut problems).is_some());
        problems.to_string()
    };
    assert!(policy(false).contains("--policy: needs") && policy(false).contains("--policy: cannot read"));
    assert!(!policy(true).contains("--policy: needs"), "{}", policy(true));
}

#[test]
fn reflection_is_off_with_a_policy_unless_it_is_asked_for() {
    for (text, with_policy, expected) in [
        ("", false, true),
        ("", true, false),
        ("true", true, true),
        ("true", false, true),
        ("False", false, false),
        ("false", true, false),
    ] {
        let mut problems = Problems::default();
        let offered = reflection(Some(text), with_policy, &mut problems);
        assert_eq!(offered, expected, "{text:?} {with_policy}");
        assert!(problems.is_empty());
    }
}

/// What restricts callers must not vanish with a value that went missing in a manifest.
#[test]
fn an_empty_name_of_a_file_that_guards_the_door_is_refused() {
    for flag in ["--policy", "--tls-client-ca", "--tls-certificate", "--tls-key"] {
        let problems = serve(&["--region", "eu-west-1", flag, ""]).unwrap_err().to_string();
        assert!(problems.contains(&format!("{flag}: is empty")), "{problems}");
    }
}

#[test]
fn a_fetch_must_not_wait_for_its_place_as_long_as_it_may_last() {
    let wait = |wait| {
        let flags = ["--region=eu-west-1", "--fetch-budget=1s", "--attempt-timeout=1s", "--connect-timeout=1s"];
        serve(&[&flags[..], &["--max-fetch-wait", wait]].concat())
    };
    let problems = wait("1s").unwrap_err().to_string();
    assert!(problems.contains("--max-fetch-wait: 1s must be shorter than --fetch-budget, which is 1s"), "{problems}");
    assert!(wait("900ms").is_ok());
}

/// Issue 14, point 12.
#[test]
fn settings_that_contradict_each_other_are_problems_and_all_are_told_with_what_is_accepted() {
    let problems = |flags: &[&str]| match serve(&[&["--region", "eu-west-1"], flags].concat()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.to_string().lines().skip(1).map(|line| line.trim().to_owned()).collect::<Vec<_>>(),
    };
    // At the limit, and beyond it.
    for (at_limit, beyond, told) in [
        (
            &["--connect-timeout=3s"][..],
            &["--connect-timeout=3001ms"][..],
            "--connect-timeout: must be at most 3s, which is --attempt-timeout",
        ),
        (
            &["--attempt-timeout=8s"],
            &["--attempt-timeout=9s"],
            "--attempt-timeout: must be at most 8s, which is --fetch-budget",
        ),
        (
            &["--fetch-budget=10s"],
            &["--fetch-budget=11s"],
            "--fetch-budget: must be at most 10s, which is --max-call-duration",
        ),
        (
            &["--max-call-duration=8s"],
            &["--max-call-duration=7s"],
            "--fetch-budget: must be at most 7s, which is --max-call-duration",
        ),
        (
            &["--max-call-duration=12s"],
            &["--max-call-duration=13s"],
            "--max-call-duration: must be at most 12s, which is --drain",
        ),
        (&["--drain=10s"], &["--drain=9s"], "--max-call-duration: must be at most 9s, which is --drain"),
        (
            &["--max-connection-age-grace=10s"],
            &["--max-connection-age-grace=9s"],
            "--max-call-duration: must be at most 9s, which is --max-connection-age-grace",
        ),
        (
            &["--stream-window=1MiB"],
            &["--stream-window=2MiB"],
            "--stream-window: must be at most 1MiB, which is --connection-window",
        ),
        (
            &["--max-connections=5", "--max-connections-per-caller=5"],
            &["--max-connections=4", "--max-connections-per-caller=5"],
            "--max-connections-per-caller: must be at most 4, which is --max-connections",
        ),
        (
            &["--listen=[::1]:7", "--health-listen=127.0.0.1:7"],
            &["--listen=127.0.0.1:7", "--health-listen=127.0.0.1:7"],
            "--health-listen: must be another address than that of --listen",
        ),
        (
            &["--admin-listen=127.0.0.1:0", "--health-listen=127.0.0.1:0"],
            &["--admin-listen=127.0.0.1:7", "--health-listen=127.0.0.1:7"],
            "--health-listen: must be another address than that of --admin-listen",
        ),
    ] {
        assert_eq!(problems(at_limit), Vec::<String>::new(), "{at_limit:?}");
        let found = problems(beyond);
        assert!(found.len() == 1 && found[0].starts_with(told), "{beyond:?}: {found:?}");
    }
    let several = problems(&["--max-call-duration=1m", "--connect-timeout=1h", "--listen=127.0.0.1:9090"]);
    for told in [
        "--max-call-duration: must be at most 12s",
        "--max-call-duration: must be at most 15s",
        "--connect-timeout",
        "--admin-listen",
    ] {
        assert!(several.iter().any(|problem| problem.starts_with(told)), "{told}: {several:?}");
    }
    assert_eq!(several.len(), 4, "{several:?}");
    // Each for itself must be right first.
    assert_eq!(problems(&["--max-call-duration=1m", "--drain=soon"]).len(), 1);
}

#[test]
fn plain_http_to_another_machine_is_a_problem_unless_it_is_allowed() {
    let at = |url: &str, more: &[&str]| serve(&[&["--region", "us-east-1", "--endpoint-url", url], more].concat());
    at("http://127.0.0.1:4566", &[]).unwrap();
    at("https://glacier.example", &[]).unwrap();
    let allowed = at("http://emulator:4566", &["--plaintext-endpoint", "true"]).unwrap();
    assert_eq!(allowed.app.glacier.endpoint.to_string(), "http://emulator:4566");
    for more in [&[][..], &["--plaintext-endpoint", "false"], &["--plaintext-endpoint", ""]] {
        let problems = at("http://emulator:4566", more).unwrap_err().to_string();
        assert!(
            problems.contains("http://emulator:4566") && problems.contains("--plaintext-endpoint true"),
            "{problems}"
        );
    }
    let variables = [("AWS_REGION", "us-east-1"), ("AWS_ENDPOINT_URL", "http://10.0.0.1")];
    assert!(serve_in(&variables).unwrap_err().to_string().contains("http://10.0.0.1"));
}
