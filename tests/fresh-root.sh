#!/bin/bash
# Proves ./setup and packages.txt on a fresh Debian 12: a minimal root made by mmdebstrap, a clone of this tree (what is
# committed) in it, and `./setup` there, in namespaces of its own. Not part of the everyday suite: it downloads all packages.
#
# usage: tests/fresh-root.sh [--keep] [--systemd] [COMMAND...]
#
# COMMAND is a shell line, by default './setup deps && ./setup build'. It runs without systemd; with --systemd the packages are
# installed first, and systemd is booted in the root (systemd-nspawn) to run COMMAND as a service.
# FRESH_ROOT_BASE=DIR keeps the minimal root there between runs. The network is a namespace behind a NAT rule of the machine, which
# is taken away again; /dev is the machine's own.
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
namespace=hvm-fresh-$$
subnet=10.255.77
cleanup() {
    if [ -e /run/netns/$namespace ]; then
        ip netns delete $namespace
        ip link delete hvm-fresh0 2>/dev/null || true
        iptables -t nat -D POSTROUTING -s $subnet.0/30 -j MASQUERADE
        echo "$forwarding" >/proc/sys/net/ipv4/ip_forward
    fi
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
hosts=${HVM_TEST_HOSTS:-../shared/hosts}
[ ! -d "$hosts" ] || { mkdir "$root/shared" && cp -a "$hosts" "$root/shared/hosts"; }
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
cp -L /etc/hosts "$root/etc/hosts"

make_network() {
    forwarding=$(cat /proc/sys/net/ipv4/ip_forward)
    ip netns add $namespace
    iptables -t nat -A POSTROUTING -s $subnet.0/30 -j MASQUERADE
    echo 1 >/proc/sys/net/ipv4/ip_forward
    ip link add hvm-fresh0 type veth peer name eth0 netns $namespace
    ip address add $subnet.1/30 dev hvm-fresh0
    ip link set hvm-fresh0 up
    ip -n $namespace link set lo up
    ip -n $namespace address add $subnet.2/30 dev eth0
    ip -n $namespace link set eth0 up
    ip -n $namespace route add default via $subnet.1
}
make_network

inside='
    set -e
    mount --bind "$1" "$1"
    mount -t proc proc "$1/proc"
    mount -t sysfs sysfs "$1/sys"
    mount --rbind /sys/fs/cgroup "$1/sys/fs/cgroup"
    mount --rbind /dev "$1/dev"
    mount -t tmpfs tmpfs "$1/run"
    # Not chroot alone: libvirt builds a /dev for QEMU from the mounts it sees.
    cd "$1"
    mkdir -p .old
    pivot_root . .old
    exec chroot . /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
        TERM=dumb CI=true sh -c "umount -l /.old && cd /hvm && $2"'
in_namespaces() {
    nsenter --net=/run/netns/$namespace unshare --mount --propagation private --pid --fork --kill-child --mount-proc bash -c "$inside" fresh-root "$root" "$1" </dev/null
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
# systemd-nspawn leaves cgroups of version 1 read-only.
ExecStartPre=/bin/sh -c 'for tree in /sys/fs/cgroup/*; do mount -o remount,rw,bind \$\$tree; done; true'
ExecStart=/bin/sh -c '( $1 ) >/proof.log 2>&1; echo \$\$? >/proof.status; systemctl --no-block poweroff'
[Install]
WantedBy=multi-user.target
END
    ln -sf ../proof.service "$root/etc/systemd/system/multi-user.target.wants/"
    # Writable: libvirt sets up bridges in /proc/sys/net.
    SYSTEMD_NSPAWN_API_VFS_WRITABLE=yes systemd-nspawn --quiet --network-namespace-path=/run/netns/$namespace --boot --directory="$root" --machine="hvm-fresh-root-$$" --register=no --keep-unit --capability=all \
        --bind=/dev/kvm --bind=/dev/net/tun </dev/null >"$work/boot.log" 2>&1 || tail -n 20 "$work/boot.log"
    cat "$root/proof.log"
    return "$(cat "$root/proof.status")"
}

status=0
began=$SECONDS
if [ -n "$systemd" ]; then in_systemd "$command" || status=$?; else in_namespaces "$command" || status=$?; fi
echo "fresh-root: '$command' ended with status $status after $((SECONDS - began)) s"
exit $status
