#!/bin/bash
# Installs what a Debian 12 machine lacks for building, demonstrating and testing labsw, and prepares the test
# guest: a Debian cloud kernel and an initramfs, and Debian's general kernel with one of its own for guests whose NIC is
# emulated, and a newer kernel for the lab host of the NIC tests; all kept outside the repository in $LABSW_CACHE.
#
# Idempotent: with everything in place it only looks and returns. Needs root.
#
#   LABSW_CACHE   where the guest's kernel and initramfs go (default /var/cache/labsw)
#
# It leaves there:
#   vmlinuz            the guest kernel
#   initramfs.cpio     busybox, virtio_net and 8021q modules, iperf3, ethtool, tcpdump
#   vmlinuz-general, initramfs-general.cpio
#                      the same with Debian's general kernel, which has a driver for e1000e
#   vmlinuz-host, initramfs-host.cpio
#                      a lab host: the newest general kernel of the next Debian's backports (igb has zero copy from
#                      Linux 6.14 on), with the drivers of the NICs that QEMU emulates
#   promtool           Prometheus' checker of metrics
#   guest.stamp        what the guests were made from; a change of it makes them again
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=${LABSW_CACHE:-/var/cache/labsw}
say() { echo "setup: $*" >&2; }

[ "$(id -u)" = 0 ] || { say "must run as root (packages, namespaces and XDP need it)"; exit 1; }
command -v apt-get >/dev/null || { say "this script knows Debian only; see its package list for what is needed"; exit 1; }

packages=(
  gcc libc6-dev make pkg-config                           # linking
  libpcap-dev                                             # compiles filter expressions
  clang llvm m4 libelf-dev zlib1g-dev                     # libxdp, which a test of AF_XDP against xsk-rs builds
  iproute2 ethtool tcpdump iperf3 iputils-ping            # namespaces and traffic
  dnsmasq-base lxc systemd-container                      # the gateway's DHCP, containers
  libvirt-clients libxml2-utils                           # virt-xml-validate, for printed domain XML
  libvirt-daemon-system qemu-utils                        # saving and restoring guests of libvirt
  dpdk-dev librte-mempool-ring23 librte-net-vhost23 librte-net-virtio23   # dpdk-testpmd and its drivers
  busybox-static cpio xz-utils                            # the guest's initramfs
  nix-bin                                                 # reads the Nix files
  systemd udev binutils                                   # the unit, and a lab host that boots with it
  tshark                                                  # reads captures, and captures through extcap
  chromium-headless-shell                                 # opens the page of labsw-ctl web; 95 MB to fetch
  strace                                                  # makes a system call slow
  jq procps ca-certificates
)

# Archives are busy now and then: three attempts, then the error stands.
apt_retry() {
  local attempt
  for attempt in 1 2 3; do
    if DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 -o APT::Update::Error-Mode=any -o DPkg::Lock::Timeout=300 "$@" </dev/null >&2; then return 0; fi
    say "apt-get $* failed (attempt $attempt of 3)"
    sleep $((attempt * 5))
  done
  return 1
}

refreshed=no
refresh() {
  [ $refreshed = yes ] && return 0
  apt_retry update
  refreshed=yes
}

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# Writes SUITE's entry into a file in DIR: the Debian entry that is already configured for BASE, so from the same mirror
# with the same key.
write_entry() {
  local suite=$1 base=$2 out=$3/$1 list
  # deb822: the first stanza with the base suite, its Suites line replaced.
  for list in /etc/apt/sources.list.d/*.sources; do
    [ -e "$list" ] || continue
    awk -v RS= -v suite="$suite" -v base="$base" '
      $0 ~ "Suites:[^\n]*(^|[ \t])" base "([ \t\n]|$)" { sub(/Suites:[^\n]*/, "Suites: " suite); print; exit }' "$list" >"$out.new"
    if [ -s "$out.new" ]; then mv "$out.new" "$out.sources"; return 0; fi
  done
  # One-line style: "deb [options] URI base components".
  for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ -e "$list" ] || continue
    awk -v suite="$suite" -v base="$base" '
      $1 == "deb" { for (i = 2; i <= NF; i++) if ($i == base) { $i = suite; print; exit } }' "$list" >"$out.new"
    if [ -s "$out.new" ]; then mv "$out.new" "$out.list"; return 0; fi
  done
  rm -f "$out.new"
  say "no entry for Debian's suite '$base' found in /etc/apt to make one for '$suite' of"
  return 1
}

# Adds a backports SUITE to what is installed from.
add_suite() {
  local suite=$1
  if grep -rhsE "^[^#]*\b$suite\b" /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources >/dev/null; then return 0; fi
  write_entry "$suite" "${suite%-backports}" /etc/apt/sources.list.d
  refreshed=no
}

# Bookworm's own QEMU, 7.2, emulates no igb. All of its packages have to be of one version: apt would remove the others.
install_qemu() {
  installed qemu-system-x86 && dpkg --compare-versions "$(dpkg-query -W -f '${Version}' qemu-system-x86)" ge 1:8 && return 0
  add_suite bookworm-backports
  refresh
  apt_retry install -y --no-install-recommends -t bookworm-backports qemu-system-x86 qemu-utils
}

# Bookworm itself has no Suricata. Installed, its service would listen at this machine's interfaces: it is masked.
install_suricata() {
  installed suricata && return 0
  add_suite bookworm-backports
  refresh
  say "installing suricata"
  mkdir -p /etc/systemd/system
  [ -e /etc/systemd/system/suricata.service ] || ln -s /dev/null /etc/systemd/system/suricata.service
  apt_retry install -y --no-install-recommends -t bookworm-backports suricata
}

