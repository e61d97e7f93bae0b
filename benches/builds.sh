#!/bin/bash
# Compares the speed of this tree with that of an older revision: both are built, then they take turns behind one
# generator. The table's column new/old is the figure; see the head of builds.rs for how it is measured.
#
# usage: builds.sh REVISION [seconds=1] [rounds=5] [ring=1024] [SIZE/FLOWS/DIRECTION ...]
#   LABSW_OLD_BIN   the folder of an old labswd that is built already; REVISION is then only a name
#   LABSW_BIN_DIR   the folder of the new labswd (default: this tree is built, release)
#
# Needs two CPUs with nothing else to do, and root for huge pages and locked memory. Builds are kept in target/builds.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ "$(nproc)" -ge 2 ] || { echo "builds.sh: needs two CPUs" >&2; exit 1; }
revision=$(git rev-parse --short --verify "$1^{commit}")
shift

old=${LABSW_OLD_BIN:-$PWD/target/builds/$revision}
if [ ! -x "$old/labswd" ]; then
  tree=$(mktemp -d)
  trap 'git worktree remove --force "$tree"' EXIT
  git worktree add --detach "$tree" "$revision" >&2
  (cd "$tree" && CARGO_TARGET_DIR=$OLDPWD/target/builds/cargo cargo build --release -p labsw-control --bin labswd)
  install -D -t "$old" target/builds/cargo/release/labswd
fi
new=${LABSW_BIN_DIR:-$PWD/target/release}
[ -n "${LABSW_BIN_DIR:-}" ] || cargo build --release -p labsw-control --bin labswd

pages=/proc/sys/vm/nr_hugepages
if [ -w $pages ]; then
  before=$(cat $pages)
  trap 'echo "$before" >$pages; [ -z "${tree:-}" ] || git worktree remove --force "$tree"' EXIT
  [ "$before" -ge 64 ] || echo 64 >$pages
fi
# The generator needs no optimisation across crates, and builds in half the time without.
export CARGO_PROFILE_BENCH_LTO=off CARGO_PROFILE_BENCH_CODEGEN_UNITS=16
cargo bench -q -p labsw-benches --bench builds -- "$old/labswd" "$new/labswd" "$@"
