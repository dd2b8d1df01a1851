#!/bin/bash
# Tests the packages, each in its own file system. Run as root, on Debian, with access to Debian's packages.
#
# packaging/test.sh            all tests
# packaging/test.sh NAME...    the named tests: pages install crates deb tarball ignored
#
# | name    | tests that                                                                 | takes about     |
# |---------|----------------------------------------------------------------------------|-----------------|
# | pages   | manual pages render without a warning; completions complete in three shells | half a minute   |
# | install | `cargo install` into an empty prefix is complete: recording as root and nobody | 3 minutes    |
# | crates  | `cargo package` works for each crate that is published                     | 5 minutes       |
# | deb     | lintian has no errors; the .deb installs, records and analyzes on Debian 12 | 5 minutes      |
# | tarball | its programs run on Debian 12, under musl without glibc, with an old glibc | 5 minutes       |
# | ignored | the tests that CI leaves out: allocators of Rust programs, 100 recordings of one process | 10 minutes |
#
# EDLEAK_BUILT=1 tests the existing packages in target/packages.
#
# CI runs pages (.ci/run). The other tests rebuild everything or download a Debian system, so run them only
# before a release.
set -euo pipefail
cd "$(dirname "$0")/.."
export EDLEAK_PROFILE=${EDLEAK_PROFILE:-release}
target=$(readlink -m "${CARGO_TARGET_DIR:-target}")
packages=$target/packages

fail() { echo "test.sh: $*" >&2; exit 1; }
say() { echo "test.sh: $*"; }

need() { # PACKAGE=PROGRAM...
    local pair
    for pair in "$@"; do
        command -v "${pair#*=}" >/dev/null || fail "\`${pair#*=}\` is missing (install ${pair%=*})"
    done
}

# Run the script again in a mount namespace of its own. So only this script sees its mounts, and the kernel
# removes the mounts when the script ends.
if [ -z "${EDLEAK_MOUNTS-}" ] && [ "$(id -u)" -eq 0 ]; then
    EDLEAK_MOUNTS=own exec unshare --mount --propagation private "$0" "$@"
fi
work=$(mktemp -d)
clean_up() {
    local mount
    for mount in $(awk -v work="$work/" 'index($2, work) == 1 { print $2 }' /proc/self/mounts | tac); do
        umount --lazy "$mount"
    done
    # Delete only files in the same file system: if a mount below this directory still exists, rm must not
    # delete the files in the mount.
    rm -rf --one-file-system "$work"
}
trap clean_up EXIT
chmod 755 "$work"

# Compiles a leaking program for the tests.
leaker() { # COMPILER OUTPUT FLAGS...
    local compiler=$1 output=$2
    shift 2
    "$compiler" -O1 -g -D_GNU_SOURCE "$@" -Isamples/common samples/c_leaker.c -o "$output" -pthread
}

# Records and analyzes the leaking program LEAKER. PREFIX is put before each command, for example `chroot
# ROOT` or `env -i`. BIN is the directory of edleak's programs; WHERE is a name for messages.
records_and_analyzes() { # WHERE BIN LEAKER TRACE PREFIX...
    local where=$1 bin=$2 program=$3 trace=$4 code=0
    shift 4
    "$@" "${bin}edleak-record" -q --period 50ms -o "$trace" "$program" >/dev/null ||
        fail "$where: the leaker is not recorded"
    "$@" "${bin}edleak-analyze" "$trace" >"$work/report" || code=$?
    [ "$code" -eq 1 ] || {
        cat "$work/report"
        fail "$where: edleak-analyze ends with $code, not with 1 for leaks"
    }
    grep -q leak "$work/report" || fail "$where: no leak is named"
    "$@" "${bin}edleak-record" doctor "$program" >"$work/doctor" || {
        cat "$work/doctor"
        fail "$where: doctor complains"
    }
    say "$where: recorded, analyzed, examined"
}

# Installs the Debian release SUITE into a directory, copies it, and sets `root` to the directory of the copy.
# Later runs of this script use the installed release again.
debian() { # SUITE
    local suite=$1 tree=$target/debootstrap/$1
    if [ ! -e "$tree/.complete" ]; then
        rm -rf "$tree"
        mkdir -p "$tree"
        debootstrap --variant=minbase "$suite" "$tree" >"$work/debootstrap.log" ||
            { tail -5 "$work/debootstrap.log" >&2; fail "no Debian $suite"; }
        touch "$tree/.complete"
    fi
    mkdir -p "$work/$suite"
    # Put the copy of the Debian system into memory (tmpfs). So a test may change the copy, and the next test
    # starts with a new copy.
    mount -t tmpfs tmpfs "$work/$suite"
    cp -a "$tree/." "$work/$suite/"
    mount -t proc proc "$work/$suite/proc"
    root=$work/$suite
}

