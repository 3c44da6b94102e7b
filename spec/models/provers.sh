#!/usr/bin/env bash
# Installs the provers that the models need, where they are not there yet, from Debian's packages. Says nothing if all is
# well, and fails with apt's own words if it is not. Needs root for what it installs.
set -euo pipefail

declare -A package=([eprover]=eprover [SPASS]=spass [coqc]=coq [coqchk]=coq [spin]=spin [gcc]="gcc libc6-dev")

wanted=()
for command in "${!package[@]}"; do
    command -v "$command" > /dev/null || wanted+=(${package[$command]})
done
[ "${#wanted[@]}" -gt 0 ] || exit 0

log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update && apt-get install -y --no-install-recommends "${wanted[@]}"; } > "$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi
for command in "${!package[@]}"; do
    command -v "$command" > /dev/null && continue
    echo "$command is still missing after ${package[$command]} was installed" >&2
    exit 1
done
