//! The binary from outside: exit codes, messages, signals, the small client.

use std::{net::TcpListener, time::Duration};

use futures_util::StreamExt as _;
use glacier_gateway::{
    emulator::{EmulatedJob, Fault, Tier},
    proto::v1::job_service_client::JobServiceClient,
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};
use tonic::{Code, transport::Channel};

use crate::support::{
    gateway::{Gateway, PATIENCE, VAULT, question},
    process::{Served, command, run},
};

/// All that a filter can switch on.
const LOUD: &str = "trace,aws_config=trace,aws_smithy_runtime=trace,aws_sigv4=trace,h2=trace,hyper=trace,reqwest=trace";

/// P5.
#[tokio::test]
async fn a_bad_configuration_is_told_whole_and_exits_with_2() {
    let bad = ["serve", "--listen", "x", "--fetch-budget", "8", "--max-fetches", "0", "--region", "eu west"];
    for arguments in [&bad[..], &[&bad[..], &["--check-config"]].concat()] {
        let (code, stdout, stderr) = run(arguments).await;
        assert_eq!((code, stdout.as_str()), (2, ""));
        for flag in ["--listen", "--fetch-budget", "--max-fetches", "eu west"] {
            assert!(stderr.contains(flag), "{stderr}");
        }
    }
    assert_eq!(run(&["serve", "--no-such-flag"]).await.0, 2);
    // An address that is taken would be an exit with 1 if anything were bound before all is checked.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, stderr) = run(&["serve", "--region", "eu-west-1", "--listen", &address, "--max-fetches", "0"]).await;
    assert!(code == 2 && !stderr.contains(&address), "{stderr}");
    let (code, stdout, stderr) = run(&["serve", "--region", "eu-west-1", "--check-config"]).await;
    let credentials = "AWS credentials: would come from environment: AWS_ACCESS_KEY_ID\n";
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, credentials, ""));
}

#[tokio::test]
async fn a_taken_port_is_a_clear_message() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let serve = ["serve", "--region", "eu-west-1", "--listen"];
    for (arguments, flag) in [
        ([&serve[..], &[&address]].concat(), "; --listen "),
        (vec!["demo", "--listen", &address], "; --listen "),
        ([&serve[..], &["127.0.0.1:0", "--admin-listen", &address]].concat(), "; --admin-listen "),
    ] {
        let (code, _, stderr) = run(&arguments).await;
        assert_eq!(code, 1);
        assert!(stderr.contains(&address) && stderr.contains(flag), "{stderr}");
    }
}

#[tokio::test]
async fn every_command_explains_itself() {
    for arguments in [
        &["--help"][..],
        &["serve", "--help"],
        &["demo", "--help"],
        &["describe", "--help"],
        &["healthcheck", "--help"],
    ] {
        let (code, stdout, _) = run(arguments).await;
        assert_eq!(code, 0);
        assert!(stdout.contains("Usage:"), "{stdout}");
    }
}

/// P1, the process's side.
#[tokio::test]
async fn sigterm_and_sigint_drain_and_exit_with_0() {
    for signal in ["TERM", "INT"] {
        let gateway = Served::start(&["--region", "us-east-1", "--lame-duck", "0s"]).await;
        gateway.signal(signal).await;
        assert_eq!(gateway.exit_code().await, Some(0), "{signal}");
    }
}

/// P2, by the whole process.
#[tokio::test]
async fn sigterm_while_glacier_is_silent_answers_who_waits_and_exits_in_time() {
    let upstream = Gateway::start().await;
    let job = upstream.add(EmulatedJob::archive(Tier::Bulk));
    upstream.emulator.faults().always(Fault::never());
    let endpoint = upstream.emulator.endpoint();
    let arguments = ["--region", "us-east-1", "--endpoint-url", &endpoint, "--lame-duck", "0s"];
    // A call may last as long as the drain, and those that still wait are answered a second before its end.
    let times = ["--attempt-timeout", "4s", "--fetch-budget", "4s", "--max-call-duration", "4s", "--drain", "4s"];
    let served = Served::start(&[&arguments[..], &times].concat()).await;
    let target = format!("http://{}", served.address);
    let waiting = async { run(&["describe", VAULT, &job, "--target", &target]).await };
    let stopping = async {
        upstream.emulator.wait_for_requests(1).await;
        served.signal("TERM").await;
    };
    let ((code, _, stderr), ()) = tokio::join!(waiting, stopping);
    assert!(code == 1 && stderr.contains("GATEWAY_DRAINING"), "{stderr}");
    assert_eq!(served.exit_code().await, Some(0));
}

