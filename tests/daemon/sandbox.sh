# shellcheck shell=bash
# PID 1 of a test's namespaces (see run): makes the mounts private, then runs the script in its argument.
# Bash reaps the orphans that libvirtd and a killed hvmd leave, as an init must: libvirt waits for QEMU to be gone.
set -euo pipefail

work=$HVM_TEST_WORK
exec 3>&1 4>&2

# sysfs shows the network namespace which mounted it; cgroups below it are kept.
private_sysfs() {
    mkdir "$work/cgroup"
    mount --rbind /sys/fs/cgroup "$work/cgroup"
    mount -t sysfs sysfs /sys
    mount --rbind "$work/cgroup" /sys/fs/cgroup
    umount -l "$work/cgroup"
}

# In the cgroup namespace the trees must be mounted anew for paths to begin at the test's own group.
private_cgroups() {
    local tree type options

    while read -r _ tree type options _; do
        case $type in cgroup | cgroup2) ;; *) continue ;; esac
        umount -l "$tree"
        mount -t "$type" -o "$(tr , '\n' <<<"$options" | grep -Ev '^(rw|ro|nosuid|nodev|noexec|relatime|seclabel|nsdelegate|memory_recursiveprot)$' |
            paste -sd, | grep . || echo rw)" "$type" "$tree"
        # In v2 no process may live beside child groups with controllers.
        if [ "$type" = cgroup2 ]; then
            mkdir -p "$tree/harness"
            echo $$ >"$tree/harness/cgroup.procs" || true
        fi
    done < <(grep ' /sys/fs/cgroup' /proc/mounts)
}

# An own copy of a folder in place of the machine's.
private_copy() {
    local copy=$work/copy$1

    [ -d "$1" ] || mkdir -p "$1"
    mkdir -p "$copy"
    cp -a "$1/." "$copy/"
    mount --bind "$copy" "$1"
}

private_empty() {
    mkdir -p "$1"
    mount -t tmpfs -o mode=755 tmpfs "$1"
}

private_users() {
    cp -a /etc/passwd /etc/group "$work/"
    getent group hvm >/dev/null || echo "hvm:x:60999:" >>"$work/group"
    sed -i -E '/^hvm:/ { s/$/,alice,bob/; s/:,/:/ }' "$work/group"
    printf '%s:x:%s:\n' alice 61001 bob 61002 eve 61003 >>"$work/group"
    printf '%s:x:%s:%s::/home/%s:/bin/sh\n' alice 61001 61001 alice bob 61002 61002 bob eve 61003 61003 eve >>"$work/passwd"
    mount --bind "$work/passwd" /etc/passwd
    mount --bind "$work/group" /etc/group
}

private_kvm() {
    [ -c /dev/kvm ] || return 0
    cp -a /dev/kvm "$work/kvm" 2>/dev/null && chgrp kvm "$work/kvm" && chmod 660 "$work/kvm" || return 0
    mount --bind "$work/kvm" /dev/kvm
}

ip link set lo up
[ "$HVM_TEST_NET" = outside ] || private_sysfs
private_cgroups || echo "# cgroups are the machine's own" >&2
resolver=$(readlink -f /etc/resolv.conf)
cp "$resolver" "$work/resolv.conf"
private_empty /run
cp "$work/resolv.conf" /run/resolv.conf
[[ $resolver != /run/* ]] || { mkdir -p "$(dirname "$resolver")" && cp "$work/resolv.conf" "$resolver"; }
private_users
private_kvm
private_copy /etc/libvirt
rm -f /etc/libvirt/qemu/*.xml /etc/libvirt/qemu/autostart/* /etc/libvirt/qemu/networks/*.xml /etc/libvirt/qemu/networks/autostart/*
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
private_empty /etc/hvm
private_empty /var/log/libvirt
mkdir -p /var/log/libvirt/qemu
private_empty /var/lib/libvirt
mkdir -p /var/lib/libvirt/{qemu,dnsmasq,images,boot,network}
chown libvirt-qemu:kvm /var/lib/libvirt/qemu
# The capability cache is kept between tests: without it the first start of a guest takes 4 s longer.
mkdir -p "$HVM_TEST_CACHE/qemu" /var/cache/libvirt
chown libvirt-qemu:kvm "$HVM_TEST_CACHE/qemu"
mount --bind "$HVM_TEST_CACHE" /var/cache/libvirt
mkdir -p /dev/hugepages
# With a size of its own the mount counts what is taken from it alone.
mount -t hugetlbfs -o pagesize=2M,size=64G hugetlbfs /dev/hugepages
# libvirt wants a mount for each size; not every kernel has this one.
mkdir -p "$work/hugepages-1g"
mount -t hugetlbfs -o pagesize=1G hugetlbfs "$work/hugepages-1g" 2>/dev/null || true
mkdir -m 711 "$work/store"

cd "$HVM_TEST_SOURCE"
case $1 in
--shell) bash --rcfile tests/daemon/lib.sh -i ;;
*) bash "$@" ;;
esac
