//! Whether keys can sign at all. A key out of a Secret or a form field often has a line break at its end, or quotes around
//! it: with the first it is cut to what was meant, with the second it is refused by the name under which it was given.

use aws_credential_types::{Credentials, credential_feature::AwsCredentialFeature};

use super::survey::Provider;

/// What editors of some systems write before the first character.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Whether static keys could sign.
pub(super) fn check(provider: Provider, id: &str, secret: &str, token: Option<&str>) -> Result<(), String> {
    usable(Credentials::new(id, secret, token.map(str::to_owned), None, "check"), provider).map(drop)
}

/// `credentials` without space around each part, or which part of them no key looks like.
pub(super) fn usable(credentials: Credentials, provider: Provider) -> Result<Credentials, String> {
    let [id, secret, token] = match provider {
        Provider::Environment => ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"],
        Provider::Profile => ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"],
        Provider::WebIdentity | Provider::Container | Provider::InstanceMetadata => {
            ["the access key id", "the secret access key", "the session token"]
        }
    };
    let id = part(credentials.access_key_id(), id)?;
    let secret = part(credentials.secret_access_key(), secret)?;
    let token = credentials.session_token().map(|text| part(text, token)).transpose()?;
    if id == credentials.access_key_id()
        && secret == credentials.secret_access_key()
        && token == credentials.session_token()
    {
        return Ok(credentials);
    }
    let mut cut = Credentials::builder().access_key_id(id).secret_access_key(secret).provider_name("glacier-gateway");
    cut.set_session_token(token.map(str::to_owned));
    cut.set_expiry(credentials.expiry());
    cut.set_account_id(credentials.account_id().cloned());
    let mut cut = cut.build();
    let features = credentials.get_property::<Vec<AwsCredentialFeature>>().cloned().unwrap_or_default();
    *cut.get_property_mut_or_default() = features;
    Ok(cut)
}

/// Never repeats what it was given.
fn part<'a>(text: &'a str, name: &str) -> Result<&'a str, String> {
    let cut = text.trim_matches(|c: char| c.is_whitespace() || c == BYTE_ORDER_MARK);
    if cut.is_empty() {
        return Err(format!("{name} is empty"));
    }
    if cut.starts_with(['"', '\'']) || cut.ends_with(['"', '\'']) {
        return Err(format!("{name} has quotes around it"));
    }
    if !cut.chars().all(|c| c.is_ascii_graphic()) {
        return Err(format!("{name} has a space, a line break or another character in it that no key has"));
    }
    Ok(cut)
}

#[cfg(test)]
mod tests {
    use aws_credential_types::attributes::AccountId;

    use super::*;

    fn environment(id: &str, secret: &str, token: Option<&str>) -> Result<(String, String, Option<String>), String> {
        let given = Credentials::new(id, secret, token.map(str::to_owned), None, "test");
        let given = usable(given, Provider::Environment)?;
        let text = str::to_owned;
        Ok((text(given.access_key_id()), text(given.secret_access_key()), given.session_token().map(text)))
    }

    /// C12
    #[test]
    fn space_and_line_breaks_around_a_key_are_cut_off() {
        let expected = Ok(("AKIA1".to_owned(), "se/cr+et=".to_owned(), Some("tok".to_owned())));
        for (id, secret, token) in [
            ("AKIA1", "se/cr+et=", "tok"),
            ("AKIA1\n", "se/cr+et=\r\n", "tok\n"),
            (" AKIA1", "\tse/cr+et=", " tok "),
            ("\u{feff}AKIA1", "\u{a0}se/cr+et=", "tok\n\n"),
        ] {
            assert_eq!(environment(id, secret, Some(token)), expected, "{id:?}");
        }
    }

    /// C12
    #[test]
    fn what_no_key_looks_like_is_refused_by_the_variables_name_and_not_repeated() {
        for (id, secret, token, name) in [
            ("\"AKIA1\"", "marked", "marked", "AWS_ACCESS_KEY_ID has quotes"),
            ("'AKIA1'", "marked", "marked", "AWS_ACCESS_KEY_ID has quotes"),
            ("AKIA1", "\"marked\"\n", "marked", "AWS_SECRET_ACCESS_KEY has quotes"),
            ("AKIA1", "mar\nked", "marked", "AWS_SECRET_ACCESS_KEY has a space, a line break"),
            ("AKIA1", "marked", "mar ked", "AWS_SESSION_TOKEN has a space"),
            ("AKIA1", "marked\u{200b}", "marked", "AWS_SECRET_ACCESS_KEY has a space"),
            ("\n", "marked", "marked", "AWS_ACCESS_KEY_ID is empty"),
        ] {
            let refused = environment(id, secret, Some(token)).unwrap_err();
            assert!(refused.starts_with(name) && !refused.contains("mar"), "{refused}");
        }
    }

    #[test]
    fn cut_credentials_keep_their_end_their_account_and_their_source() {
        let end = std::time::UNIX_EPOCH + std::time::Duration::from_secs(7);
        let mut given = Credentials::builder()
            .access_key_id("AKIA1 ")
            .secret_access_key("secret")
            .account_id("123456789012")
            .expiry(end)
            .provider_name("test")
            .build();
        given.get_property_mut_or_default::<Vec<_>>().push(AwsCredentialFeature::CredentialsImds);
        let cut = usable(given, Provider::InstanceMetadata).unwrap();
        assert_eq!((cut.expiry(), cut.account_id().map(AccountId::as_str)), (Some(end), Some("123456789012")));
        assert_eq!(super::super::source(&cut), "instance metadata");
    }
}
