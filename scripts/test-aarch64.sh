#!/usr/bin/env bash
# Compiles the scan's kernels for aarch64 and runs their tests under emulation, on an x86-64 Debian
# as root: with the Rust, the standard library for aarch64 and the qemu of a Debian testing that it
# sets up once, in the cache (about 3 GB). No other script calls it. Arguments go to the test program.
#
# An aarch64 machine needs none of this: there `cargo test scan::kernel` does the same.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$GRADIX_ROOT"

release=forky
target=aarch64-unknown-linux-gnu
root="$GRADIX_CACHE/aarch64/$release"

[ "$(uname -sm)" = "Linux x86_64" ] || die "this script is for Linux on x86-64"
[ "$(id -u)" -eq 0 ] || die "the kernels for aarch64 were not tested: only root can set up a Debian of its own"
command -v apt-get >/dev/null || die "the kernels for aarch64 were not tested: this system has no apt"

inside() { chroot "$root" env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "$@"; }

if [ ! -f "$root/ready" ]; then
    command -v debootstrap >/dev/null || apt-get -qq install -y debootstrap >/dev/null ||
        die "could not install debootstrap; run 'apt-get update' and this again"
    # The format's words are apt's, not the shell's.
    # shellcheck disable=SC2016
    mirror=$(apt-get indextargets --format '$(ORIGIN) $(COMPONENT) $(REPO_URI)' 'Identifier: Packages' |
        awk '$1 == "Debian" && $2 == "main" && $3 !~ /security/ { print $3; exit }')
    [ -n "$mirror" ] || die "apt knows no mirror of Debian; run 'apt-get update' and this again"
    say "setting up Debian $release in $root, once"
    rm -rf "$root"
    mkdir -p "$root"
    # Named, because an older debootstrap does not know the release.
    debootstrap --variant=minbase "$release" "$root" "$mirror" /usr/share/debootstrap/scripts/sid \
        >"$root.log" 2>&1 || die "debootstrap failed; see $root.log"
    # What this machine lets pass of its mirror's dates, and no more.
    apt-config dump | grep '^Acquire::Check-' >"$root/etc/apt/apt.conf.d/99check" || true
    {
        inside dpkg --add-architecture arm64
        inside apt-get update
        inside DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends rustc cargo \
            libstd-rust-dev:arm64 gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
    } >>"$root.log" 2>&1 || die "the cross compiler could not be installed; see $root.log"
    touch "$root/ready"
fi

# The kernels depend on little: a crate of their own needs no RocksDB.
crate="$root/root/kernels"
mkdir -p "$crate/src/codec" "$crate/.cargo"
rm -rf "$crate/src/kernel"
cp -r src/scan/kernel "$crate/src/"
cp src/codec/lanes.rs "$crate/src/codec/"
printf '#![allow(dead_code)]\npub mod kernel;\npub mod codec {\n    pub mod lanes;\n}\n' >"$crate/src/lib.rs"
dependency() { grep -E "^$1 = " Cargo.toml || die "Cargo.toml does not name $1"; }
{
    printf '[package]\nname = "kernels"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n[dependencies]\n'
    dependency half
    dependency thiserror
    printf '[dev-dependencies]\n'
    dependency proptest
    printf '[profile.dev]\nopt-level = 3\ndebug = "line-tables-only"\n'
} >"$crate/Cargo.toml"
cp Cargo.lock "$crate/"
(cd "$crate" && rm -rf .cargo/config.toml && cargo vendor --quiet >/dev/null) || die "could not fetch the dependencies"
cat >"$crate/.cargo/config.toml" <<END
source.crates-io.replace-with = "vendored"
source.vendored.directory = "/root/kernels/vendor"
target.$target.linker = "aarch64-linux-gnu-gcc"
END

inside rustc --version
inside qemu-aarch64 --version | head -n 1
inside sh -c "cd /root/kernels && cargo test --offline --target $target --lib --no-run"
program=$(find "$crate/target/$target/debug/deps" -name 'kernels-*' -type f -executable -printf '%T@ %f\n' |
    sort -n | tail -n 1 | cut -d ' ' -f 2)
# With every extension that qemu has, and with none.
for cpu in max cortex-a53; do
    say "qemu-aarch64 -cpu $cpu"
    inside qemu-aarch64 -cpu "$cpu" "/root/kernels/target/$target/debug/deps/$program" "$@"
done
