#!/bin/bash
# The whole main job on real parts, narrated: `make demo`.
#
#   namespace gateway            namespace switch                         guests and container
#   gw10, gw20 (DHCP) -- g0 ===== lsw-b  uplink \          / vm10  vhost-user -- QEMU, VLAN 10
#                                                labswd --- vm20  vhost-user -- QEMU, VLAN 20
#   namespace listener           lsw-a  span    /          \ web   veth ------- LXC container, VLAN 10
#   tcpdump ------------- l0 =====
#
# Every check either holds or ends the demo with exit status 1. Whatever way it ends, the namespaces, processes,
# container and files it made are removed. Needs root and the programs in LABSW_BIN_DIR.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
bin=${LABSW_BIN_DIR:?directory of labswd, labsw-ctl and labsw-vlan-gateway; make demo sets it}
cache=${LABSW_CACHE:-/var/cache/labsw}
id=lsdemo$$
gateway=$id-gw switch=$id-sw listener=$id-li
dir=$(mktemp -d /tmp/lsdemo.XXXXXX)
pids=()
container_running=no

title() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
say() { printf '   %s\n' "$*"; }
holds() { printf '   \033[32mholds\033[0m  %s\n' "$*"; }
fail() {
  printf '   \033[31mFAILS\033[0m  %s\n' "$*"
  exit 1
}

cleanup() {
  local status=$? pid
  trap - EXIT INT TERM
  set +e
  if [ $status -ne 0 ]; then
    echo "--- the switch's log ends:"
    tail -20 "$dir/labswd.log" 2>/dev/null
  fi
  [ $container_running = yes ] && ip netns exec "$switch" lxc-stop -P "$dir/lxc" -n web -k
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
  sleep 0.5
  for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; done
  for ns in "$gateway" "$switch" "$listener" "$id-web"; do ip netns del "$ns" 2>/dev/null; done
  rm -rf "$dir"
  [ $status -eq 0 ] && echo "Everything held; the machine is as it was."
  exit $status
}
trap cleanup EXIT
trap 'exit 1' INT TERM

# wait_for WHAT SECONDS COMMAND...: until the command succeeds.
wait_for() {
  local what=$1 end=$((SECONDS + $2))
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || fail "no $what"
    sleep 0.1
  done
}

