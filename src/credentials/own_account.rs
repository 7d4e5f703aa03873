//! Which account `-` stands for: the one of the signing credentials, and those can change under a running process.
//!
//! Nobody says so reliably. Some providers name the account with their credentials, long-term keys differ when their owner
//! may, and every answer about `-` names the account in its vault's ARN. Each is evidence; where it contradicts what was
//! seen before, the identity changes, and what is known about `-` is not given any more. A change too many costs a few
//! fetches; one too few would give one account's answers to another. What a provider says about its own credentials is
//! more than evidence: an answer that contradicts that is wrong.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use aws_credential_types::Credentials;

use crate::job::Identity;

/// Evidence about the account, and the identity that it adds up to.
#[derive(Debug, Default)]
pub(crate) struct OwnAccount {
    identity: AtomicU32,
    seen: Mutex<Option<Seen>>,
}

/// What is known of the present identity.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    /// Without leading zeros, since ARNs have been seen without them.
    account: Option<String>,
    /// Whether the credentials' provider said so.
    is_certain: bool,
    /// The id of a key that does not expire. Those that do change all the time, for the same role.
    long_term_key: Option<String>,
}

impl OwnAccount {
    /// The identity now.
    pub(crate) fn identity(&self) -> Identity {
        Identity(self.identity.load(Ordering::Acquire))
    }

    /// Credentials were loaded; from now on they sign.
    pub(super) fn loaded(&self, credentials: &Credentials) {
        let loaded = Seen {
            account: credentials.account_id().map(|account| normal(account.as_str())),
            is_certain: credentials.account_id().is_some(),
            long_term_key: credentials.session_token().is_none().then(|| credentials.access_key_id().to_owned()),
        };
        let mut seen = self.seen();
        let same = match seen.as_ref() {
            None => true,
            Some(before) => match (&before.account, &loaded.account) {
                (Some(before), Some(after)) => before == after,
                _ => before.long_term_key == loaded.long_term_key,
            },
        };
        let known = if same { seen.take().and_then(|before| before.account) } else { None };
        *seen = Some(Seen { account: loaded.account.or(known), ..loaded });
        if !same {
            self.change();
        }
    }

    /// Glacier answered about `-` with a job of this account. `false` if it is another than the credentials'.
    pub(crate) fn answered(&self, account: &str) -> bool {
        let account = normal(account);
        let mut seen = self.seen();
        let Some(known) = seen.as_mut() else { return true };
        let is_other = known.account.as_ref().is_some_and(|before| *before != account);
        if is_other && known.is_certain {
            return false;
        }
        if is_other {
            self.change();
        }
        known.account = Some(account);
        true
    }

    fn change(&self) {
        tracing::warn!("the gateway's credentials belong to another account; what is known about \"-\" is forgotten");
        self.identity.fetch_add(1, Ordering::AcqRel);
    }

    fn seen(&self) -> MutexGuard<'_, Option<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn normal(account: &str) -> String {
    account.trim_start_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(account: Option<&str>) -> Credentials {
        let builder = Credentials::builder()
            .access_key_id(format!("ASIA{}", fastrand::u32(..)))
            .secret_access_key("secret")
            .session_token("token")
            .provider_name("test");
        match account {
            Some(account) => builder.account_id(account).build(),
            None => builder.build(),
        }
    }

    fn long_term(id: &str) -> Credentials {
        Credentials::new(id, "secret", None, None, "test")
    }

    #[test]
    fn what_stays_the_same_and_what_changes() {
        let (one, two) = ("012345678901", "999999999999");
        let cases: [(&str, Vec<Credentials>, u32); 8] = [
            ("a role's new credentials", vec![role(None), role(None)], 0),
            ("a role's new credentials, with the account", vec![role(Some(one)), role(Some(one))], 0),
            ("a role of another account", vec![role(Some(one)), role(Some(two))], 1),
            ("there and back", vec![role(Some(one)), role(Some(two)), role(Some(one))], 2),
            ("the account is named later", vec![role(None), role(Some(one))], 0),
            ("the same key", vec![long_term("A"), long_term("A")], 0),
            ("another key", vec![long_term("A"), long_term("B")], 1),
            ("a role after a key", vec![long_term("A"), role(None)], 1),
        ];
        for (what, loads, changes) in cases {
            let own = OwnAccount::default();
            for credentials in &loads {
                own.loaded(credentials);
            }
            assert_eq!(own.identity(), Identity(changes), "{what}");
        }
    }

    #[test]
    fn an_answer_that_names_another_account_changes_it() {
        let own = OwnAccount::default();
        own.loaded(&role(None));
        assert!(own.answered("012345678901") && own.answered("12345678901"));
        assert_eq!(own.identity(), Identity(0), "the same account, with and without its zero");
        own.loaded(&role(None));
        assert!(own.answered("999999999999"));
        assert_eq!(own.identity(), Identity(1));
    }

    /// U26.
    #[test]
    fn an_answer_of_another_account_than_the_provider_names_is_wrong() {
        let own = OwnAccount::default();
        own.loaded(&role(Some("012345678901")));
        assert!(own.answered("12345678901"));
        assert!(!own.answered("999999999999"));
        assert!(own.answered("012345678901"));
        assert_eq!(own.identity(), Identity(0), "the credentials are the same");
    }
}
