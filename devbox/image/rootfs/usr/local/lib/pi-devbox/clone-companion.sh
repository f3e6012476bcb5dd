#!/usr/bin/env bash
# clone-companion.sh URL REF DIR [--npm]
#
# Make a shallow checkout of REF (branch, tag or commit) in DIR; --npm also installs the dependencies in package.json.
# `git clone --branch` does not take commits, so this fetches the one ref and checks out FETCH_HEAD. It tries five times:
# an hour-long build should not fail because of a dropped connection. DIR is always made anew.
set -euo pipefail

readonly ATTEMPTS=${CLONE_ATTEMPTS:-5} PAUSE_S=${CLONE_PAUSE_S:-5}

die() {
  printf 'clone-companion: %s\n' "$*" >&2
  exit 1
}

[[ $# -eq 3 || ($# -eq 4 && $4 == --npm) ]] || die "usage: clone-companion.sh URL REF DIR [--npm]"
readonly url=$1 ref=$2 dir=$3 npm=${4:-}
[[ -n $ref && $ref != -* ]] || die "$url: '$ref' is not a branch, tag or commit: set it by its build argument"
[[ $dir == /*/* ]] || die "DIR must be an absolute path below a directory, not '$dir'"
export GIT_TERMINAL_PROMPT=0 # a missing repository must fail, not wait for a password

# Run the arguments as a command until it succeeds, at most ATTEMPTS times.
persist() {
  local attempt
  for ((attempt = 1; attempt <= ATTEMPTS; attempt++)); do
    "$@" && return 0
    ((attempt == ATTEMPTS)) && break
    printf 'clone-companion: %s failed (attempt %d of %d)\n' "$1 ${*: -1}" "$attempt" "$ATTEMPTS" >&2
    sleep $((attempt * PAUSE_S))
  done
  return 1
}

rm -rf "$dir"
git init -q "$dir"
git -C "$dir" remote add origin "$url"
persist git -C "$dir" fetch -q --depth 1 origin "$ref" ||
  die "$url: '$ref' can't be fetched. Does it exist, is it public, is the host reachable? (git ls-remote $url)"
git -C "$dir" -c advice.detachedHead=false checkout -q FETCH_HEAD
printf '%s %s %s\n' "$url" "$ref" "$(git -C "$dir" rev-parse HEAD)" >> /usr/local/lib/pi-devbox/companions

if [[ -n $npm && -f $dir/package.json ]]; then
  # Use its lock file if it has one. Peers are left out: pi is global, and each extension would install another one.
  how=(install --no-package-lock)
  if [[ -f $dir/package-lock.json || -f $dir/npm-shrinkwrap.json ]]; then how=(ci); fi
  persist npm "${how[@]}" --omit=dev --omit=peer --prefix "$dir" || die "$url: npm ${how[0]} failed"
  npm cache clean --force 2> /dev/null
fi
