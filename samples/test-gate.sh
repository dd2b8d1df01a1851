#!/bin/bash
# Runs a test under edleak and fails if the iterations of the test leak memory:
#
#   test-gate.sh [--] TEST [ARGUMENT]...
#
# The test must do its work EDLEAK_ITERATIONS times (default 30). Before each repetition, the test must set
# the mark `iteration`, with edleak_mark of edleak.h. If the test fails, the script exits with the test's exit
# code. If the iterations leak, the script exits with 1. If the iterations do not leak, if the verdict is
# undecided, or if the test sets no marks, the script exits with 0. If EDLEAK_TRACES names a directory and the
# test leaks or is undecided, the script keeps the trace and the report in this directory.
#
#   ctest           add_test(NAME parser COMMAND test-gate.sh $<TARGET_FILE:parser_test>)
#   cargo nextest   CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=/path/to/samples/test-gate.sh
#                   cargo nextest run
#   pytest          test-gate.sh python3 -m pytest -p edleak_marks tests/
#                   (edleak_marks.py, beside this file, repeats each test and sets the marks)
set -u

[ "${1-}" != -- ] || shift
[ $# -gt 0 ] || { echo "usage: test-gate.sh [--] TEST [ARGUMENT]..." >&2; exit 2; }
# cargo nextest first runs the test program with --list to get the names of the tests. The script makes this
# first run without edleak.
case " $* " in *" --list "*) exec "$@" ;; esac

record=${EDLEAK_RECORD_BIN:-edleak-record} analyze=${EDLEAK_ANALYZE_BIN:-edleak-analyze}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export EDLEAK_ITERATIONS=${EDLEAK_ITERATIONS:-30}

"$record" --quiet -o "$work/test.edl" -- "$@"
code=$?
[ $code -eq 0 ] || exit $code

report=$("$analyze" --per-mark 'iteration*' "$work/test.edl" 2>&1)
verdict=$?
case $report in *"the trace holds no marks"*) exit 0 ;; esac
[ $verdict -ne 0 ] || exit 0
echo "$report" >&2
if [ -n "${EDLEAK_TRACES-}" ]; then
    mkdir -p "$EDLEAK_TRACES"
    name=$EDLEAK_TRACES/$(basename "$1").$$
    cp "$work/test.edl" "$name.edl"
    echo "$report" >"$name.txt"
fi
[ $verdict -ne 1 ] || exit 1
# Exit code 2 means that the verdict is undecided, because edleak needs more iterations. If the verdict is
# undecided, the script exits with 0.
[ $verdict -eq 2 ] || exit $verdict
