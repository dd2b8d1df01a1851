#!/bin/bash
# Writes the files in corpus/symbols. All files contain the same tiny program, but each file has a different
# common form of symbols and debug information.
set -euo pipefail
cd "$(dirname "$0")/corpus/symbols"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

cat >"$work/a.cpp" <<'SOURCE'
namespace { template <class T> struct Box { T value; T grow(T by) { return value += by; } }; }
static inline __attribute__((always_inline)) int twice(int n) { return n * 2; }
extern "C" void *malloc(unsigned long);
__attribute__((noinline)) int work(int n) { Box<int> box{n}; return malloc(twice(n)) ? box.grow(n) : 0; }
extern "C" void *malloc(unsigned long n) { return (void *)n; }
extern "C" void _start() { work(twice(3)); for (;;) ; }
SOURCE
# Compiles the program. The options leave out the C library and the padding between segments, so that the
# files are small.
build() {
    g++ -Os -nostdlib -static -ffreestanding -fno-exceptions -fasynchronous-unwind-tables \
        -Wl,-N,--build-id,--eh-frame-hdr "$@" "$work/a.cpp"
}
(cd "$work" && build -g -gdwarf-5 -o dwarf5 && build -g -gdwarf-4 -o dwarf4 &&
    build -g -gdwarf-5 -gsplit-dwarf -o skeleton
    dwp -o package ./*.dwo)
objcopy --compress-debug-sections=zlib "$work/dwarf5" zlib
objcopy --compress-debug-sections=zstd "$work/dwarf5" zstd
cp "$work/dwarf5" dwarf5
cp "$work/dwarf4" dwarf4
cat "$work/skeleton" "$work/package" >split
strip -o stripped "$work/dwarf5"
objcopy --only-keep-debug "$work/dwarf5" "$work/debug"
cat stripped "$work/debug" >parted
objcopy --strip-all --keep-symbol=work "$work/dwarf5" "$work/mini" && xz -9 "$work/mini"
objcopy --add-section .gnu_debugdata="$work/mini.xz" --add-gnu-debuglink="$work/debug" stripped mini
rm stripped
ls -l
