//! The vaults and the jobs in them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use serde_json::Value;

use super::{
    clock::EmulatedClock,
    job::{EmulatedJob, PlacedJob},
};

/// The vault of [`Store::add`] when a test does not care.
pub const DEFAULT_VAULT: &str = "examplevault";

/// The vaults and the jobs in them. Clones share them.
#[derive(Debug, Clone)]
pub struct Store {
    clock: EmulatedClock,
    region: Arc<str>,
    account_id: Arc<str>,
    remembered: Duration,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    vaults: BTreeMap<VaultName, BTreeMap<String, Entry>>,
    next_sequence: u64,
}

/// A vault's account and name.
type VaultName = (String, String);

#[derive(Debug)]
struct Entry {
    job: PlacedJob,
    /// Tells jobs apart that were created in the same instant.
    sequence: u64,
}

/// What there is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Vault,
    /// The vault is there.
    Job,
}

/// A job's place in a listing: by creation, then by arrival here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) created_nanos: u64,
    pub(crate) sequence: u64,
}

impl Entry {
    fn position(&self) -> Position {
        let created = self.job.created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Position { created_nanos: u64::try_from(created.as_nanos()).unwrap_or(u64::MAX), sequence: self.sequence }
    }
}

impl Store {
    pub(crate) fn new(clock: EmulatedClock, region: &str, account_id: &str, remembered: Duration) -> Self {
        Self { clock, region: region.into(), account_id: account_id.into(), remembered, state: Arc::default() }
    }

    /// Creates a vault in the emulator's account; nothing happens if it is there.
    pub fn create_vault(&self, vault: &str) {
        self.create_vault_of(&self.account_id, vault);
    }

    /// Creates a vault in another account.
    pub fn create_vault_of(&self, account_id: &str, vault: &str) {
        self.state().vaults.entry((account_id.to_owned(), vault.to_owned())).or_default();
    }

    /// Puts a job into a vault of the emulator's account and returns its id. The vault is created if need be; a job with
    /// the same id is replaced.
    pub fn add(&self, vault: &str, job: EmulatedJob) -> String {
        self.add_of(&self.account_id, vault, job)
    }

    /// As [`add`](Self::add), in another account.
    pub fn add_of(&self, account_id: &str, vault: &str, job: EmulatedJob) -> String {
        let job = job.placed(&self.clock, self.vault_arn(account_id, vault), self.remembered);
        let id = job.id.clone();
        let mut state = self.state();
        let sequence = state.next_sequence;
        state.next_sequence += 1;
        let vault = state.vaults.entry((account_id.to_owned(), vault.to_owned())).or_default();
        vault.insert(id.clone(), Entry { job, sequence });
        id
    }

    /// Ends a job now with success (or with the failure that it was made for). Returns whether there is such a job; one
    /// that has ended, and a verbatim document, stay what they are.
    pub fn complete(&self, job_id: &str) -> bool {
        self.each_named(job_id, |job, clock| job.complete(clock, None))
    }

    /// Ends a job now with `Failed` and this status message. Returns as [`complete`](Self::complete).
    pub fn fail(&self, job_id: &str, message: &str) -> bool {
        self.each_named(job_id, |job, clock| job.complete(clock, Some(message.to_owned())))
    }

    /// Forgets a job, as Glacier does some time after completion. Returns whether there was such a job.
    pub fn forget(&self, job_id: &str) -> bool {
        let mut state = self.state();
        let removed = state.vaults.values_mut().map(|jobs| usize::from(jobs.remove(job_id).is_some())).sum::<usize>();
        removed > 0
    }

    /// Forgets a vault of the emulator's account with all its jobs. Returns whether there was such a vault.
    pub fn delete_vault(&self, vault: &str) -> bool {
        self.state().vaults.remove(&(self.account_id.to_string(), vault.to_owned())).is_some()
    }

    /// What Glacier would say now about a job of the emulator's account.
    pub fn describe(&self, vault: &str, job_id: &str) -> Option<Value> {
        self.describe_of(&self.account_id, vault, job_id).ok()
    }

    /// The ids of all jobs that are not forgotten, in every account.
    pub fn job_ids(&self) -> Vec<String> {
        let progress = self.clock.progress();
        let state = self.state();
        let jobs = state.vaults.values().flat_map(BTreeMap::values);
        jobs.filter(|entry| !entry.job.is_forgotten(progress)).map(|entry| entry.job.id.clone()).collect()
    }

