#!/usr/bin/env bash
# The part that runs as developer: fill the home directory, set up the way to the host, start the Studio relay if asked,
# and become the command. What the user changed stays, and a second start changes nothing.
#
#   STUDIO_EXPOSE=1   (or true, yes, on) start studio-expose; its output: ~/.local/state/devbox/studio-expose.log
#   HOST_SSH_*        see /usr/local/lib/pi-devbox/ssh-bridge.sh
set -euo pipefail

readonly SKELETON=/etc/skel-devbox LIB=/usr/local/lib/pi-devbox PYTHON=/opt/mempalace-broker/venv/bin/python
RUN_DIR=/tmp/devbox-$(id -u)
readonly RUN_DIR

say() { printf 'devbox: %s\n' "$*" >&2; }

# A private directory in this container's own /tmp: sockets need a local filesystem and short paths.
make_run_dir() {
  mkdir -m 700 "$RUN_DIR" 2> /dev/null || true
  if [[ -L $RUN_DIR || ! -d $RUN_DIR || ! -O $RUN_DIR ]]; then
    say "$RUN_DIR is not a directory of $(id -un): remove it"
    exit 1
  fi
  chmod 700 "$RUN_DIR"
  rm -f "$RUN_DIR/ready"
}

start_studio_expose() {
  local log=$HOME/.local/state/devbox/studio-expose.log
  case ${STUDIO_EXPOSE:-} in # the same words as in healthcheck.sh
    1 | [Tt]rue | TRUE | [Yy]es | YES | [Oo]n | ON) ;;
    '' | 0 | [Ff]alse | FALSE | [Nn]o | NO | [Oo]ff | OFF) return 0 ;;
    *)
      say "STUDIO_EXPOSE='$STUDIO_EXPOSE' is neither yes nor no: studio-expose is not started. Hint: set it to 1 or 0"
      return 0
      ;;
  esac
  mkdir -p "$(dirname "$log")"
  studio-expose < /dev/null > "$log" 2>&1 &
  say "studio-expose runs (pid $!), its output goes to $log"
}

main() {
  (($#)) || set -- bash -l
  if [[ -n ${HOME:-} && -w ${HOME:-} ]]; then
    "$PYTHON" -I -m pi_devbox.home "$SKELETON" || say "$HOME lacks what this image brings, see above"
    make_run_dir
    "$LIB/ssh-bridge.sh" || say "no way to the host by ssh; everything else works"
    start_studio_expose
    : > "$RUN_DIR/ready"
  else
    say "HOME='${HOME:-}' can't be written by UID $(id -u): nothing is set up. Hint: start without --user, or mount a home"
  fi
  exec "$@"
}

main "$@"
