#!/bin/bash
# Side by side with other switches: labsw, Open vSwitch with DPDK, and testpmd (which only moves frames between two
# ports, no switch at all), each on one core behind the same generator, taking turns. Prints a table of Mpps and ratios.
#
# The generator and the way every switch is started are the peer benchmark's own, `vhost_l2.py`. Where it is:
#   LABSW_PEER_BENCH   its folder (default: ../shared/bench beside the repository)
#   LABSW_BIN_DIR      the folder of the labswd to measure (default: target/release)
#
# usage: peers.sh [SET] [options of vhost_l2.py]
#   plain     (default) rings recycled untouched, so that only the switch's core is the bottleneck; labsw with access
#             VLANs as well
#   mirror    the same with a mirror of one port, both directions, to a third
#   guests    DPDK's virtio-user drivers on the other core
#   latency   the same drivers, 100,000 frames per second, each one stamped
#   By default short: two rounds of one second a cell, which shows that it works. For figures, on a machine with nothing
#   else to do: peers.sh SET --seconds 1 --reps 5 --json FILE. More peers: --peer vpp, --peer testpmd-mac.
#
# Needs root, two CPUs (CPU 0 for the switch, CPU 1 for the generator) and 2 GiB for huge pages, whose number is put back.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
scripts=${LABSW_PEER_BENCH:-$here/../../shared/bench}
export LABSW_BIN_DIR=${LABSW_BIN_DIR:-$here/../target/release}
fail() { echo "peers.sh: $*" >&2; exit 1; }

[ -r "$scripts/vhost_l2.py" ] || fail "no vhost_l2.py in $scripts; set LABSW_PEER_BENCH to the folder of the peer benchmark"
[ -x "$LABSW_BIN_DIR/labswd" ] || fail "no labswd in $LABSW_BIN_DIR; run: make build"
[ "$(id -u)" = 0 ] || fail "must run as root (huge pages, scheduling)"
[ "$(nproc)" -ge 2 ] || fail "needs two CPUs"
for tool in python3 gcc pkg-config dpdk-testpmd ovsdb-server; do
  command -v "$tool" >/dev/null || fail "$tool is missing; the README of the peer benchmark lists the packages"
done

labsw="'$here/peer-labswd.sh' {dir} {core} {p0} {p1}"
set=plain
case ${1:-} in
  plain | mirror | guests | latency) set=$1; shift ;;
esac
case $set in
  plain)
    options=(--gen blind --cells 64/1/uni,64/1/bi,64/1000/uni,64/1000/bi,512/1/uni,1518/1/uni,1518/1/bi
      --name labsw --mode server --switch "$labsw" --name labsw-vlan --mode server --switch "env VLAN=20 $labsw"
      --peer ovs --peer testpmd-io) ;;
  mirror)
    options=(--gen blind --ports 3 --cells 64/1/uni,64/1/bi,1518/1/uni
      --name labsw --mode server --switch "$labsw {p2}" --name labsw-mirror --mode server --switch "env MIRROR=1 $labsw {p2}"
      --peer ovs-mirror) ;;
  guests)
    options=(--cells 64/1/uni,64/1000/uni,512/1/uni,1518/1/uni --name labsw --mode server --switch "$labsw"
      --peer ovs --peer testpmd-io) ;;
  latency)
    options=(--cells 64/1/uni/0/2,64/1/uni/0.1/1 --name labsw --mode server --switch "$labsw" --peer ovs --peer testpmd-io) ;;
esac

# vhost_l2.py puts the number of huge pages back itself, unless it is killed.
pages=/proc/sys/vm/nr_hugepages
before=$(cat $pages)
trap 'echo "$before" >$pages' EXIT

python3 "$scripts/vhost_l2.py" "${options[@]}" --seconds 1 --reps 2 "$@"
