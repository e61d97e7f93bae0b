#!/bin/bash
# Side by side with other switches: labsw, Open vSwitch with DPDK, the Linux bridge, and testpmd (which only moves
# frames between two ports, no switch at all), each on one core behind the same generator, taking turns. Prints a table
# of rates.
#
# Generators and the way every switch is started are the peer benchmark's own, `vhost_l2.py` and `veth_l2.py`. Places:
#   LABSW_PEER_BENCH   the folder of that benchmark (default: ../shared/bench beside the repository)
#   LABSW_BIN_DIR      the folder of the labswd to measure (default: target/release)
#
# usage: peers.sh [SET] [options of the script behind the set]
#   plain     (default) rings recycled untouched, so that only the switch's core is the bottleneck; labsw with access
#             VLANs as well
#   mirror    the same with a mirror of one port, both directions, to a third
#   selecting labsw alone, without a mirror and with one that selects nothing: by its VLAN, and by the filter
#             tcp port 445
#   impaired  labsw alone, with and without a delay of 20 ms at the port that frames go to
#   guests    DPDK's virtio-user drivers on the other core
#   latency   the same drivers, 100,000 frames per second, each one stamped
#   veth      frames per second from veth to veth, in copy mode; testpmd is DPDK's net_af_xdp, forwarding in io mode
#             (veth_l2.py)
#   containers
#             TCP between two namespaces, with the endpoints' offloads as they are (tcp) and off (tcp-noff), and ping
#             (veth_l2.py). A switch at AF_XDP sockets has them off always
#   tcp       TCP between two QEMU guests, and a guest and a container; offloads as they are, and refused
#             (guests_tcp.py)
#   By default short: two rounds of one second a cell, which shows that it works. For figures, on a machine with nothing
#   else to do: peers.sh SET --seconds 1 --reps 5 --json FILE. More peers: --peer vpp, --peer testpmd-mac.
#
# Needs root, two CPUs (CPU 0 for the switch, CPU 1 for the generator) and 2 GiB for huge pages, whose number is put
# back.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
scripts=${LABSW_PEER_BENCH:-$here/../../shared/bench}
export LABSW_BIN_DIR=${LABSW_BIN_DIR:-$here/../target/release}
fail() { echo "peers.sh: $*" >&2; exit 1; }

[ -r "$scripts/vhost_l2.py" ] || fail "no vhost_l2.py in $scripts; set LABSW_PEER_BENCH to the folder of the peer benchmark"
export LABSW_PEER_BENCH=$scripts
[ -x "$LABSW_BIN_DIR/labswd" ] || fail "no labswd in $LABSW_BIN_DIR; run: make build"
[ "$(id -u)" = 0 ] || fail "must run as root (huge pages, scheduling)"
[ "$(nproc)" -ge 2 ] || fail "needs two CPUs"
for tool in python3 gcc pkg-config dpdk-testpmd ovsdb-server; do
  command -v "$tool" >/dev/null || fail "$tool is missing; the README of the peer benchmark lists the packages"
done

labsw="'$here/peer-labswd.sh' {dir} {core} {p0} {p1}"
set=plain
case ${1:-} in
  plain | mirror | selecting | impaired | guests | latency | veth | containers | tcp) set=$1; shift ;;
esac
script=$scripts/vhost_l2.py
veths=(--name labsw --switch "'$here/peer-labswd.sh' {dir} {core} {if0} {if1}" --seconds 2)
case $set in
  veth)
    script=$scripts/veth_l2.py
    options=("${veths[@]}" --tests 64/1/uni,64/1000/uni,1518/1/uni --peer testpmd-afxdp --peer ovs-afxdp --peer ovs-afpacket --peer bridge) ;;
  containers)
    script=$scripts/veth_l2.py
    options=("${veths[@]}" --tests tcp,tcp-noff,ping --peer bridge --peer ovs-afxdp --peer ovs-afpacket) ;;
  tcp)
    script=$here/guests_tcp.py options=() ;;
  plain)
    options=(--gen blind --cells 64/1/uni,64/1/bi,64/1000/uni,64/1000/bi,512/1/uni,1518/1/uni,1518/1/bi
      --name labsw --mode server --switch "$labsw" --name labsw-vlan --mode server --switch "env VLAN=20 $labsw"
      --peer ovs --peer testpmd-io) ;;
  mirror)
    options=(--gen blind --ports 3 --cells 64/1/uni,64/1/bi,1518/1/uni
      --name labsw --mode server --switch "$labsw {p2}" --name labsw-mirror --mode server --switch "env MIRROR=1 $labsw {p2}"
      --peer ovs-mirror) ;;
  selecting)
    options=(--gen blind --ports 3 --cells 64/1/uni,64/1000/uni --name labsw --mode server --switch "$labsw {p2}"
      --name labsw-other-vlan --mode server --switch "env MIRROR=1 MIRROR_KEYS='vlans = [99]' $labsw {p2}"
      --name labsw-filter --mode server --switch "env MIRROR=1 MIRROR_KEYS='filter = \"tcp port 445\"' $labsw {p2}") ;;
  impaired)
    options=(--gen blind --cells 64/1/uni,1518/1/uni --name labsw --mode server --switch "$labsw"
      --name labsw-delay --mode server --switch "env DELAY=20ms $labsw") ;;
  guests)
    options=(--cells 64/1/uni,64/1000/uni,512/1/uni,1518/1/uni --name labsw --mode server --switch "$labsw"
      --peer ovs --peer testpmd-io) ;;
  latency)
    options=(--cells 64/1/uni/0/2,64/1/uni/0.1/1 --name labsw --mode server --switch "$labsw" --peer ovs --peer testpmd-io) ;;
esac

# The scripts put the number of huge pages back themselves, unless they are killed.
pages=/proc/sys/vm/nr_hugepages
before=$(cat $pages)
trap 'echo "$before" >$pages' EXIT

case $set in
  veth | containers | tcp) python3 "$script" "${options[@]}" --reps 2 "$@" ;;
  *) python3 "$script" "${options[@]}" --seconds 1 --reps 2 "$@" ;;
esac
