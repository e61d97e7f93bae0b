#!/bin/bash
# TCP and ping between two containers (network namespaces), side by side: a Linux bridge with veth pairs whose offloads
# are on, TAP ports of the switch (for = "container"), its veth ports, and veth ports with offloads = true: without the
# kernel fast path ("around": accelerate = "off") and on it ("fast"). One run takes them in turn, round by round, so the
# ratios count and not the absolute figures.
#
# usage: containers_tcp.sh [seconds=4] [rounds=3] [json=FILE]
#   json            writes the rounds' figures into a file, for plot.py
#   LABSW_BIN_DIR   the folder of labswd and labsw-ctl (default: target/release, built if need be)
#
# Prints Gbit/s of TCP one way (iperf3) and the median of 200 pings in µs. Needs root, iperf3 and two CPUs with nothing
# else to do. Everything happens in network namespaces that are removed at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=4 rounds=3 json=
for option; do
  case $option in
    seconds=[1-9]*) seconds=${option#*=} ;;
    rounds=[1-9]*) rounds=${option#*=} ;;
    json=?*) json=$(cd "$OLDPWD" && realpath "${option#*=}") ;;
    *) sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
done
for tool in iperf3 ip jq; do
  command -v $tool >/dev/null || { echo "containers_tcp.sh: $tool is not installed" >&2; exit 1; }
done
bin=${LABSW_BIN_DIR:-$PWD/target/release}
[ -n "${LABSW_BIN_DIR:-}" ] || cargo build -q --release -p labsw-control --bins

work=$(mktemp -d) switch= site=lswb-$$-s a=lswb-$$-a b=lswb-$$-b
end() {
  [ -z "$switch" ] || { kill "$switch"; wait "$switch" || true; switch=; }
  for ns in $site $a $b; do ip netns del "$ns" 2>/dev/null || true; done
}
trap 'end; rm -rf "$work"' EXIT

begin() {
  for ns in $site $a $b; do ip netns add "$ns"; ip -n "$ns" link set lo up; done
}

bridge() {
  ip -n $site link add br0 type bridge
  ip -n $site link set br0 up
  for end in a b; do
    ip -n $site link add "h$end" type veth peer name eth0 netns "${!end}"
    ip -n $site link set "h$end" master br0 up
  done
}

labsw() { # labsw PORT-SETTINGS [SWITCH-SETTINGS], in which %s is the container's letter
  local config=$work/lab.toml end
  printf '[switch]\ncontrol_socket = "%s/ctl"\nworkers = [0]\n%s\n' "$work" "${2:-}" >"$config"
  for end in a b; do
    # shellcheck disable=SC2059
    printf "[ports.c$end]\n$1\nnetns = \"${!end}\"\npeer_name = \"eth0\"\n" "$end" >>"$config"
  done
  ip netns exec $site "$bin/labswd" --config "$config" >"$work/log" 2>&1 &
  switch=$!
  for _ in $(seq 100); do [ -S "$work/ctl" ] && ip -n $b link show eth0 >/dev/null 2>&1 && return; sleep 0.1; done
  cat "$work/log" >&2; exit 1
}

measure() { # prints "Gbit/s ping-µs"
  ip -n $a addr add 10.99.0.1/24 dev eth0; ip -n $b addr add 10.99.0.2/24 dev eth0
  ip -n $a link set eth0 up; ip -n $b link set eth0 up
  ip netns exec $a ping -q -c 1 -w 10 10.99.0.2 >/dev/null
  local ping rate server
  ping=$(ip netns exec $a ping -c 200 -i 0.002 10.99.0.2 | sed -n 's/.*time=\([0-9.]*\) ms/\1/p' | sort -n |
    awk '{ t[NR] = $1 } END { printf "%.0f", 1000 * t[int((NR + 1) / 2)] }')
  ip netns exec $b iperf3 -s -1 >/dev/null & server=$!
  sleep 0.3
  rate=$(ip netns exec $a iperf3 -c 10.99.0.2 -t "$seconds" -O 1 -J | jq '.end.sum_received.bits_per_second / 1e9')
  wait $server
  printf '%.2f %s\n' "$rate" "$ping"
}

printf '%-8s %10s %10s\n' way Gbit/s ping-µs
for _ in $(seq "$rounds"); do
  for way in bridge tap veth around fast; do
    begin
    case $way in
      bridge) bridge ;;
      tap) labsw 'type = "tap"\nfor = "container"\ninterface = "c%s0"' ;;
      veth) labsw 'type = "veth"\npeer = "c%s0"' ;;
      around) labsw 'type = "veth"\noffloads = true\npeer = "c%s0"' 'accelerate = "off"' ;;
      fast) labsw 'type = "veth"\noffloads = true\npeer = "c%s0"' ;;
    esac
    # shellcheck disable=SC2046
    printf '%-8s %10s %10s\n' $way $(measure)
    end
  done
done | tee "$work/rows"
[ -z "$json" ] || awk 'BEGIN { printf "[" } {
  printf "%s{\"cell\":\"tcp\",\"peer\":\"%s\",\"gbps\":%s},\n", NR == 1 ? "" : ",\n", $1, $2
  printf "{\"cell\":\"ping\",\"peer\":\"%s\",\"p50_us\":%s}", $1, $3
} END { print "]" }' "$work/rows" >"$json"
echo
awk '{ n[$1]++; r[$1, n[$1]] = $2; p[$1, n[$1]] = $3 }
  function median(v, way, i, j, t, m, s) {
    m = n[way]; for (i = 1; i <= m; i++) s[i] = v[way, i]
    for (i = 1; i <= m; i++) for (j = i + 1; j <= m; j++) if (s[j] < s[i]) { t = s[i]; s[i] = s[j]; s[j] = t }
    return s[int((m + 1) / 2)]
  }
  END { b = median(r, "bridge"); for (way in n) printf "median %-8s %.2f Gbit/s, %.2f of the bridge, ping %d µs\n", way,
    median(r, way), median(r, way) / b, median(p, way) }' "$work/rows"
