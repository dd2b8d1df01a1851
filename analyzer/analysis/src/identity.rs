//! Decides whether two sites of different recordings are the same piece of code.
//!
//! The exact key consists of the build ID and the offset of every return address. The exact key stays the
//! same after a restart of the program, even if address space layout randomization changes all addresses. If
//! the program is rebuilt, the build ID and the offsets change, so the exact keys differ. If the build IDs
//! differ, edleak compares the names of all functions and modules of the two stacks. Line numbers and
//! directories are not compared, so they may change between two builds. If several sites have the same
//! functions (for example, two calls of malloc in one function), edleak pairs the sites of the two recordings
//! in the order in which they are in the code.

use crate::frame::{Address, GENERATED_NAME, base_name};
use crate::site::{INJECTED_NAME, JudgedSite, Kind};

/// The keys by which edleak recognizes a site in another recording. Two sites are the same piece of code if
/// they have the same `code` or the same `names`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Identity {
    /// Build IDs and offsets of the stack; `None`: at least one module of the stack has no build ID.
    pub(crate) code: Option<String>,
    /// Modules and functions of the stack; `None`: the innermost function is unknown.
    pub(crate) names: Option<String>,
    /// If the site is a stack of a watched caller, the keys of this caller without the rest of the stack;
    /// `None` for any other site.
    pub(crate) caller: Option<Box<Identity>>,
}

impl Identity {
    /// The identity of a site whose stack is symbolized.
    pub(crate) fn of(site: &JudgedSite) -> Self {
        Self::new(site.kind, &site.stack)
    }

    /// The identity of a site with this kind and stack.
    pub(crate) fn new(kind: Kind, stack: &[Address]) -> Self {
        if kind == Kind::Injected {
            return Self { code: None, names: Some(INJECTED_NAME.into()), caller: None };
        }
        let mut identity = Self::of_stack(stack);
        if matches!(kind, Kind::Mapping | Kind::Allocator) {
            // One function may both allocate and map memory, so the key of a site that maps memory gets a
            // prefix.
            for key in [&mut identity.code, &mut identity.names].into_iter().flatten() {
                key.insert_str(0, "mapping:");
            }
        }
        if kind == Kind::Pool {
            // One function may both allocate memory and call a pool, so the key of a caller of a pool gets a
            // prefix.
            for key in [&mut identity.code, &mut identity.names].into_iter().flatten() {
                key.insert_str(0, "pool:");
            }
        }
        if let (Kind::Stack, [caller, ..]) = (kind, stack) {
            identity.caller = Some(Box::new(Self::of_stack(std::slice::from_ref(caller))));
        }
        identity
    }

    fn of_stack(stack: &[Address]) -> Self {
        let code = stack
            .iter()
            .map(|address| match address.offset {
                Some(offset) if !address.build_id.is_empty() => {
                    Some(format!("{}+{offset:x}", address.build_id))
                }
                _ => None,
            })
            .collect::<Option<Vec<_>>>()
            .filter(|parts| !parts.is_empty())
            .map(|parts| parts.join(";"));
        let is_known = stack.first().is_some_and(|first| {
            first.is_generated || first.frames.iter().any(|frame| frame.function.is_some())
        });
        let names = is_known.then(|| stack.iter().map(names_of).collect::<Vec<_>>().join(";"));
        Self { code, names, caller: None }
    }

    /// Whether both sites are the same piece of code in the same build of the program.
    pub(crate) fn is_same_code(&self, other: &Self) -> bool {
        self.code.is_some() && self.code == other.code
    }

    /// Whether the stacks of both sites have the same functions, in different builds of the program. In the
    /// same build, other offsets are other code, for example another call of malloc in the same function.
    pub(crate) fn is_same_function(&self, other: &Self) -> bool {
        self.names.is_some() && self.names == other.names && !self.is_of_same_build(other)
    }

    fn is_of_same_build(&self, other: &Self) -> bool {
        let builds = |code: &str| -> Vec<String> {
            code.split(';').map(|part| part.split('+').next().unwrap_or_default().to_owned()).collect()
        };
        let [one, other] = [&self.code, &other.code].map(|code| code.as_deref().map(builds));
        one.is_some() && one == other
    }

    /// A short hash that identifies the code; the hash is the same on every machine. Tools use the hash to
    /// find the same leak in the results of many runs.
    pub(crate) fn fingerprint(&self) -> String {
        let key = self.names.as_deref().or(self.code.as_deref()).unwrap_or_default();
        format!("{:016x}", fnv1a(key.as_bytes()))
    }
}

fn names_of(address: &Address) -> String {
    if address.is_generated {
        return GENERATED_NAME.into();
    }
    let module = address.module.as_deref().map_or("?", base_name);
    let functions: Vec<&str> =
        address.frames.iter().map(|frame| frame.function.as_deref().unwrap_or("?")).collect();
    format!("{module}!{}", if functions.is_empty() { "?".into() } else { functions.join("<") })
}

/// The hash FNV-1a. The hash of a text is the same on every machine and in every version of edleak. The
/// hasher of `std` may give another hash in another version of Rust.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use edleak_format::SymbolFrame;

    fn address(build_id: &str, offset: u64, function: Option<&str>) -> Address {
        let frame = function.map(|name| SymbolFrame {
            function: Some(name.into()),
            file: None,
            line: 1,
            is_inlined: false,
        });
        Address {
            address: 0x7000 + offset,
            module: Some("/usr/bin/app".into()),
            build_id: build_id.into(),
            offset: Some(offset),
            is_generated: false,
            frames: frame.into_iter().collect(),
            module_id: None,
        }
    }

    #[test]
    fn a_rebuild_keeps_the_functions_and_nothing_else() {
        let old = Identity::of_stack(&[address("aa", 0x10, Some("grow")), address("aa", 0x99, Some("main"))]);
        let new = Identity::of_stack(&[address("bb", 0x18, Some("grow")), address("bb", 0xa1, Some("main"))]);
        assert!(old.is_same_function(&new) && !old.is_same_code(&new));
        assert_eq!(old.fingerprint(), new.fingerprint());
        assert_eq!(old.code.as_deref(), Some("aa+10;aa+99"));
        assert_eq!(old.names.as_deref(), Some("app!grow;app!main"));
    }

    #[test]
    fn another_call_in_the_same_function_of_the_same_build_is_other_code() {
        let of = |offset: u64| {
            Identity::of_stack(&[address("aa", offset, Some("handle")), address("aa", 0x99, Some("main"))])
        };
        assert!(of(0x10).is_same_code(&of(0x10)));
        assert!(!of(0x10).is_same_code(&of(0x20)) && !of(0x10).is_same_function(&of(0x20)));
    }

    #[test]
    fn unknown_identities_never_match() {
        let unknown = Identity::of_stack(&[address("", 0x10, None)]);
        assert!(!unknown.is_same_code(&unknown.clone()) && !unknown.is_same_function(&unknown.clone()));
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
