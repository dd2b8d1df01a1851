#!/bin/bash
# A CI job in one script: records a service while its tests run, keeps the traces, and fails if the service
# leaks.
#
# samples/ci-gate.sh SERVICE TESTS [OUTPUT_DIR (leaks)]
#   SERVICE  the command of the service (a script must start it with `exec`)
#   TESTS    the command that tests it
#
# The script writes the files to archive into OUTPUT_DIR: service.edl (readable later without the binaries),
# leaks.sarif and leaks.txt. If the service executes another program after a second or more, OUTPUT_DIR also
# has service.exec1.edl; with --children, it has service.PID.edl for each child. The script judges all of
# these traces together. A child of less than a quarter of a second makes the job undecided, so record only
# the programs to judge: EDLEAK_RECORD_OPTIONS="--children --only server".
#
# If the tests pass, the exit code is the exit code of edleak-analyze (0 no leak, 1 leaks, 2 undecided). If
# the tests fail, the exit code is the exit code of the tests. If edleak-record failed or was killed, the exit
# code is 3.
#
# EDLEAK_BIN is the directory of edleak's programs. EDLEAK_RECORD_OPTIONS holds further options for
# edleak-record, such as --children. EDLEAK_GATE holds further options for edleak-analyze:
# --baseline main.edl, --suppressions leaks.supp, --budget 10KB/min, --strict.
#
# EDLEAK_PROVE=100KB/s tests that the gate can fail: edleak-record adds a leak of 100 KB/s to the recorded
# counters. The job then exits with 0 if the gate fails and names `edleak_injected_leak`, and with 1
# otherwise.
set -uo pipefail
shopt -s nullglob extglob

service=$1 tests=$2 out=${3:-leaks}
bin=${EDLEAK_BIN:-$(dirname "$0")/../target/release}
prove=${EDLEAK_PROVE:-}
mkdir -p "$out"
# Old files must be neither judged below nor archived as the result of this job.
rm -f "$out"/service.edl "$out"/service.*.edl "$out"/leaks.sarif "$out"/leaks.txt

fail() {
    echo "ci-gate: $1" >&2
    exit 3
}

# shellcheck disable=SC2086 # the shell must split $service into words
"$bin/edleak-record" ${EDLEAK_RECORD_OPTIONS:-} ${prove:+--inject-leak "$prove"} \
    -o "$out/service.edl" -- $service &
recorder=$!
# shellcheck disable=SC2086
$tests
tested=$?
kill -TERM "$recorder" 2>/dev/null # edleak-record passes it on to the service
wait "$recorder"
recorded=$?
[ "$tested" -eq 0 ] || exit "$tested"
traces=("$out"/service?(.*).edl)
[ "${#traces[@]}" -gt 0 ] || fail "nothing was recorded (see above)"
# edleak-record ends with the exit code of the service. The codes 125 to 127 are its own, unless the service
# ends with one of them, too.
case $recorded in 125 | 126 | 127) fail "edleak-record failed with exit code $recorded (see above)" ;; esac
# If a signal kills edleak-record, the exit code can be that of a killed service. But only a trace that
# edleak-record finished is complete.
for trace in "${traces[@]}"; do
    "$bin/edleak-analyze" --format json --exit-zero "$trace" | grep '"complete":true' >/dev/null ||
        fail "edleak-record ended with exit code $recorded before it finished $trace (run the job again)"
    "$bin/edleak-analyze" embed "$trace" || exit 3
done

# shellcheck disable=SC2086
"$bin/edleak-analyze" ${EDLEAK_GATE:-} --format sarif -o "$out/leaks.sarif" --exit-zero "${traces[@]}"
# shellcheck disable=SC2086
"$bin/edleak-analyze" ${EDLEAK_GATE:-} "${traces[@]}" | tee "$out/leaks.txt"
verdict=${PIPESTATUS[0]}
[ -n "$prove" ] || exit "$verdict"

if [ "$verdict" -eq 1 ] && grep -q edleak_injected_leak "$out/leaks.txt"; then
    echo "ci-gate: proved: the gate fails, and names the leak that was injected"
else
    echo "ci-gate: NOT PROVED: a leak of $prove was injected, and the gate does not fail on it" >&2
    exit 1
fi
