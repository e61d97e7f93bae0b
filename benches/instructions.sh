#!/bin/bash
# Counts the instructions spent on a frame: fixed workloads (benches/instructions.rs) under callgrind. The counts do not
# depend on what else the machine does, so a difference is a change of the code, the compiler or the libc.
#
# usage: instructions.sh [WORKLOAD...]     (default: the table in benches/README.md)
#
# What offers the frames (two index stores a round) and checks their number is counted too. valgrind shows programs a
# CPU without AVX-512, so the copies counted are libc's AVX2 ones, whatever the machine is; no setting is needed for
# that. The profiles stay in target/callgrind: callgrind_annotate FILE says which functions the instructions went to.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=1000
[ $# -gt 0 ] || set -- turn/64/32 turn/512/32 turn/1518/32 decide/1 decide/1000 \
  take virtio-queue/take fill/64 virtio-queue/fill/64 fill/1518 virtio-queue/fill/1518 \
  growth/ports-2/32 growth/ports-32/32 growth/macs-1k/32 growth/macs-64k/32 \
  growth/vlans-1/32 growth/vlans-64/32 growth/mirrors-0/32 growth/mirrors-8/32 \
  growth/captures-0/32 growth/captures-100/32 growth/other-vlan/32 growth/filter/32 \
  growth/flows/32 growth/flows-other-vlan/32 growth/flows-filter/32 growth/delayed/32 \
  logged/64/32 logged/1518/32

for tool in valgrind jq; do
  command -v $tool >/dev/null || { echo "instructions.sh: $tool is not installed (Debian: apt-get install $tool)" >&2; exit 1; }
done

program=$(cargo bench -q -p labsw-benches --bench instructions --no-run --message-format=json |
  jq -r 'select(.reason == "compiler-artifact" and .target.name == "instructions") | .executable // empty')
[ -x "$program" ] || { echo "instructions.sh: cargo built no program" >&2; exit 1; }

out=${CARGO_TARGET_DIR:-target}/callgrind
mkdir -p "$out"
printf '%-24s %20s\n' workload 'instructions a frame'
for workload; do
  profile=$out/${workload//\//-}.out log=$out/${workload//\//-}.log
  valgrind --tool=callgrind --toggle-collect='*instructions::measured*' --callgrind-out-file="$profile" \
    "$program" "$workload" $rounds >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
  total=$(awk '$1 == "summary:" { print $2; exit }' "$profile")
  [ "${total:-0}" -gt 0 ] || { echo "instructions.sh: callgrind counted nothing, see $log" >&2; exit 1; }
  case $workload in turn/* | growth/* | mirrored/* | logged/*) burst=${workload##*/} ;; *) burst=64 ;; esac
  printf '%-24s %20s\n' "$workload" "$(awk "BEGIN { printf \"%.1f\", $total / $burst / $rounds }")"
done
