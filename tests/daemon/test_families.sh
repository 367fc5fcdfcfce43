#!/bin/bash
# One of each family of domain XML, as `hvm plan --xml` writes it, started paused on real libvirt and QEMU: the schema alone
# proves little. The vCPUs' threads must then be where the XML pins them.
# needs: image pages=160
. "$HVM_TEST_SOURCE/tests/daemon/lib.sh"
begin
image=$(readlink -f "$store"/images/debian12/*/root.raw | tail -n 1)
image=${image%/root.raw}
qemu_uid=$(id -u libvirt-qemu)
qemu_gid=$(getent group kvm | cut -d: -f3)
mkdir -p /run/hvm/guests "$work/disk"
chmod 711 "$work" "$work/disk" "$(dirname "$work")"

# family WHAT OPTION...: plans, puts real files in place of the plan's placeholders, starts it paused, looks, ends it.
family() {
    local what=$1 xml=$work/family.xml folder=/run/hvm/guests/family vcpu pid

    shift
    hvm plan family --template debian12 --network none "$@" --xml >"$xml" || { fail "$what: it is planned"; return; }
    qemu-img create -q -f qcow2 -F raw -b "$image/root.raw" -o extended_l2=on,cluster_size=128k "$work/disk/root.qcow2" 8G
    chown "$qemu_uid:$qemu_gid" "$work/disk/root.qcow2"
    mkdir -p "$folder" && chown "$qemu_uid:$qemu_gid" "$folder"
    sed -i -e "s|/var/lib/hvm/images/TEMPLATE/REVISION|$image|g" \
        -e "s|/var/lib/hvm/guests/[0-9a-f-]*/root.qcow2|$work/disk/root.qcow2|; s|/var/lib/hvm/guests/[0-9a-f-]*/console.log|$work/disk/console.log|" \
        -e "s|/run/hvm/guests/[0-9a-f-]*/|$folder/|; s|<label>+[0-9]*:+[0-9]*</label>|<label>+$qemu_uid:+$qemu_gid</label>|" "$xml"
    if t "$what: libvirt and QEMU take it" vsh create --paused "$xml"; then
        is "$what: it is paused" "$(vsh domstate family)" paused
        pid=$(qemu_pid family)
        for vcpu in /proc/"$pid"/task/*/comm; do
            case $(cat "$vcpu") in
            "CPU "*) echo "$(cat "$vcpu") $(awk '/Cpus_allowed_list/ { print $2 }' "${vcpu%comm}status")" ;;
            esac
        done | sed 's|^CPU \([0-9]*\)/[A-Z]* |\1 |' | sort -n >"$work/threads"
        is "$what: its vCPUs are where it says" "$(cat "$work/threads")" \
            "$(sed -n "s|.*<vcpupin vcpu=\"\([0-9]*\)\" cpuset=\"\([0-9]*\)\"/>.*|\1 \2|p" "$xml" | sort -n)"
        vsh destroy family >/dev/null
    fi
    rm -rf "$folder" "$work/disk/root.qcow2"
}

for accel in tcg kvm; do
    if [ $accel = kvm ] && [ ! -c /dev/kvm ]; then
        skip "the family kvm" "no /dev/kvm"
        continue
    fi
    family "$accel, one vCPU, small pages" --accel $accel --cpus 1 --memory 256M --pages 4K
    family "$accel, two vCPUs, 2M pages" --accel $accel --cpus 2 --memory 256M --pages 2M
    family "$accel, pages as there are" --accel $accel --cpus 1 --memory 256M
    family "$accel, any threads" --accel $accel --cpus 2 --memory 256M --pages 4K --smt any
    family "$accel, whole system, KASLR" --accel $accel --cpus 1 --memory 256M --pages 4K --kaslr
done
is "base files are still root's, 0444" "$(stat -c '%U %a' "$image"/{root.raw,vmlinuz,initrd} | sort -u)" "root 444"
done_testing
