#!/bin/bash
# Runs the end-to-end tests: those of guests two files at a time, all others one after the other. Every file runs,
# whatever fails before it; the exit status says whether all passed.
#
#   LABSW_BIN_DIR   where labswd, labsw-ctl and the tests' helpers are (make e2e sets it)
set -uo pipefail
cd "$(dirname "$0")"
cargo=${CARGO:-cargo}
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# They boot guests one after the other and wait for them, and have no narrow limits of time. The longest begin, so that
# none runs alone at the end.
guests=(packed lab_service lab_host tap guest_glue migration libvirt memory dhcp)

# Name and program of each file of tests.
$cargo test -q -p labsw-tests --no-run --message-format=json |
  jq -r 'select(.reason == "compiler-artifact" and .profile.test and .executable) | "\(.target.name) \(.executable)"' |
  sort >"$logs/programs" || exit 1

# run NAME PROGRAM: its output in one piece, and a note if it failed.
run() {
  local start=$SECONDS
  "$2" --test-threads=1 >"$logs/$1.out" 2>&1 || touch "$logs/$1.failed"
  echo "== $1, $((SECONDS - start)) s"
  cat "$logs/$1.out"
}
export -f run
export logs

is_guests() { [[ " ${guests[*]} " == *" $1 "* ]]; }
for name in "${guests[@]}"; do
  grep "^$name " "$logs/programs"
done | xargs -P 2 -L 1 bash -c 'run "$@" </dev/null' run
while read -r name program; do
  is_guests "$name" || run "$name" "$program" </dev/null
done <"$logs/programs"

failed=$(cd "$logs" && shopt -s nullglob && for file in *.failed; do echo "${file%.failed}"; done | xargs)
[ -z "$failed" ] || { echo "end-to-end tests failed: $failed" >&2; exit 1; }
