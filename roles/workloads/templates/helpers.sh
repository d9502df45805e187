# shellcheck shell=sh
# shellcheck disable=SC2034,SC2154 # scripts read what the helpers set; NODE is the environment of the pod, last_try set before
# What the scripts of the workloads begin with. A script proves by its last line, which begins with "cisdriver: ".
one_line() { printf '%s' "$*" | tr '\n\t' '  ' | tr -s ' '; }
ok() { echo "cisdriver: ok $(one_line "$@") (on $NODE)"; exit 0; }
fail() { echo "cisdriver: fail $(one_line "$@") (on $NODE)"; exit 1; }
# The network of a new pod settles within seconds, a server on another node may still pull its image: tries go on until
# shortly before the deadline, and there are two at least. The last answer counts. It is in $said.
try() { n=0; until said=$("$@" 2>&1); do n=$((n + 1)); [ "$n" -lt 2 ] || [ "$(date +%s)" -lt "$last_try" ] || return 1; sleep 3; done; }
resolve() { found=$(nslookup -type=a "$1" 2>&1); echo "$found"; echo "$found" | grep -q '^Name:'; }
fetch() { wget -q -T 3 -O - "$1"; }
# As a pod does that is told to end: at once.
wait_for_the_end() { trap 'exit 0' TERM; while :; do sleep 1; done; }
