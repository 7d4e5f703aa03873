//! A plain program that sends the bare GET with reqwest: no signature, and the answer is read but not decoded.

use reqwest::Client;
use side_by_side::{Outcome, asking, job, serving};

fn main() -> Outcome<()> {
    let (upstream, client) = (asking::upstream()?, Client::builder().no_proxy().build()?);
    let ask = move |key| {
        let url = format!("{upstream}/{}/vaults/{}/jobs/{}", job::ACCOUNT, job::VAULT, job::id(key));
        let call = client.get(url);
        async move {
            let body = call.send().await?.error_for_status()?.bytes().await?;
            if body.is_empty() { Err("no body".into()) } else { Ok(()) }
        }
    };
    serving::runtime()?.block_on(asking::follow(ask))
}
