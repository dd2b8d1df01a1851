//! Finds the size of System V segments (shared memory that a program attaches with shmat). shmat does not
//! return this size, and the target must not make another system call to get the size.

use crate::sys::maps;
use std::collections::HashMap;
use std::fs;

/// For each segment ID: the size of the segment in bytes. The kernel reuses an ID only after it has used many
/// other IDs, so the stored sizes stay correct.
#[derive(Default)]
pub(super) struct Segments(HashMap<u32, u64>);

impl Segments {
    /// Size in bytes of the segment that a process has attached at an address; 0: the segment no longer
    /// exists, so its size is unknown.
    pub(super) fn bytes_of(&mut self, pid: u32, address: u64, segment: u32) -> u64 {
        if let Some(bytes) = self.0.get(&segment) {
            return *bytes;
        }
        // If the process and the collector are in different IPC namespaces, the same ID stands for another
        // segment in the collector's namespace.
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/ipc")).ok();
        let is_ours = namespace("self") == namespace(&pid.to_string());
        let table = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
        let found = if is_ours { in_table(&table, segment) } else { None };
        let found = found.or_else(|| in_map(&maps::text_of(pid)?, address));
        if let Some(bytes) = found {
            self.0.insert(segment, bytes);
        }
        found.unwrap_or(0)
    }
}

/// The size of the segment that is mapped at an address of a memory map.
fn in_map(map: &str, address: u64) -> Option<u64> {
    let segment = maps::lines(map).find(|line| line.start == address && line.name.starts_with("/SYSV"))?;
    segment.end.checked_sub(segment.start)
}

/// The size of a segment in the kernel's table, whose columns are key, ID, permissions and size.
fn in_table(table: &str, segment: u32) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let id: u32 = fields.next()?.parse().ok()?;
        (id == segment).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_found_in_the_memory_map_or_in_the_kernels_table() {
        let maps = "7f0000000000-7f0000004000 rw-s 00000000 00:01 98305  /SYSV00000000 (deleted)\n\
                    7f0000004000-7f0000005000 rw-p 00000000 00:00 0\n";
        assert_eq!((in_map(maps, 0x7f00_0000_0000), in_map(maps, 0x7f00_0000_4000)), (Some(0x4000), None));
        let table = "       key      shmid perms                  size  cpid  lpid nattch\n\
                     \x20        0      98305   600                 16384  1  1  1\n";
        assert_eq!((in_table(table, 98305), in_table(table, 7)), (Some(16384), None));
    }
}
