//! The gateway as a process of its own: its environment, its log, its exit.

use std::process::{Output, Stdio};

use glacier_gateway::proto::v1::job_service_client::JobServiceClient;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, Command},
};
use tonic::transport::Channel;

use super::gateway::{PATIENCE, channel};

/// The binary (`GATEWAY_BIN` names another), with nothing in its environment that this machine happens to have.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let binary = std::env::var_os("GATEWAY_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_glacier-gateway").into());
    let mut command = Command::new(binary);
    command
        .args(arguments)
        .env_clear()
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

pub(crate) async fn run(arguments: &[&str]) -> (i32, String, String) {
    let ended = tokio::time::timeout(PATIENCE, command(arguments).output()).await.expect("it ends");
    let Output { status, stdout, stderr } = ended.unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A running `serve`, and the addresses it logged.
pub(crate) struct Served {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    /// The event that says so.
    pub(crate) listening: Value,
    pub(crate) address: String,
    pub(crate) admin_address: String,
    /// If one was asked for.
    pub(crate) health_address: Option<String>,
}

impl Served {
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        Self::start_in(arguments, |_| {}).await
    }

    /// The same in an environment that `change` makes.
    pub(crate) async fn start_in(arguments: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let ports = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let all = [&["serve"], &ports[..], &["--log-format", "json"], arguments].concat();
        let mut command = command(&all);
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let (listening, address, admin_address, health_address) = loop {
            let fields = next_event(&mut log).await.expect("it serves");
            if fields["message"] == "listening" {
                let address = |name: &str| fields[name].as_str().unwrap().to_owned();
                let health = fields["health_address"].as_str().map(str::to_owned);
                let (address, admin_address) = (address("address"), address("admin_address"));
                break (fields, address, admin_address, health);
            }
        };
        Self { child, log, listening, address, admin_address, health_address }
    }

    pub(crate) async fn wait_for(&mut self, message: &str) -> Value {
        self.wait_where(message, |found| found == message).await
    }

    /// The next event with a message that `is_meant`; `wanted` says in words which.
    pub(crate) async fn wait_where(&mut self, wanted: &str, is_meant: impl Fn(&str) -> bool) -> Value {
        loop {
            let fields = next_event(&mut self.log).await.unwrap_or_else(|| panic!("{wanted:?} was never logged"));
            if fields["message"].as_str().is_some_and(&is_meant) {
                return fields;
            }
        }
    }

    /// A connection to it.
    pub(crate) async fn client(&self) -> JobServiceClient<Channel> {
        JobServiceClient::new(channel(self.address.parse().unwrap()).await)
    }

    /// Bytes of memory that it has.
    pub(crate) fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells it");
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().await.unwrap().success());
    }

    pub(crate) async fn exit_code(mut self) -> Option<i32> {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends in time").unwrap().code()
    }
}

/// The fields of the next event in a JSON log. Whatever a test calls a secret is marked as one (P8).
pub(crate) async fn next_event(log: &mut Lines<BufReader<ChildStderr>>) -> Option<Value> {
    let line = tokio::time::timeout(PATIENCE, log.next_line()).await.expect("a log line in time").unwrap()?;
    assert!(!line.contains("marked"), "a secret is logged: {line}");
    let event: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
    Some(event["fields"].clone())
}
