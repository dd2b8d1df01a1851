#!/bin/bash
# Installs the packages for the tests, builds everything and runs all tests.
#
# test.sh            all tests
# test.sh ARGS…      cargo test with these arguments, e.g. test.sh -p edleak-format
set -euo pipefail
cd "$(dirname "$0")"

tests/setup.sh
# The end-to-end tests use these optimized programs, as users do.
cargo build --release -p edleak-record -p edleak-analyze -p edleak-preload
samples/build.sh target/samples
if [ $# -gt 0 ]; then
    exec cargo test --profile suite "$@"
fi
exec cargo test --profile suite --workspace