missing=()
for p in "${packages[@]}"; do installed "$p" || missing+=("$p"); done
if [ ${#missing[@]} -gt 0 ]; then
  say "installing ${missing[*]}"
  refresh
  apt_retry install -y --no-install-recommends "${missing[@]}"
fi
install_qemu
install_suricata

# Prometheus' own checker of metrics, out of its package: installed, that would run a server.
if [ ! -x "$cache/promtool" ]; then
  refresh
  say "fetching promtool"
  mkdir -p "$cache"
  (
    work=$(mktemp -d "$cache/setup.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    cd "$work"
    apt_retry -o APT::Sandbox::User=root download prometheus
    dpkg --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool
    mv usr/bin/promtool "$cache/promtool"
  )
fi

# The guests. The stamp names the scripts that make them, so that a change of one rebuilds.
stamp="initramfs $(cat "$here/guest/mkinitramfs.sh" "$here/guest/init" "$here/setup-debian.sh" | sha256sum | cut -c1-16)"
images=(vmlinuz initramfs.cpio vmlinuz-general initramfs-general.cpio vmlinuz-host initramfs-host.cpio)
complete=yes
for image in "${images[@]}"; do [ -s "$cache/$image" ] || complete=no; done
if [ $complete = yes ] && [ "$(cat "$cache/guest.stamp" 2>/dev/null)" = "$stamp" ]; then
  exit 0
fi
mkdir -p "$cache"
work=$(mktemp -d "$cache/setup.XXXXXX")
trap 'rm -rf "$work"' EXIT

# Unpacks the kernel that the package $1 depends on, with its network drivers and protocols only, into $cache/$2.
unpack_kernel() {
  local kernel
  [ -d "$cache/$2/boot" ] && return 0
  refresh
  kernel=$(apt-cache depends "$1" | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }')
  [ -n "$kernel" ] || { say "$1 names no kernel package"; return 1; }
  say "fetching the guest kernel $kernel"
  mkdir "$work/$2"
  (cd "$work/$2" && apt_retry -o APT::Sandbox::User=root download "$kernel")
  dpkg --fsys-tarfile "$work/$2"/linux-image-*.deb | tar -x -C "$work/$2" --wildcards './boot/vmlinuz-*' \
    './lib/modules/*/kernel/net/*' './lib/modules/*/kernel/drivers/virtio/*' './lib/modules/*/kernel/drivers/net/*'
  rm "$work/$2"/linux-image-*.deb
  mv "$work/$2" "$cache/$2"
}

# Unpacks what a lab host's kernel needs of the newest general kernel of trixie-backports, into $cache/$1. Its package
# lists are looked at beside this machine's own, from which nothing newer is to be installed.
unpack_host_kernel() {
  local private=$work/private version kernels package
  [ -n "$(find "$cache/$1" -name 'vmlinuz*' 2>/dev/null)" ] && return 0
  mkdir -p "$private"/{etc,lists/partial,cache/archives/partial}
  write_entry trixie-backports bookworm "$private/etc"
  local apt=(-o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$private/etc" -o Dir::State::lists="$private/lists"
    -o Dir::Cache="$private/cache" -o APT::Sandbox::User=root)
  apt_retry "${apt[@]}" update
  version=$(apt-cache "${apt[@]}" depends linux-image-amd64 | awk '$1 == "Depends:" && sub(/^linux-image-/, "", $2) { print $2; exit }')
  [ -n "$version" ] || { say "trixie-backports has no linux-image-amd64"; return 1; }
  # Kernel and modules in one package, or in one each.
  kernels=("linux-binary-$version" "linux-modules-$version")
  apt-cache "${apt[@]}" show "${kernels[@]}" >/dev/null 2>&1 || kernels=("linux-image-$version")
  say "fetching the lab host's kernel $version"
  mkdir "$work/$1"
  (cd "$work" && apt_retry "${apt[@]}" download "${kernels[@]}")
  for package in "${kernels[@]}"; do
    # A package has some of these only.
    dpkg --fsys-tarfile "$work/$package"_*.deb | tar -x -C "$work/$1" --wildcards '*/vmlinuz*' '*/kernel/net/*' \
      '*/kernel/drivers/net/*' '*/kernel/drivers/virtio/*' '*/kernel/drivers/ptp/*' '*/kernel/drivers/pps/*' \
      '*/kernel/drivers/dca/*' '*/kernel/drivers/i2c/algos/*' 2>/dev/null || true
    rm "$work/$package"_*.deb
  done
  [ -n "$(find "$work/$1" -name 'vmlinuz*')" ] || { say "no kernel in ${kernels[*]}"; return 1; }
  rm -rf "${cache:?}/$1" "$private"
  mv "$work/$1" "$cache/$1"
}

# Makes kernel image and initramfs, named with the suffix $2, of the kernel in $cache/$1; $3 is for the initramfs.
make_guest() {
  say "building the initramfs of $1"
  "$here/guest/mkinitramfs.sh" "$cache/$1" "$work/initramfs.cpio" "${3-guest}"
  mv "$work/initramfs.cpio" "$cache/initramfs$2.cpio"
  cp "$(find "$cache/$1" -name 'vmlinuz*' -print -quit)" "$cache/vmlinuz.new"
  mv "$cache/vmlinuz.new" "$cache/vmlinuz$2"
}

unpack_kernel linux-image-cloud-amd64 kernel
unpack_kernel linux-image-amd64 kernel-general
make_guest kernel ""
make_guest kernel-general -general
unpack_host_kernel kernel-host
make_guest kernel-host -host host
echo "$stamp" >"$cache/guest.stamp"
