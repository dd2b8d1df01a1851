#!/bin/bash
# Runs a test under edleak and fails it if its iterations leave memory behind: test-gate.sh [--] TEST [ARGUMENT]...
#
# The test does its work EDLEAK_ITERATIONS times (default 30) and sets the mark `iteration` before each, with edleak_mark
# of edleak.h. The exit code is the test's own if the test fails; 1 if the iterations leak; else 0. A test without marks
# is run as it is. EDLEAK_TRACES names a directory that keeps the traces and the reports of tests that leak.
#
#   ctest           add_test(NAME parser COMMAND test-gate.sh $<TARGET_FILE:parser_test>)
#   cargo nextest   CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=/path/to/samples/test-gate.sh cargo nextest run
#   pytest          test-gate.sh python3 -m pytest -p edleak_marks tests/
#                   (edleak_marks.py, beside this file, repeats each test and sets the marks)
set -u

[ "${1-}" != -- ] || shift
[ $# -gt 0 ] || { echo "usage: test-gate.sh [--] TEST [ARGUMENT]..." >&2; exit 2; }
# A test runner asks for the list of tests first.
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
# 2: the iterations are too few to tell, which is no failure of the test.
[ $verdict -eq 2 ] || exit $verdict
