#!/bin/bash
# Devices of the node: who may ask for one, and what happens where none can be given away. No device is ever taken from its driver here.
# needs: image
. "$HVM_TEST_SOURCE/tests/daemon/lib.sh"
begin

address=$(hvm host --json | json '[d["address"] for d in x["devices"] if not d["use"]]' | awk 'NR == 1')
if [ -z "$address" ]; then
    skip "devices" "hvm host lists none that the node itself does not need"
    done_testing
fi

t "root may ask for any device" hvm create roots --template debian12 --cpus 1 --memory 512M --device "$address"
is "it is kept with the guest" "$(hvm show roots --json | json '[s["value"] for s in x["settings"] if s["group"] == "device dev0"]')" \
    "$address
preferred"
refuses "a device that is not there" 7 "has none" hvm create none --template debian12 --device 0000:fe:1f.7
refuses "alice may have none unasked" 5 "root alone" as alice hvm create hers --template debian12 --cpus 1 --memory 512M \
    --device "$address"
refuses "nor run with one" 125 "root alone" as alice hvm run debian12 --cpus 1 --memory 512M --device "$address" -- true

hvmd_stop
write_conf "[devices]" "allow=0000:fe:1f.7, $address"
hvmd_start
t "with leave in hvmd.conf she may" as alice hvm create hers --template debian12 --cpus 1 --memory 512M --device "$address"

hvmd_stop
write_conf
hvmd_start
refuses "leave that was taken back counts at the start" 5 "root alone" as alice hvm start hers --no-wait

if compgen -G "/sys/bus/pci/devices/$address/iommu_group" >/dev/null; then
    skip "no IOMMU group" "this node has an IOMMU"
else
    refuses "without an IOMMU the start says so" 8 "device $address: wanted an IOMMU group, found none" hvm start roots --no-wait
    is "nothing was made" "$(hvm host --json | json 'len(x["promises"])')" 0
    is "it is off" "$(state_of roots)" off
fi
for name in roots hers; do hvm destroy $name; done
no_leaks "nothing is left"
done_testing
