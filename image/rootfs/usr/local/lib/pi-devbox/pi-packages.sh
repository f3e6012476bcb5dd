#!/usr/bin/env bash
# pi-packages.sh PATH... - add local packages to the settings that a new home gets for pi. No PATH twice.
set -euo pipefail

readonly settings=${PI_SETTINGS:-/etc/skel-devbox/.pi/agent/settings.json}
[[ -f $settings ]] || printf '{}\n' > "$settings"
new=$(jq '.packages = ((.packages // []) + ($ARGS.positional - (.packages // [])))' "$settings" --args "$@")
printf '%s\n' "$new" > "$settings"
