#!/bin/bash
# Installs the packages for the tests, builds everything and runs all tests.
#
# test.sh            all tests
# test.sh ARGS…      cargo test with these arguments, e.g. test.sh -p edleak-format
set -euo pipefail
cd "$(dirname "$0")"

tests/setup.sh
# The end-to-end tests run edleak's programs with the preload library. The programs have the same profile as
# the tests (`suite`), so cargo builds every crate once, with overflow checks and assertions. The library is
# the release build, which users load.
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
cargo build --release -p edleak-preload
cargo build --profile suite --workspace --exclude edleak-preload --all-targets
mkdir -p "$target/tested"
ln -f "$target"/suite/edleak-{record,analyze} "$target/release/libedleak_preload.so" "$target/tested"
export EDLEAK_BIN_DIR=$target/tested
samples/build.sh target/samples
if [ $# -gt 0 ]; then
    # Most tests wait for a recorded program, so the number of tests that run at the same time is twice the
    # number of processors.
    export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) * 2))}
    exec cargo test --profile suite "$@"
fi
exec tests/run.sh --profile suite
