#!/bin/bash
# Builds packages of edleak into target/packages.
#
# packaging/build.sh deb       a .deb for Debian 12 and later, and similar distributions
# packaging/build.sh tarball   a .tar.gz with statically linked programs, for any x86-64 Linux
#
# EDLEAK_PROFILE is the build profile (default: release); with `quick`, a trial package is built much faster.
# EDLEAK_MAINTAINER is the maintainer in the .deb ("Name <address>"); default: the author of the last commit.
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1-}
case $what in deb | tarball) ;; *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;; esac
profile=${EDLEAK_PROFILE:-release}
target=$(readlink -m "${CARGO_TARGET_DIR:-target}")
packages=$target/packages
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
mkdir -p "$packages"

# Manual pages and completions are generated from the command lines of the programs.
pages() {
    rm -rf "$1"
    cargo run --quiet --profile "$profile" -p edleak-pages -- "$1" "$(git log -1 --format=%cs)"
}

deb() {
    cargo_deb=$target/tools/bin/cargo-deb
    if ! "$cargo_deb" --version 2>/dev/null | grep -q '3\.8\.'; then
        cargo install cargo-deb --version =3.8.0 --locked --root "$target/tools"
    fi
    cargo build --profile "$profile" -p edleak-record -p edleak-analyze
    local built=$target/$profile
    pages "$built/packaging"
    gzip --no-name --best "$built/packaging/man1/"*.1
    gzip --no-name --best --stdout CHANGELOG.md >"$built/packaging/changelog.gz"
    "$built/edleak-record" unpack "$built/packaging/lib"
    local maintainer=${EDLEAK_MAINTAINER:-$(git log -1 --format='%an <%ae>')}
    {
        printf 'edleak (%s-1) unstable; urgency=medium\n\n' "$version"
        printf '  * What changed for users is in CHANGELOG.md.\n\n'
        printf ' -- %s  %s\n' "$maintainer" "$(git log -1 --format=%cD)"
    } | gzip --no-name --best >"$built/packaging/changelog.Debian.gz"
    "$cargo_deb" deb --package edleak-record --no-build --profile "$profile" --maintainer "$maintainer" \
        --no-dbgsym --strip --output "$packages/edleak_${version}_amd64.deb"
}

tarball() {
    local triple=x86_64-unknown-linux-gnu
    # `+crt-static` links the programs statically. Use the same RUSTFLAGS for every build in this directory,
    # because cargo builds everything again if they change.
    RUSTFLAGS="-C target-feature=+crt-static" \
        cargo build --profile "$profile" --target $triple -p edleak-record -p edleak-analyze
    local built=$target/$triple/$profile name=edleak-$version-$triple
    local tree=$target/packaging/$name
    rm -rf "$tree"
    mkdir -p "$tree"/{bin,lib,share/doc/edleak,share/man} "$tree/share/bash-completion/completions" \
        "$tree/share/zsh/site-functions" "$tree/share/fish/vendor_completions.d"
    for program in edleak-record edleak-analyze; do
        strip --strip-debug -o "$tree/bin/$program" "$built/$program"
        ! readelf --program-headers "$tree/bin/$program" | grep -q INTERP ||
            { echo "build.sh: $program is not static" >&2; exit 1; }
    done
    "$tree/bin/edleak-record" unpack "$tree/lib/edleak"
    rm "$tree/lib/edleak/edleak-record" # it is in bin/, where the library also looks
    mkdir -p "$tree/include"
    mv "$tree/lib/edleak/"edleak*.h "$tree/include/"
    pages "$target/packaging/pages"
    cp -r "$target/packaging/pages/man1" "$tree/share/man/"
    for program in edleak-record edleak-analyze; do
        cp "$target/packaging/pages/bash/$program.bash" "$tree/share/bash-completion/completions/$program"
        cp "$target/packaging/pages/zsh/_$program" "$tree/share/zsh/site-functions/"
        cp "$target/packaging/pages/fish/$program.fish" "$tree/share/fish/vendor_completions.d/"
    done
    cp -r README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE docs "$tree/share/doc/edleak/"
    # These options make the package reproducible: the same input always gives the same bytes.
    tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$(git log -1 --format=%ct)" \
        --directory "$target/packaging" "$name" | gzip --no-name --best >"$packages/$name.tar.gz"
    echo "$packages/$name.tar.gz"
}

"$what"
