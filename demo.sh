#!/bin/bash
# Builds edleak and the sample leaker, records the leaker for eight seconds and analyzes the trace.
set -euo pipefail
cd "$(dirname "$0")"

cargo build --release --workspace --bins --lib
samples/build.sh target/samples
bin=${CARGO_TARGET_DIR:-target}/release
trace=${1:-target/demo.edl}

echo
echo "+ edleak-record -o $trace --period 100ms ./leaker --seconds 8"
"$bin/edleak-record" -o "$trace" --period 100ms target/samples/leaker --seconds 8
echo
echo "+ edleak-analyze $trace --min-class linear"
# Exit code 1 means that leaks were found; this demo expects them.
"$bin/edleak-analyze" "$trace" --min-class linear || [ $? -eq 1 ]