ctl() { "$bin/labsw-ctl" --socket "$dir/control.sock" "$@"; }
port_up() { [ "$(ctl --json port list | jq -r ".[] | select(.name == \"$1\").state")" = up ]; }
in_switch() { ip netns exec "$switch" "$@"; }

# ---- guests: QEMU with a shell on a pair of pipes --------------------------------------------------------------------

# As in tests/src/guest.rs: KVM only where an ordinary kernel runs on it.
accel=tcg cpu=max
if [ -w /dev/kvm ] && { [ -d /sys/module/kvm_intel ] || [ -d /sys/module/kvm_amd ]; }; then accel=kvm cpu=host; fi
reconnect=reconnect=1
if qemu-system-x86_64 --version | grep -qE 'version (9\.[2-9]|[1-9][0-9])'; then reconnect=reconnect-ms=300; fi

# guest_start NAME MAC
guest_start() {
  mkfifo "$dir/$1.in"
  : >"$dir/$1.out"
  qemu-system-x86_64 -nodefaults -no-user-config -display none -serial stdio -name "$1" \
    -accel $accel -cpu $cpu -machine pc -m 192M \
    -object memory-backend-memfd,id=mem,size=192M,share=on -numa node,memdev=mem \
    -kernel "$cache/vmlinuz" -initrd "$cache/initramfs.cpio" \
    -append "console=ttyS0 quiet tsc=reliable mitigations=off random.trust_cpu=on lab.ip=none" \
    -chardev "socket,id=c0,path=$dir/vhost/$1.sock,$reconnect" -netdev vhost-user,id=n0,chardev=c0,vhostforce=on \
    -device "virtio-net-pci,netdev=n0,mac=$2,rx_queue_size=1024,tx_queue_size=1024" \
    <>"$dir/$1.in" >"$dir/$1.out" 2>&1 &
  pids+=($!)
}

commands=0
# guest NAME COMMAND: runs it in the guest's shell, prints its output, gives its exit status.
guest() {
  local name=$1 mark status from
  commands=$((commands + 1))
  mark=@@$BASHPID.$commands
  from=$(($(stat -c %s "$dir/$name.out") + 1))
  printf '{ %s\n} 2>&1; echo "%s""@$?@"\n' "$2" "$mark" >"$dir/$name.in"
  wait_for "answer of $name to: $2" 90 grep -qa "$mark@[0-9]*@" "$dir/$name.out"
  tail -c "+$from" "$dir/$name.out" | tr -d '\r' | sed "/$mark/,\$d"
  status=$(grep -ao "$mark@[0-9]*@" "$dir/$name.out" | tail -1)
  status=${status%@}
  return "${status##*@}"
}

# guest_dhcp NAME: takes a lease and prints the address.
guest_dhcp() { guest "$1" "udhcpc -i eth0 -n -q -t 20 -T 1" | sed -n 's/^LEASE eth0 \([0-9.]*\).*/\1/p'; }

# ---- the container: LXC, or a bare namespace where LXC cannot run ----------------------------------------------------

web_start() {
  mkdir -p "$dir/lxc"
  if lxc-create -P "$dir/lxc" -n web -t busybox -f /dev/null >"$dir/lxc.log" 2>&1; then
    sed -i /udhcpc/d "$dir/lxc/web/rootfs/etc/init.d/rcS"
    printf '%s\n' 'lxc.apparmor.profile = unconfined' 'lxc.net.0.type = phys' 'lxc.net.0.link = ls-web' \
      'lxc.net.0.name = eth0' 'lxc.net.0.flags = up' >>"$dir/lxc/web/config"
    # LXC's command socket is per namespace: every lxc command runs in the switch's.
    if in_switch lxc-start -P "$dir/lxc" -n web </dev/null >>"$dir/lxc.log" 2>&1; then
      container_running=yes
      enter_web=(nsenter -t "$(in_switch lxc-info -P "$dir/lxc" -n web -p -H)" -n)
      say "LXC container with lxc.net.0.type = phys on ls-web"
      return
    fi
  fi
  say "LXC cannot run here ($(tail -1 "$dir/lxc.log")); a bare namespace plays the container"
  ip netns add "$id-web"
  in_switch ip link set ls-web netns "$id-web"
  ip -n "$id-web" link set ls-web name eth0 up
  enter_web=(ip netns exec "$id-web")
}

# web COMMAND...: in the container's network.
web() { "${enter_web[@]}" "$@"; }

cat >"$dir/udhcpc.sh" <<'SCRIPT'
#!/bin/sh
case $1 in bound | renew) ip addr flush dev $interface; ip addr add $ip/${mask:-24} dev $interface ;; esac
exit 0
SCRIPT
chmod 755 "$dir/udhcpc.sh"

# ---- the demonstration -----------------------------------------------------------------------------------------------

title "The outside: a gateway with VLANs 10 and 20 and DHCP, and a listener"
for ns in "$gateway" "$switch" "$listener"; do
  ip netns add "$ns"
  ip netns exec "$ns" sh -c 'for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 >$f; done' 2>/dev/null || true
  ip -n "$ns" link set lo up
done
# join SWITCH_END NAMESPACE END: a veth pair as a wire. What leaves END must have its checksums and tags in place.
join() {
  ip -n "$switch" link add "$1" numrxqueues 1 numtxqueues 1 type veth peer name "$3" numrxqueues 1 numtxqueues 1 netns "$2"
  ip netns exec "$2" ethtool -K "$3" tx off txvlan off rxvlan off gro off >/dev/null
  ip -n "$2" link set "$3" up
  ip -n "$switch" link set "$1" up
}
join lsw-b "$gateway" g0
join lsw-a "$listener" l0
ip netns exec "$gateway" "$bin/labsw-vlan-gateway" --parent g0 --vlan 10=gw10 --vlan 20=gw20 >"$dir/gateway.log" 2>&1 &
pids+=($!)
wait_for "VLAN gateway" 10 grep -q ready "$dir/gateway.log"
for vlan in 10 20; do
  ip -n "$gateway" addr add 10.$vlan.0.1/24 dev gw$vlan
  ip -n "$gateway" link set gw$vlan up
done
ip netns exec "$gateway" dnsmasq --keep-in-foreground --conf-file=/dev/null --port=0 --user=root --log-facility=- \
  --no-ping --bind-interfaces --dhcp-authoritative --dhcp-leasefile="$dir/leases" --pid-file="$dir/dnsmasq.pid" \
  --interface=gw10 --dhcp-range=10.10.0.100,10.10.0.150,255.255.255.0,10m \
  --interface=gw20 --dhcp-range=10.20.0.100,10.20.0.150,255.255.255.0,10m >"$dir/dnsmasq.log" 2>&1 &
pids+=($!)
say "gw10 10.10.0.1 and gw20 10.20.0.1 behind port B, each serving DHCP; l0 behind port A"

title "labswd starts from tests/demo/lab.toml"
sed "s|@DIR@|$dir|" "$here/lab.toml" >"$dir/lab.toml"
# Not through a function: $! would be a shell's, and a signal would not reach labswd.
ip netns exec "$switch" "$bin/labswd" --config "$dir/lab.toml" >"$dir/labswd.log" 2>&1 &
labswd=$!
pids+=($labswd)
wait_for "answer of labswd" 20 ctl status
holds "the switch answers"

title "Two guests boot (QEMU, $accel) and a container starts"
guest_start vm10 52:54:00:00:00:10
guest_start vm20 52:54:00:00:00:20
web_start
for vm in vm10 vm20; do
  wait_for "shell of $vm" 240 grep -qa GUEST-READY "$dir/$vm.out"
  guest $vm 'stty -echo; PS1= PS2=' >/dev/null
  wait_for "port $vm" 20 port_up $vm
  holds "$vm: $(guest $vm 'uname -sr'), port up"
done

title "Each takes an address by DHCP through port B, in its own VLAN"
vm10=$(guest_dhcp vm10) vm20=$(guest_dhcp vm20)
web busybox udhcpc -i eth0 -n -q -f -t 20 -T 1 -s "$dir/udhcpc.sh" >/dev/null 2>&1 || fail "no lease for the container"
web=$(web ip -4 -o addr show dev eth0 | sed 's/.* inet \([0-9.]*\).*/\1/')
for lease in "vm10 $vm10 10.10.0" "vm20 $vm20 10.20.0" "web $web 10.10.0"; do
  read -r name address net <<<"$lease"
  case $address in "$net".*) holds "$name has $address" ;; *) fail "$name has '$address', expected $net.x" ;; esac
