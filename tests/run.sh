#!/bin/bash
# Runs all tests as `cargo test --workspace` does, but runs several test programs at the same time. Most tests
# spend their time waiting for a recorded program. So if only one test program ran at a time, the processors
# would be idle.
#
# tests/run.sh ARGS…      ARGS are arguments for cargo, for example a profile
set -euo pipefail
cd "$(dirname "$0")/.."

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
export logs
# Runs as many test programs as there are processors. Each test program runs two tests at the same time.
at_once=$(nproc)
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-2}

# Each line of the file $logs/all has the name, the directory and the executable of a test program.
cargo test --workspace --no-run --message-format=json-render-diagnostics "$@" |
    jq -r 'select(.profile.test and .executable) | [.target.name, .manifest_path, .executable] | @tsv' |
    sed 's:/Cargo.toml\t:\t:' >"$logs/all"
# The longest test programs start first, so that none of them runs alone at the end.
longest=(
    html attach_allocators allocators counted e2e verdicts attribution stacks gate containers command_line
)
for name in "${longest[@]}"; do
    grep -P "^$name\t" "$logs/all" || true
done >"$logs/first"
grep -vxFf "$logs/first" "$logs/all" >"$logs/rest"

run() {
    IFS=$'\t' read -r name directory executable <<<"$1"
    log=$(mktemp -p "$logs")
    # edleak-record lists the recordings whose sockets are in the directory XDG_RUNTIME_DIR. Each test program
    # has its own XDG_RUNTIME_DIR, so it does not see the recordings of the other test programs.
    XDG_RUNTIME_DIR=$(mktemp -d -p "$logs")
    export XDG_RUNTIME_DIR
    status=0
    began=$SECONDS
    (cd "$directory" && CARGO_MANIFEST_DIR=$directory "$executable") >"$log" 2>&1 || status=$?
    [ $status -eq 0 ] || echo "$name (exit code $status)" >>"$logs/failed"
    flock "$logs/all" bash -c 'echo; echo "     Running $1 ($2 s)"; cat "$3"' \
        - "$executable" $((SECONDS - began)) "$log"
    # On a full disk, the name of a failed test program may be missing in the list of failures. So the exit
    # status reports the failure, too.
    [ $status -eq 0 ]
}
export -f run
cat "$logs/first" "$logs/rest" | xargs -d '\n' -n 1 -P "$at_once" bash -c 'run "$1"' - || has_failed=1
if ! cargo test --workspace --doc "$@"; then
    has_failed=1
    echo "doc tests" >>"$logs/failed"
fi
if [ -n "${has_failed-}" ]; then
    echo "error: these test programs failed:"
    cat "$logs/failed"
    exit 101
fi
