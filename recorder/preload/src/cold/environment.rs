//! COLD: the environment and the auxiliary vector of this process.
#![allow(unsafe_code)]

use crate::cold::{elf, symbols, sys};
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// The environment and the auxiliary vector, as the kernel stored them on the stack or as libc keeps them.
pub(crate) struct Environment(*const *const u8);

/// The address of the array of variables that `Environment::of_process` has found. `STACK_START` has the
/// start of the stack that holds the variables.
static VARIABLES: AtomicPtr<*const u8> = AtomicPtr::new(ptr::null_mut());
static STACK_START: AtomicUsize = AtomicUsize::new(0);

/// The start of the initial stack, which holds the environment; 0: libc is not glibc, or the library has not
/// found the stack yet.
pub(super) fn stack_start() -> usize {
    STACK_START.load(Ordering::Relaxed)
}

impl Environment {
    /// The address of the array of variables.
    pub(super) fn address(&self) -> usize {
        self.0 as usize
    }

    /// The environment that the library found at its start. A forked child must not look up the environment
    /// again, because the fork may have interrupted a `dlsym`.
    pub(super) fn known() -> Environment {
        Environment(VARIABLES.load(Ordering::Relaxed))
    }

    pub(super) fn of_process() -> Environment {
        // When the library starts, libc may not know the environment yet. But the environment is on the
        // initial stack, and glibc's loader has already stored the address of this stack in
        // `__libc_stack_end`. musl does not define `__libc_stack_end`, so with musl, the library uses libc's
        // variable `environ`.
        let stack_end = symbols::global(c"__libc_stack_end").cast::<*const usize>();
        let environ = symbols::global(c"environ").cast::<*const *const u8>();
        let variables = if !stack_end.is_null() {
            // SAFETY: glibc stores the address of argc in `__libc_stack_end`. After argc come the arguments,
            // a null and the environment.
            let argc = unsafe { *stack_end };
            STACK_START.store(argc as usize, Ordering::Relaxed);
            // SAFETY: argc lies at this address. After argc come the arguments, a null and the environment.
            argc.wrapping_add(1 + unsafe { *argc } + 1).cast()
        } else if !environ.is_null() {
            // SAFETY: libc's variable `environ` holds the address of the array of variables.
            unsafe { *environ }
        } else {
            ptr::null()
        };
        VARIABLES.store(variables.cast_mut(), Ordering::Relaxed);
        Environment(variables)
    }

    /// The variables. Each variable is a NUL-terminated text `NAME=value`.
    pub(crate) fn variables(&self) -> impl Iterator<Item = *const u8> {
        let mut at = self.0;
        core::iter::from_fn(move || {
            if at.is_null() {
                return None;
            }
            // SAFETY: the array ends in a null, and the iteration ends there.
            let variable = unsafe { *at };
            at = at.wrapping_add(1);
            (!variable.is_null()).then_some(variable)
        })
    }

    /// The value of a variable; `None`: the environment does not contain the variable.
    pub(crate) fn get(&self, name: &[u8]) -> Option<*const u8> {
        self.variables().find_map(|variable| {
            // SAFETY: the comparison stops at the first difference, so it does not read beyond the NUL.
            let same = name.iter().enumerate().all(|(i, &byte)| unsafe { *variable.wrapping_add(i) } == byte);
            // SAFETY: the whole name matched without a NUL, so the byte after the name is still inside the
            // variable.
            (same && unsafe { *variable.wrapping_add(name.len()) } == b'=')
                .then(|| variable.wrapping_add(name.len() + 1))
        })
    }

    /// Whether the kernel gave this process the privileges of its executable file (set-user-ID,
    /// capabilities). A user with fewer rights has set the environment of a privileged process, so the
    /// library must not use this environment.
    pub(super) fn is_secure(&self) -> bool {
        const AT_SECURE: usize = 23;
        match self.auxiliary(AT_SECURE).or_else(|| of_libc(AT_SECURE)) {
            Some(secure) => secure != 0,
            None => sys::has_other_ids(),
        }
    }

    /// The path with which the kernel executed this program; `None`: libc does not provide the path.
    pub(crate) fn executed_file(&self) -> Option<*const u8> {
        const AT_EXECFN: usize = 31;
        let file = self.auxiliary(AT_EXECFN).or_else(|| of_libc(AT_EXECFN))?;
        (file != 0).then_some(file as *const u8)
    }

    /// The address of the program's own ELF program headers, which lie in the first page of the program.
    pub(super) fn program_headers(&self) -> Option<usize> {
        const AT_PHDR: usize = 3;
        self.auxiliary(AT_PHDR).or_else(|| of_libc(AT_PHDR))
    }

    /// The address range of the dynamic loader, from the auxiliary vector.
    pub(super) fn loader(&self) -> Option<(usize, usize)> {
        const AT_BASE: usize = 7;
        let base = self.auxiliary(AT_BASE)?;
        // SAFETY: the kernel mapped the loader at `base`.
        unsafe { elf::elf_extent(base) }.map(|(end, _)| (base, end))
    }

    /// A value of the auxiliary vector; `None`: the vector does not contain the value, or the library did not
    /// find the environment on the initial stack.
    fn auxiliary(&self, kind: usize) -> Option<usize> {
        const AT_NULL: usize = 0;
        if self.0.is_null() || stack_start() == 0 {
            return None;
        }
        let mut at = self.0.wrapping_add(self.variables().count()).cast::<usize>();
        // SAFETY: after the environment come one or more nulls, then the auxiliary vector, whose first kind
        // is not 0. There are several nulls if the loader removed variables from the environment of a
        // privileged program: each removed variable leaves one null.
        while unsafe { *at } == 0 {
            at = at.wrapping_add(1);
        }
        loop {
            // SAFETY: the auxiliary vector consists of pairs of words (a kind and its value), and the kind of
            // the last pair is `AT_NULL`.
            match unsafe { *at } {
                AT_NULL => return None,
                // SAFETY: `at` is the address of the kind of a pair, and the next word is the value of this
                // pair.
                found if found == kind => return Some(unsafe { *at.wrapping_add(1) }),
                _ => at = at.wrapping_add(2),
            }
        }
    }
}

/// Gets a value of the auxiliary vector from libc; `None`: libc does not have the function `getauxval`.
fn of_libc(kind: usize) -> Option<usize> {
    let function = symbols::global(c"getauxval");
    // SAFETY: the pointer is null or leads to libc's getauxval, which takes one number and returns one
    // number.
    let getauxval: Option<unsafe extern "C" fn(usize) -> usize> = unsafe { core::mem::transmute(function) };
    // SAFETY: getauxval accepts any number.
    getauxval.map(|getauxval| unsafe { getauxval(kind) })
}
