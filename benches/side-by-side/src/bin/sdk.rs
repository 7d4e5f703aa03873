//! A plain program that asks with the official SDK.

use aws_sdk_glacier::{
    Client,
    config::{BehaviorVersion, Config, Credentials, Region},
};
use side_by_side::{Outcome, asking, job, serving};

fn main() -> Outcome<()> {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(Credentials::new("AKIDEXAMPLE", "example", None, None, "static"))
        .endpoint_url(asking::upstream()?)
        .build();
    let client = Client::from_conf(config);
    let ask = move |key| {
        let call = client.describe_job().account_id(job::ACCOUNT).vault_name(job::VAULT).job_id(job::id(key));
        async move {
            let id = call.send().await?.job_id;
            if id == Some(job::id(key)) { Ok(()) } else { Err("another job".into()) }
        }
    };
    serving::runtime()?.block_on(asking::follow(ask))
}
