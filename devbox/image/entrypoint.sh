#!/usr/bin/env bash
# The part that runs as root: give `developer` the UID and GID of the workspace's owner, hand over the home directory, and
# go on as developer. A second start changes nothing. When started with `--user`, it skips all that.
#
#   DEVBOX_UID, DEVBOX_GID   instead of the workspace's owner (both or none)
set -euo pipefail

readonly NAME=developer HOME_DIR=/home/developer WORKSPACE=/workspace
readonly NEXT=/usr/local/bin/entrypoint-user.sh

say() { printf 'devbox: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}

# Print the "UID GID" for developer. Never 0: an agent as root would leave files that the owner can't remove.
wanted_ids() {
  local uid gid
  if [[ -n ${DEVBOX_UID:-}${DEVBOX_GID:-} ]]; then
    uid=${DEVBOX_UID:-} gid=${DEVBOX_GID:-}
    [[ $uid =~ ^[1-9][0-9]{0,9}$ && $gid =~ ^[1-9][0-9]{0,9}$ ]] ||
      die "DEVBOX_UID='$uid' and DEVBOX_GID='$gid': set both to numbers above 0, or neither"
  else
    read -r uid gid < <(stat -c '%u %g' "$WORKSPACE" 2> /dev/null || echo '0 0')
  fi
  if ((uid == 0)); then
    uid=$(id -u "$NAME")
    if [[ $(stat -c %u "$WORKSPACE" 2> /dev/null) == 0 ]]; then warn_of_root "$uid"; fi
  fi
  ((gid != 0)) || gid=$(id -g "$NAME")
  echo "$uid $gid"
}

# Rootless engines map only the user who starts them, and to root.
warn_of_root() {
  local inside length
  read -r inside _ length < /proc/self/uid_map
  if ((inside == 0 && length == 1)); then
    say "rootless engine: you are root in here, so $WORKSPACE is read-only for $NAME. Hint: podman run" \
      "--userns=keep-id --user root, or a Docker that is not rootless (devbox/docs/devbox.md)"
  else
    say "$WORKSPACE belongs to root: it may be read-only for $NAME ($1). Hint: chown it, or set DEVBOX_UID and DEVBOX_GID"
  fi
}

# Edits the files itself: `usermod --uid` would walk the home directory across mounts and change the owner of host files.
adjust_user() {
  local uid=$1 gid=$2
  [[ $(id -u "$NAME") == "$uid" && $(id -g "$NAME") == "$gid" ]] && return 0
  put_first /etc/passwd "s/^([^:]*:[^:]*):[0-9]+:[0-9]+:/\1:$uid:$gid:/"
  put_first /etc/group "s/^([^:]*:[^:]*):[0-9]+:/\1:$gid:/"
}

# The first line with a UID names it. A user of the image may have the same UID, and processes must not show that name.
put_first() {
  local file=$1 mine others
  mine=$(grep "^$NAME:" "$file" | sed -E "$2")
  others=$(grep -v "^$NAME:" "$file")
  printf '%s\n' "$mine" "$others" > "$file"
}

# Everything in the home directory becomes developer's. Mounts in it belong to the host and keep their owners, except an
# empty mount point of root: that is how docker creates a new volume or a missing directory. The mounts come from
# mountinfo, not from device numbers: a volume and a mount in it can share one, and files of an overlay can have another.
own_home() {
  local uid=$1 gid=$2 path prune=()
  install -d -o "$uid" -g "$gid" -m 755 "$HOME_DIR"
  while IFS= read -r -d '' path; do
    [[ $path == "$HOME_DIR"/* ]] || continue
    if fresh_mount "$path"; then chown "$uid:$gid" "$path"; fi
    # shellcheck disable=SC2001  # ${path//...} can quote with "&" only in the newest bash
    prune+=(-path "$(sed 's/[][*?\\]/\\&/g' <<< "$path")" -prune -o)
  done < <(mount_points)
  # Skip the half-copied files of other containers: they vanish before chown reaches them. Other files may vanish too.
  find "$HOME_DIR" -ignore_readdir_race "${prune[@]}" ! -uid "$uid" ! -name '*.devbox.*' -print0 |
    xargs -0 -r chown -h "$uid:$gid" || say "can't give all of $HOME_DIR to $NAME, see above: going on"
}

# The fifth field of mountinfo; spaces and the like are octal escapes, which %b decodes.
mount_points() {
  local fields
  while read -r -a fields; do
    printf '%b\0' "${fields[4]}"
  done < /proc/self/mountinfo
}

fresh_mount() {
  [[ -d $1 && $(stat -c %u "$1") == 0 && -w $1 && -z $(ls -A "$1") ]]
}

# Groups given to the container (`--group-add`) stay; those of root don't.
supplementary_groups() {
  local gid=$1 group groups=$1
  for group in $(id -G); do
    [[ $group == 0 || $group == "$gid" ]] || groups+=",$group"
  done
  echo "$groups"
}

main() {
  (($#)) || set -- bash -l
  if (($(id -u) != 0)); then
    exec "$NEXT" "$@"
  fi
  local ids uid gid
  ids=$(wanted_ids)
  read -r uid gid <<< "$ids"
  adjust_user "$uid" "$gid"
  own_home "$uid" "$gid"
  export HOME=$HOME_DIR USER=$NAME LOGNAME=$NAME SHELL=/bin/bash
  exec setpriv --reuid "$uid" --regid "$gid" --groups "$(supplementary_groups "$gid")" --inh-caps=-all -- "$NEXT" "$@"
}

main "$@"
