//! Functions that do nothing, in place of those parts of the preload library that a static program does not
//! need. The files of src/shared, which the preload library and this crate share, call these functions.

/// A program that counts its own allocations starts no collector.
pub(crate) mod detached {
    use crate::cold::environment::Environment;
    use crate::cold::path::Path;

    pub(crate) fn start(_: &Environment, _: &mut Path) -> bool {
        false
    }
}

/// This crate needs no detours, because `Counted` sees every call of the allocator.
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

/// This crate writes no detours, so no detour needs the address of a hook.
pub(crate) mod hooks {
    use edleak_session::detour::HOOKS;

    pub(crate) fn all() -> [usize; HOOKS] {
        [0; HOOKS]
    }

    pub(crate) fn note_pool() -> usize {
        0
    }
}

/// This crate writes no detours, so no thread is ever inside a detoured function.
pub(crate) mod inside {
    use crate::hot::thread::Tls;

    pub(crate) fn is_inside(_: &mut Tls, _: usize) -> bool {
        false
    }
}

/// This crate replaces no function for aligned memory.
pub(crate) mod aligned {
    pub(crate) fn resolve() {}
}

/// This crate replaces no operator new or operator delete.
pub(crate) mod operators {
    pub(crate) fn resolve() {}
}

/// The program calls mmap through no function that edleak could replace, so this crate records no mappings.
pub(crate) mod mapping {
    use edleak_session::mapping::MappingSlot;

    pub(crate) fn resolve() {}

    pub(crate) fn set_ring(_: *mut MappingSlot) {}

    pub(crate) fn note_mark(_: u64) {}
}
