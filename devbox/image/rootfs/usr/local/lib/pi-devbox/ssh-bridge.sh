#!/usr/bin/env bash
# Write ~/.ssh-local/config: the alias `host` for the machine that runs this container, over one shared connection.
# mp-shim looks for it there. Put your own settings into ~/.ssh-local/config.local: they take precedence.
#
#   HOST_SSH_USER   the user there; empty: no bridge
#   HOST_SSH_HOST   default host.docker.internal
#   HOST_SSH_PORT   default 22
#   HOST_SSH_KEY    path of a private key; default: those in ~/.ssh-local and ~/.ssh, an agent, else a new one
set -euo pipefail

readonly DIR=$HOME/.ssh-local
readonly CONFIG=$DIR/config MARK='# Written at every start of the devbox. Your own settings: ~/.ssh-local/config.local'

say() { printf 'devbox: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}

ours() { [[ -f $CONFIG ]] && [[ $(head -n 1 "$CONFIG") == "$MARK" ]]; }

# A line break or a space in a value would add a line to the configuration.
check_settings() {
  [[ $user =~ ^[A-Za-z0-9_.][A-Za-z0-9_.@-]*$ ]] || die "HOST_SSH_USER='$user' is not a user's name"
  [[ $host =~ ^[A-Za-z0-9_.:][A-Za-z0-9_.:-]*$ ]] || die "HOST_SSH_HOST='$host' is not a host's name or address"
  if [[ ! $port =~ ^[1-9][0-9]{0,4}$ ]] || ((port > 65535)); then die "HOST_SSH_PORT='$port' is not a port"; fi
  [[ -z $key || -r $key ]] || die "HOST_SSH_KEY='$key' can't be read"
  [[ $key != *[$'\n"%']* ]] || die "HOST_SSH_KEY: the path must not contain quotes, percent signs or line breaks"
}

# Print the private keys to offer, one per line; make one if there are none and no agent.
identities() {
  local path found=()
  if [[ -n $key ]]; then
    echo "$key"
    return
  fi
  for path in "$DIR/id_ed25519" ~/.ssh/id_ed25519 ~/.ssh/id_ecdsa ~/.ssh/id_rsa; do
    [[ -r $path ]] && found+=("$path")
  done
  if ((${#found[@]} == 0)) && [[ -z ${SSH_AUTH_SOCK:-} ]]; then
    path=$DIR/id_ed25519
    ssh-keygen -q -t ed25519 -N '' -C "devbox@$(hostname)" -f "$path" >&2
    say "a new key: to let it in, add this line to ~/.ssh/authorized_keys of $user on the host:"
    cat "$path.pub" >&2
    found+=("$path")
  fi
  ((${#found[@]} == 0)) || printf '%s\n' "${found[@]}"
}

# ControlPersist yes: a timeout would end the connection under an idle forward. ControlPath: %C has 40 characters, and a
# starting master adds 17; the limit is 107.
settings() {
  printf '%s\nInclude ~/.ssh-local/config.local\n\n' "$MARK"
  printf 'Host host\n'
  printf '  %s\n' "HostName $host" "User $user" "Port $port" \
    "UserKnownHostsFile ~/.ssh-local/known_hosts ~/.ssh/known_hosts" "StrictHostKeyChecking accept-new" \
    "BatchMode yes" "ConnectTimeout 10" "ServerAliveInterval 15" "ServerAliveCountMax 3" \
    "ControlMaster auto" "ControlPath /tmp/devbox-%i/cm-%C" "ControlPersist yes"
  local path
  while IFS= read -r path; do
    [[ -z $path ]] || printf '  IdentityFile "%s"\n' "$path"
  done <<< "$1"
}

main() {
  local user=${HOST_SSH_USER:-} host=${HOST_SSH_HOST:-host.docker.internal} port=${HOST_SSH_PORT:-22}
  local key=${HOST_SSH_KEY:-} keys new
  if [[ -z $user ]]; then
    # remove a bridge that is no longer wanted: mp-shim would still try it
    if ours; then rm -f "$CONFIG"; fi
    return 0
  fi
  check_settings
  mkdir -p "$DIR"
  chmod 700 "$DIR"
  if [[ -e $CONFIG || -L $CONFIG ]] && ! ours; then
    say "$CONFIG is your own: left as it is"
    return 0
  fi
  keys=$(identities)
  new=$(mktemp "$CONFIG.devbox.XXXXXX")
  settings "$keys" > "$new"
  mv "$new" "$CONFIG"
}

main
