#!/usr/bin/env bash
# Installs the system packages that are missing, and only those.
#
#   install-packages.sh build    what compiling needs: a C++ compiler, clang, libclang, pkg-config
#   install-packages.sh bench    the same, and Python's venv
#   install-packages.sh test     the same, Python's venv, torch and numpy, a Vulkan device in software, and a headless browser
#
# `test` succeeds even if Vulkan, torch or the browser cannot be installed: the other tests still run.
# scripts/wgpu-state.sh and scripts/browser-state.sh report whether Vulkan and the browser are usable,
# scripts/python.sh whether torch is.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

purpose=${1:-}
case $purpose in build | bench | test) ;; *) die "usage: install-packages.sh build|bench|test" ;; esac

has_command() { command -v "$1" >/dev/null 2>&1; }

# bindgen loads this library at run time to read RocksDB's C header.
has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    local file
    for file in /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* /usr/lib64/libclang*.so* \
        /usr/lib/libclang*.so* /usr/local/lib/libclang*.so* \
        /Library/Developer/CommandLineTools/usr/lib/libclang.dylib; do
        [ -e "$file" ] && return 0
    done
    return 1
}

has_venv() { has_command python3 && python3 -c 'import ensurepip, venv' >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif has_command sudo; then
        # Nobody can type a password where CI is set.
        sudo ${CI:+-n} "$@"
    else
        return 127
    fi
}

apt_get() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3 "$@" </dev/null; }

lists_are_fresh=no
refresh_lists() {
    [ "$lists_are_fresh" = yes ] && return 0
    say "apt-get update"
    # A single dead third-party source must not stop the build; a package that then cannot be
    # found does.
    apt_get update || say "apt-get update reported errors; going on with the lists there are"
    lists_are_fresh=yes
}

install_missing() {
    local missing=()
    has_command c++ || missing+=(g++)
    has_command clang || missing+=(clang)
    has_libclang || missing+=(libclang-dev)
    has_command pkg-config || missing+=(pkg-config)
    if [ "$purpose" != build ]; then
        has_command python3 || missing+=(python3)
        has_venv || missing+=(python3-venv)
    fi
    [ ${#missing[@]} -eq 0 ] && return 0
    has_command apt-get || die "missing on this system, please install: ${missing[*]}"
    refresh_lists
    say "apt-get install ${missing[*]}"
    apt_get install -y --no-install-recommends "${missing[@]}" >/dev/null ||
        die "could not install ${missing[*]}; install them by hand and run this again"
}

# The suite `<release>-backports` from the mirror that apt already uses for <release> itself.
add_backports() {
    local release=$1 targets mirror entry=/etc/apt/sources.list.d/gradix-backports.sources keyring
    # The format's words are apt's, not the shell's.
    # shellcheck disable=SC2016
    targets=$(apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(REPO_URI)' 'Identifier: Packages')
    grep -q "^$release-backports main " <<<"$targets" && return 0
    mirror=$(awk -v release="$release" '$1 == release && $2 == "main" { print $3; exit }' <<<"$targets")
    [ -n "$mirror" ] || return 1
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    say "adding $release-backports of the configured mirror to apt's sources ($entry)"
    {
        printf 'Types: deb\nURIs: %s\nSuites: %s-backports\nComponents: main\n' "$mirror" "$release"
        if [ -f "$keyring" ]; then printf 'Signed-By: %s\n' "$keyring"; fi
    } | as_root tee "$entry" >/dev/null || return 1
    lists_are_fresh=no
    refresh_lists
    if ! grep -q "$release-backports/" <<<"$(apt-cache madison mesa-vulkan-drivers)"; then
        # The mirror does not carry it: leave apt as it was found.
        as_root rm -f "$entry"
        return 1
    fi
}

# Mesa's software device. Debian 12's own Mesa, 22.3.6, silently computes wrong sums, so on
# that release it must come from backports (25.0.7 was checked against a host reference).
install_vulkan() {
    "$GRADIX_ROOT/scripts/wgpu-state.sh" >/dev/null && return 0
    [ "$(uname -s)" = Linux ] && has_command apt-get || return 0
    local release from=()
    release=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    refresh_lists
    if [ "$release" = bookworm ]; then
        add_backports "$release" || {
            say "$release-backports is not available"
            return 0
        }
        from=(-t "$release-backports")
    fi
    say "apt-get install ${from[*]:-} mesa-vulkan-drivers libvulkan1 libdrm2"
    apt_get install -y --no-install-recommends ${from[@]+"${from[@]}"} mesa-vulkan-drivers libvulkan1 libdrm2 >/dev/null ||
        say "the Vulkan packages could not be installed"
}

# Looks at the report's page in the tests.
install_browser() {
    "$GRADIX_ROOT/scripts/browser-state.sh" >/dev/null && return 0
    [ "$(uname -s)" = Linux ] && has_command apt-get || return 0
    refresh_lists
    say "apt-get install chromium chromium-driver"
    apt_get install -y --no-install-recommends chromium chromium-driver >/dev/null ||
        say "the browser could not be installed"
}

# For the tests of the Python package: the CPU's PyTorch of the distribution, which is small.
install_torch() {
    /usr/bin/python3 -c 'import ensurepip, numpy, torch, venv' >/dev/null 2>&1 && return 0
    [ "$(uname -s)" = Linux ] && has_command apt-get || return 0
    refresh_lists
    say "apt-get install python3-torch python3-numpy python3-venv"
    apt_get install -y --no-install-recommends python3-torch python3-numpy python3-venv >/dev/null ||
        say "PyTorch could not be installed"
}

install_missing
[ "$purpose" != test ] || install_torch
if [ "$purpose" = test ] && [ "${GRADIX_TEST_BROWSER:-}" != skip ]; then
    install_browser
fi
if [ "$purpose" = test ] && [ "${GRADIX_TEST_WGPU:-}" != skip ]; then
    install_vulkan
fi
