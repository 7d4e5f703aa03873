//! Where the policy in force comes from.

use std::sync::Arc;

use super::Policy;

/// Gives the policy in force. Cheap to clone, and to ask on every call.
#[derive(Debug, Clone)]
pub struct PolicySource {
    policy: Arc<Policy>,
}

impl PolicySource {
    /// Always this policy.
    pub fn fixed(policy: Policy) -> Self {
        Self { policy: Arc::new(policy) }
    }

    /// The policy now.
    pub fn current(&self) -> Arc<Policy> {
        Arc::clone(&self.policy)
    }
}
