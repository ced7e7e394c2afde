//! Numbers of this process, read from `/proc` when the page is asked for. Where there is no `/proc` the families are
//! absent.

use super::names;
use super::recorder::Row;

/// Families that are written here.
pub(super) const NAMES: [&str; 6] = [
    names::PROCESS_CPU,
    names::PROCESS_MEMORY,
    names::PROCESS_VIRTUAL,
    names::PROCESS_FDS,
    names::PROCESS_MAX_FDS,
    names::PROCESS_START,
];

/// Clock ticks a second, as Linux counts for user space on every platform.
const TICKS: f64 = 100.0;

/// The rows of this process.
pub(super) fn rows() -> Vec<Row> {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let system = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let fds = std::fs::read_dir("/proc/self/fd").ok().map(|d| d.count().saturating_sub(1) as f64);
    let values = [
        cpu_seconds(&stat),
        kilobytes(&status, "VmRSS:"),
        kilobytes(&status, "VmSize:"),
        fds,
        max_fds(&limits),
        started(&stat, &system),
    ];
    let row = |(family, value): (&'static str, Option<f64>)| {
        value.map(|value| Row { family, labels: Vec::new(), value })
    };
    NAMES.into_iter().zip(values).filter_map(row).collect()
}

/// Field `index` of `/proc/self/stat`, counted from 0 as `proc(5)` does less one. The second field, the command, may
/// hold blanks and brackets, so counting begins behind its last bracket.
fn field(stat: &str, index: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split_ascii_whitespace().nth(index.checked_sub(2)?)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((field(stat, 13)? + field(stat, 14)?) / TICKS)
}

fn started(stat: &str, system: &str) -> Option<f64> {
    let boot: f64 = system.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + field(stat, 21)? / TICKS)
}

fn kilobytes(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|l| l.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse::<f64>().ok().map(|kb| kb * 1024.0)
}

fn max_fds(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|l| l.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_brackets_does_not_shift_the_fields() {
        let stat =
            "7 (a) b) c) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 4 0 1000 8192 3 18446744073709551615";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(started(stat, "cpu 1\nbtime 100\n"), Some(110.0));
        assert_eq!(kilobytes("VmRSS:\t   12 kB\n", "VmRSS:"), Some(12288.0));
        assert_eq!(cpu_seconds("nonsense"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_all_of_them() {
        let rows = rows();
        assert_eq!(rows.iter().map(|r| r.family).collect::<Vec<_>>(), NAMES);
        assert!(rows.iter().all(|r| r.value.is_finite() && r.value >= 0.0));
    }
}
