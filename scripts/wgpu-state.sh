#!/usr/bin/env bash
# Prints in one line whether this machine has a Vulkan device that the wgpu tests can trust.
# Exit status 0: yes. 1: no, and the line gives the reason.
#
# Debian 12's stock Mesa (22.3.6) is installed on many machines and silently wrong, so finding a
# driver is not enough: the software device counts from Mesa 25.0.7 on.
set -euo pipefail

oldest_mesa=25.0.7

yes_because() {
    printf '%s\n' "$*"
    exit 0
}
no_because() {
    printf '%s\n' "$*"
    exit 1
}

[ "$(uname -s)" = Darwin ] && yes_because "Metal"
[ "$(uname -s)" = Linux ] || no_because "not known on this system; set GRADIX_TEST_WGPU=run to try"

loader=no
for file in /usr/lib/*/libvulkan.so.1 /usr/lib64/libvulkan.so.1 /usr/lib/libvulkan.so.1 /usr/local/lib/libvulkan.so.1; do
    [ -e "$file" ] && loader=yes
done
[ "$loader" = yes ] || no_because "no Vulkan loader (libvulkan.so.1)"

shopt -s nullglob
drivers=(/usr/share/vulkan/icd.d/*.json /etc/vulkan/icd.d/*.json)
[ ${#drivers[@]} -gt 0 ] || no_because "no Vulkan driver"
for driver in "${drivers[@]}"; do
    case $(basename "$driver") in
    nvidia_icd*)
        [ -e /dev/nvidia0 ] && yes_because "NVIDIA's driver"
        ;;
    esac
done

# The rest is Mesa. If dpkg does not list it, its version is unknown.
command -v dpkg-query >/dev/null 2>&1 || no_because "Mesa's version is unknown; set GRADIX_TEST_WGPU=run to try"
mesa=$(dpkg-query --show --showformat '${db:Status-Status} ${Version}\n' mesa-vulkan-drivers 2>/dev/null |
    sed -n 's/^installed //p' | head -n 1)
[ -n "$mesa" ] || no_because "mesa-vulkan-drivers is not installed"
# 25.0.7-2~bpo12+1, the backport, counts: compared with 25.0.7 alone it is the newer one.
dpkg --compare-versions "$mesa" ge "$oldest_mesa" || no_because "Mesa $mesa computes wrong results; $oldest_mesa or newer is needed"
yes_because "Mesa $mesa"
