#!/bin/bash
# What libvirt listed a moment ago is older than what hvmd did meanwhile.
# needs: image
. "$HVM_TEST_SOURCE/tests/daemon/lib.sh"
begin
listed() { hvm list --json | json '" ".join(sorted(g["name"] for g in x["guests"]))'; }
# disturb NAME: a domain that is not hvm's appears: hvmd lists all, once, and stops short of believing it.
disturb() {
    fault_set recover.listed wait
    vsh define /dev/stdin >/dev/null <<END
<domain type='qemu'><name>$1</name><memory unit='MiB'>64</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='q35'>hvm</type></os></domain>
END
    sleep 2
}

create up >/dev/null
disturb other1
create new >/dev/null
fault_clear
sleep 3
is "a guest that was made meanwhile is there" "$(listed)" "new up"
t "a guest starts" hvm start up --no-wait
sleep 2
disturb other2
hvm stop up --timeout 0 >/dev/null
fault_clear
sleep 3
is "a guest that was stopped meanwhile is off" "$(state_of up)" off
no_leaks "its cores are free" off
disturb other3
hvm destroy new >/dev/null
fault_clear
sleep 3
is "a guest that was destroyed meanwhile is not back" "$(listed)" "up"
done_testing
