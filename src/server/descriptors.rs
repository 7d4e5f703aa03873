//! How many connections the process has descriptors for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many connections there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// That are served: at most half of the descriptors that the process may have, since calls to Glacier, files and the log
    /// need some, too.
    pub(super) served: usize,
    /// That have not shown yet who they are: at most an eighth more.
    pub(super) strangers: usize,
}

/// Strangers at once. At 10,000 new connections a second each has 100 ms for its handshake, which takes two round trips.
/// Each may cost what a handshake begun costs, some 30 KiB.
const STRANGERS: usize = 1024;
/// Strangers at once however few connections are wanted.
const FEWEST_STRANGERS: usize = 128;

/// The room for `wanted` connections.
///
/// Where the soft limit is too low for them and may be raised, it is: it exists for programs that use `select`.
pub(super) fn room_for(wanted: usize) -> Room {
    let strangers = wanted.clamp(FEWEST_STRANGERS, STRANGERS);
    let needed = wanted.saturating_mul(2).max(strangers.saturating_mul(8));
    let needed = u64::try_from(needed).unwrap_or(u64::MAX);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = maximum.unwrap_or(u64::MAX).min(needed);
    let limit = match current {
        Some(soft) if soft < raised => match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
            Ok(()) => Some(raised),
            Err(_) => Some(soft),
        },
        unchanged => unchanged,
    };
    let room = cap(wanted, 2, limit);
    if room < wanted {
        tracing::warn!(wanted, room, descriptors = limit, "fewer connections than wanted: too few descriptors");
    }
    Room { served: room, strangers: cap(strangers, 8, limit) }
}

/// At most one in `share` of the descriptors, of which `None` is no limit.
fn cap(wanted: usize, share: u64, descriptors: Option<u64>) -> usize {
    let most = descriptors.map_or(usize::MAX, |limit| usize::try_from(limit / share).unwrap_or(usize::MAX));
    wanted.min(most).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_take_at_most_half_of_the_descriptors() {
        assert_eq!(cap(10_000, 2, None), 10_000);
        assert_eq!(cap(10_000, 2, Some(1_048_576)), 10_000);
        assert_eq!(cap(10_000, 2, Some(1024)), 512);
        assert_eq!(cap(100, 2, Some(1024)), 100);
        assert_eq!(cap(100, 2, Some(0)), 1);
    }

    /// D20: so that half of the descriptors and an eighth leave some for all else.
    #[test]
    fn strangers_take_at_most_an_eighth_of_the_descriptors() {
        assert_eq!(cap(STRANGERS, 8, Some(20_000)), 1024);
        assert_eq!(cap(STRANGERS, 8, Some(1024)), 128);
    }

    #[test]
    fn room_is_made_where_the_hard_limit_allows() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let wanted = 50;
        let room = Room { served: cap(wanted, 2, maximum), strangers: cap(FEWEST_STRANGERS, 8, maximum) };
        assert_eq!(room_for(wanted), room);
    }
}