    /// The full name of a vault.
    pub fn vault_arn(&self, account_id: &str, vault: &str) -> String {
        let partition = match &*self.region {
            region if region.starts_with("cn-") => "aws-cn",
            region if region.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        };
        format!("arn:{partition}:glacier:{}:{account_id}:vaults/{vault}", self.region)
    }

    pub(crate) fn describe_of(&self, account_id: &str, vault: &str, job_id: &str) -> Result<Value, Missing> {
        let progress = self.clock.progress();
        let state = self.state();
        let jobs = state.vaults.get(&(account_id.to_owned(), vault.to_owned())).ok_or(Missing::Vault)?;
        let entry = jobs.get(job_id).filter(|entry| !entry.job.is_forgotten(progress));
        entry.map(|entry| entry.job.document(&self.clock)).ok_or(Missing::Job)
    }

    /// The jobs of a vault that come after `after` in listing order; `None`: no such vault.
    pub(crate) fn list_of(
        &self,
        account_id: &str,
        vault: &str,
        after: Option<Position>,
    ) -> Option<Vec<(Position, Value)>> {
        let progress = self.clock.progress();
        let state = self.state();
        let jobs = state.vaults.get(&(account_id.to_owned(), vault.to_owned()))?;
        let mut listed: Vec<_> = jobs
            .values()
            .filter(|entry| !entry.job.is_forgotten(progress))
            .map(|entry| (entry.position(), entry))
            .filter(|(position, _)| after.is_none_or(|after| after < *position))
            .collect();
        listed.sort_unstable_by_key(|(position, _)| *position);
        Some(listed.into_iter().map(|(position, entry)| (position, entry.job.document(&self.clock))).collect())
    }

