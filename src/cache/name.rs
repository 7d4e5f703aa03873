//! What stands for a job in the store.
//!
//! A job's full name has about a hundred characters, which a million jobs would each keep beside their description, and
//! each look-up would have to fetch from memory. In its place stands its SipHash-2-4 of 128 bits, under a key that each
//! process draws for itself: nobody can look for two names that share one, and that it happens by itself has a chance of
//! one in 10^21 among a billion jobs.

use std::hash::{BuildHasher as _, Hash as _, RandomState};

use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::job::JobKey;

/// Stands for a job's name and whose account [`OWN_ACCOUNT`](crate::job::OWN_ACCOUNT) is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Name(u128);

/// Gives names. Clones give the same ones.
#[derive(Clone)]
pub(super) struct Namer(SipHasher24);

impl Default for Namer {
    fn default() -> Self {
        // The standard library's is seeded by the operating system.
        let random = RandomState::new();
        Self(SipHasher24::new_with_keys(random.hash_one(0), random.hash_one(1)))
    }
}

impl Namer {
    pub(super) fn name(&self, key: &JobKey) -> Name {
        let mut hasher = self.0;
        key.hash(&mut hasher);
        Name(hasher.finish128().as_u128())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Identity;

    #[test]
    fn a_job_has_one_name_and_every_part_of_its_key_counts() {
        let key = |account, vault, job| JobKey::parse(account, vault, job).unwrap();
        let keys = [
            key("-", "vault", "job"),
            key("-", "vault", "job").under(Identity(1)),
            key("123456789012", "vault", "job"),
            key("-", "vault2", "job"),
            key("-", "vault", "job2"),
        ];
        let (namer, other) = (Namer::default(), Namer::default());
        for (index, one) in keys.iter().enumerate() {
            for (at, another) in keys.iter().enumerate() {
                assert_eq!(namer.name(one) == namer.clone().name(another), index == at, "{one:?} {another:?}");
                assert_ne!(namer.name(one), other.name(another), "another process's key");
            }
        }
    }
}
