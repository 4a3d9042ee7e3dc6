//! What memory the test's own process uses.

/// A figure of `/proc/self/status` that is given in kB: `VmRSS` now, `VmHWM` at its worst.
pub fn memory_bytes(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.unwrap().trim_matches(|c: char| !c.is_ascii_digit());
    kib.parse::<u64>().unwrap() * 1024
}
