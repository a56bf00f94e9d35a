# Sourced by demo, test and bench/run: makes a fresh Debian 12 ready, says what it does, and does
# nothing on a machine that is ready.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }

need_root() {
    [ "$(id -u)" = 0 ] || { echo "ets: $0 needs root (it makes network namespaces and mounts): sudo $0" >&2; exit 1; }
}

# packages NAME...: install the Debian packages that are missing, and only those.
packages() {
    local missing=() name
    for name in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing Debian packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update >/dev/null || { echo "ets: apt-get update failed; is the Debian mirror reachable?" >&2; exit 1; }
    apt-get -q -y --no-install-recommends install "${missing[@]}" >/tmp/ets-apt.$$.log 2>&1 ||
        { tail -20 /tmp/ets-apt.$$.log >&2; echo "ets: apt-get install failed" >&2; exit 1; }
    rm -f /tmp/ets-apt.$$.log
}

# environment [uv sync options]: the locked Python environment in .venv, made by uv, which itself
# lives in .tools and comes from PyPI.
environment() {
    export UV_PYTHON=/usr/bin/python3 UV_PROJECT_ENVIRONMENT="$top/.venv"
    if [ ! -x "$top/.tools/bin/uv" ]; then
        say "installing uv into .tools"
        /usr/bin/python3 -m venv "$top/.tools"
        "$top/.tools/bin/pip" -q install "uv>=0.5"
    fi
    (cd "$top" && "$top/.tools/bin/uv" sync --frozen --quiet "$@")
    export PATH="$top/.venv/bin:$top/.tools/bin:$PATH"
}

LAB_PACKAGES=(
    python3 python3-venv ca-certificates rsync iproute2 nftables systemd-container mmdebstrap
    squashfs-tools cryptsetup-bin qemu-system-x86 ipxe-qemu ovmf nbdkit libnbd-bin cpio zstd
    gcc make libc6-dev debian-archive-keyring btrfs-progs
)
