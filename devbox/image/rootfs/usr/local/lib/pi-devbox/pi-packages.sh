#!/usr/bin/env bash
# pi-packages.sh DIR... - add local packages to the settings of pi that a new home gets, each DIR once. A DIR that holds
# nothing for pi is reported and skipped: pi would take it for a broken extension, and not start at all.
set -euo pipefail

readonly settings=${PI_SETTINGS:-/etc/skel-devbox/.pi/agent/settings.json}

# It has a manifest, one of the folders that pi looks for, or an extension.
is_package() {
  local name
  if [[ -f $1/package.json ]] && jq -e 'has("pi")' "$1/package.json" > /dev/null; then return 0; fi
  for name in extensions skills prompts themes index.ts index.js; do
    if [[ -e $1/$name ]]; then return 0; fi
  done
  return 1
}

packages=()
for dir in "$@"; do
  if is_package "$dir"; then
    packages+=("$dir")
  else
    printf 'pi-packages: %s holds no package for pi: skipped\n' "$dir" >&2
  fi
done
[[ -f $settings ]] || printf '{}\n' > "$settings"
new=$(jq '.packages = ((.packages // []) + ($ARGS.positional - (.packages // [])))' "$settings" --args "${packages[@]}")
printf '%s\n' "$new" > "$settings"
