#!/bin/bash
# A CI job in one script: records a service while its tests run, keeps the trace, and fails if the service leaks.
#
# samples/ci-gate.sh SERVICE TESTS [OUTPUT_DIR (leaks)]
#   SERVICE  the command of the service (a script must start it with `exec`)
#   TESTS    the command that tests it
#
# The script writes the files to archive into OUTPUT_DIR: service.edl (readable later without the binaries),
# leaks.sarif and leaks.txt. If the tests pass, the exit code is the exit code of edleak-analyze (0 no leak, 1
# leaks, 2 undecided). If the tests fail, the exit code is the exit code of the tests.
#
# EDLEAK_BIN is the directory of edleak's programs. EDLEAK_GATE holds further options for edleak-analyze:
# --baseline main.edl, --suppressions leaks.supp, --budget 10KB/min, --strict.
#
# EDLEAK_PROVE=100KB/s tests that the gate can fail: edleak-record adds a leak of 100 KB/s to the recorded
# counters. The job then exits with 0 if the gate fails and names `edleak_injected_leak`, and with 1
# otherwise.
set -uo pipefail

service=$1 tests=$2 out=${3:-leaks}
bin=${EDLEAK_BIN:-$(dirname "$0")/../target/release}
prove=${EDLEAK_PROVE:-}
mkdir -p "$out"
rm -f "$out/service.edl" # an old trace must not be judged below

# shellcheck disable=SC2086 # the shell must split $service into words
"$bin/edleak-record" ${prove:+--inject-leak "$prove"} -o "$out/service.edl" -- $service &
recorder=$!
# shellcheck disable=SC2086
$tests
tested=$?
kill -TERM "$recorder" 2>/dev/null # edleak-record passes it on to the service; its exit code is ignored
wait "$recorder"
[ "$tested" -eq 0 ] || exit "$tested"
[ -e "$out/service.edl" ] || { echo "ci-gate: nothing was recorded (see above)" >&2; exit 3; }

"$bin/edleak-analyze" embed "$out/service.edl" || exit 3
# shellcheck disable=SC2086
"$bin/edleak-analyze" ${EDLEAK_GATE:-} --format sarif -o "$out/leaks.sarif" --exit-zero "$out/service.edl"
# shellcheck disable=SC2086
"$bin/edleak-analyze" ${EDLEAK_GATE:-} "$out/service.edl" | tee "$out/leaks.txt"
verdict=${PIPESTATUS[0]}
[ -n "$prove" ] || exit "$verdict"

if [ "$verdict" -eq 1 ] && grep -q edleak_injected_leak "$out/leaks.txt"; then
    echo "ci-gate: proved: the gate fails, and names the leak that was injected"
else
    echo "ci-gate: NOT PROVED: a leak of $prove was injected, and the gate does not fail on it" >&2
    exit 1
fi
