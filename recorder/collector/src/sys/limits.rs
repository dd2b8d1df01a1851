//! Checks the data limit of this process. The target inherits the data limit.

#![allow(unsafe_code)] // calls getrlimit

use crate::error::{Error, ErrorKind};

/// The smallest data limit (`ulimit -d`), in bytes, with which edleak can record a program. The top level of
/// edleak's side table alone takes 16 MiB, and libc needs memory, too.
const LEAST_DATA_BYTES: u64 = 20 << 20;

/// The error to report if the data limit (`ulimit -d`) is too low for edleak's tables in the target; `None`:
/// the limit is high enough.
pub(crate) fn too_little_data() -> Option<Error> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call only writes the limit into a local structure.
    let is_known = unsafe { libc::getrlimit(libc::RLIMIT_DATA, &raw mut limit) } == 0;
    (is_known && limit.rlim_cur < LEAST_DATA_BYTES).then(|| {
        let message = format!(
            "a program may have {} KiB of data, and edleak's tables in it take 16 MiB at once and 8 MiB for \
             each 64 MiB with a heap",
            limit.rlim_cur >> 10
        );
        let least = LEAST_DATA_BYTES >> 10;
        Error::new(ErrorKind::DataLimit, message)
            .with_remedy(format!("raise `ulimit -d` to at least {least}, or better to `unlimited`"))
    })
}
