//! Finds runtimes and allocators that take memory from the kernel instead of malloc, so that edleak does not
//! see their allocations. For each such runtime or allocator, the module gives the user a remedy, such as a
//! setting that makes it use malloc.

use crate::frame::base_name;
use edleak_format::{ModuleId, Trace};

/// A runtime or an allocator with a heap of its own: the recorded program contains it, and it does not take
/// its memory from malloc.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct OwnHeap {
    /// The name of the runtime or allocator.
    pub(crate) name: String,
    /// Advice for the user: how to make the allocations of this runtime or allocator visible to edleak, or
    /// another tool that shows these allocations.
    pub(crate) remedy: String,
    /// The module of the allocator whose allocations the recorder did not count; `None`: edleak recognized a
    /// runtime by a file name and does not know the module.
    pub(crate) uncounted: Option<ModuleId>,
}

/// A runtime that edleak recognizes by the file name of the runtime's program or of one of its libraries.
struct Runtime {
    name: &'static str,
    /// Prefixes of the file names of the runtime's program and libraries.
    files: &'static [&'static str],
    remedy: &'static str,
}

const RUNTIMES: &[Runtime] = &[
    Runtime {
        name: "PHP's memory manager",
        files: &["php", "libphp", "mod_php"],
        remedy: "record with USE_ZEND_ALLOC=0",
    },
    Runtime {
        name: "Python's allocator of small objects",
        files: &["python", "libpython", "uwsgi_python"],
        remedy: "record with PYTHONMALLOC=malloc",
    },
    Runtime {
        name: "Arrow's memory pool",
        files: &["libarrow."],
        remedy: "record with ARROW_DEFAULT_MEMORY_POOL=system",
    },
    Runtime {
        name: "the Java heap",
        files: &["libjvm."],
        remedy: "look at it with a heap dump; native memory: `-XX:NativeMemoryTracking=summary`",
    },
    Runtime {
        name: "V8's heap",
        files: &["node", "libnode.", "libv8"],
        remedy: "look at it with `--heapsnapshot-signal`",
    },
    Runtime { name: "the Go heap", files: &["libgo."], remedy: "look at it with pprof" },
    Runtime {
        name: "LuaJIT's heap",
        files: &["luajit", "libluajit"],
        remedy: "look at it with `collectgarbage(\"count\")`",
    },
    Runtime { name: "the .NET heap", files: &["libcoreclr."], remedy: "look at it with `dotnet-gcdump`" },
    Runtime { name: "GLib's slices", files: &["libglib-2."], remedy: "record with G_SLICE=always-malloc" },
];

/// Finds, in a trace, the runtimes and allocators that do not take their memory from malloc. The function
/// finds allocators by the contents of the modules, and runtimes by the file names of the program and of its
/// modules.
pub(crate) fn of_trace(trace: &Trace) -> Vec<OwnHeap> {
    let program = trace.start().command.first().map(String::as_str);
    let modules = || trace.modules().iter().map(|module| module.path.as_str());
    let mut found = known(program.into_iter().chain(modules()));
    for allocator in trace.allocators() {
        let module = trace.module(allocator.module).map_or("a module", |module| base_name(&module.path));
        let uncounted = Some(allocator.module);
        let named = known([module].into_iter());
        match found.iter_mut().find(|heap| named.iter().any(|named| named.name == heap.name)) {
            Some(heap) => heap.uncounted = uncounted,
            None => {
                let name = format!("the allocator of {module} (`{}`)", allocator.symbol);
                let remedy = "build it with the system's malloc".into();
                found.insert(0, OwnHeap { name, remedy, uncounted });
            }
        }
    }
    found
}

fn known<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<OwnHeap> {
    let names: Vec<&str> = paths.map(base_name).collect();
    let is_there = |known: &&Runtime| {
        names.iter().any(|name| {
            known.files.iter().any(|start| {
                let Some(rest) = name.strip_prefix(start) else { return false };
                // The prefix `python` matches the file name `python3.11`, but not `pythonic`; `libphp`
                // matches `libphp8.2.so`.
                start.ends_with('.')
                    || !rest.starts_with(|letter: char| letter.is_alphabetic() || letter == '_')
            })
        })
    };
    let own_heap =
        |known: &Runtime| OwnHeap { name: known.name.into(), remedy: known.remedy.into(), uncounted: None };
    RUNTIMES.iter().filter(is_there).map(own_heap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remedies(paths: &[&str]) -> Vec<String> {
        known(paths.iter().copied()).into_iter().map(|own| own.remedy).collect()
    }

    #[test]
    fn runtimes_are_known_by_program_and_libraries() {
        assert_eq!(remedies(&["/usr/bin/php8.2"]), ["record with USE_ZEND_ALLOC=0"]);
        assert_eq!(remedies(&["/usr/sbin/php-fpm8.2"]), ["record with USE_ZEND_ALLOC=0"]);
        assert_eq!(remedies(&["/usr/bin/python3.11"]), ["record with PYTHONMALLOC=malloc"]);
        assert_eq!(
            remedies(&["server", "/usr/lib/libpython3.11.so.1.0", "/x/libarrow.so.1500"]),
            ["record with PYTHONMALLOC=malloc", "record with ARROW_DEFAULT_MEMORY_POOL=system"]
        );
        assert_eq!(remedies(&["pythonic", "nodejs_like", "/usr/lib/libc.so.6"]), [""; 0]);
    }
}
