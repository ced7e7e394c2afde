//! What the kernel says a process used: CPU time of all its threads to the nanosecond, memory, cores it may run on.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// CPU time of each thread of a process, by thread id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuTimes(BTreeMap<u32, u64>);

impl CpuTimes {
    /// What was used since `earlier`. Threads that ended in between are missed, threads that began count whole.
    pub fn since(&self, earlier: &Self) -> Duration {
        let used = |(id, now): (&u32, &u64)| now.saturating_sub(earlier.0.get(id).copied().unwrap_or(0));
        Duration::from_nanos(self.0.iter().map(used).sum())
    }
}

/// Memory of a process in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident now.
    pub resident: u64,
    /// The most that was ever resident.
    pub peak: u64,
}

/// A process as `/proc` shows it.
#[derive(Clone, Debug)]
pub struct Account {
    folder: PathBuf,
}

impl Account {
    /// Of the process `pid`.
    pub fn of(pid: u32) -> Self {
        Self { folder: PathBuf::from(format!("/proc/{pid}")) }
    }

    /// Of this process.
    pub fn own() -> Self {
        Self { folder: PathBuf::from("/proc/self") }
    }

    /// CPU time of every thread that runs now.
    pub fn cpu(&self) -> io::Result<CpuTimes> {
        let mut times = BTreeMap::new();
        for entry in std::fs::read_dir(self.folder.join("task"))? {
            let path = entry?.path();
            let id = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse().ok());
            // A thread may end between the listing and the look at it.
            let text = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
            if let (Some(id), Some(nanos)) = (id, schedstat(&text)) {
                times.insert(id, nanos);
            }
        }
        Ok(CpuTimes(times))
    }

    /// Its memory.
    pub fn memory(&self) -> io::Result<Memory> {
        let text = self.status()?;
        let bytes = |key| kib(&text, key).map(|kib| kib * 1024);
        let missing = || io::Error::other("no VmRSS and VmHWM in its status");
        let (resident, peak) = bytes("VmRSS:").zip(bytes("VmHWM:")).ok_or_else(missing)?;
        Ok(Memory { resident, peak })
    }

    /// The cores that it may run on.
    pub fn cores(&self) -> io::Result<Vec<usize>> {
        let text = self.status()?;
        let list = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        Ok(list.map(core_list).unwrap_or_default())
    }

    fn status(&self) -> io::Result<String> {
        let path: &Path = &self.folder.join("status");
        std::fs::read_to_string(path)
    }
}

/// What all cores of the machine worked since it started, whoever for; to a hundredth of a second.
pub fn machine() -> io::Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat")?;
    busy(&text).ok_or_else(|| io::Error::other("no line `cpu` in /proc/stat"))
}

/// The line `cpu`: user, nice, system, idle, waiting for disks, interrupts of two kinds, stolen; in hundredths of a
/// second.
fn busy(text: &str) -> Option<Duration> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|at| ticks.get(*at)).sum();
    (ticks.len() >= 4).then(|| Duration::from_millis(busy * 10))
}

/// Time on a core in nanoseconds: the first of the three numbers of `schedstat`.
fn schedstat(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

fn kib(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// Reads a list like `0-2,5`.
fn core_list(text: &str) -> Vec<usize> {
    let mut cores = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            cores.extend(first..=last);
        }
    }
    cores
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_forms_are_read() {
        assert_eq!(schedstat("123456789 42 7\n"), Some(123_456_789));
        assert_eq!(schedstat(""), None);
        let status = "Name:\tx\nVmHWM:\t  204800 kB\nVmRSS:\t  102400 kB\n";
        assert_eq!(kib(status, "VmRSS:"), Some(102_400));
        assert_eq!(kib(status, "VmSwap:"), None);
        assert_eq!(core_list("\t0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(core_list("1"), [1]);
    }

    #[test]
    fn idle_cores_do_not_work() {
        assert_eq!(busy("cpu  1 2 3 1000 500 4 5 6 0 0\ncpu0 1\n"), Some(Duration::from_millis(210)));
        assert_eq!((busy("cpu  1"), busy("")), (None, None));
        assert!(machine().unwrap() > Duration::ZERO);
    }

    #[test]
    fn threads_that_come_count_and_threads_that_go_do_not() {
        let before = CpuTimes([(1, 100), (2, 50)].into());
        let after = CpuTimes([(1, 130), (3, 7)].into());
        assert_eq!(after.since(&before), Duration::from_nanos(37));
    }

    #[test]
    fn this_process_is_accounted_for() {
        let account = Account::own();
        let before = account.cpu().unwrap();
        let mut sum = 0_u64;
        while account.cpu().unwrap().since(&before) == Duration::ZERO {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let memory = account.memory().unwrap();
        assert!(memory.resident > 100_000 && memory.peak >= memory.resident, "{memory:?}");
        assert!(!account.cores().unwrap().is_empty());
    }
}
