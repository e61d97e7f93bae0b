#!/bin/bash
# mksystemd.sh BIN_DIR CONFIG OUT.cpio
#
# Builds what a lab host's initramfs (mkinitramfs.sh) lacks to be a Debian system: this machine's own systemd and udev,
# busybox for everything else, and labsw as `make install-files` lays it out, with the programs in BIN_DIR and the
# configuration CONFIG, its unit enabled. The archive goes behind the lab host's: its /init copies the system to a tmpfs
# and starts systemd there, whose shell on the serial line is that of a guest. docs/lab-host-tests.md says more.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
bin=$(realpath "$1") config=$2 out=$(realpath -m "$3")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/debian
mkdir -p "$root"/{etc/labsw,dev,proc,sys,run,tmp,root,var/lib,var/log,var/tmp,usr/bin,usr/sbin,usr/lib,usr/lib64}
for name in bin sbin lib lib64; do ln -s "usr/$name" "$root/$name"; done

# Where a file of this machine goes: /usr is merged there.
place() { echo "$root/usr${1#/usr}"; }

# systemd and udev; the programs that a person calls, those of units, the units, rules and settings.
dpkg -L systemd udev |
  grep -E '^(/usr)?/lib/(systemd|udev)/|^/usr/lib/(sysusers|tmpfiles)[.]d/|/(systemctl|journalctl|udevadm|systemd-(sysusers|tmpfiles|tty-ask-password-agent))$' |
  grep -vE 'hwdb|/(boot|catalog|user|user-generators|portable)/' | while read -r file; do
  [ -f "$file" ] || [ -L "$file" ] || continue
  to=$(place "$file")
  mkdir -p "$(dirname "$to")"
  cp -P "$file" "$to"
done
for program in ip ethtool; do
  file=$(PATH=$PATH:/usr/sbin:/sbin command -v "$program")
  cp -L "$file" "$root/usr/bin/"
done

# labsw, as it is installed.
make -s -C "$here/../.." install-files DESTDIR="$root" PREFIX=/usr BIN_DIR="$bin"
cp "$config" "$root/etc/labsw/labsw.toml"
strip "$root"/usr/bin/labswd "$root"/usr/bin/labsw-ctl
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -s /usr/lib/systemd/system/labsw.service "$root/etc/systemd/system/multi-user.target.wants/"

# The shared libraries of all of them.
{ find "$root/usr" -type f -perm -u+x -print0 | xargs -0 ldd 2>/dev/null || true; } | grep -o '/[^ ]*\.so[^ :]*' | sort -u |
  while read -r library; do
    to=$(place "$library")
    mkdir -p "$(dirname "$to")"
    [ -e "$to" ] || cp -L "$library" "$to"
  done

busybox=$(command -v busybox)
cp "$busybox" "$root/usr/bin/busybox"
"$busybox" --list | while read -r applet; do
  [ -e "$root/usr/bin/$applet" ] || ln -s busybox "$root/usr/bin/$applet"
done

echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
printf '%s\n' root:x:0: tty:x:5: disk:x:6: kvm:x:104: >"$root/etc/group"
printf 'passwd: files\ngroup: files\n' >"$root/etc/nsswitch.conf"
echo labhost >"$root/etc/hostname"
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
ln -s ../usr/lib/os-release "$root/etc/os-release"
cp -L /etc/os-release "$root/usr/lib/os-release"
# No other terminal, and nothing that needs D-Bus.
for unit in serial-getty@ttyS0 getty@tty1 systemd-logind; do ln -s /dev/null "$root/etc/systemd/system/$unit.service"; done
cat >"$root/etc/systemd/system/lab-shell.service" <<'UNIT'
[Unit]
Description=The test's shell
After=sysinit.target

[Service]
ExecStart=/bin/sh -c 'stty -echo; echo "GUEST-READY kernel=$(uname -r)"; exec sh'
StandardInput=tty-force
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
Environment=HOME=/root PATH=/usr/bin:/usr/sbin SYSTEMD_PAGER= SYSTEMD_COLORS=0 TERM=dumb
UNIT
ln -s ../lab-shell.service "$root/etc/systemd/system/multi-user.target.wants/"

# All drivers are there before systemd is, as in an initramfs of Debian's.
cat >"$work/init" <<'INIT'
#!/bin/sh
export PATH=/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order) igb; do insmod /modules/$module.ko 2>/dev/null; done
mkdir /system
mount -t tmpfs -o mode=0755,size=400M system /system
cp -a /debian/. /system/
umount /proc /sys
mount --move /dev /system/dev
exec switch_root /system /usr/lib/systemd/systemd
INIT
chmod 755 "$work/init"
(cd "$work" && find . | cpio -o -H newc --quiet) >"$out"
