//! The memory of this machine.

use std::path::Path;

/// Bytes of memory that processes here can still take: what the system calls available, or what a
/// control group leaves, if that is less. `None` where the system does not say.
pub fn host_memory() -> Option<u64> {
    let available = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo(&text));
    let group = group_memory(Path::new("/sys/fs/cgroup"));
    match (available, group) {
        (Some(available), Some(group)) => Some(available.min(group)),
        (one, other) => one.or(other),
    }
}

fn meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// What the second version of control groups leaves.
fn group_memory(folder: &Path) -> Option<u64> {
    let number = |name| std::fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    // `max` is no number: no limit.
    Some(number("memory.max")?.saturating_sub(number("memory.current")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_read() {
        let text = "MemTotal:       24576000 kB\nMemFree:  1 kB\nMemAvailable:   23552000 kB\n";
        assert_eq!(meminfo(text), Some(23_552_000 * 1024));
        assert_eq!(meminfo("MemTotal: 5 kB\n"), None);

        let folder = tempfile::tempdir().unwrap();
        let write = |name, text| std::fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(group_memory(folder.path()), None);
        write("memory.current", "100\n");
        write("memory.max", "max\n");
        assert_eq!(group_memory(folder.path()), None);
        write("memory.max", "4096\n");
        assert_eq!(group_memory(folder.path()), Some(3996));
    }
}
