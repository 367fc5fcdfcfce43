#!/bin/bash
# One of each family of domain XML, as `hvm plan --xml` writes it, started paused on real libvirt and QEMU: the schema alone
# proves little. The vCPUs' threads must then be where the XML pins them. What this node has not (a second NUMA node, many PUs, devices) is
# planned for a made-up one, and then brought home: all pins on one PU, all memory on node 0, without the devices themselves.
# needs: image pages=160 pages-1g=1
. "$HVM_TEST_SOURCE/tests/daemon/lib.sh"
begin
image=$(readlink -f "$store"/images/debian12/*/root.raw | tail -n 1)
image=${image%/root.raw}
qemu_uid=$(id -u libvirt-qemu)
qemu_gid=$(getent group kvm | cut -d: -f3)
mkdir -p /run/hvm/guests "$work/disk"
chmod 711 "$work" "$work/disk" "$(dirname "$work")"

hosts=$HVM_TEST_SOURCE/tests/golden/hosts
# What this node's KVM refuses, a plan for another does not know.
refused=$(hvm plan home --template debian12 --accel kvm --cpus 1 --memory 256M --network none --xml | grep '<feature policy="disable"')
first_pu=$(lscpu -p=CPU | grep -v '^#' | head -n 1)

# bring_home FILE: a domain of a node with more than this one has.
bring_home() {
    sed -i -E -e "s/cpuset=\"[0-9,-]+\"/cpuset=\"$first_pu\"/" -e '/<(memory mode|memnode)/ s/nodeset="[0-9,-]+"/nodeset="0"/' \
        -e '/<hostdev/,/<\/hostdev>/d' -e "s|<cpu mode=\"host-passthrough\"[^>]*>|&$refused|" "$1"
}

# family WHAT OPTION...: plans, puts real files in place of the plan's placeholders, starts it paused, looks, ends it. $wanted, where
# it is set, is what the domain must have: a family without its point tests nothing.
family() {
    local what=$1 xml=$work/family.xml folder=/run/hvm/guests/family vcpu pid

    shift
    rm -f "$xml"
    hvm plan family --template debian12 --network none "$@" --xml >"$xml" || { fail "$what: it is planned"; return; }
    [ -z "$wanted" ] || like "$what: the domain has it" "$(cat "$xml")" "$wanted"
    case " $* " in *" --host "*) bring_home "$xml" ;; esac
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

wanted=
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
    wanted='<memnode cellid="1".*<sibling id="1" value="12"/>' \
        family "$accel, two cells and their distances" --accel $accel --cpus 4 --numa 2 --memory 256M --pages 4K --host "$hosts/amd-distances.xml"
    wanted='<emulatorpin cpuset="[89]' \
        family "$accel, emulator on a core of its own" --accel $accel --cpus 8 --emulator dedicated --memory 256M --pages 4K --host 'synthetic:[numa(memory=8GiB)] core:12 pu:1'
    if [ $accel = kvm ]; then
        wanted='<cache mode="disable"/>' family "kvm, no L3" --accel kvm --cpus 1 --memory 256M --pages 4K --host 'synthetic:[numa(memory=8GiB)] l2:2 core:2 pu:1'
        wanted='<cache level="3" mode="emulate"/>' family "kvm, part of an L3" --accel kvm --cpus 1 --memory 256M --pages 4K \
            --host 'synthetic:[numa(memory=8GiB)] l3:1 core:4 pu:1'
        wanted='<cache mode="passthrough"/>' family "kvm, whole L3s" --accel kvm --cpus 4 --memory 256M --pages 4K --host 'synthetic:[numa(memory=8GiB)] l3:2 core:2 pu:1'
    fi
    wanted='<controller type="pci" [^>]*model="pcie-expander-bus".*<node>1</node>.*model="pcie-root-port".*<hostdev' \
        family "$accel, buses of devices on two nodes" --accel $accel --cpus 8 --memory 1G --pages 4K --device gpu,locality=required --device gpu,locality=required \
        --device gpu,locality=required --device gpu,locality=required --host "$hosts/8-gpus.xml"
    if [ $accel = kvm ]; then
        wanted='<ioapic driver="qemu"/>.*<iommu model="intel">' family "$accel, 256 vCPUs" --accel $accel --cpus 256 --memory 1G --pages 4K \
            --host 'synthetic:[numa(memory=8GiB)] core:128 pu:2'
    else
        skip "$accel, 256 vCPUs" "QEMU's TCG had no x2APIC before 9.0"
    fi
    if [ "$(cat /sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages 2>/dev/null || echo 0)" -ge 1 ]; then
        wanted='<page size="1048576"' family "$accel, a page of 1 GiB" --accel $accel --cpus 1 --memory 1G --pages 1G
    else
        skip "$accel, a page of 1 GiB" "none can be reserved"
    fi
done
is "base files are still root's, 0444" "$(stat -c '%U %a' "$image"/{root.raw,vmlinuz,initrd} | sort -u)" "root 444"
done_testing
