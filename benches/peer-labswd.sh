#!/bin/sh
# Starts labswd the way the peer comparison starts every switch: one pinned polling worker, a port for each SOCKET (a
# path: vhost-user) or INTERFACE (a name: AF_XDP).
# usage: peer-labswd.sh DIR CORE SOCKET|INTERFACE...      (port pN for the N-th)
# With a third port, MIRROR=1 makes port p2 the destination of a mirror of p0, both directions. VLAN=N: all ports access
# N. MIRROR_KEYS: a line more for the mirror. DELAY=T: frames to port p1 are delayed.
# KEYS: a line more for each port, as in KEYS="mtu = 9000". POWER: performance (default), or adaptive.
set -eu
dir=$1 core=$2
shift 2
bin=${LABSW_BIN_DIR:-$(dirname "$0")/../target/release}
config=$dir/labswd.toml
{
    printf '[switch]\nworkers = [%s]\npower = "%s"\ncontrol_socket = "%s/control.sock"\nvhost_user_dir = "%s"\n' "$core" "${POWER:-performance}" "$dir" "$dir"
    n=0
    for port in "$@"; do
        printf '[ports.p%s]\n' "$n"
        case $port in
        */*) printf 'type = "vhost_user"\nsocket = "%s"\n' "$port" ;;
        *) printf 'type = "af_xdp"\ndevice = "name:%s"\n' "$port" ;;
        esac
        [ -z "${KEYS:-}" ] || printf '%s\n' "$KEYS"
        [ -z "${VLAN:-}" ] || printf 'vlan = { mode = "access", tag = %s }\n' "$VLAN"
        n=$((n + 1))
    done
    [ -z "${DELAY:-}" ] || printf '[impair.p1]\ndelay = "%s"\ndirection = "tx"\n' "$DELAY"
    [ -z "${MIRROR:-}" ] || printf '[mirrors.m]\nsources = ["p0"]\nto = "p2"\n%s\n' "${MIRROR_KEYS:-}"
} >"$config"
exec "$bin/labswd" --config "$config"
