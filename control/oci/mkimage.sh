#!/bin/bash
# mkimage.sh ROOT VERSION OUT
#
# Writes an OCI image of labswd and labsw-ctl: the directory OUT (OCI image layout), and the same as OUT.tar. No
# container engine is needed. ROOT is what `make install-files PREFIX=/usr` lays out.
# The image has one layer: the programs, the shared libraries that they name (this machine's, with their copyright
# files), an empty configuration, and /run/labsw. The same input gives the same bytes.
#
# Reference: opencontainers/image-spec, image-layout.md, config.md, manifest.md.
set -euo pipefail

root=$1 version=$2 out=$(realpath -m "$3")
here=$(cd "$(dirname "$0")" && pwd)
epoch=${SOURCE_DATE_EPOCH:-$(git -C "$here" log -1 --format=%ct)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
image=$work/image

mkdir -p "$image"/{etc/labsw,run/labsw/vhost,tmp,usr/bin,usr/lib,usr/lib64,usr/share/doc/labsw}
for name in bin lib lib64; do ln -s "usr/$name" "$image/$name"; done
cp "$root/usr/bin/labswd" "$root/usr/bin/labsw-ctl" "$image/usr/bin/"
cp "$here/../debian/labsw.toml" "$image/etc/labsw/"
cp "$here"/../../LICENSE-* "$image/usr/share/doc/labsw/"
printf '%s\n' root:x:0:0:root:/root:/bin/false nobody:x:65534:65534:nobody:/:/bin/false >"$image/etc/passwd"
printf '%s\n' root:x:0: nogroup:x:65534: >"$image/etc/group"
printf '%s\n' 'passwd: files' 'group: files' >"$image/etc/nsswitch.conf"

# The libraries, each with the copyright file of its package. /lib is /usr/lib here and in the image.
ldd "$image"/usr/bin/* | grep -o '/[^ ]*\.so[^ :]*' | sort -u | while read -r library; do
  to=$image/usr/${library#/}
  [[ $library != /usr/* ]] || to=$image$library
  mkdir -p "$(dirname "$to")"
  cp -L "$library" "$to"
  package=$(dpkg -S "$(realpath "$library")" 2>/dev/null || dpkg -S "$library" 2>/dev/null || true)
  package=${package%%:*}
  if [ -n "$package" ] && [ -e "/usr/share/doc/$package/copyright" ]; then
    mkdir -p "$image/usr/share/doc/$package"
    cp -L "/usr/share/doc/$package/copyright" "$image/usr/share/doc/$package/"
  fi
done

rm -rf "$out" "$out.tar"
mkdir -p "$out/blobs/sha256"
archive() { tar --sort=name --mtime="@$epoch" --owner=0 --group=0 --numeric-owner --format=gnu "$@"; }
digest() { sha256sum "$1" | cut -d' ' -f1; }

# Puts a file among the blobs; prints its descriptor of the media type $2.
blob() {
  local digest
  digest=$(digest "$1")
  mv "$1" "$out/blobs/sha256/$digest"
  jq -nc --arg type "$2" --arg digest "sha256:$digest" --argjson size "$(stat -c %s "$out/blobs/sha256/$digest")" \
    '{mediaType: $type, digest: $digest, size: $size}'
}

archive -C "$image" -cf "$work/layer.tar" .
diff_id=sha256:$(digest "$work/layer.tar")
gzip -n -9 "$work/layer.tar"
layer=$(blob "$work/layer.tar.gz" application/vnd.oci.image.layer.v1.tar+gzip)

case $(uname -m) in
  x86_64) arch=amd64 ;;
  aarch64) arch=arm64 ;;
  *) arch=$(uname -m) ;;
esac
created=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)
jq -nc --arg arch "$arch" --arg created "$created" --arg diff "$diff_id" --arg version "$version" '{
  created: $created, architecture: $arch, os: "linux",
  config: {
    Env: ["PATH=/usr/bin"], Entrypoint: ["/usr/bin/labswd"], Cmd: ["--config", "/etc/labsw/labsw.toml"],
    StopSignal: "SIGTERM",
    Labels: {
      "org.opencontainers.image.title": "labsw", "org.opencontainers.image.version": $version,
      "org.opencontainers.image.licenses": "MIT OR Apache-2.0"
    }
  },
  rootfs: {type: "layers", diff_ids: [$diff]}
}' >"$work/config.json"
config=$(blob "$work/config.json" application/vnd.oci.image.config.v1+json)
type=application/vnd.oci.image.manifest.v1+json
jq -nc --arg type $type --argjson config "$config" --argjson layer "$layer" \
  '{schemaVersion: 2, mediaType: $type, config: $config, layers: [$layer]}' >"$work/manifest.json"
manifest=$(blob "$work/manifest.json" $type)
jq -nc --arg name "labsw:$version" --argjson manifest "$manifest" \
  '{schemaVersion: 2, manifests: [$manifest + {annotations: {"org.opencontainers.image.ref.name": $name}}]}' >"$out/index.json"
echo '{"imageLayoutVersion": "1.0.0"}' >"$out/oci-layout"
archive -C "$out" -cf "$out.tar" .
echo "$out.tar: $(du -h "$out.tar" | cut -f1)"
