#!/bin/sh
# private_node.sh PROGRAM [ARGUMENT...]
#
# Runs PROGRAM as root in a node of its own: own processes, network (a loopback link and nothing else), and a libvirtd and virtlogd with
# empty state. PROGRAM may start and kill what it likes; when it ends, all of it ends. Exit status: the program's;
# what is missing is printed as a skip of the Test Anything Protocol.
set -eu

if [ "${1:-}" != --inside ]; then
    for tool in libvirtd virtlogd dnsmasq iptables ip unshare mount ${HVM_TEST_TOOLS:-}; do
        command -v "$tool" >/dev/null || { echo "1..0 # SKIP no program '$tool'"; exit 0; }
    done
    [ "$(id -u)" = 0 ] || { echo "1..0 # SKIP needs root"; exit 0; }
    unshare --mount --net true 2>/dev/null || { echo "1..0 # SKIP may not make namespaces"; exit 0; }
    exec unshare --mount --net --uts --ipc --pid --fork --kill-child --mount-proc "$0" --inside "$@"
fi
shift

# A sysfs which shows this network namespace, with the cgroups still below it.
scratch=$(mktemp -d /tmp/hvm-node.XXXXXX)
mkdir "$scratch/cgroup" "$scratch/etc"
mount --rbind /sys/fs/cgroup "$scratch/cgroup"
mount -t sysfs sysfs /sys
mount --rbind "$scratch/cgroup" /sys/fs/cgroup
umount -l "$scratch/cgroup"
cp -a /etc/libvirt/. "$scratch/etc/"
rm -rf "$scratch"/etc/qemu/networks/* "$scratch"/etc/qemu/*.xml "$scratch"/etc/qemu/autostart/* "$scratch"/etc/storage

mkdir -p /run
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /etc/libvirt
cp -a "$scratch/etc/." /etc/libvirt/
rm -r "$scratch"
for folder in lib log cache; do
    mount -t tmpfs -o mode=755 tmpfs "/var/$folder/libvirt"
done
mkdir -p /run/lock /run/libvirt /var/log/libvirt/qemu /var/lib/libvirt/dnsmasq
printf 'host_uuid = "%s"\n' "$(cat /proc/sys/kernel/random/uuid)" >>/etc/libvirt/libvirtd.conf
ip link set lo up

virtlogd -d
libvirtd -d
"$@" && status=0 || status=$?
exit $status
