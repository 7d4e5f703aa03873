//! Memory, descriptors and tasks of this process, and how much they may grow.

use std::{fmt, fs, time::Duration};

use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};

use crate::world::World;

/// Tasks and descriptors that may come and go with connection pools.
const LOOSE: usize = 3;
/// Longer than the gateway's fetch budget (8 s), a delayed answer and the idle time of pooled connections together.
const CALM_WITHIN: Duration = Duration::from_secs(30);

/// What memory may grow by. The emulator keeps its last 10,000 requests, with their headers; the gateway remembers the
/// end of every job for a day; the allocator keeps freed memory in arenas of its own.
const BYTES_PER_REQUEST: usize = 2 * 1024;
const REQUESTS_KEPT: usize = 10_000;
const BYTES_PER_JOB: usize = 3 * 1024;
const BYTES_LOOSE: usize = 16 * 1024 * 1024;

/// The state of this process at a moment.
#[derive(Debug, Clone)]
pub(crate) struct Vitals {
    resident: usize,
    descriptors: usize,
    tasks: usize,
    requests: usize,
    jobs: usize,
}

impl Vitals {
    pub(crate) fn read(world: &World) -> Self {
        Self {
            resident: resident(),
            // The listing itself is one.
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count() - 1,
            tasks: Handle::current().metrics().num_alive_tasks(),
            requests: world.emulator.request_count(),
            jobs: world.tally.jobs_added(),
        }
    }

    /// The state once all fetches have ended and all connections of the moment are closed: as idle as at first.
    pub(crate) async fn once_calm(world: &World, idle: &Self) -> Self {
        let give_up = Instant::now() + CALM_WITHIN;
        loop {
            let now = Self::read(world);
            let is_calm = now.tasks <= idle.tasks + LOOSE && now.descriptors <= idle.descriptors + LOOSE;
            if is_calm {
                return now;
            }
            if Instant::now() > give_up {
                world.tally.violation(format!("no calm {CALM_WITHIN:?} after the last caller: {now}, at first {idle}"));
                return now;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// What memory may be, now that so many requests and jobs are remembered.
    fn allowed_since(&self, before: &Self) -> usize {
        let kept = |vitals: &Self| vitals.requests.min(REQUESTS_KEPT);
        before.resident + (kept(self) - kept(before)) * BYTES_PER_REQUEST + (self.jobs - before.jobs) * BYTES_PER_JOB
    }

    /// Bytes of memory that are more than before for no reason that lasts.
    pub(crate) fn grown_since(&self, before: &Self) -> usize {
        self.resident.saturating_sub(self.allowed_since(before))
    }

    /// What has grown since `before` and should not have.
    pub(crate) fn compared_with(&self, before: &Self) -> Vec<String> {
        let allowed = self.allowed_since(before) + BYTES_LOOSE;
        let mut complaints = Vec::new();
        if self.resident > allowed {
            complaints.push(format!(
                "memory grew: {} KiB where {} KiB are allowed",
                self.resident / 1024,
                allowed / 1024
            ));
        }
        if self.descriptors > before.descriptors + LOOSE {
            complaints.push(format!("descriptors leak: {} after {}", self.descriptors, before.descriptors));
        }
        if self.tasks > before.tasks + LOOSE {
            complaints.push(format!("tasks leak: {} after {}", self.tasks, before.tasks));
        }
        complaints
    }
}

impl fmt::Display for Vitals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resident, descriptors, tasks, requests, jobs } = self;
        let kib = resident / 1024;
        write!(
            f,
            "{kib} KiB resident, {descriptors} descriptors, {tasks} tasks, {requests} upstream requests, {jobs} jobs"
        )
    }
}

fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says it");
    let kib: usize = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024
}
