//! Where the policy in force comes from.

use std::{io, path::Path, path::PathBuf, sync::Arc};

use super::{Policy, PolicyErrors};

/// Gives the policy in force. Cheap to clone, and to ask on every call.
#[derive(Debug, Clone)]
pub struct PolicySource {
    policy: Arc<Policy>,
}

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFileError {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// What it says is no policy.
    #[error("{}: {errors}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All that is wrong.
        errors: PolicyErrors,
    },
}

impl PolicySource {
    /// Always this policy.
    pub fn fixed(policy: Policy) -> Self {
        Self { policy: Arc::new(policy) }
    }

    /// The policy in this file. Blocks.
    pub fn load(path: &Path) -> Result<Self, PolicyFileError> {
        let content = std::fs::read(path).map_err(|error| PolicyFileError::Unreadable { path: path.into(), error })?;
        let policy = Policy::read(&content).map_err(|errors| PolicyFileError::Invalid { path: path.into(), errors })?;
        Ok(Self::fixed(policy))
    }

    /// The policy now.
    pub fn current(&self) -> Arc<Policy> {
        Arc::clone(&self.policy)
    }
}
