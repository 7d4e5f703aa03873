//! Server processes: started on a core of their own, accounted for by the operating system, ended with the harness.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use side_by_side::Outcome;

const START_LIMIT: Duration = Duration::from_mins(1);

/// A running server. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts `command` on `core` and waits until `address` accepts connections.
    pub(crate) fn start(
        command: &[String],
        environment: &[(&str, String)],
        core: &str,
        address: SocketAddr,
    ) -> Outcome<Self> {
        let mut server = Self { child: pinned(command, core).envs(environment.iter().cloned()).spawn()?, address };
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                return Err(format!("{command:?} ended: {status}").into());
            }
            if start.elapsed() > START_LIMIT {
                return Err(format!("{command:?} does not listen").into());
            }
            sleep(Duration::from_micros(200));
        }
        Ok(server)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to end and waits until it has.
    pub(crate) fn terminate(mut self) -> Outcome<()> {
        Command::new("kill").arg(self.id().to_string()).status()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `command` bound to `core`, its words unheard unless it complains.
pub(crate) fn pinned(command: &[String], core: &str) -> Command {
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", core]).args(command).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    pinned
}

/// A port that nobody listens on.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// CPU that each thread of a process has used.
#[derive(Debug)]
pub(crate) struct Cpu(Vec<(String, Duration)>);

impl Cpu {
    /// From `/proc/PID/task/*/schedstat`: nanoseconds, where `/proc/PID/stat` has hundredths of a second.
    pub(crate) fn of(process: u32) -> Outcome<Self> {
        let mut threads = Vec::new();
        for entry in fs::read_dir(format!("/proc/{process}/task"))? {
            let entry = entry?;
            // A thread may have ended meanwhile.
            if let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) {
                threads.push((entry.file_name().to_string_lossy().into_owned(), run_time(&text)?));
            }
        }
        Ok(Self(threads))
    }

    /// What was used since.
    pub(crate) fn since(&self, before: &Self) -> Duration {
        let earlier = |id: &String| before.0.iter().find(|(other, _)| other == id).map_or(Duration::ZERO, |(_, t)| *t);
        self.0.iter().map(|(id, used)| used.saturating_sub(earlier(id))).sum()
    }
}

/// CPU that this thread has used.
pub(crate) fn own_cpu() -> Outcome<Duration> {
    run_time(&fs::read_to_string("/proc/thread-self/schedstat")?)
}

fn run_time(schedstat: &str) -> Outcome<Duration> {
    let first = schedstat.split_whitespace().next().ok_or("an empty schedstat")?;
    Ok(Duration::from_nanos(first.parse()?))
}

/// Resident memory in bytes.
pub(crate) fn resident(process: u32) -> Outcome<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024)
}
