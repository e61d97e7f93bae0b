#!/bin/bash
# Runs an OCI image of labsw with podman, as docs/service.md says, in a network namespace of its own: a port comes up,
# labsw-ctl answers inside the container and outside of it, and the end leaves nothing. The engine's storage is a
# directory that is thrown away. Needs root, podman, and a runtime (LABSW_OCI_RUNTIME: crun, or runc where control
# groups are those of version 1).
#
#   tests/test-oci.sh target/oci/labsw.tar
set -euo pipefail

image=$(realpath "$1")
work=$(mktemp -d)
name=labsw-oci-$$
# All of it in the namespace, whose network is "the host's" there.
podman() {
  nsenter --net=/run/netns/$name podman --runtime "${LABSW_OCI_RUNTIME:-crun}" --root "$work/root" \
    --runroot "$work/run" --storage-driver vfs --cgroup-manager cgroupfs "$@"
}
fail() {
  echo "test-oci: $*" >&2
  podman logs labsw >&2 || true
  exit 1
}
end() {
  podman rm -f labsw >/dev/null 2>&1 || true
  ip netns del $name 2>/dev/null || true
  # The engine's own clean-up may still be under way.
  until rm -rf "$work" 2>/dev/null; do sleep 0.2; done
}
trap end EXIT

mkdir -p "$work"/{sockets,etc}
cat >"$work/etc/labsw.toml" <<'TOML'
[switch]
socket_group = "kvm"

[ports.web]
type = "veth"
peer = "ls-web"

[ports.host]
type = "tap"
interface = "labsw-host"

[ports.vm]
type = "vhost_user"
TOML
ip netns add $name
podman load -q -i "$image" >/dev/null
reference=$(podman images --format '{{.Repository}}:{{.Tag}}' | head -1)
podman run -d --name labsw --network host --pid host --read-only \
  --ulimit "nofile=$(ulimit -Sn):$(ulimit -Hn)" --ulimit nproc=4096:4096 \
  --cap-drop all --cap-add NET_ADMIN,NET_RAW,BPF,IPC_LOCK,CHOWN --security-opt seccomp=unconfined \
  --device /dev/net/tun -v "$work/sockets:/run/labsw" -v "$work/etc:/etc/labsw:ro" -v /etc/group:/etc/group:ro \
  "$reference" >/dev/null

ready=no
for _ in $(seq 100); do
  if podman exec labsw labsw-ctl status >"$work/status" 2>&1; then ready=yes && break; fi
  sleep 0.2
done
[ $ready = yes ] || fail "labswd does not answer: $(cat "$work/status")"
[ -S "$work/sockets/control.sock" ] && [ -e "$work/sockets/vhost/vm.sock" ] || fail "no sockets outside"
[ "$(stat -c %G "$work/sockets/vhost/vm.sock")" = kvm ] || fail "the socket's group"
ip -n $name link set ls-web up
state=
for _ in $(seq 100); do
  state=$(podman exec labsw labsw-ctl --json port show web | jq -r .state)
  [ "$state" != up ] || break
  sleep 0.2
done
[ "$state" = up ] || fail "the port is $state"
podman exec labsw labsw-ctl status
podman stop -t 10 labsw >/dev/null
[ -z "$(ip -n $name -o link show type veth)" ] || fail "a pair is left"
[ -z "$(find "$work/sockets" -type s)" ] || fail "sockets are left"
echo "test-oci: ran, a port came up, and nothing is left"
