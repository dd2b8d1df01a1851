//! Reads and writes the memory of another process with `process_vm_readv` and `process_vm_writev`. If a
//! sandbox forbids `process_vm_readv` and `process_vm_writev`, the functions use /proc/PID/mem. The kernel
//! allows the system calls and the use of /proc/PID/mem to every user who may trace the process.
#![allow(unsafe_code)] // two system calls

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;

/// Maximum number of memory ranges that one call of `process_vm_writev` can write.
const MOST_PIECES: usize = 1024;

/// Reads the memory of a process at `address` into `into`.
pub(crate) fn read(pid: u32, address: u64, into: &mut [u8]) -> io::Result<()> {
    let own = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let theirs = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: into.len() };
    // SAFETY: in this process, the kernel writes only into `into`; `theirs` is a range of the other process.
    let done = unsafe { libc::process_vm_readv(pid as i32, &raw const own, 1, &raw const theirs, 1, 0) };
    match whole(done, into.len()) {
        Err(error) if is_forbidden(&error) => {
            OpenOptions::new().read(true).open(mem(pid))?.read_exact_at(into, address)
        }
        result => result,
    }
}

/// Writes into the memory of a process. `pieces` contains addresses and the bytes for these addresses; the
/// function writes them in this order.
pub(crate) fn write(pid: u32, pieces: &[(u64, &[u8])]) -> io::Result<()> {
    for pieces in pieces.chunks(MOST_PIECES) {
        let iovec = |base: *const u8, bytes: &[u8]| libc::iovec {
            iov_base: base.cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let own: Vec<_> = pieces.iter().map(|(_, bytes)| iovec(bytes.as_ptr(), bytes)).collect();
        let theirs: Vec<_> =
            pieces.iter().map(|(address, bytes)| iovec(*address as *const u8, bytes)).collect();
        let count = pieces.len() as libc::c_ulong;
        // SAFETY: in this process, the kernel only reads the bytes of `pieces`; the ranges in `theirs` belong
        // to the other process.
        let done =
            unsafe { libc::process_vm_writev(pid as i32, own.as_ptr(), count, theirs.as_ptr(), count, 0) };
        match whole(done, pieces.iter().map(|(_, bytes)| bytes.len()).sum()) {
            Err(error) if is_forbidden(&error) => {
                let memory = OpenOptions::new().write(true).open(mem(pid))?;
                pieces.iter().try_for_each(|(address, bytes)| memory.write_all_at(bytes, *address))?;
            }
            result => result?,
        }
    }
    Ok(())
}

/// Reads four bytes from the memory of a process as a number.
pub(crate) fn read_u32(pid: u32, address: u64) -> io::Result<u32> {
    let mut bytes = [0; 4];
    read(pid, address, &mut bytes)?;
    Ok(u32::from_ne_bytes(bytes))
}

/// Reads eight bytes from the memory of a process as a number.
pub(crate) fn read_u64(pid: u32, address: u64) -> io::Result<u64> {
    let mut bytes = [0; 8];
    read(pid, address, &mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

fn mem(pid: u32) -> String {
    format!("/proc/{pid}/mem")
}

/// Whether the error shows that a sandbox may have forbidden the system call, but may still allow the use of
/// /proc/PID/mem.
fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS | libc::EACCES))
}

fn whole(done: isize, bytes: usize) -> io::Result<()> {
    match usize::try_from(done) {
        Err(_) => Err(io::Error::last_os_error()),
        Ok(done) if done < bytes => Err(io::Error::from_raw_os_error(libc::EFAULT)),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_a_process_is_read_and_written() {
        let pid = std::process::id();
        let words = [std::sync::atomic::AtomicU32::new(7), std::sync::atomic::AtomicU32::new(8)];
        let at = |index: usize| (&raw const words[index]) as u64;
        write(pid, &[(at(0), &5u32.to_ne_bytes()), (at(1), &6u32.to_ne_bytes())]).expect("this process");
        assert_eq!((read_u32(pid, at(0)).expect("ours"), read_u32(pid, at(1)).expect("ours")), (5, 6));
        assert!(read_u32(pid, 8).is_err(), "no memory there");
        assert!(write(pid, &[(8, &[0])]).is_err());
    }
}