done

title "Same VLAN: they reach each other"
guest vm10 "ping -q -c 3 -W 5 $web" >/dev/null || fail "vm10 -> web"
holds "vm10 -> web"
web ping -q -c 3 -W 5 "$vm10" >/dev/null || fail "web -> vm10"
holds "web -> vm10"
guest vm20 "ping -q -c 3 -W 5 10.20.0.1" >/dev/null || fail "vm20 -> its gateway"
holds "vm20 -> its gateway"

title "Other VLAN: nothing passes, not even a broadcast"
# Both ends listen for ARP requests of an address that only the other side asks for.
guest vm20 'tcpdump -lnni eth0 arp >/tmp/arp 2>/dev/null & sleep 2' >/dev/null
"${enter_web[@]}" tcpdump -lnni eth0 arp >"$dir/web-arp" 2>/dev/null &
pids+=($!)
sleep 1
guest vm10 'ping -c 1 -W 1 10.10.0.250; ip addr add 10.20.0.210/24 dev eth0; ping -c 2 -W 1 '"$vm20" >/dev/null && fail "vm10 reaches vm20"
holds "vm10 does not reach vm20, even with an address of its network"
guest vm20 'ping -c 1 -W 1 10.20.0.251; ip addr add 10.10.0.211/24 dev eth0; ping -c 2 -W 1 '"$web" >/dev/null && fail "vm20 reaches web"
holds "vm20 does not reach web"
guest vm10 'ip addr del 10.20.0.210/24 dev eth0' >/dev/null
guest vm20 'ip addr del 10.10.0.211/24 dev eth0; sleep 1; killall tcpdump; sleep 1' >/dev/null
heard=$(guest vm20 'cat /tmp/arp')
grep -q 10.10.0.250 "$dir/web-arp" || fail "web hears no broadcast of its own VLAN"
holds "web hears vm10's broadcast: same VLAN"
grep -q 10.20.0.251 "$dir/web-arp" && fail "web hears a broadcast of VLAN 20"
holds "web hears no broadcast of vm20"
grep -q 10.20.0.251 <<<"$heard" || fail "vm20's own tcpdump was not listening"
grep -qE '10\.10\.0\.250|10\.20\.0\.210' <<<"$heard" && fail "vm20 hears a broadcast of VLAN 10"
holds "vm20 hears no broadcast of vm10"