/// P4.
#[tokio::test]
async fn a_second_signal_exits_at_once() {
    let mut gateway = Served::start(&["--region", "us-east-1", "--lame-duck", "1h"]).await;
    gateway.signal("TERM").await;
    gateway.wait_for("told to stop; not ready any more, still accepting").await;
    gateway.signal("TERM").await;
    assert_eq!(gateway.exit_code().await, Some(143));
}

#[tokio::test]
async fn each_call_is_one_event_with_what_an_operator_asks_for() {
    let upstream = Gateway::start().await;
    let job = upstream.add(EmulatedJob::archive(Tier::Bulk));
    let endpoint = upstream.emulator.endpoint();
    // One throttled request is to be a failed fetch.
    let arguments = ["--region", "us-east-1", "--endpoint-url", &endpoint, "--max-attempts", "1"];
    let mut served = Served::start(&arguments).await;
    let target = format!("http://{}", served.address);
    assert_eq!(run(&["describe", VAULT, &job, "--target", &target]).await.0, 0);
    let call = served.wait_for("call").await;
    assert_eq!(call["method"], "/glacier.jobs.v1.JobService/DescribeJob");
    assert_eq!((&call["code"], &call["cache"]), (&"OK".into(), &"miss".into()));
    assert!(call["duration_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(call["request_id"].as_str().unwrap().len(), 32);
    assert!(call["caller"].as_str().unwrap().starts_with("127.0.0.1:"));

    assert_eq!(run(&["describe", "elsewhere", "job", "--target", &target]).await.0, 1);
    let call = served.wait_for("call").await;
    assert_eq!((&call["code"], &call["reason"]), (&"NotFound".into(), &"VAULT_NOT_FOUND".into()));
    assert_eq!((&call["account"], &call["vault"], &call["job"]), (&"-".into(), &"elsewhere".into(), &"job".into()));

    upstream.emulator.faults().next(Fault::throttled());
    assert_eq!(run(&["describe", VAULT, "other", "--target", &target]).await.0, 1);
    let failure = served.wait_for("the fetch from glacier failed").await;
    assert_eq!((&failure["kind"], &failure["code"]), (&"throttled".into(), &"ThrottlingException".into()));
    assert!(!failure["aws_request_id"].as_str().unwrap().is_empty());
    let call = served.wait_for("call").await;
    assert_eq!((&call["code"], &call["reason"]), (&"ResourceExhausted".into(), &"GLACIER_THROTTLED".into()));
    assert_eq!((&call["vault"], &call["job"], &call["one_in"]), (&VAULT.into(), &"other".into(), &Value::Null));

    // Nobody knows what this one is about, and this one's caller does not wait.
    assert_eq!(run(&["describe", "a/b", "job", "--target", &target]).await.0, 1);
    let call = served.wait_for("call").await;
    assert_eq!((&call["reason"], &call["vault"]), (&"INVALID_REQUEST".into(), &Value::Null));
    upstream.emulator.faults().always(Fault::never());
    let mut client = served.client().await;
    tokio::select! {
        _ = client.describe_job(question("never")) => panic!("glacier does not answer"),
        () = upstream.emulator.wait_for_requests_for("never", 1) => {}
    }
    let call = served.wait_for("call").await;
    assert_eq!((&call["code"], &call["vault"], &call["job"]), (&"Canceled".into(), &VAULT.into(), &"never".into()));
}

/// D21. The loud caller and the quiet one differ by their addresses.
#[tokio::test]
async fn a_caller_that_fails_all_the_time_fills_no_log_and_takes_no_line_of_anybody_elses() {
    const LOUD: u64 = 3000;
    const QUIET: usize = 60;
    let mut served = Served::start(&["--region", "us-east-1"]).await;
    let client = async |ip: [u8; 4]| {
        let target = Channel::from_shared(format!("http://{}", served.address)).unwrap();
        JobServiceClient::new(target.local_address(Some(ip.into())).connect().await.unwrap())
    };
    let (loud, quiet) = (client([127, 0, 0, 1]).await, client([127, 0, 0, 2]).await);
    // Refused at once: Glacier is not asked.
    let refused = |client: &JobServiceClient<Channel>, id: String| {
        let mut client = client.clone();
        let mut request = tonic::Request::new(question("a b"));
        request.metadata_mut().insert("x-request-id", id.parse().unwrap());
        async move { assert_eq!(client.describe_job(request).await.unwrap_err().code(), Code::InvalidArgument) }
    };
    let flood = async {
        let each = |n| refused(&loud, format!("loud-{n}"));
        futures_util::stream::iter(0..LOUD).for_each_concurrent(100, each).await;
    };
    let quietly = async {
        for n in 0..QUIET {
            refused(&quiet, format!("quiet-{n}")).await;
        }
    };
    let calling = async {
        tokio::join!(flood, quietly);
        // Enough for the ten lines of a second.
        tokio::time::sleep(Duration::from_secs(2)).await;
        for n in 0..8 {
            refused(&loud, format!("after-{n}")).await;
        }
        refused(&quiet, "end".to_owned()).await;
    };
    let mut lines = Vec::new();
    let reading = async {
        while lines.last().is_none_or(|line: &Value| line["request_id"] != "end") {
            lines.push(served.wait_for("call").await);
        }
    };
    tokio::join!(calling, reading);
    let of = |who: &str| {
        let begins = |line: &&Value| line["request_id"].as_str().unwrap().starts_with(who);
        lines.iter().filter(begins).map(|line| line["one_in"].as_u64().unwrap_or(1)).collect::<Vec<_>>()
    };
    assert_eq!(of("quiet-"), [1; QUIET], "each line is there, and stands for itself");
    let flooded = of("loud-");
    assert!((100..1000).contains(&flooded.len()), "{} lines", flooded.len());
    let after = of("after-");
    assert_eq!(after[1..], [1; 7], "every line is logged again");
    assert_eq!(flooded.iter().sum::<u64>() + after[0], LOUD + 1, "each line tells of those before it");
}

/// P8, for the log: at trace level, whatever happens, nothing secret.
#[tokio::test]
async fn no_secret_is_logged_at_any_level() {
    let upstream = Gateway::start().await;
    let endpoint = upstream.emulator.endpoint();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "off", "--region", "us-east-1"];
    let mut child = command(
        &[&arguments[..], &["--endpoint-url", &endpoint, "--log", LOUD, "--log-format", "json", "--lame-duck", "0s"]]
            .concat(),
    )
    .env("AWS_SECRET_ACCESS_KEY", "marked-secret-key")
    .env("AWS_SESSION_TOKEN", "marked-session-token")
    .spawn()
    .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut clean = async || {
        let line = tokio::time::timeout(PATIENCE, log.next_line()).await.unwrap().unwrap()?;
        assert!(!line.contains("marked") && !line.contains("Signature="), "{line}");
        Some(serde_json::from_str::<Value>(&line).unwrap()["fields"].clone())
    };
    let address = loop {
        let fields = clean().await.unwrap();
        if fields["message"] == "listening" {
            assert_eq!((&fields["tls"], &fields["policy"]), (&"off".into(), &"off".into()));
            break fields["address"].as_str().unwrap().to_owned();
        }
    };
    // The emulator refuses the signature, and echoes the token as the real one does.
    let (code, _, told) = run(&["describe", VAULT, "job", "--target", &format!("http://{address}")]).await;
    assert_eq!(code, 1);
    assert!(told.contains("GATEWAY_CREDENTIALS_REJECTED") && !told.contains("marked"), "{told}");
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().await.unwrap().success());
    let mut failures = 0;
    while let Some(fields) = clean().await {
        failures += usize::from(fields["message"] == "the fetch from glacier failed");
    }
    assert_eq!(failures, 1, "logged once");
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn describe_prints_json_and_keeps_the_rest_for_stderr() {
    let gateway = Gateway::start().await;
    let job =
        gateway.add(EmulatedJob::archive(Tier::Bulk).with_id("-hF9p6o7").already_completed(Duration::from_hours(1)));
    let target = format!("http://{}", gateway.address);
    let (code, stdout, stderr) = run(&["describe", VAULT, &job, "--max-age", "1s", "--target", &target]).await;
    assert_eq!(code, 0, "{stderr}");
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(answer["job"]["job_id"], "-hF9p6o7");
    assert_eq!(answer["job"]["status_code"], "STATUS_CODE_SUCCEEDED");
    assert!(answer["observe_time"].as_str().unwrap().ends_with('Z'));
    assert!(
        stderr.contains("cache-status: glacier-gateway; fwd=miss; stored") && stderr.contains("age: 0"),
        "{stderr}"
    );
}

#[tokio::test]
async fn describe_explains_errors_and_exits_with_1() {
    let gateway = Gateway::start().await;
    let target = format!("http://{}", gateway.address);
    let (code, stdout, stderr) = run(&["describe", "..", "a/b", "--account", "12", "--target", &target]).await;
    assert_eq!((code, stdout.as_str()), (1, ""));
    for word in
        ["INVALID_ARGUMENT", "reason: INVALID_REQUEST", "account_id: must be", "vault_name: must be", "job_id: must be"]
    {
        assert!(stderr.contains(word), "{word} is missing in {stderr}");
    }
    let (code, _, stderr) = run(&["describe", VAULT, "job", "--target", &target]).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("NOT_FOUND") && stderr.contains("glacier_code: ResourceNotFoundException"), "{stderr}");
    let (code, _, stderr) = run(&["describe", VAULT, "job", "--target", "nowhere"]).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("--target"), "{stderr}");
}

