#!/bin/bash
# Builds the samples: samples/build.sh [-s SOURCE_DIR] [OUTPUT_DIR (target/samples)]
#
# Compiles every *.c, *.cpp, *.S and *.rs of SOURCE_DIR (default: this script's directory) to a program of the
# same name, with -O2 -g. A source named lib*.c becomes a shared library. `//#Build: FLAGS` in a source adds
# flags; $OUT means OUTPUT_DIR. `//#Compiler: NAME` chooses another compiler. Builds a program only if it is
# missing or older than its source, the common files or this script. Runs one build on each processor.
set -euo pipefail

self=$(readlink -f "$0")
here=$(dirname "$self")
source_dir=$here
if [ "${1-}" = -s ]; then
    source_dir=$(readlink -f "$2")
    shift 2
fi
out=${1:-$here/../target/samples}
mkdir -p "$out"
out=$(readlink -f "$out")

# Compiles one source. The compiler writes to a temporary name, and the script renames the finished program.
# So an interrupted build leaves no incomplete program.
build_one() {
    local source=$1 base name flags result
    base=$(basename "$source")
    name=${base%.*}
    case $base in lib*.c) result=$out/$name.so ;; *) result=$out/$name ;; esac
    if [ -e "$result" ] && [ ! "$source" -nt "$result" ] && [ ! "$self" -nt "$result" ] &&
        [ -z "$(find "$here/common" "$here/../recorder/cli/include" "$source_dir" -maxdepth 1 \
            -name '*.h' -newer "$result" -print -quit)" ] &&
        [ ! "$here/common/pace.rs" -nt "$result" ]; then
        return
    fi
    flags=$(sed -n 's|^//#Build: *||p' "$source")
    flags=${flags//\$OUT/$out}
    local new=$out/.$name.$$ compiler includes=(-I"$here/common" -I"$here/../recorder/cli/include")
    compiler=$(sed -n 's|^//#Compiler: *||p' "$source")
    # shellcheck disable=SC2086 # the shell must split $flags into words
    case $base in
        lib*.c)
            ${compiler:-${CC:-gcc}} -O2 -g -Wall -fno-builtin-malloc -fPIC -shared "${includes[@]}" \
                "$source" -o "$new" $flags
            ;;
        *.c | *.S)
            ${compiler:-${CC:-gcc}} -O2 -g -Wall -D_GNU_SOURCE "${includes[@]}" \
                "$source" -o "$new" $flags -pthread
            ;;
        *.cpp)
            ${compiler:-${CXX:-g++}} -std=c++17 -O2 -g -Wall "${includes[@]}" \
                "$source" -o "$new" $flags -pthread
            ;;
        *.rs) ${RUSTC:-rustc} --edition 2024 -O -g --crate-name "$name" "$source" -o "$new" $flags ;;
    esac
    mv "$new" "$result"
}

# Lock the output directory, so that only one build runs at a time. Two builds at the same time would both
# compile every program.
exec 9>"$out/.lock"
flock 9

# Build shared libraries first, because some programs are linked with these libraries.
export -f build_one
export self here out source_dir
find "$source_dir" -maxdepth 1 -name 'lib*.c' -print0 |
    xargs -0 -r -n1 -P"$(nproc)" bash -euc 'build_one "$0"'
find "$source_dir" -maxdepth 1 \( -name '*.c' -o -name '*.cpp' -o -name '*.S' -o -name '*.rs' \) \
    ! -name 'lib*.c' -print0 |
    xargs -0 -r -n1 -P"$(nproc)" bash -euc 'build_one "$0"'
