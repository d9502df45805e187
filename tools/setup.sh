#!/bin/bash
# Sets up what `make bake` and `make test` need: system packages (on Debian as root) and a virtual environment.
# Usage: tools/setup.sh VENV EXTRAS
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1 extras=$2

# netavark and iptables are what podman maps ports with; debootstrap checks signatures with gpgv and the keyring
packages=(podman runc netavark iptables debootstrap gpgv debian-archive-keyring packer openssh-client python3-venv)
programs=(podman runc iptables debootstrap gpgv packer ssh)
case ",$extras," in *,dev,*)
    # a virtual machine is run by qemu, and debugfs reads its boot entry
    packages+=(shellcheck git qemu-system-x86 e2fsprogs) programs+=(shellcheck git qemu-system-x86_64 debugfs)
    ;;
esac

missing=()
for program in "${programs[@]}"; do
    command -v "$program" >/dev/null || missing+=("$program")
done
python=$(command -v python3 || true)
[ -n "$python" ] && "$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)

if [ "${#missing[@]}" -gt 0 ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "setup: missing: ${missing[*]}. Install them, or run this on Debian as root:" >&2
        echo "setup:   apt-get install --no-install-recommends ${packages[*]}" >&2
        exit 2
    fi
    echo "setup: installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -q -y --no-install-recommends "${packages[@]}"
    python=$(command -v python3)
fi

"$python" - <<'EOF' || exit 2
import sys
if sys.version_info < (3, 11):
    found = ".".join(map(str, sys.version_info[:3]))
    sys.exit(f"setup: python3 is {found}; cisdriver needs 3.11 or newer: put one first on PATH")
EOF

[ -x "$venv/bin/pip" ] || "$python" -m venv "$venv"
"$venv/bin/pip" install -q --disable-pip-version-check -c constraints.txt -e ".[$extras]"
