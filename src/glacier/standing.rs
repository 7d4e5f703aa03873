//! Whether Glacier accepts the gateway's credentials, as far as its answers tell.
//!
//! Credentials that load are not yet credentials that Glacier takes: a secret of another account, a key that is disabled, a
//! clock that is hours off. A replica that has only ever been refused must not look ready, or a bad rollout replaces every
//! good replica. And as nobody calls a replica that is not ready, the gateway itself asks again what was refused.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::{
    job::JobKey,
    upstream::{Described, UpstreamError, UpstreamErrorKind as Kind},
};

/// While Glacier refuses, that is logged again so often.
const LOGGED_AGAIN: Duration = Duration::from_mins(5);

/// What Glacier's answers say about the credentials.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Standing {
    /// Nothing yet.
    #[default]
    Untried,
    /// Glacier's last word on them was an answer that it gives to nobody else.
    Accepted,
    /// Glacier refuses them.
    Refused(Refused),
}

/// A refusal that lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The question that was refused last.
    pub key: JobKey,
    /// Glacier's word for it.
    pub code: String,
    /// Whether any request of this process was accepted before.
    pub accepted_before: bool,
}

/// Follows [`Standing`] from answer to answer.
#[derive(Debug, Default)]
pub(super) struct Judge {
    standing: watch::Sender<Standing>,
    logged: Mutex<Option<Instant>>,
}

impl Judge {
    /// Where the credentials stand, now and later.
    pub(super) fn watch(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Hears how a fetch ended. Says whether the credentials are refused now, if that has changed.
    pub(super) fn hear(&self, key: &JobKey, outcome: Result<&Described, &UpstreamError>) -> Option<bool> {
        let code = match outcome {
            Ok(_) => None,
            Err(error) => match error.kind {
                // Who is told of a vault, a job or missing rights has been recognized.
                Kind::JobNotFound | Kind::VaultNotFound | Kind::AccessDenied if error.http_status.is_some() => None,
                Kind::CredentialsRejected | Kind::CredentialsExpired => {
                    Some(error.glacier_code.clone().unwrap_or_else(|| "no code".to_owned()))
                }
                _ => return None,
            },
        };
        let mut changed = None;
        self.standing.send_if_modified(|standing| {
            let was_refused = matches!(standing, Standing::Refused(_));
            let accepted_before = match standing {
                Standing::Untried => false,
                Standing::Accepted => true,
                Standing::Refused(refused) => refused.accepted_before,
            };
            let now = match code.clone() {
                None => Standing::Accepted,
                Some(code) => Standing::Refused(Refused { key: key.clone(), code, accepted_before }),
            };
            let is_refused = code.is_some();
            changed = (is_refused != was_refused).then_some(is_refused);
            let modified = *standing != now;
            *standing = now;
            modified
        });
        match code {
            Some(code) => self.log(&code),
            None if changed.is_some() => {
                *self.logged() = None;
                tracing::info!("glacier accepts the gateway's credentials again");
            }
            None => {}
        }
        changed
    }

    fn log(&self, code: &str) {
        let mut logged = self.logged();
        if logged.is_none_or(|at| at.elapsed() >= LOGGED_AGAIN) {
            *logged = Some(Instant::now());
            tracing::warn!(code, "glacier refuses the gateway's credentials; trying again");
        }
    }

    fn logged(&self) -> MutexGuard<'_, Option<Instant>> {
        self.logged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: Kind) -> UpstreamError {
        let code = Some("UnrecognizedClientException".to_owned());
        UpstreamError { http_status: Some(400), glacier_code: code, ..UpstreamError::new(kind, true, "test") }
    }

    /// C14
    #[test]
    fn only_answers_about_the_credentials_change_where_they_stand() {
        let (judge, key) = (Judge::default(), JobKey::parse("-", "vault", "job").unwrap());
        let standing = judge.watch();
        let hear = |kind| judge.hear(&key, Err(&error(kind)));
        assert_eq!(hear(Kind::Unavailable), None);
        assert_eq!(*standing.borrow(), Standing::Untried, "an outage says nothing");

        assert_eq!(hear(Kind::CredentialsRejected), Some(true));
        assert_eq!(hear(Kind::CredentialsRejected), None, "no news");
        assert_eq!(hear(Kind::Throttled), None);
        let code = "UnrecognizedClientException".to_owned();
        let refused = Refused { key: key.clone(), code, accepted_before: false };
        assert_eq!(*standing.borrow(), Standing::Refused(refused.clone()));

        for accepted in [Kind::JobNotFound, Kind::VaultNotFound, Kind::AccessDenied] {
            assert_eq!(hear(accepted), Some(false), "{accepted:?}");
            assert_eq!(*standing.borrow(), Standing::Accepted);
            assert_eq!(hear(Kind::CredentialsExpired), Some(true));
            let refused = Refused { accepted_before: true, ..refused.clone() };
            assert_eq!(*standing.borrow(), Standing::Refused(refused));
        }
    }
}
