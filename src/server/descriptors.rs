//! How many connections the process has descriptors for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many of `wanted` connections can be served: at most half of the descriptors that the process may have, since
/// calls to Glacier, files and the log need some, too.
///
/// Where the soft limit is too low for `wanted` and may be raised, it is: it exists for programs that use `select`.
pub(super) fn room_for(wanted: usize) -> usize {
    let needed = u64::try_from(wanted).unwrap_or(u64::MAX).saturating_mul(2);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = maximum.unwrap_or(u64::MAX).min(needed);
    let limit = match current {
        Some(soft) if soft < raised => match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
            Ok(()) => Some(raised),
            Err(_) => Some(soft),
        },
        unchanged => unchanged,
    };
    let room = cap(wanted, limit);
    if room < wanted {
        tracing::warn!(wanted, room, descriptors = limit, "fewer connections than wanted: too few descriptors");
    }
    room
}

/// `None` is no limit.
fn cap(wanted: usize, descriptors: Option<u64>) -> usize {
    let half = descriptors.map_or(usize::MAX, |limit| usize::try_from(limit / 2).unwrap_or(usize::MAX));
    wanted.min(half).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_take_at_most_half_of_the_descriptors() {
        assert_eq!(cap(10_000, None), 10_000);
        assert_eq!(cap(10_000, Some(1_048_576)), 10_000);
        assert_eq!(cap(10_000, Some(1024)), 512);
        assert_eq!(cap(100, Some(1024)), 100);
        assert_eq!(cap(100, Some(0)), 1);
    }

    #[test]
    fn room_is_made_where_the_hard_limit_allows() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let wanted = 50;
        assert_eq!(room_for(wanted), cap(wanted, maximum));
    }
}