pages() {
    local pages=$work/pages page name
    need mandoc=mandoc groff=groff fish=fish zsh=zsh
    # CI has built edleak-pages before it runs this test, so use that program.
    local program=$target/$EDLEAK_PROFILE/edleak-pages
    [ -n "${CI-}" ] && [ -x "$program" ] || program=
    ${program:-cargo run --quiet --profile "$EDLEAK_PROFILE" -p edleak-pages --} "$pages" 2026-11-29
    for page in "$pages"/man1/*.1; do
        name=$(basename "$page")
        [ -z "$(mandoc -T lint -W warning "$page" 2>&1)" ] ||
            fail "$name: $(mandoc -T lint -W warning "$page" 2>&1)"
        [ -z "$(groff -man -ww -z -Tutf8 "$page" 2>&1)" ] ||
            fail "$name: $(groff -man -ww -z -Tutf8 "$page" 2>&1)"
    done
    complete_in_bash edleak-record --on | grep -qx -- --only || fail "bash does not complete --only"
    complete_in_bash edleak-record doc | grep -qx doctor || fail "bash does not complete doctor"
    complete_in_bash edleak-analyze --form | grep -qx -- --format || fail "bash does not complete --format"
    fish --no-config -c "source $pages/fish/edleak-record.fish; complete -C 'edleak-record --on'" |
        grep -q '^--only' || fail "fish does not complete --only"
    fish --no-config -c "source $pages/fish/edleak-analyze.fish; complete -C 'edleak-analyze --format=s'" |
        grep -q sarif || fail "fish does not complete sarif"
    complete_in_zsh 'edleak-record --on' | grep -q -- '--only' || fail "zsh does not complete --only"
    say "pages: manual pages and completions are sound"
}

complete_in_bash() { # PROGRAM WORD
    bash --norc -c '
        source "$1"
        function=$(complete -p "$2" | sed "s/.*-F \([^ ]*\) .*/\1/")
        COMP_WORDS=("$2" "$3"); COMP_CWORD=1; COMP_LINE="$2 $3"; COMP_POINT=${#COMP_LINE}
        "$function" "$2" "$3" "$2"
        printf "%s\n" "${COMPREPLY[@]}"' bash "$pages/bash/$1.bash" "$1" "$2"
}

# zsh completes only on a terminal. So this function runs zsh on a pseudo-terminal of python3, sends LINE and
# a Tab, and reads the completed line.
complete_in_zsh() { # LINE
    python3 - "$pages/zsh" "$1" <<'PYTHON'
import os, pty, select, sys, time
directory, line = sys.argv[1:]
pid, terminal = pty.fork()
if pid == 0:
    os.environ.update(TERM="dumb", PS1="ready> ", ZDOTDIR="/nonexistent")
    os.execvp("zsh", ["zsh", "-f", "-i"])
seen = b""
def until(text, seconds=20):
    global seen
    end = time.monotonic() + seconds
    while text not in seen and time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                seen += os.read(terminal, 65536)
            except OSError:
                break
until(b"ready> ")
setup = f"fpath=({directory} $fpath); autoload -U compinit; compinit -u -D; echo set'-up'\n"
os.write(terminal, setup.encode())
until(b"set-up\r")
seen = b""
os.write(terminal, line.encode() + b"\t")
until(b"--only")
print(seen.decode(errors="replace"))
os.close(terminal)
PYTHON
}

install() {
    local clone=$work/clone prefix=$work/prefix program=$work/leaker user
    git clone --quiet . "$clone"
    # Install from a new clone into an empty prefix. To save time, cargo may reuse compiled files.
    for crate in recorder/cli analyzer/cli; do
        cargo install --quiet --path "$clone/$crate" --root "$prefix" --target-dir "$target" \
            --profile "$EDLEAK_PROFILE" --locked
    done
    rm -rf "$clone"
    leaker gcc "$program"
    for user in root nobody; do
        mkdir "$work/$user"
        chown $user "$work/$user"
        records_and_analyzes "cargo install, $user" "$prefix/bin/" "$program" "$work/$user/trace.edl" \
            env -i setpriv --reuid=$user --regid="$(id -g $user)" --clear-groups env -C "$work/$user"
    done
}

crates() {
    # Test only the crates that are published. The preload library is not published as a crate, because the
    # package of edleak-record contains its sources.
    cargo package --workspace --exclude edleak-tests --exclude edleak-benches --exclude edleak-pages \
        --exclude edleak-preload --exclude edleak-session-models --locked --allow-dirty
    say "crates: each one can be packaged and built from its package"
}

deb() {
    local package
    need debootstrap=debootstrap lintian=lintian
    [ -n "${EDLEAK_BUILT-}" ] || packaging/build.sh deb
    package=$(ls "$packages"/edleak_*_amd64.deb)
    lintian --fail-on error "$package" || fail "lintian finds errors"
    debian bookworm
    leaker gcc "$root/tmp/leaker"
    cp "$package" "$root/tmp/"
    chroot "$root" dpkg --install "/tmp/$(basename "$package")"
    records_and_analyzes "deb on Debian 12" "" /tmp/leaker /tmp/trace.edl chroot "$root" env -C /tmp
    # A program that is started with LD_PRELOAD only, without edleak-record, must find edleak-record in
    # /usr/bin and record itself.
    chroot "$root" env -C /tmp LD_PRELOAD=/usr/lib/edleak/libedleak_preload.so EDLEAK_OUTPUT=/tmp/bare.edl \
        /tmp/leaker >/dev/null
    waits_for_trace "$root/tmp/bare.edl"
    [ -e "$root/usr/share/man/man1/edleak-record.1.gz" ] || fail "the manual page is missing"
    chroot "$root" dpkg --remove edleak >/dev/null
    [ ! -e "$root/usr/lib/edleak" ] || fail "the package leaves files behind"
    say "deb: installed, used and removed"
}

waits_for_trace() { # TRACE
    local times
    for times in $(seq 200); do
        if grep -q . "$1" 2>/dev/null; then return; fi
        sleep 0.05
    done
    fail "no trace $1"
}

tarball() {
    local name archive
    need debootstrap=debootstrap busybox-static=busybox musl-tools=musl-gcc
    [ -n "${EDLEAK_BUILT-}" ] || packaging/build.sh tarball
    archive=$(ls "$packages"/edleak-*-linux-gnu.tar.gz)
    name=$(basename "$archive" .tar.gz)

    debian bookworm
    tar -C "$root/opt" -xf "$archive"
    leaker gcc "$root/tmp/leaker"
    records_and_analyzes "tarball on Debian 12" "/opt/$name/bin/" /tmp/leaker /tmp/trace.edl \
        chroot "$root" env -C /tmp

    # Make a system like Alpine, with the loader and libc of musl and with busybox, but without glibc.
    local musl=$work/musl
    mkdir -p "$musl"/{bin,lib,proc,tmp,opt}
    chmod 1777 "$musl/tmp"
    cp /usr/lib/x86_64-linux-musl/libc.so "$musl/lib/ld-musl-x86_64.so.1"
    cp "$(command -v busybox)" "$musl/bin/busybox"
    chroot "$musl" /bin/busybox --install -s /bin
    mount -t proc proc "$musl/proc"
    tar -C "$musl/opt" -xf "$archive"
    leaker musl-gcc "$musl/tmp/leaker"
    records_and_analyzes "tarball under musl" "/opt/$name/bin/" /tmp/leaker /tmp/trace.edl \
        chroot "$musl" sh -c 'cd /tmp && exec "$@"' sh

    # Test with the oldest available glibc. edleak's programs must run with it, because they need no libc.
    # edleak's library must run with it, because the library needs only one symbol of libc, in any version.
    debian "${EDLEAK_OLD_SUITE:-bullseye}"
    tar -C "$root/opt" -xf "$archive"
    # This system has no compiler for the leaker, so the test records perl instead.
    chroot "$root" env -C /tmp "/opt/$name/bin/edleak-record" -q -o /tmp/trace.edl perl -e \
        'my @kept; for (1..60) { push @kept, "x" x 5000; select undef, undef, undef, 0.02 }' ||
        fail "nothing is recorded with the glibc of ${EDLEAK_OLD_SUITE:-bullseye}"
    chroot "$root" "/opt/$name/bin/edleak-analyze" --exit-zero /tmp/trace.edl >/dev/null
    say "tarball with an old glibc: recorded, analyzed"
}

ignored() {
    cargo test --profile suite -p edleak-tests --test allocators --test idle -- --ignored
}

for part in ${@:-pages install crates deb tarball ignored}; do
    case $part in
        pages | install | crates | deb | tarball | ignored) "$part" ;;
        *) sed -n '2,18s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
