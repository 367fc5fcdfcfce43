#!/bin/bash
# Proves ./setup and packages.txt on a fresh Debian 12: a minimal root made by mmdebstrap, a clone of this tree (what is
# committed) in it, and `./setup` there, in namespaces of its own. Not part of the everyday suite: it downloads all packages.
#
# usage: tests/fresh-root.sh [--keep] [COMMAND...]      COMMAND is a shell line, by default './setup deps && ./setup build'
#
# FRESH_ROOT_BASE=DIR keeps the minimal root there between runs. The network is the machine's own, as are /dev and /sys.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

keep=
[ "${1:-}" != --keep ] || { keep=1; shift; }
command=${*:-./setup deps && ./setup build}
[ "$(id -u)" = 0 ] || { echo "fresh-root.sh must run as root" >&2; exit 1; }

work=$(mktemp -d /var/tmp/hvm-fresh-root.XXXXXX)
root=$work/root
cleanup() {
    # The namespaces are gone, and the mounts with them; -xdev in case they are not.
    if [ -n "$keep" ]; then echo "kept: $work"; else rm -rf --one-file-system "$work"; fi
}
trap cleanup EXIT

base=${FRESH_ROOT_BASE:-$work/base}
if [ ! -d "$base" ]; then
    echo "fresh-root: making a minimal Debian 12"
    # The machine's own apt configuration says where packages come from. Lists are dropped: a fresh machine has none.
    mmdebstrap --quiet --mode=root --variant=minbase --include=ca-certificates \
        --customize-hook='rm -rf "$1"/etc/apt/sources.list* "$1"/var/lib/apt/lists/*' \
        --customize-hook='cp -a /etc/apt/. "$1"/etc/apt/' \
        --customize-hook='cp -a /usr/share/keyrings/. "$1"/usr/share/keyrings/' \
        bookworm "$base.new" $(for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
            [ ! -e "$file" ] || echo "$file"
        done)
    mv "$base.new" "$base"
fi
cp -a "$base" "$root"
git clone -q . "$root/hvm"
[ ! -d ../shared/hosts ] || { mkdir "$root/shared" && cp -a ../shared/hosts "$root/shared/"; }
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
cp -L /etc/hosts "$root/etc/hosts"

inside='
    set -e
    mount --bind "$1" "$1"
    mount -t proc proc "$1/proc"
    mount --rbind /sys "$1/sys"
    mount --rbind /dev "$1/dev"
    mount -t tmpfs tmpfs "$1/run"
    exec chroot "$1" /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb \
        CI=true sh -c "cd /hvm && $2"'
status=0
unshare --mount --propagation private --pid --fork --kill-child --mount-proc \
    bash -c "$inside" fresh-root "$root" "$command" </dev/null || status=$?
echo "fresh-root: '$command' ended with status $status"
exit $status
