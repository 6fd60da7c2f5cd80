#!/usr/bin/env bash
# Prints in one line whether this machine has a Chromium that the report's tests can drive.
# Exit status 0: yes. 1: no, and the line gives the reason.
set -euo pipefail

command -v chromedriver >/dev/null 2>&1 || {
    printf 'chromedriver is not installed\n'
    exit 1
}
for browser in chromium chromium-browser google-chrome; do
    if command -v "$browser" >/dev/null 2>&1; then
        printf '%s, %s\n' "$browser" "$(chromedriver --version | cut -d ' ' -f 1,2)"
        exit 0
    fi
done
printf 'no Chromium is installed\n'
exit 1