#[tokio::test]
async fn healthcheck_exits_with_0_while_the_gateway_serves_and_with_1_while_it_drains() {
    let mut gateway = Served::start(&["--region", "us-east-1", "--lame-duck", "1h"]).await;
    let address = gateway.address.clone();
    for service in ["", "readiness", "liveness", "glacier.jobs.v1.JobService"] {
        let told = run(&["healthcheck", "--address", &address, "--service", service]).await;
        assert_eq!(told, (0, String::new(), String::new()), "{service:?}");
    }
    let (code, _, stderr) = run(&["healthcheck", "--address", &address, "--service", "nobody"]).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("NOT_FOUND"), "{stderr}");

    gateway.signal("TERM").await;
    gateway.wait_for("told to stop; not ready any more, still accepting").await;
    let (code, stdout, stderr) = run(&["healthcheck", "--address", &address]).await;
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert_eq!(stderr, format!("glacier-gateway: {address}: NOT_SERVING\n"));
    assert_eq!(run(&["healthcheck", "--address", &address, "--service", "liveness"]).await.0, 0);
}

#[tokio::test]
async fn healthcheck_says_in_one_line_why_it_got_no_answer() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_address = silent.local_addr().unwrap().to_string();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (address, words) in [
        (silent_address.as_str(), "no answer within 200ms"),
        (&nobody, "cannot connect"),
        ("nowhere", "must be HOST:PORT"),
        ("127.0.0.1:1/path", "must be HOST:PORT"),
    ] {
        let (code, stdout, stderr) = run(&["healthcheck", "--address", address, "--timeout", "200ms"]).await;
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (1, "", 1), "{stderr}");
        assert!(stderr.contains(address) && stderr.contains(words), "{stderr}");
    }
}
