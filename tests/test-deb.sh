#!/bin/bash
# Installs, upgrades, removes and purges a Debian package of labsw, and looks after each step. All of it happens in a
# mount namespace whose root is an overlay over this machine's: what is written goes to a tmpfs and is gone at the end.
# Services are not started there. Needs root.
#
#   tests/test-deb.sh target/debian/labsw_0.1.0-1_amd64.deb
set -euo pipefail

fail() { echo "test-deb: $*" >&2; exit 1; }

# The second half of this script, inside the overlay: $1 is the package.
inside() {
  local deb=$1
  dpkg -i "$deb" >/dev/null
  [ "$(dpkg-query -W -f '${db:Status-Status}' labsw)" = installed ] || fail "not installed"
  getent passwd labsw >/dev/null || fail "the user labsw was not made"
  id -nG labsw | grep -qw kvm || fail "labsw is not in the group kvm"
  [ -L /etc/systemd/system/multi-user.target.wants/labsw.service ] || fail "the service is not enabled"
  ! grep -q /usr/local /usr/lib/systemd/system/labsw.service || fail "the unit names /usr/local"
  labswd --config /etc/labsw/labsw.toml --check || fail "the configuration of the package is refused"
  labsw-ctl --version >/dev/null || fail "labsw-ctl does not run"
  [ -s /usr/share/labsw/config.schema.json ] || fail "the schema of the configuration"
  bash -n /usr/share/bash-completion/completions/labsw-ctl || fail "completions of bash"
  for page in man1/labsw-ctl.1 man1/labsw-ctl-port-add.1 man8/labswd.8; do
    ls /usr/share/man/$page* >/dev/null || fail "the manual page $page"
  done

  # An upgrade leaves the configuration as it was edited, and asks nobody.
  echo '[ports.vm]
type = "vhost_user"' >>/etc/labsw/labsw.toml
  dpkg --force-confold -i "$deb" >/dev/null
  grep -q 'ports.vm' /etc/labsw/labsw.toml || fail "an upgrade lost the configuration"

  dpkg -r labsw >/dev/null
  [ ! -e /usr/bin/labswd ] || fail "removed, but labswd is there"
  [ -e /etc/labsw/labsw.toml ] || fail "removed, and the configuration is gone"
  dpkg -P labsw >/dev/null
  [ ! -e /etc/labsw ] || fail "purged, but /etc/labsw is there"
  [ ! -e /etc/systemd/system/multi-user.target.wants/labsw.service ] || fail "purged, but the service is enabled"
  echo "test-deb: installed, upgraded, removed and purged"
}

[ $# -ge 1 ] || fail "give the package"
if [ "$1" = --inside ]; then
  inside /tmp/labsw.deb
  exit
fi

deb=$(realpath "$1")
here=$(realpath "$0")
work=$(mktemp -d)
trap 'rmdir "$work"' EXIT
unshare --mount --propagation private bash -euc '
  work=$1 deb=$2 script=$3
  mount -t tmpfs tmpfs "$work"
  mkdir "$work"/{upper,work,root}
  mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" "$work/root"
  mount -t proc proc "$work/root/proc"
  mount --bind /dev "$work/root/dev"
  mount -t tmpfs tmpfs "$work/root/run"
  mount -t tmpfs tmpfs "$work/root/tmp"
  cp "$deb" "$work/root/tmp/labsw.deb"
  cp "$script" "$work/root/tmp/test-deb.sh"
  chroot "$work/root" /tmp/test-deb.sh --inside
' bash "$work" "$deb" "$here"
