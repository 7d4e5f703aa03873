//! Where the policy in force comes from.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{Policy, PolicyErrors};
use crate::{
    caller::CallerIdentity,
    metrics::{PolicyMetrics, ReloadMetrics},
    reload::{self, LoadError, Reloaded, Watched},
};

/// The policy's file.
#[derive(Debug, Clone)]
pub struct PolicySettings {
    /// Where it is.
    pub path: PathBuf,
    /// How often it is read again.
    pub reload_interval: Duration,
    /// How long what is new must stay the same before it counts.
    pub settle: Duration,
}

/// A policy that is cut off between two rules is a policy, so nothing but time tells that it is still being written.
const SETTLE: Duration = Duration::from_secs(1);

impl PolicySettings {
    /// This file, read as often as others are.
    pub fn new(path: PathBuf) -> Self {
        Self { path, reload_interval: reload::INTERVAL, settle: SETTLE }
    }
}

/// Why there is no policy.
pub type PolicyLoadError = LoadError<PolicyErrors>;

/// The policy in force. Cheap to clone, and to ask on every call.
#[derive(Debug, Clone)]
pub struct PolicySource {
    source: Source,
    metrics: PolicyMetrics,
}

#[derive(Debug, Clone)]
enum Source {
    Fixed(Arc<Policy>),
    Followed(Reloaded<Policy>),
}

impl PolicySource {
    /// Always this policy.
    pub fn fixed(policy: Policy) -> Self {
        Self { source: Source::Fixed(Arc::new(policy)), metrics: PolicyMetrics::default() }
    }

    /// The policy in this file, and its newest usable one as it changes.
    pub async fn follow(
        settings: PolicySettings,
        reloads: ReloadMetrics,
        metrics: PolicyMetrics,
    ) -> Result<Self, PolicyLoadError> {
        let PolicySettings { path, reload_interval: interval, settle } = settings;
        let watched = Watched { what: "policy", paths: vec![path], interval, settle, metrics: reloads };
        let parse = |contents: &[Vec<u8>]| Policy::read(&contents.concat());
        let source = Reloaded::load(watched, parse).await.map(Source::Followed)?;
        Ok(Self { source, metrics })
    }

    /// By which of its names the policy allows a caller this now; see [`Policy::name_allowed`]. What it does not is counted.
    pub fn name_allowed(&self, caller: Option<&CallerIdentity>, account: &str, vault: &str) -> Option<usize> {
        let name = self.current().name_allowed(caller, account, vault);
        if name.is_none() {
            self.metrics.denied();
        }
        name
    }

    fn current(&self) -> Arc<Policy> {
        match &self.source {
            Source::Fixed(policy) => Arc::clone(policy),
            Source::Followed(newest) => newest.current(),
        }
    }
}
