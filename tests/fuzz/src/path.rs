//! From the names in a request to the signed path. The input has a line each for account, vault and job.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{
        PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
        UriPathNormalizationMode, sign,
    },
    sign::v4,
};
use aws_smithy_runtime_api::client::identity::Identity;
use glacier_gateway::{fuzzing::Door, glacier::Endpoint, job::JobKey};

const REGION: &str = "eu-west-1";

/// Names are accepted exactly if they are legal; accepted ones make five path segments that no parser changes, and the
/// signature covers the path as it travels.
pub fn signed_path(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.splitn(3, '\n');
    let (account, vault, job) =
        (lines.next().unwrap_or_default(), lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let key = match JobKey::parse(account, vault, job) {
        Ok(key) => key,
        Err(problems) => {
            assert!(!is_legal(account, vault, job), "refused though legal: {problems:?}");
            assert!((1..=3).contains(&problems.len()));
            assert!(problems.iter().all(|problem| problem.description.len() < 640), "a huge message: {problems:?}");
            return;
        }
    };
    assert!(is_legal(account, vault, job), "accepted though illegal: {account:?} {vault:?} {job:?}");
    let account = if account.is_empty() { "-" } else { account };
    assert_eq!((key.account_id(), key.vault_name(), key.job_id()), (account, vault, job));

    let plain = format!("/{account}/vaults/{vault}/jobs/{job}");
    for override_url in [None, Some("http://127.0.0.1:9000")] {
        let endpoint = Endpoint::resolve(REGION, false, override_url).expect("a legal endpoint");
        check(&endpoint, &key, &plain);
    }
}

fn check(endpoint: &Endpoint, key: &JobKey, plain: &str) {
    let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "fuzz");
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_007);
    let (url, headers) = Door::sign(endpoint, key, &credentials, wall).expect("an accepted key can be signed");

    // The HTTP client's parser, and hyper's.
    let parsed = reqwest::Url::parse(&url).expect("a legal URL");
    assert_eq!((parsed.as_str(), parsed.path(), parsed.query(), parsed.fragment()), (url.as_str(), plain, None, None));
    assert_eq!(parsed.path_segments().map(Iterator::count), Some(5), "{plain}");
    let uri: http::Uri = url.parse().expect("a legal URI");
    assert_eq!((uri.path(), uri.query()), (plain, None));

    // Signed with neither encoding nor normalization, the canonical path is the one on the wire, byte for byte.
    assert_eq!(headers["authorization"], signed_verbatim(&url, endpoint.authority(), credentials, wall));
}

fn signed_verbatim(url: &str, host: &str, credentials: Credentials, wall: SystemTime) -> String {
    let mut settings = SigningSettings::default();
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
    let identity = Identity::from(credentials);
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(REGION)
        .name("glacier")
        .time(wall)
        .settings(settings)
        .build()
        .expect("all parameters are given")
        .into();
    let signed = [("host", host), ("x-amz-glacier-version", "2012-06-01")];
    let request = SignableRequest::new("GET", url, signed.into_iter(), SignableBody::empty()).expect("a legal request");
    let (instructions, _) = sign(request, &params).expect("it can be signed").into_parts();
    let (added, _) = instructions.into_parts();
    let authorization = added.iter().find(|header| header.name() == "authorization").expect("a signature");
    authorization.value().to_owned()
}

/// The rule of the API's documentation, in other words than the gateway's.
fn is_legal(account: &str, vault: &str, job: &str) -> bool {
    let only = |text: &str, more: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
    let account_is = matches!(account, "" | "-") || (account.len() == 12 && account.parse::<u64>().is_ok());
    let vault_is = only(vault, "_.-") && vault.len() < 256 && !["", ".", ".."].contains(&vault);
    let job_is = only(job, "_-") && job.len() < 257 && !job.is_empty();
    account_is && vault_is && job_is && !account.starts_with('+')
}
