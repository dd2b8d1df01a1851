#!/bin/bash
# Installs what the tests need, builds everything and runs every test.
#
# test.sh            all tests
# test.sh ARGS…      cargo test with these arguments, e.g. test.sh -p edleak-format
set -euo pipefail
cd "$(dirname "$0")"

tests/setup.sh
# The end-to-end tests record with what is built here: the optimized programs, as people use them.
cargo build --release --workspace --bins --lib
samples/build.sh target/samples
if [ $# -gt 0 ]; then
    exec cargo test --profile suite "$@"
fi
exec cargo test --profile suite --workspace
