//! AWS's shared files, `~/.aws/config` and `~/.aws/credentials`, as AWS's own code reads them: the selected profile, and
//! the settings that a variable or that profile can give.

use std::path::{Path, PathBuf};

use aws_runtime::env_config::{
    EnvConfigValue,
    file::EnvConfigFiles,
    section::{EnvConfigSections, Profile},
    source,
};
use aws_types::os_shim_internal::{Env, Fs};
use futures_util::FutureExt as _;

/// Every variable that says where the files are, which profile counts, or what a profile can say, too.
const VARIABLES: [&str; 11] = [
    "HOME",
    "AWS_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_GLACIER",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_DEFAULT_PROFILE",
];
/// Glacier's name in `AWS_ENDPOINT_URL_…` and in a `services` section.
const SERVICE_ID: &str = "glacier";
/// The profile that counts unless `AWS_PROFILE` names another.
const DEFAULT: &str = "default";
/// A chain of profiles is never longer; a circle ends here.
const LONGEST_CHAIN: usize = 16;

/// The shared files at one moment. Their content may be secret: there is no `Debug`.
pub struct Profiles {
    sections: EnvConfigSections,
    environment: Env,
    config: PathBuf,
    credentials: PathBuf,
    is_named: bool,
}

impl Profiles {
    /// Reads the files that `environment` names. Files that do not exist are empty. The error names the file and the line.
    pub fn read(environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        // Empty means unset: manifests like to set variables to nothing.
        let set = |name: &str| environment(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let given: Vec<_> = VARIABLES.iter().filter_map(|name| Some((*name, set(name)?))).collect();
        let given: Vec<_> = given.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let environment = Env::from_slice(&given);
        let files = EnvConfigFiles::default();
        // Asynchronous in name only: the crate reads files in place.
        let loaded = source::load(&environment, &Fs::real(), &files).now_or_never();
        let source = loaded.ok_or("cannot be read at once")?.map_err(|error| error.to_string())?;
        let sections = EnvConfigSections::parse(source).map_err(|error| in_one_line(&error.to_string()))?;
        let path = |variable, default| place(&environment, variable, default);
        let (config, credentials) =
            (path("AWS_CONFIG_FILE", ".aws/config"), path("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"));
        let is_named = environment.get("AWS_PROFILE").is_ok();
        Ok(Self { sections, environment, config, credentials, is_named })
    }

    /// The region: `AWS_REGION`, `AWS_DEFAULT_REGION`, the profile's, or that of the profile which that one builds on.
    pub fn region(&self) -> Option<String> {
        let variable = ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| self.environment.get(name).ok());
        variable.or_else(|| {
            let mut profile = self.selected()?;
            for _ in 0..LONGEST_CHAIN {
                if let Some(region) = profile.get("region") {
                    return Some(region.to_owned());
                }
                profile = self.sections.get_profile(profile.get("source_profile")?)?;
            }
            None
        })
    }

    /// The address that replaces AWS's own: by variable or profile, for Glacier before that for all services.
    pub fn endpoint_url(&self) -> Option<String> {
        let url = EnvConfigValue::new().env("AWS_ENDPOINT_URL").profile("endpoint_url").service_id(SERVICE_ID);
        let url = url.load(&self.environment, Some(&self.sections)).map(|(url, _source)| url.into_owned());
        url.filter(|url| !url.is_empty() && !self.ignores_endpoint_urls())
    }

    fn ignores_endpoint_urls(&self) -> bool {
        self.value("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "ignore_configured_endpoint_urls")
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// Whether to use FIPS-validated endpoints, as it was written.
    pub fn use_fips(&self) -> Option<String> {
        self.value("AWS_USE_FIPS_ENDPOINT", "use_fips_endpoint")
    }

    fn value(&self, variable: &str, key: &str) -> Option<String> {
        let value = EnvConfigValue::new().env(variable).profile(key);
        value.load(&self.environment, Some(&self.sections)).map(|(value, _source)| value.into_owned())
    }

    /// The name of the selected profile.
    pub(super) fn name(&self) -> &str {
        self.sections.selected_profile()
    }

    /// Whether a variable names it.
    pub(super) fn is_named(&self) -> bool {
        self.is_named
    }

    pub(super) fn selected(&self) -> Option<&Profile> {
        self.named(self.name())
    }

    pub(super) fn named(&self, name: &str) -> Option<&Profile> {
        self.sections.get_profile(name)
    }

    pub(super) fn has_sso_session(&self, name: &str) -> bool {
        self.sections.sso_session(name).is_some()
    }

    /// `/home/me/.aws/config and /home/me/.aws/credentials (not there)`.
    pub(super) fn files(&self) -> String {
        let shown = |path: &Path| {
            let remark = if path.exists() { "" } else { " (not there)" };
            format!("{}{remark}", path.display())
        };
        format!("{} and {}", shown(&self.config), shown(&self.credentials))
    }
}

fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// As the crate has it: a variable's `~/` is the home directory's, too.
fn place(environment: &Env, variable: &str, default: &str) -> PathBuf {
    let home = || environment.get("HOME").map_or_else(|_| PathBuf::from("~"), PathBuf::from);
    match environment.get(variable) {
        Ok(path) => path.strip_prefix("~/").map_or_else(|| PathBuf::from(&path), |below| home().join(below)),
        Err(_) => home().join(default),
    }
}

/// The name of the profile that counts, for whoever builds AWS's own provider.
pub(super) fn selected_name(environment: &dyn Fn(&str) -> Option<String>) -> String {
    let named = environment("AWS_PROFILE").map(|name| name.trim().to_owned());
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| DEFAULT.to_owned())
}

#[cfg(test)]
pub(super) mod tests;
