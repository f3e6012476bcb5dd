#!/usr/bin/env bash
# pi-packages.sh DIR... - add local packages to the settings that a new home gets for pi. No DIR twice. A DIR with nothing
# for pi in it is named and left out: pi would take it for an extension that is broken, and not start at all.
set -euo pipefail

readonly settings=${PI_SETTINGS:-/etc/skel-devbox/.pi/agent/settings.json}

# A manifest, one of the folders that pi looks for by itself, or an extension.
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
    printf 'pi-packages: %s holds no package of pi: left out\n' "$dir" >&2
  fi
done
[[ -f $settings ]] || printf '{}\n' > "$settings"
new=$(jq '.packages = ((.packages // []) + ($ARGS.positional - (.packages // [])))' "$settings" --args "${packages[@]}")
printf '%s\n' "$new" > "$settings"