    fn each_named(&self, job_id: &str, mut act: impl FnMut(&mut PlacedJob, &EmulatedClock)) -> bool {
        let mut state = self.state();
        let mut found = false;
        for entry in state.vaults.values_mut().filter_map(|jobs| jobs.get_mut(job_id)) {
            act(&mut entry.job, &self.clock);
            found = true;
        }
        found
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::{Tier, clock::tests::standing, job::REMEMBERED, random_job_id};
    use serde_json::json;

    const VAULT: &str = DEFAULT_VAULT;
    const HOUR: Duration = Duration::from_hours(1);

    fn store() -> (Store, EmulatedClock, impl Fn(Duration)) {
        let (clock, step) = standing();
        (Store::new(clock.clone(), "us-east-1", "123456789012", REMEMBERED), clock, step)
    }

    fn names(document: &Value) -> Vec<&str> {
        document.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn a_job_lives_through_progress_success_and_oblivion() {
        let (store, clock, step) = store();
        let id = store.add(VAULT, EmulatedJob::archive(Tier::Standard));
        let young = store.describe(VAULT, &id).unwrap();
        assert_eq!(young["StatusCode"], "InProgress");
        assert_eq!((&young["Completed"], &young["CompletionDate"]), (&json!(false), &Value::Null));
        assert_eq!(young["CreationDate"], "2023-11-14T22:13:20.000Z");
        assert_eq!(young["VaultARN"], "arn:aws:glacier:us-east-1:123456789012:vaults/examplevault");

        clock.set_speed(3600.0);
        step(Duration::from_millis(4321));
        let old = store.describe(VAULT, &id).unwrap();
        assert_eq!((&old["StatusCode"], &old["Completed"]), (&json!("Succeeded"), &json!(true)));
        assert_eq!(old["CompletionDate"], "2023-11-14T22:13:24.000Z");
        assert_eq!(old["CreationDate"], young["CreationDate"]);

        clock.advance(REMEMBERED);
        assert_eq!(store.describe(VAULT, &id), None);
        assert!(store.job_ids().is_empty());
    }

    #[test]
    fn the_null_patterns_are_glaciers() {
        let (store, ..) = store();
        let of = |job| store.describe(VAULT, &store.add(VAULT, job)).unwrap();
        let (archive, inventory, select) =
            (of(EmulatedJob::archive(Tier::Bulk)), of(EmulatedJob::inventory()), of(EmulatedJob::select()));
        assert_eq!(names(&select).len(), 21);
        assert_eq!(names(&archive).len(), 18);
        assert_eq!(names(&archive), names(&inventory));
        let nulls = |document: &Value| document.as_object().unwrap().values().filter(|value| value.is_null()).count();
        assert_eq!((nulls(&archive), nulls(&inventory), nulls(&select)), (4, 10, 7));
        assert_eq!(archive["Tier"], "Bulk");
        assert_eq!(inventory["InventoryRetrievalParameters"]["Format"], "JSON");
        assert!(select["SelectParameters"]["InputSerialization"]["csv"].is_object());
    }

    #[test]
    fn an_inventory_has_a_size_once_it_succeeded_only() {
        let (store, ..) = store();
        let good = store.add(VAULT, EmulatedJob::inventory());
        let bad = store.add(VAULT, EmulatedJob::inventory().failing("vault is in disorder"));
        assert!(store.complete(&good) && store.complete(&bad) && !store.complete("nobody"));
        assert!(store.describe(VAULT, &good).unwrap()["InventorySizeInBytes"].is_u64());
        let bad = store.describe(VAULT, &bad).unwrap();
        assert_eq!((&bad["StatusCode"], &bad["InventorySizeInBytes"]), (&json!("Failed"), &Value::Null));
        assert_eq!((&bad["StatusMessage"], &bad["Completed"]), (&json!("vault is in disorder"), &json!(true)));
    }

    #[test]
    fn a_job_that_ended_does_not_end_again() {
        let (store, _, step) = store();
        let id = store.add(VAULT, EmulatedJob::archive(Tier::Expedited));
        assert!(store.complete(&id));
        let first = store.describe(VAULT, &id);
        step(HOUR);
        assert!(store.fail(&id, "too late"));
        assert_eq!(store.describe(VAULT, &id), first);
    }

    #[test]
    fn a_job_that_completed_long_ago_is_dated_then_and_nearly_forgotten() {
        let (store, clock, _) = store();
        let id = store.add(VAULT, EmulatedJob::archive(Tier::Standard).already_completed(23 * HOUR));
        let document = store.describe(VAULT, &id).unwrap();
        assert_eq!(document["CompletionDate"], "2023-11-13T23:13:20.000Z");
        assert_eq!(document["CreationDate"], "2023-11-13T19:13:20.000Z");
        clock.advance(Duration::from_millis(3_599_999));
        assert!(store.describe(VAULT, &id).is_some());
        clock.advance(Duration::from_millis(1));
        assert_eq!(store.describe(VAULT, &id), None);
    }

    #[test]
    fn a_document_is_told_verbatim_and_changes_have_the_last_word() {
        let (store, ..) = store();
        let odd = json!({"JobId": "odd", "Completed": "maybe", "New": [1, {"x": null}]});
        let id = store.add(VAULT, EmulatedJob::from_document(odd.clone()));
        assert_eq!((id.as_str(), store.describe(VAULT, "odd")), ("odd", Some(odd)));
        store.add(VAULT, EmulatedJob::from_document(json!([7])).with_id("list").with("A", 1).without("B"));
        assert_eq!(store.describe(VAULT, "list"), Some(json!([7])));

        let job = EmulatedJob::inventory().with("CompletionDate", "soon").without("VaultARN");
        let own = job.id().to_owned();
        assert_eq!(store.add(VAULT, job.answering_to("alias")), "alias");
        let document = store.describe(VAULT, "alias").unwrap();
        assert_eq!((&document["CompletionDate"], &document["JobId"]), (&json!("soon"), &json!(own)));
        assert!(!names(&document).contains(&"VaultARN"));
    }

    #[test]
    fn job_ids_have_glaciers_form_and_some_begin_with_a_hyphen() {
        let ids: Vec<_> = (0..200).map(|_| random_job_id()).collect();
        let legal = |id: &String| id.len() == 92 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        assert!(ids.iter().all(legal));
        let hyphens = ids.iter().filter(|id| id.starts_with('-')).count();
        assert!((10..190).contains(&hyphens), "{hyphens}");
    }

    #[test]
    fn forgetting_and_deleting_say_what_was_there() {
        let (store, ..) = store();
        let id = store.add(VAULT, EmulatedJob::select());
        assert!(store.forget(&id) && !store.forget(&id));
        assert_eq!(store.describe_of("123456789012", VAULT, &id), Err(Missing::Job));
        assert!(store.delete_vault(VAULT) && !store.delete_vault(VAULT));
        assert_eq!(store.describe_of("123456789012", VAULT, &id), Err(Missing::Vault));
    }
}
