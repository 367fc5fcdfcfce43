#!/bin/bash
# Proves ./setup and packages.txt on a fresh Debian 12: a minimal root made by mmdebstrap, a clone of this tree (what is
# committed) in it, and `./setup` there, in namespaces of its own. Not part of the everyday suite: it downloads all packages.
#
# usage: tests/fresh-root.sh [--keep] [--systemd] [COMMAND...]
#
# COMMAND is a shell line, by default './setup deps && ./setup build'. It runs without systemd; with --systemd the packages are
# installed first, and systemd is booted in the root (systemd-nspawn) to run COMMAND as a service.
# FRESH_ROOT_BASE=DIR keeps the minimal root there between runs. The network is the machine's own, as are /dev and /sys.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

keep=
systemd=
while :; do
    case ${1:-} in
    --keep) keep=1 ;;
    --systemd) systemd=1 ;;
    *) break ;;
    esac
    shift
done
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
in_namespaces() {
    unshare --mount --propagation private --pid --fork --kill-child --mount-proc bash -c "$inside" fresh-root "$root" "$1" </dev/null
}

# Boots systemd in the root, with one service more.
in_systemd() {
    in_namespaces "./setup deps run build && apt-get install -y -q --no-install-recommends systemd-sysv dbus"
    cat >"$root/etc/systemd/system/proof.service" <<END
[Unit]
After=basic.target dbus.service
[Service]
Type=oneshot
Environment=HOME=/root CI=true
WorkingDirectory=/hvm
ExecStart=/bin/sh -c '( $1 ) >/proof.log 2>&1; echo \$\$? >/proof.status; systemctl --no-block poweroff'
[Install]
WantedBy=multi-user.target
END
    ln -sf ../proof.service "$root/etc/systemd/system/multi-user.target.wants/"
    systemd-nspawn --quiet --boot --directory="$root" --machine="hvm-fresh-root-$$" --register=no --keep-unit --capability=all \
        --bind=/dev/kvm --bind=/dev/net/tun </dev/null >"$work/boot.log" 2>&1 || tail -n 20 "$work/boot.log"
    cat "$root/proof.log"
    return "$(cat "$root/proof.status")"
}

status=0
if [ -n "$systemd" ]; then in_systemd "$command" || status=$?; else in_namespaces "$command" || status=$?; fi
echo "fresh-root: '$command' ended with status $status"
exit $status
