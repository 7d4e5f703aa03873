//! C11: what would be asked, and what is wrong, without asking anybody.

use super::{super::profiles::tests::Home, *};

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "AKIA1"), ("AWS_SECRET_ACCESS_KEY", "marked")];
const NO_METADATA: (&str, &str) = ("AWS_EC2_METADATA_DISABLED", "true");

const CONFIG: &str = "\
[profile static]
aws_access_key_id = AKIA2
aws_secret_access_key = marked

[profile half]
aws_access_key_id = AKIA2

[profile quoted]
aws_access_key_id = \"AKIA2\"
aws_secret_access_key = marked

[profile process]
credential_process = /bin/give --password marked

[profile role]
role_arn = arn:aws:iam::1:role/r
source_profile = static

[profile orphan]
role_arn = arn:aws:iam::1:role/r
source_profile = nobody

[profile of-nothing]
role_arn = arn:aws:iam::1:role/r

[profile web]
role_arn = arn:aws:iam::1:role/r
web_identity_token_file = /nowhere/token

[profile sso]
sso_session = corp
sso_account_id = 123456789012
sso_role_name = Reader

[profile sso-orphan]
sso_session = typo
sso_account_id = 123456789012
sso_role_name = Reader

[profile empty]
region = eu-west-1

[sso-session corp]
sso_region = eu-west-1
sso_start_url = https://corp.awsapps.com/start
";

fn verdict(set: &[(&str, &str)]) -> Result<String, String> {
    let home = Home::new(CONFIG, "");
    let verdict = Survey::of(&home.with(set)).verdict().map_err(|problems| problems.join("\n"));
    let text = format!("{verdict:?}");
    assert!(!text.contains("marked") && !text.contains("AKIA2"), "{text}");
    verdict
}

#[test]
fn the_provider_that_would_be_asked_is_named() {
    assert_eq!(verdict(&KEYS).unwrap(), "environment: AWS_ACCESS_KEY_ID");
    for (profile, how) in [
        ("static", "aws_access_key_id"),
        ("process", "credential_process"),
        ("role", "role arn:aws:iam::1:role/r, by source_profile \"static\""),
        ("sso", "sso, role Reader of account 123456789012"),
    ] {
        let found = verdict(&[("AWS_PROFILE", profile)]);
        if profile == "sso" && !cfg!(feature = "sign-in") {
            assert!(found.unwrap_err().contains("built with the feature sign-in"));
            continue;
        }
        let found = found.unwrap();
        assert!(found.starts_with(&format!("profile: \"{profile}\" of ")) && found.ends_with(how), "{found}");
    }
    let relative = [("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials")];
    assert_eq!(verdict(&relative).unwrap(), "container: AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    assert_eq!(verdict(&[]).unwrap(), "instance metadata: the instance's role");
    // Manifests like to set variables to nothing.
    let nothing =
        ["AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];
    assert_eq!(verdict(&nothing.map(|name| (name, " "))).unwrap(), "instance metadata: the instance's role");
    assert!(verdict(&[("AWS_PROFILE", "empty")]).unwrap().starts_with("instance metadata"));
}

#[test]
fn each_mistake_is_told_by_name_even_if_the_chain_passes_over_it() {
    let cases: [(&[(&str, &str)], &str); 15] = [
        (&KEYS[..1], "environment: AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not"),
        (&KEYS[1..], "environment: AWS_SECRET_ACCESS_KEY is set, but AWS_ACCESS_KEY_ID is not"),
        (&[("AWS_ACCESS_KEY_ID", "AKIA1"), ("AWS_SECRET_ACCESS_KEY", "")], "but AWS_SECRET_ACCESS_KEY is not"),
        (&[("AWS_ACCESS_KEY_ID", "'AKIA1'"), KEYS[1]], "environment: AWS_ACCESS_KEY_ID has quotes around it"),
        (&[KEYS[0], KEYS[1], ("AWS_SESSION_TOKEN", "mar\nked")], "environment: AWS_SESSION_TOKEN has a space"),
        (&[("AWS_PROFILE", "typo")], "profile: AWS_PROFILE names \"typo\", which is not in "),
        (&[("AWS_PROFILE", "half")], "aws_access_key_id is set, but aws_secret_access_key is not"),
        (&[("AWS_PROFILE", "quoted")], "aws_access_key_id has quotes around it"),
        (&[("AWS_PROFILE", "orphan")], "source_profile names \"nobody\", which does not exist"),
        (&[("AWS_PROFILE", "of-nothing")], "role_arn needs source_profile or credential_source"),
        (&[("AWS_PROFILE", "web")], "web_identity_token_file: cannot read /nowhere/token: No such file"),
        (&[("AWS_PROFILE", "sso-orphan")], "sso_session names \"typo\", which does not exist"),
        (
            &[("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/t"), ("AWS_ROLE_ARN", "r")],
            "cannot read /nowhere/t: No such file",
        ),
        (
            &[("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/t")],
            "AWS_WEB_IDENTITY_TOKEN_FILE is set, but AWS_ROLE_ARN is not",
        ),
        (
            &[
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/"),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/nowhere/pod"),
            ],
            "container: AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: cannot read /nowhere/pod",
        ),
    ];
    for (set, problem) in cases {
        let told = verdict(set).unwrap_err();
        assert!(told.contains(problem) && told.lines().count() == 1, "{problem:?} is not in {told:?}");
    }
}

#[test]
fn with_nothing_set_up_each_provider_says_so_in_the_chains_order() {
    let told = verdict(&[NO_METADATA, ("AWS_DEFAULT_PROFILE", "static")]).unwrap_err();
    let lines: Vec<_> = told.lines().collect();
    for (line, begin) in lines.iter().zip([
        "environment: AWS_ACCESS_KEY_ID is not set",
        "profile: no profile \"default\" in ",
        "web identity: AWS_WEB_IDENTITY_TOKEN_FILE is not set",
        "container: AWS_CONTAINER_CREDENTIALS_FULL_URI is not set",
        "instance metadata: disabled by AWS_EC2_METADATA_DISABLED",
    ]) {
        assert!(line.starts_with(begin), "{line}");
    }
    assert_eq!(lines.len(), 5);
    assert!(lines[1].ends_with("AWS_DEFAULT_PROFILE names \"static\", but AWS's SDKs read AWS_PROFILE only"));
}
