//! The process itself, under the names that every Prometheus client uses. Read from Linux's `/proc` when asked for; what
//! cannot be read, or is another system's, is absent.

use std::{fmt, fs};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

/// Clock ticks in a second, as `/proc` counts them: 100 for every program on every architecture that Rust knows.
const TICKS: f64 = 100.0;
// Where in `/proc/self/stat`, after the name: the numbers of proc(5) less 3.
const USER: usize = 11;
const SYSTEM: usize = 12;
const START: usize = 19;

/// Reads `/proc` at each scrape.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let (stat, status) = (read("/proc/self/stat"), read("/proc/self/status"));
        let mut gauge = |name: &str, help: &str, value: Option<f64>| match value {
            Some(value) => {
                let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                ConstGauge::new(value).encode(metric)
            }
            None => Ok(()),
        };
        let memory = |name| after(&status, name).map(|kibibytes| kibibytes * 1024.0);
        gauge("process_resident_memory_bytes", "Memory that the process has in RAM.", memory("VmRSS:"))?;
        gauge("process_virtual_memory_bytes", "Address space of the process.", memory("VmSize:"))?;
        gauge("process_threads", "Threads of the process.", after(&status, "Threads:"))?;
        gauge("process_open_fds", "File descriptors that are open.", open_fds())?;
        let most = after(&read("/proc/self/limits"), "Max open files");
        gauge("process_max_fds", "File descriptors that may be open.", most)?;
        let booted = after(&read("/proc/stat"), "btime ");
        let started = booted.zip(seconds(&stat, START)).map(|(booted, after)| booted + after);
        gauge("process_start_time_seconds", "When the process began, since the Unix epoch.", started)?;
        let Some((user, system)) = seconds(&stat, USER).zip(seconds(&stat, SYSTEM)) else { return Ok(()) };
        let help = "Processor time that the process has used.";
        let metric = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
        ConstCounter::new(user + system).encode(metric)
    }
}

/// The number that follows `name` at the beginning of a line.
fn after(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// A time in `/proc/self/stat`. The name of the process, in brackets, may hold anything, brackets and blanks too.
fn seconds(stat: &str, field: usize) -> Option<f64> {
    let (_name, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(field)?.parse::<f64>().ok().map(|ticks| ticks / TICKS)
}

fn open_fds() -> Option<f64> {
    let listed = fs::read_dir("/proc/self/fd").ok()?.count();
    // One of them was for the list.
    u32::try_from(listed.saturating_sub(1)).ok().map(f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_be_called_anything() {
        let stat = "7 (a) b (c) R 1 7 7 0 -1 4194304 102 0 0 0 250 50 0 0 20 0 1 0 1246880 2998272 413";
        assert_eq!([USER, SYSTEM, START].map(|field| seconds(stat, field)), [2.5, 0.5, 12_468.8].map(Some));
    }

    #[test]
    fn a_number_follows_its_name() {
        let limits = "Limit  Soft  Hard\nMax open files            1024                20000                files\n";
        assert_eq!(after(limits, "Max open files"), Some(1024.0));
        assert_eq!(after("VmRSS:\t    1752 kB\n", "VmRSS:"), Some(1752.0));
        assert_eq!(after("Max open files            unlimited", "Max open files"), None);
    }
}