title "A mirror at run time: labsw-ctl mirror set detect --source vm10:both --to span"
ip netns exec "$listener" tcpdump -Z root -U -nni l0 -w "$dir/span.pcap" 2>"$dir/tcpdump.log" &
listening=$!
pids+=($listening)
wait_for "tcpdump" 10 grep -q 'listening on' "$dir/tcpdump.log"
guest vm10 "ping -q -c 2 -W 5 $web" >/dev/null
ctl mirror set detect --source vm10:both --to span
guest vm10 "ping -q -c 5 -i 0.2 -s 100 $web" >/dev/null || fail "vm10 -> web while mirrored"
guest vm20 "ping -q -c 3 -i 0.2 10.20.0.1" >/dev/null
# A guest may tag frames itself; a port in access mode drops them, the mirror still shows them as received.
guest vm10 'ip link add link eth0 name eth0.99 type vlan id 99; ip addr add 10.99.0.1/24 dev eth0.99
  ip link set eth0.99 up; ping -c 1 -W 1 10.99.0.2; ip link del eth0.99' >/dev/null || true
sleep 1
kill -INT $listening
wait $listening || true
seen() { tcpdump -nner "$dir/span.pcap" "$@" 2>/dev/null | wc -l; }
say "the listener's capture:"
tcpdump -nner "$dir/span.pcap" 2>/dev/null | cut -c1-118 | sed -n '1,12s/^/     /p'
requests=$(seen "icmp[icmptype] == icmp-echo and src $vm10 and dst $web")
replies=$(seen "icmp[icmptype] == icmp-echoreply and src $web and dst $vm10")
[ "$requests" = 5 ] || fail "$requests of 5 echo requests in the capture"
[ "$replies" = 5 ] || fail "$replies of 5 echo replies in the capture"
holds "5 requests and 5 replies: both directions, and none from before the mirror was set"
[ "$(seen vlan 99)" -ge 1 ] || fail "the tag of vm10's own tagged frames is missing in the capture"
holds "frames that vm10 tagged itself show their tag"
others=$(seen "not ether host 52:54:00:00:00:10 and not ether broadcast")
foreign=$(seen 'ether host 52:54:00:00:00:20')
[ "$others" = 0 ] && [ "$foreign" = 0 ] || fail "$others frames of other ports, $foreign of vm20 in the capture"
holds "nothing of other ports"

title "Break and detect: the sensor behind port A sees SMB, and nothing else"
ip netns exec "$listener" tcpdump -Z root -U -nni l0 -w "$dir/sensor.pcap" 2>"$dir/sensor.log" &
sensor=$!
pids+=($sensor)
wait_for "sensor" 10 grep -q 'listening on' "$dir/sensor.log"
ctl mirror set detect --source '*' --filter 'tcp port 445' --to span --inject-vlan 10
"$bin/labsw-ctl" --socket "$dir/control.sock" capture vm10:rx --filter 'tcp port 445' --count 1 --duration 30s \
  -w "$dir/attack.pcapng" 2>"$dir/capture.log" &
recording=$!
pids+=($recording)
wait_for "capture" 10 sh -c "'$bin/labsw-ctl' --socket '$dir/control.sock' capture --list | grep -q vm10"
guest vm10 "ping -q -c 2 -W 5 $web; nc -w 1 $web 445 </dev/null" >/dev/null || true
wait $recording || fail "$(cat "$dir/capture.log")"
say "recorded: $(tcpdump -nr "$dir/attack.pcapng" 2>/dev/null | cut -c1-100)"

