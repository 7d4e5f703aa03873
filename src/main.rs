//! The start-up script: parse, start telemetry, run the command, exit with its code.

use std::{future::Future, process::ExitCode};

use clap::Parser as _;
use glacier_gateway::{
    commands::{self, block_on},
    config::{self, Cli, Command, DescribeArguments, HealthcheckArguments, ServeArguments},
    metrics::Metrics,
    proto::v1::DescribeJobRequest,
    telemetry,
};

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(arguments) => serve(&arguments),
        #[cfg(feature = "emulator")]
        Command::Demo(arguments) => demo(&arguments),
        Command::Describe(arguments) => describe(arguments),
        Command::Healthcheck(arguments) => healthcheck(arguments),
    }
}

fn serve(arguments: &ServeArguments) -> ExitCode {
    let settings = match arguments.validate(config::environment) {
        Ok(settings) => settings,
        Err(problems) => return commands::invalid(&problems),
    };
    if let Some(credentials) = settings.credentials {
        let region = arguments.live.then(|| settings.app.glacier.clone());
        return block_on(commands::check::run(credentials, region, config::environment));
    }
    let metrics = Metrics::new();
    match telemetry::init(&settings.log, metrics.logs()) {
        Ok(log) => logged(log, commands::serve::run(settings.app, metrics, config::environment)),
        Err(error) => commands::failed(&error),
    }
}

#[cfg(feature = "emulator")]
fn demo(arguments: &config::DemoArguments) -> ExitCode {
    let (listen, log) = match arguments.validate() {
        Ok(settings) => settings,
        Err(problems) => return commands::invalid(&problems),
    };
    let metrics = Metrics::new();
    match telemetry::init(&log, metrics.logs()) {
        Ok(log) => logged(log, commands::demo::run(listen, metrics)),
        Err(error) => commands::failed(&error),
    }
}

fn describe(arguments: DescribeArguments) -> ExitCode {
    let Ok(max_age) = arguments.max_age.map(|age| (*age).try_into()).transpose() else {
        return commands::invalid(&"--max-age is too long");
    };
    let tls = match arguments.tls() {
        Ok(tls) => tls,
        Err(problems) => return commands::invalid(&problems),
    };
    let request = DescribeJobRequest {
        account_id: arguments.account,
        vault_name: arguments.vault,
        job_id: arguments.job,
        max_age,
    };
    let question = commands::describe::Question { request, target: arguments.target, tls, timeout: *arguments.timeout };
    block_on(commands::describe::run(question))
}

fn healthcheck(arguments: HealthcheckArguments) -> ExitCode {
    let HealthcheckArguments { address, service, timeout } = arguments;
    block_on(commands::healthcheck::run(commands::healthcheck::Question { address, service, timeout: *timeout }))
}

/// Runs a command whose last words are to be in the log.
fn logged(log: telemetry::Log, command: impl Future<Output = ExitCode> + Send + 'static) -> ExitCode {
    let code = block_on(command);
    drop(log);
    code
}
