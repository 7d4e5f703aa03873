//! The one request that the gateway makes, before it is signed: `GET /{account}/vaults/{vault}/jobs/{job}`.
//!
//! Pure. A legal [`JobKey`] holds unreserved characters only, so the path needs no escaping, and what is signed is what
//! travels.

use http::{
    HeaderName, Method,
    header::{self, HeaderValue},
};

use crate::{glacier::endpoint::Endpoint, job::JobKey};

/// Names the version of the API; required, and signed. Without it Glacier answers `MissingParameterValueException`.
const VERSION_HEADER: HeaderName = HeaderName::from_static("x-amz-glacier-version");
/// The only version of the vault API.
const VERSION: &str = "2012-06-01";

/// A request that lacks its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnsignedRequest {
    /// `GET`; other methods exist for the published signing vectors only.
    pub(super) method: Method,
    /// The full URL.
    pub(super) url: String,
    /// All headers that are to be signed, except those that the signature itself adds.
    pub(super) headers: [(HeaderName, String); 2],
}

/// Asks Glacier to describe the job.
pub(super) fn describe_job(endpoint: &Endpoint, key: &JobKey) -> UnsignedRequest {
    let path = format!("/{}/vaults/{}/jobs/{}", key.account_id(), key.vault_name(), key.job_id());
    unsigned(endpoint, Method::GET, &path)
}

fn unsigned(endpoint: &Endpoint, method: Method, path_and_query: &str) -> UnsignedRequest {
    UnsignedRequest {
        method,
        url: format!("{endpoint}{path_and_query}"),
        // The host is set here, not left to the HTTP client: what is signed must be what is sent.
        headers: [(header::HOST, endpoint.authority().to_owned()), (VERSION_HEADER, VERSION.to_owned())],
    }
}

impl UnsignedRequest {
    /// The headers as an HTTP client takes them. `None` for a host that no header can carry, which an [`Endpoint`]
    /// never has.
    pub(super) fn header_map(&self) -> Option<http::HeaderMap> {
        self.headers.iter().map(|(name, value)| Some((name.clone(), HeaderValue::from_str(value).ok()?))).collect()
    }
}

/// Any request, for the published signing vectors.
#[cfg(test)]
pub(super) fn for_vector(endpoint: &Endpoint, method: Method, path_and_query: &str) -> UnsignedRequest {
    unsigned(endpoint, method, path_and_query)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::Url;

    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint::resolve("us-east-1", false, None).unwrap()
    }

    #[test]
    fn the_request_is_the_documented_one() {
        let key = JobKey::parse("", "photos", "-abc_DEF").unwrap();
        let request = describe_job(&endpoint(), &key);
        assert_eq!(request.method, Method::GET);
        assert_eq!(request.url, "https://glacier.us-east-1.amazonaws.com/-/vaults/photos/jobs/-abc_DEF");
        let headers = request.header_map().unwrap();
        assert_eq!(headers.len(), 2);
        assert_eq!(headers["host"], "glacier.us-east-1.amazonaws.com");
        assert_eq!(headers["x-amz-glacier-version"], "2012-06-01");
    }

    proptest! {
        #[test]
        fn every_legal_key_makes_exactly_five_path_segments_that_no_url_parser_changes(
            account in "-|[0-9]{12}", vault in "[A-Za-z0-9_.-]{1,255}", job in "[A-Za-z0-9_-]{1,256}",
        ) {
            prop_assume!(vault != "." && vault != "..");
            let key = JobKey::parse(&account, &vault, &job).unwrap();
            let request = describe_job(&endpoint(), &key);
            let url = Url::parse(&request.url).unwrap();
            prop_assert_eq!(url.as_str(), request.url.as_str());
            let segments: Vec<_> = url.path_segments().unwrap().collect();
            prop_assert_eq!(segments, [account.as_str(), "vaults", vault.as_str(), "jobs", job.as_str()]);
            prop_assert!(url.query().is_none() && url.fragment().is_none());
        }
    }
}
