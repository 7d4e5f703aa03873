//! Who may ask about what: rules from a file, as a pure value.
//!
//! A policy only allows. A call passes if one rule names its caller, its account and its vault; what no rule names is
//! denied, so an empty policy denies everybody, and so does any policy a caller without a verified name.
//!
//! # The file
//!
//! TOML, any number of rules, each with all three lists, none of them empty:
//!
//! ```toml
//! [[allow]]
//! callers = ["spiffe://prod.example/ns/restore/sa/*", "*.restore.svc.cluster.local"]
//! accounts = ["-", "123456789012"]
//! vaults = ["photos", "logs-*"]
//! ```
//!
//! | list | an item | stands for |
//! | --- | --- | --- |
//! | `callers` | `spiffe://DOMAIN/PATH` | this SPIFFE ID; in the path, a segment `*` is any one segment, and a last segment `**` one or more. The trust domain holds no wildcard |
//! | | `NAME` | this DNS name; a label `*` is any one label, and a first label `**` one or more. The last label is no wildcard |
//! | `accounts` | `-` or 12 digits | the account *as the request says it* |
//! | | `*` | every account, `-` too |
//! | `vaults` | `NAME` | this vault |
//! | | `BEGINNING*` | every vault whose name begins so; `*` alone is every vault |
//!
//! A `*` anywhere else is an error. A DNS pattern never matches a SPIFFE ID, nor the reverse, and a wildcard matches only what
//! is a legal segment or label: a certificate for `*.example.com` is not any of the names that it covers.
//!
//! # `-` and the number of the same account
//!
//! `-` is the account of the gateway's own credentials, and its number works as well. They are not treated alike: which
//! number `-` stands for is known only from evidence that can come late and can change (`credentials::own_account`), and a
//! permission must not depend on that. So each spelling needs a rule of its own. Since rules only allow, no other spelling
//! gets around a rule: it meets no rule, and is denied. Whoever allows `-` allows what it stands for, even after the
//! gateway's credentials have changed.

use crate::caller::CallerIdentity;

mod file;
mod pattern;
mod source;

pub use file::{PolicyError, PolicyErrors};
use pattern::{Accounts, NamePattern, VaultPattern};
pub use source::{PolicyLoadError, PolicySettings, PolicySource};

/// Rules, compiled. Asking costs nanoseconds per rule and allocates nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
}

#[derive(Debug, PartialEq, Eq)]
struct Rule {
    /// Two lists, so that a pattern of one kind never meets a name of the other.
    spiffe: Vec<NamePattern>,
    dns: Vec<NamePattern>,
    accounts: Accounts,
    vaults: Vec<VaultPattern>,
}

impl Policy {
    /// Reads a policy file's text; reports everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, PolicyErrors> {
        file::read(text).map(|rules| Self { rules })
    }

    /// The same of a file's content.
    pub fn read(content: &[u8]) -> Result<Self, PolicyErrors> {
        match std::str::from_utf8(content) {
            Ok(text) => Self::parse(text),
            Err(error) => Err(PolicyErrors::no_text(&content[..error.valid_up_to()])),
        }
    }

    /// Whether this caller may ask about jobs of this vault. The account is `-` or 12 digits, as in
    /// [`crate::job::JobKey::account_id`].
    pub fn allows(&self, caller: Option<&CallerIdentity>, account: &str, vault: &str) -> bool {
        self.name_allowed(caller, account, vault).is_some()
    }

    /// The same, and by which of the caller's names, counted from 0.
    pub fn name_allowed(&self, caller: Option<&CallerIdentity>, account: &str, vault: &str) -> Option<usize> {
        let caller = caller?;
        // The cheapest questions first.
        self.rules.iter().find_map(|rule| {
            let is_about = rule.accounts.include(account) && rule.vaults.iter().any(|pattern| pattern.matches(vault));
            if is_about { rule.name(caller) } else { None }
        })
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is no rule, so that everybody is denied.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

impl Rule {
    /// The first of the caller's names that is one of this rule's.
    fn name(&self, caller: &CallerIdentity) -> Option<usize> {
        let patterns = match caller {
            CallerIdentity::Spiffe(_) => &self.spiffe,
            CallerIdentity::Dns(_) => &self.dns,
        };
        caller.names().position(|name| patterns.iter().any(|pattern| pattern.matches(name)))
    }
}

#[cfg(test)]
mod tests;
