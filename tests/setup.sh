#!/bin/bash
# Installs the packages that the tests need: compilers for the samples, and programs to record.
#
# tests/setup.sh        installs missing packages (as root, or through sudo)
# tests/setup.sh --list prints the packages, one per line
set -euo pipefail
target=${CARGO_TARGET_DIR:-$(dirname "$(readlink -f "$0")")/../target}

# Installs the TypeScript compiler from npm into target/. tests/tests/html/script.rs checks the types of the
# page's script with this compiler.
install_typescript() {
    [ -e "$target/npm/node_modules/typescript/bin/tsc" ] && return
    mkdir -p "$target/npm"
    # cargo writes the file CACHEDIR.TAG only into a directory that cargo creates itself. Backup programs and
    # the tests look for CACHEDIR.TAG, so setup.sh writes the file.
    [ -e "$target/CACHEDIR.TAG" ] ||
        echo "Signature: 8a477f597d28d172789f06886806bc55" >"$target/CACHEDIR.TAG"
    npm install --prefix "$target/npm" --no-save --no-package-lock --no-fund --no-audit --silent typescript@5
}

# Installs the standard library for musl. tests/tests/counted.rs builds static programs with it. A toolchain
# without rustup must already contain the standard library for musl.
install_musl_target() {
    command -v rustup >/dev/null || return 0
    rustup target list --installed | grep -qx x86_64-unknown-linux-musl ||
        rustup target add x86_64-unknown-linux-musl
}

packages=(
    gcc g++ clang musl-tools     # the samples, and a musl-linked host
    binutils llvm dwz gdb valgrind libc6-dbg # references for symbols, stacks and costs
    python3-jsonschema python3-rfc3987 # tests/tests/gate.rs: a reference for reports
    golang-go                    # tests/tests/pprof.rs: `go tool pprof`, a reference for profiles
    python3-pytest cmake # tests/tests/test_runners.rs: test runners
    python3-yaml systemd procps util-linux # tests/tests/automation.rs and containers.rs
    prometheus python3-prometheus-client # tests/tests/metrics.rs: programs that read the metrics
    strace qemu-user             # tests/tests/attach_refusals: processes that cannot be attached
    mandoc groff zsh fish        # packaging/test.sh pages
    debuginfod                   # debuginfod-find, which `--debuginfod` runs
    python3 sqlite3 jq perl bash git redis-server redis-tools # the main end-to-end tests
    bzip2 xz-utils zstd zip unzip cpio file bc m4 make gawk mawk tcl lua5.4 luajit # tests/tests/distro.rs
    libssl-dev                   # tests/programs/attribution/one_bug_many_sites.cpp
    libjemalloc-dev libgoogle-perftools-dev # tests/programs/allocators
    chromium chromium-driver     # tests/tests/html: the page of --format html in a browser
    diffutils patch less openssl nodejs openjdk-17-jre-headless postgresql nginx-light
)

if [ "${1-}" = --list ]; then
    printf '%s\n' "${packages[@]}"
    exit
fi
if ! command -v dpkg-query >/dev/null; then
    echo "setup.sh: this is no Debian; install the equivalents of: ${packages[*]}" >&2
    exit 1
fi

missing=()
for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
        missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    install_typescript
    install_musl_target
    echo "setup.sh: everything is installed"
    exit
fi

if [ "$(id -u)" -eq 0 ]; then
    sudo=()
elif command -v sudo >/dev/null; then
    sudo=(sudo)
else
    echo "setup.sh: not root and no sudo; install these yourself: ${missing[*]}" >&2
    exit 1
fi
"${sudo[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
# Debian's package nodejs does not contain npm, but other builds of nodejs do.
command -v npm >/dev/null ||
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends npm
install_typescript
install_musl_target
