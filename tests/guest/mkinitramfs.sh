#!/bin/bash
# mkinitramfs.sh KERNEL_DIR OUT.cpio [host]
#
# Builds a test guest's initramfs (uncompressed: it boots fastest under emulation): static busybox, the virtio_net,
# e1000e and 8021q modules of the unpacked linux-image package in KERNEL_DIR (those it has), and iperf3, ethtool and
# tcpdump with the shared libraries they need. `init` beside this script runs in it.
#
# With `host` it is that of a lab host (docs/lab-host-tests.md): iproute2's ip and bridge as well, veth, tun, bridge and
# vxlan, and the drivers of emulated NICs in /modules, not loaded.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
kernel=$1 out=$(realpath -m "$2") kind=${3-guest}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

mkdir -p "$root"/{bin,sbin,proc,sys,dev,tmp,run,modules,etc/udhcpc,var/run}
busybox=$(command -v busybox)
cp "$busybox" "$root/bin/busybox"
"$busybox" --list | while read -r applet; do
  [ "$applet" = busybox ] || ln -sf /bin/busybox "$root/bin/$applet"
done

# Load order: virtio_ring goes before virtio on 6.1. What the kernel has built in is not found, and left out.
modules=(virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci failover net_failover virtio_net
  e1000e llc stp mrp garp 8021q af_packet)
programs=(iperf3 ethtool tcpdump) later=()
if [ "$kind" = host ]; then
  modules=(virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci failover net_failover pps_core ptp dca
    i2c-algo-bit mii llc stp mrp garp 8021q af_packet veth tun bridge udp_tunnel ip6_udp_tunnel vxlan)
  later=(igb e1000e virtio_net vmxnet3 e1000 8139cp) programs+=(ip bridge)
fi
for module in "${modules[@]}" "${later[@]}"; do
  file=$(find "$kernel" -name "$module.ko*" -print -quit)
  case $file in
    '') continue ;;
    *.xz) xz -dc "$file" >"$root/modules/$module.ko" ;;
    *) cp "$file" "$root/modules/$module.ko" ;;
  esac
  [[ " ${later[*]} " == *" $module "* ]] || echo "$module" >>"$root/modules/order"
done

for program in "${programs[@]}"; do
  path=$(PATH=$PATH:/usr/sbin:/sbin command -v "$program")
  rm -f "$root/bin/$program" # busybox's, which it may be a link to
  cp -L "$path" "$root/bin/"
  ldd "$path" | grep -o '/[^ ]*' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    [ -e "$root$library" ] || cp -L "$library" "$root$library"
  done
done
# Debian's tcpdump becomes its own user: here that is root as well.
printf '%s\n' 'root:x:0:0:root:/:/bin/sh' 'tcpdump:x:0:0::/:/bin/false' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"

cat >"$root/etc/udhcpc/default.script" <<'SCRIPT'
#!/bin/sh
# What busybox's DHCP client calls: takes the address, and nothing else.
case $1 in
  deconfig) ip -4 addr flush dev $interface; ip link set $interface up ;;
  bound | renew)
    ip -4 addr flush dev $interface
    ip addr add $ip/${mask:-24} dev $interface
    [ -n "$router" ] && ip route replace default via ${router%% *} dev $interface
    echo "LEASE $interface $ip/${mask:-24} router=$router" ;;
esac
exit 0
SCRIPT
cp "$here/init" "$root/init"
chmod 755 "$root/init" "$root/etc/udhcpc/default.script" "$root/bin/busybox"
(cd "$root" && find . | cpio -o -H newc --quiet) >"$out"
