//! Real files in a directory of their own, and variables that are given, not the process's.

use std::{env, fs, process, sync::atomic::AtomicU32, sync::atomic::Ordering};

use super::*;

/// A home directory with `.aws/config` and `.aws/credentials` in it.
pub(in crate::credentials) struct Home(PathBuf);

impl Home {
    pub(in crate::credentials) fn new(config: &str, credentials: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let home = env::temp_dir().join(format!("glacier-gateway-home-{}-{number}", process::id()));
        fs::create_dir_all(home.join(".aws")).unwrap();
        fs::write(home.join(".aws/config"), config).unwrap();
        fs::write(home.join(".aws/credentials"), credentials).unwrap();
        Self(home)
    }

    /// The variables, and `HOME`.
    pub(in crate::credentials) fn with<'a>(&'a self, set: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        move |name| match name {
            "HOME" => self.0.to_str().map(str::to_owned),
            _ => set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()),
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const CONFIG: &str = "\
[default]
region = eu-west-1
endpoint_url = http://of-all:1

[profile archive]
region = eu-north-1
endpoint_url = http://of-archive:2
services = local

[profile built]
role_arn = arn:aws:iam::123456789012:role/r
source_profile = archive

[profile quiet]
region = eu-south-1
endpoint_url = http://quiet:3
ignore_configured_endpoint_urls = true
use_fips_endpoint = true

[profile loop]
source_profile = loop

[services local]
glacier =
  endpoint_url = http://of-glacier:4
";

fn settings(set: &[(&str, &str)]) -> (Option<String>, Option<String>) {
    let home = Home::new(CONFIG, "");
    let profiles = Profiles::read(&home.with(set)).unwrap();
    (profiles.region(), profiles.endpoint_url())
}

#[test]
fn a_variable_comes_before_the_profile_and_glacier_before_all_services() {
    let archive = ("AWS_PROFILE", "archive");
    for (set, region, endpoint) in [
        (&[][..], "eu-west-1", Some("http://of-all:1")),
        (&[archive], "eu-north-1", Some("http://of-glacier:4")),
        (&[("AWS_PROFILE", " archive\n")], "eu-north-1", Some("http://of-glacier:4")),
        (&[("AWS_PROFILE", "")], "eu-west-1", Some("http://of-all:1")),
        (&[archive, ("AWS_REGION", "us-east-1")], "us-east-1", Some("http://of-glacier:4")),
        (
            &[archive, ("AWS_REGION", ""), ("AWS_DEFAULT_REGION", "us-west-1 ")],
            "us-west-1",
            Some("http://of-glacier:4"),
        ),
        (&[archive, ("AWS_ENDPOINT_URL", "http://v:5")], "eu-north-1", Some("http://v:5")),
        (
            &[archive, ("AWS_ENDPOINT_URL", "http://v:5"), ("AWS_ENDPOINT_URL_GLACIER", "http://g:6")],
            "eu-north-1",
            Some("http://g:6"),
        ),
        (&[archive, ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "True")], "eu-north-1", None),
        (
            &[("AWS_ENDPOINT_URL_GLACIER", "http://g:6"), ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")],
            "eu-west-1",
            None,
        ),
        (&[archive, ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "false")], "eu-north-1", Some("http://of-glacier:4")),
        (&[("AWS_PROFILE", "built")], "eu-north-1", None),
        (&[("AWS_PROFILE", "quiet")], "eu-south-1", None),
    ] {
        assert_eq!(settings(set), (Some(region.to_owned()), endpoint.map(str::to_owned)), "{set:?}");
    }
    assert_eq!(settings(&[("AWS_PROFILE", "loop")]), (None, None), "a circle ends");
    assert_eq!(settings(&[("AWS_PROFILE", "typo")]), (None, None));
}

#[test]
fn fips_is_a_setting_of_variables_and_profiles_too() {
    let home = Home::new(CONFIG, "");
    let fips = |set: &[(&str, &str)]| Profiles::read(&home.with(set)).unwrap().use_fips();
    assert_eq!(fips(&[]), None);
    assert_eq!(fips(&[("AWS_PROFILE", "quiet")]).as_deref(), Some("true"));
    assert_eq!(fips(&[("AWS_PROFILE", "quiet"), ("AWS_USE_FIPS_ENDPOINT", "false")]).as_deref(), Some("false"));
}

#[test]
fn the_files_can_be_elsewhere() {
    let (home, other) = (Home::new(CONFIG, ""), Home::new("[default]\nregion = ap-south-1\n", ""));
    let config = other.0.join(".aws/config").display().to_string();
    let profiles = Profiles::read(&home.with(&[("AWS_CONFIG_FILE", &config)])).unwrap();
    assert_eq!(profiles.region().as_deref(), Some("ap-south-1"));
    assert!(profiles.files().starts_with(&format!("{config} and ")), "{}", profiles.files());
    let below_home = [("AWS_CONFIG_FILE", "~/nowhere")];
    let profiles = Profiles::read(&home.with(&below_home)).unwrap();
    assert_eq!(profiles.region(), None);
    assert!(profiles.files().starts_with(&format!("{}/nowhere (not there)", home.0.display())), "{}", profiles.files());
}

#[test]
fn a_file_that_is_none_is_named_with_its_line_and_never_quoted() {
    let home = Home::new("", "[default]\naws_secret_access_key marked\n");
    let error = Profiles::read(&home.with(&[])).err().unwrap();
    assert!(error.contains(".aws/credentials on line 2: ") && !error.contains("marked"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    // As some editors write it.
    let home = Home::new("", "\u{feff}[default]\naws_access_key_id = AKIA1\naws_secret_access_key = marked\n");
    let error = Profiles::read(&home.with(&[])).err().unwrap();
    assert!(error.contains(".aws/credentials on line 1: ") && !error.contains("marked"), "{error}");
}
