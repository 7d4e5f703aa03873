//! Everybody who is compared: how each is started, what it is asked and what it must answer.

use std::{env, path::PathBuf};

use glacier_gateway::proto::v1::DescribeJobResponse;
use side_by_side::{
    Outcome,
    job::{self, Completion, VAULT},
};

use crate::{
    expected::Expected,
    process::{self, Server},
    question::Question,
    upstream::Upstream,
};

/// The content type of gRPC.
pub(crate) const GRPC: &str = "application/grpc";

/// One server under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Gateway,
    TonicEmpty,
    TonicFixed,
    TonicMoka,
    BareH2,
    GrpcGo,
    Envoy,
    Nginx,
}

impl Peer {
    pub(crate) const ALL: [Self; 8] = [
        Self::Gateway,
        Self::TonicEmpty,
        Self::TonicFixed,
        Self::TonicMoka,
        Self::BareH2,
        Self::GrpcGo,
        Self::Envoy,
        Self::Nginx,
    ];

    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::TonicEmpty => "tonic-empty",
            Self::TonicFixed => "tonic-fixed",
            Self::TonicMoka => "tonic-moka",
            Self::BareH2 => "bare-h2",
            Self::GrpcGo => "grpc-go",
            Self::Envoy => "envoy",
            Self::Nginx => "nginx",
        }
    }

    /// The name in the table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Gateway => "this gateway, a hit",
            Self::TonicEmpty => "tonic, empty handler",
            Self::TonicFixed => "tonic, the same with our message",
            Self::TonicMoka => "tonic + moka, cloned and encoded",
            Self::BareH2 => "bare h2, fixed answer",
            Self::GrpcGo => "grpc-go, empty handler",
            Self::Envoy => "Envoy, static answer",
            Self::Nginx => "nginx, static answer",
        }
    }

    /// The largest ratios of our CPU per call to its own, for 32 streams and for 1 (issue 6).
    pub(crate) fn goals(self) -> Option<[f64; 2]> {
        match self {
            Self::TonicEmpty | Self::TonicFixed => Some([0.45, 0.65]),
            Self::Envoy => Some([0.5, 0.4]),
            Self::GrpcGo => Some([0.55, 0.6]),
            Self::BareH2 => Some([2.0, 1.4]),
            Self::Gateway | Self::TonicMoka | Self::Nginx => None,
        }
    }

    /// Envoy answers what looks like gRPC without a body, so it and nginx are asked as plain HTTP.
    pub(crate) fn question(self) -> Question {
        let content_type = match self {
            Self::Envoy | Self::Nginx => "application/x-protobuf",
            Self::Gateway | Self::TonicEmpty | Self::TonicFixed | Self::TonicMoka | Self::BareH2 | Self::GrpcGo => GRPC,
        };
        Question::new(VAULT, content_type)
    }

    pub(crate) fn expected(self, completion: Completion, jobs: u32) -> Outcome<Expected> {
        let fixed = || Expected::fixed(job::frame(&job::fixed_response(0, completion)));
        Ok(match self {
            Self::Gateway => Expected::learnt(VAULT, completion, jobs)?,
            Self::TonicMoka => Expected::named(completion)?,
            Self::TonicEmpty | Self::GrpcGo => Expected::fixed(job::frame(&DescribeJobResponse::default())),
            Self::TonicFixed | Self::BareH2 => fixed(),
            Self::Envoy | Self::Nginx => Expected::without_trailers(static_answer(completion).into_bytes()),
        })
    }

    /// Starts it; `None` if it is not on this machine.
    pub(crate) fn start(self, place: &Place, upstream: &Upstream, more: &[String]) -> Outcome<Option<Server>> {
        let address = process::free_address()?;
        let (listen, port) = (address.to_string(), address.port().to_string());
        let seconds = place.completion.seconds().to_string();
        let ours = |name: &str| vec![place.binary(name), listen.clone(), seconds.clone()];
        let mut environment = Vec::new();
        let mut command = match self {
            Self::Gateway => {
                environment = gateway_environment(upstream);
                gateway_command(place, &listen)
            }
            Self::TonicEmpty | Self::TonicFixed | Self::TonicMoka | Self::BareH2 => ours(self.name()),
            Self::GrpcGo => {
                let Some(program) = program("SIDE_BY_SIDE_GRPC_GO") else { return Ok(None) };
                environment.push(("GOMAXPROCS", "1".to_owned()));
                vec![program, listen.clone()]
            }
            Self::Envoy => {
                let Some(program) = program("SIDE_BY_SIDE_ENVOY") else { return Ok(None) };
                let config = include_str!("../envoy.yaml")
                    .replace("$PORT", &port)
                    .replace("$ANSWER", &static_answer(place.completion));
                let file = place.write("envoy.yaml", &config)?;
                let flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "off", "-c"];
                [program].into_iter().chain(flags.map(str::to_owned)).chain([file]).collect()
            }
            Self::Nginx => {
                let Some(program) = program("SIDE_BY_SIDE_NGINX") else { return Ok(None) };
                let config = include_str!("../nginx.conf")
                    .replace("$PORT", &port)
                    .replace("$FOLDER", &place.folder.to_string_lossy())
                    .replace("$ANSWER", &static_answer(place.completion));
                vec![
                    program,
                    "-e".to_owned(),
                    "/dev/null".to_owned(),
                    "-c".to_owned(),
                    place.write("nginx.conf", &config)?,
                ]
            }
        };
        command.extend_from_slice(more);
        Server::start(&command, &environment, &place.server_core, address).map(Some)
    }
}

/// As many bytes as the gateway's answer has, all of them printable: nginx's configuration holds no zero byte.
fn static_answer(completion: Completion) -> String {
    "x".repeat(job::frame(&job::fixed_response(0, completion)).len())
}

/// The gateway as an operator runs it: defaults, but for the addresses.
pub(crate) fn gateway_command(place: &Place, listen: &str) -> Vec<String> {
    let words = ["serve", "--listen", listen, "--admin-listen", "127.0.0.1:0"];
    [place.gateway.clone()].into_iter().chain(words.map(str::to_owned)).collect()
}

/// Static credentials, and the harness's upstream.
pub(crate) fn gateway_environment(upstream: &Upstream) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_REGION", "eu-west-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "example".to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ("AWS_ENDPOINT_URL_GLACIER", format!("http://{}", upstream.address)),
    ]
}

fn program(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|path| !path.is_empty())
}

/// Where things are, and on which core servers run.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The gateway's binary.
    pub(crate) gateway: String,
    /// Where the harness's own servers are.
    pub(crate) binaries: PathBuf,
    /// For configuration files.
    pub(crate) folder: PathBuf,
    pub(crate) server_core: String,
    pub(crate) completion: Completion,
}

impl Place {
    pub(crate) fn binary(&self, name: &str) -> String {
        self.binaries.join(name).to_string_lossy().into_owned()
    }

    fn write(&self, name: &str, text: &str) -> Outcome<String> {
        let path = self.folder.join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    }
}
