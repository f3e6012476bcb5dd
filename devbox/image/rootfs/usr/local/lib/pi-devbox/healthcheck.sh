#!/usr/bin/env bash
# Healthy: the entry point is done, and the Studio relay runs if it was asked for. A broker is not part of that: it starts
# when an agent needs it, and asking it would keep it awake.
set -euo pipefail

run_dir=/tmp/devbox-$(id -u developer)
if [[ ! -e $run_dir/ready ]]; then
  echo "still starting"
  exit 1
fi
case ${STUDIO_EXPOSE:-} in # the same words as in entrypoint-user.sh
  1 | [Tt]rue | TRUE | [Yy]es | YES | [Oo]n | ON) ;;
  *) exit 0 ;;
esac
if ! pgrep -u developer -f '/studio-expose( |$)' > /dev/null; then
  echo "studio-expose has ended: see ~/.local/state/devbox/studio-expose.log"
  exit 1
fi
