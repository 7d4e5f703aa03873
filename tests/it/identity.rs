//! What is known about account `-` belongs to the account that it stood for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider, future},
};
use glacier_gateway::{
    emulator::{EmulatedCredentials, EmulatedJob, Fault, Settings, Tier},
    glacier::CredentialsHolder,
    proto::v1::DescribeJobRequest,
};
use tonic::Request;

use crate::support::gateway::{Gateway, Refusal, VAULT, cache_status, question};

const OURS: &str = "123456789012";
const OTHERS: &str = "999999999999";

/// Gives one account's credentials, then another's.
#[derive(Debug)]
struct Switching {
    switched: Arc<AtomicBool>,
    /// Whether the provider says whose credentials they are.
    names_accounts: bool,
}

impl ProvideCredentials for Switching {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let (id, account) = if self.switched.load(Ordering::SeqCst) { ("ASIATWO", OTHERS) } else { ("ASIAONE", OURS) };
        let builder = Credentials::builder()
            .access_key_id(id)
            .secret_access_key("secret")
            .session_token("token")
            .provider_name("switching");
        let builder = if self.names_accounts { builder.account_id(account) } else { builder };
        future::ProvideCredentials::ready(Ok(builder.build()))
    }
}

struct Case {
    gateway: Gateway,
    holder: CredentialsHolder,
    switched: Arc<AtomicBool>,
}

impl Case {
    async fn start(names_accounts: bool) -> Self {
        let known = |id| EmulatedCredentials::new(id, "secret").with_session_token("token");
        let credentials = vec![known("ASIAONE").of_account(OURS), known("ASIATWO").of_account(OTHERS)];
        let switched = Arc::new(AtomicBool::new(false));
        let provider = Switching { switched: Arc::clone(&switched), names_accounts };
        let holder = CredentialsHolder::new(SharedCredentialsProvider::new(provider));
        let settings = Settings { credentials, ..Settings::default() };
        let gateway = Gateway::start_as(settings, holder.clone(), |_| {}).await;
        let store = gateway.emulator.store();
        store.create_vault_of(OTHERS, VAULT);
        let job = |tier| EmulatedJob::archive(tier).with_id("job").already_completed(Duration::from_hours(1));
        store.add_of(OURS, VAULT, job(Tier::Standard));
        store.add_of(OTHERS, VAULT, job(Tier::Bulk));
        Self { gateway, holder, switched }
    }

    /// The vault's account in the answer about `-`.
    async fn account(&self) -> String {
        let answer = self.gateway.ask("job").await.unwrap().into_inner();
        answer.job.unwrap().vault_arn().split(':').nth(4).unwrap().to_owned()
    }

    async fn switch(&self) {
        let before = self.holder.current(std::time::UNIX_EPOCH).await.unwrap();
        self.switched.store(true, Ordering::SeqCst);
        let after = self.holder.force_refresh_after(&before).await.unwrap();
        assert_ne!(before.access_key_id(), after.access_key_id());
    }
}

/// C9.
#[tokio::test]
async fn another_accounts_credentials_get_no_answers_of_the_first() {
    let case = Case::start(true).await;
    assert_eq!(case.account().await, OURS);
    let named = || Request::new(DescribeJobRequest { account_id: OURS.to_owned(), ..question("job") });
    case.gateway.call(named()).await.unwrap();
    case.switch().await;
    assert_eq!(case.account().await, OTHERS);
    // Not even while Glacier is down.
    case.gateway.emulator.faults().always(Fault::html(503));
    assert_eq!(case.account().await, OTHERS);
    // What names its account is as true as before.
    let answer = case.gateway.call(named()).await.unwrap();
    assert!(cache_status(answer.metadata()).starts_with("hit"), "{answer:?}");
}

/// C9.
#[tokio::test]
async fn while_glacier_is_down_the_first_accounts_answers_do_not_stand_in() {
    let case = Case::start(true).await;
    case.account().await;
    case.gateway.emulator.faults().always(Fault::html(503));
    case.switch().await;
    assert_eq!(case.gateway.refusal("job").await.reason(), "GLACIER_UNAVAILABLE");
}

/// C9, with a provider that names no account: the first answer about another account tells.
#[tokio::test]
async fn an_answer_about_another_account_ends_what_was_known() {
    let case = Case::start(false).await;
    assert_eq!(case.account().await, OURS);
    case.switch().await;
    // A job that is not known yet is fetched, and comes from the other account.
    let job = EmulatedJob::archive(Tier::Bulk).with_id("new").already_completed(Duration::from_hours(1));
    case.gateway.emulator.store().add_of(OTHERS, VAULT, job);
    case.gateway.ask("new").await.unwrap();
    assert_eq!(case.account().await, OTHERS);
    let refusal = Refusal::of(case.gateway.ask("neither").await);
    assert_eq!(refusal.reason(), "JOB_NOT_FOUND");
}
