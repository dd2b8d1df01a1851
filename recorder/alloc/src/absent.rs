//! The parts of the preload library that a program without a loader has no use for. Files of src/shared call
//! these functions, which do nothing here.

/// A program that counts itself starts no collector.
pub(crate) mod detached {
    use crate::cold::environment::Environment;
    use crate::cold::path::Path;

    pub(crate) fn start(_: &Environment, _: &mut Path) -> bool {
        false
    }
}

/// The functions of the allocator need no detours.
pub(crate) mod detours {
    use core::sync::atomic::AtomicU8;
    use edleak_session::detour::{DetourModule, Patch};
    use edleak_session::header::Header;

    #[allow(dead_code, reason = "no code reads a detour here")]
    pub(crate) struct Regions {
        pub(crate) modules: *const DetourModule,
        pub(crate) patches: *const Patch,
        pub(crate) code: *const AtomicU8,
    }

    pub(crate) fn apply(_: &Header, _: &Regions) {}

    pub(crate) fn are_in_place() -> bool {
        false
    }
}

/// No detoured function runs.
pub(crate) mod detour {
    use crate::hot::thread::Tls;
    use edleak_session::detour::HOOKS;

    pub(crate) fn hooks() -> [usize; HOOKS] {
        [0; HOOKS]
    }

    pub(crate) fn note_pool() -> usize {
        0
    }

    pub(crate) fn is_inside(_: &mut Tls, _: usize) -> bool {
        false
    }
}

/// No entry point calls another one.
pub(crate) mod forward {
    pub(crate) fn resolve() {}
}

/// The program calls the kernel's mmap without a function that edleak could replace.
pub(crate) mod mapping {
    use edleak_session::mapping::MappingSlot;

    pub(crate) fn resolve() {}

    pub(crate) fn set_ring(_: *mut MappingSlot) {}

    pub(crate) fn note_mark(_: u64) {}
}