title "The attacker is switched off, and its attack replayed through port A"
ctl port down vm10
"${enter_web[@]}" tcpdump -lnnc 1 -i eth0 'tcp dst port 445' >"$dir/web-smb" 2>"$dir/web-smb.log" &
pids+=($!)
wait_for "listener at web" 10 grep -q 'listening on' "$dir/web-smb.log"
sleep 2.2 # a copy that comes back sooner is taken for a loop
ctl inject span "$dir/attack.pcapng" | sed 's/^/   /'
wait_for "replayed attack at web" 10 grep -q "$vm10.* > $web.445" "$dir/web-smb"
holds "web got it: $(cut -c1-90 "$dir/web-smb")"
ctl port up vm10
sleep 0.5
kill -INT $sensor
wait $sensor || true
smb=$(tcpdump -nr "$dir/sensor.pcap" 'tcp port 445' 2>/dev/null | wc -l)
others=$(tcpdump -nr "$dir/sensor.pcap" 'not tcp port 445' 2>/dev/null | wc -l)
[ "$smb" -ge 2 ] && [ "$others" = 0 ] || fail "the sensor saw $smb frames of SMB and $others others"
holds "the sensor saw $smb frames of SMB, and none of the pings"

title "A lossy link: labsw-ctl impair set web --loss 30% --delay 20ms --seed 7 --direction tx"
ctl impair set web --loss 30% --delay 20ms --seed 7 --direction tx
report=$(guest vm10 "ping -q -c 20 -i 0.1 -W 2 $web") || true
ctl impair clear web
say "$(sed -n 's/.*\(20 packets.*loss\).*/\1/p' <<<"$report"), $(sed -n 's/.*\(round-trip.*\)/\1/p' <<<"$report")"
lost=$(sed -n 's/.* \([0-9]*\)% packet loss.*/\1/p' <<<"$report")
fastest=$(sed -n 's/.* = \([0-9]*\)\..*/\1/p' <<<"$report")
[ "$lost" -gt 0 ] && [ "$lost" -lt 100 ] && [ "$fastest" -ge 20 ] || fail "no lossy link of 20 ms: $report"
holds "frames are late and lost towards web, and only there"

title "Why is that frame dropped? labsw-ctl trace"
ctl trace --in vm10 --src 52:54:00:00:00:10 --dst 52:54:00:00:00:20 --vlan 20 >"$dir/trace"
sed 's/^/   /' "$dir/trace"
grep -q 'dropped at vm10.*tagged_not_allowed' "$dir/trace" || fail "the trace does not say why"
holds "vm10 can't tag itself into VLAN 20"

title "What the switch says"
for noun in status 'port list' 'fdb list' stats 'mirror list'; do
  echo "\$ labsw-ctl $noun"
  # shellcheck disable=SC2086 # a noun and its verb are two words
  ctl $noun
  # shellcheck disable=SC2086
  ctl --json $noun | jq -e . >"$dir/json" || fail "labsw-ctl --json $noun is no JSON"
  echo "\$ labsw-ctl --json $noun    # $(wc -c <"$dir/json") bytes, begins"
  head -8 "$dir/json"
  echo
done
ctl --json fdb list | jq -e '.[] | select(.vlan == 10 and .mac == "52:54:00:00:00:10" and .port == "vm10")' >/dev/null ||
  fail "the fdb does not have vm10 in VLAN 10"
holds "the fdb has vm10 in VLAN 10"

title "SIGTERM: the switch takes everything it made with it"
if [ $container_running = yes ]; then
  in_switch lxc-stop -P "$dir/lxc" -n web -k
  container_running=no
fi
kill $labswd
wait $labswd || fail "labswd ended with status $?"
links=$(ip -n "$switch" -br link | awk '{ sub(/@.*/, "", $1); print $1 }' | sort | tr '\n' ' ')
[ "$links" = "lo lsw-a lsw-b " ] || fail "links left behind: $links"
[ ! -e "$dir/control.sock" ] && [ -z "$(ls -A "$dir/vhost" 2>/dev/null)" ] || fail "sockets left behind"
holds "no link, no socket is left"
