#!/bin/sh
# Starts labswd the way the peer comparison starts every switch: ports on vhost-user sockets, one pinned polling worker.
# usage: peer-labswd.sh DIR CORE SOCKET...      (port pN per socket)
# With a third socket, MIRROR=1 makes port p2 the destination of a mirror of p0, both directions. VLAN=N: all ports access N.
set -eu
dir=$1 core=$2
shift 2
bin=${LABSW_BIN_DIR:-$(dirname "$0")/../target/release}
config=$dir/labswd.toml
{
    printf '[switch]\nworkers = [%s]\npower = "performance"\ncontrol_socket = "%s/control.sock"\nvhost_user_dir = "%s"\n' "$core" "$dir" "$dir"
    n=0
    for socket in "$@"; do
        printf '[ports.p%s]\ntype = "vhost_user"\nsocket = "%s"\n' "$n" "$socket"
        [ -z "${VLAN:-}" ] || printf 'vlan = { mode = "access", tag = %s }\n' "$VLAN"
        n=$((n + 1))
    done
    [ -z "${MIRROR:-}" ] || printf '[mirrors.m]\nsources = ["p0"]\nto = "p2"\n'
} >"$config"
exec "$bin/labswd" --config "$config"
