//! Certificates, keys and authorities: files that are looked into before anything starts.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    arguments::{DescribeArguments, TlsArguments},
    values::Problems,
};
use crate::{
    grpc::client::ClientTls,
    reload,
    server::tls::{Authorities, Chain, Key, MaterialError, Terms, TlsSettings},
};

const CERTIFICATE: &str = "--tls-certificate";
const KEY: &str = "--tls-key";
const CLIENT_CA: &str = "--tls-client-ca";
const CA: &str = "--tls-ca";

/// A file named by a flag. A name that went missing in a manifest must not leave the door open, so nothing is not a name.
pub(super) fn file(flag: &str, text: Option<&String>, problems: &mut Problems) -> Option<PathBuf> {
    if text.is_some_and(String::is_empty) {
        problems.add(format!("{flag}: is empty; name a file, or leave the flag and its variable out"));
    }
    text.filter(|text| !text.is_empty()).map(PathBuf::from)
}

impl TlsArguments {
    /// The settings, if TLS is asked for. The files must be good at `now`; they are read again when the server starts.
    pub(super) fn read(&self, now: SystemTime, problems: &mut Problems) -> Option<TlsSettings> {
        let handshake_timeout = problems.duration("--tls-handshake-timeout", &self.handshake_timeout);
        let mut named = |flag, text: &Option<String>| file(flag, text.as_ref(), problems);
        let (certificate, key) = (named(CERTIFICATE, &self.certificate), named(KEY, &self.key));
        let client_ca = named(CLIENT_CA, &self.client_ca);

        let chain = certificate
            .as_ref()
            .and_then(|path| problems.of_file(CERTIFICATE, path, |content| Chain::from_pem(content, now)));
        let private = key.as_ref().and_then(|path| problems.of_file(KEY, path, Key::from_pem));
        let authorities = client_ca.as_ref().map(|path| problems.of_file(CLIENT_CA, path, Authorities::from_pem));
        match (&certificate, &key) {
            (Some(_), None) => problems.add(format!("{CERTIFICATE}: needs {KEY}")),
            (None, Some(_)) => problems.add(format!("{KEY}: needs {CERTIFICATE}")),
            (None, None) if client_ca.is_some() => problems.add(format!("{CLIENT_CA}: needs {CERTIFICATE} and {KEY}")),
            (None, None) | (Some(_), Some(_)) => {}
        }
        let (certificate, key) = (certificate?, key?);
        let shown = format!("{KEY}: {}", key.display());
        // Whether they fit can be seen of whole files only.
        let terms = Terms::new(chain?, private?, authorities.flatten());
        if let Err(error) = terms {
            problems.add(format!("{shown}: {error}"));
        }
        Some(TlsSettings { handshake_timeout, ..TlsSettings::new(certificate, key, client_ca) })
    }
}

impl Problems {
    fn of_file<T>(
        &mut self,
        flag: &str,
        path: &Path,
        parse: impl FnOnce(&[u8]) -> Result<T, MaterialError>,
    ) -> Option<T> {
        let shown = path.display();
        let content = self.content(flag, path)?;
        parse(&content).map_err(|error| self.add(format!("{flag}: {shown}: {error}"))).ok()
    }

    pub(super) fn content(&mut self, flag: &str, path: &Path) -> Option<Vec<u8>> {
        let shown = path.display();
        reload::read(path).map_err(|error| self.add(format!("{flag}: cannot read {shown}: {error}"))).ok()
    }
}

impl DescribeArguments {
    /// What the client goes by in TLS, if it is to be spoken, or all that is wrong.
    pub fn tls(&self) -> Result<Option<ClientTls>, Problems> {
        let mut problems = Problems::default();
        let mut content = |flag, text: &Option<String>| {
            file(flag, text.as_ref(), &mut problems).map(|path| problems.content(flag, &path))
        };
        let authorities = content(CA, &self.tls_ca);
        let (certificate, key) = (content(CERTIFICATE, &self.tls_certificate), content(KEY, &self.tls_key));
        if certificate.is_some() != key.is_some() {
            problems.add(format!("{CERTIFICATE} and {KEY} need each other"));
        }
        if certificate.is_some() && authorities.is_none() {
            problems.add(format!("{CERTIFICATE}: needs {CA}"));
        }
        if self.target.starts_with("https:") != authorities.is_some() {
            problems.add(format!("https needs {CA}, and {CA} needs https; the target is {:?}", self.target));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let identity = certificate.flatten().zip(key.flatten());
        Ok(authorities.flatten().map(|authorities| ClientTls { authorities, identity }))
    }
}
