#!/bin/bash
# Guests outlive hvmd; hvmd outlives libvirtd; a guest that ends by itself is noticed.
# needs: image
. "$HVM_TEST_SOURCE/tests/daemon/lib.sh"
begin
promises() { hvm host --json | json '[(p["guest"], p["owner"], p["cpus"]) for p in x["promises"]]'; }

as alice hvm create a --template debian12 --cpus 1 --memory 512M --start >/dev/null || bail "alice's guest does not start"
before=$(promises)
shown=$(hvm show a --json | json '[x[k] for k in ("uuid", "owner", "state", "address", "placed", "placement", "mac")]')
pid=$(qemu_pid a)
booted=$(hvm exec a -- cat /proc/sys/kernel/random/boot_id)

# A command runs in it while hvmd is killed.
hvm exec a -- sleep 1000 >/dev/null 2>"$work/err" &
client=$!
sleep 1
hvmd_kill
wait $client
is "a command loses its hvmd and says so" $? 125
refuses "no hvmd" 8 "hvmd" hvm list
is "the guest runs on" "$(gone "$pid" || echo runs)" runs
hvmd_start
is "hvmd knows the guest again: owner, cores, pages, address" \
    "$(hvm show a --json | json '[x[k] for k in ("uuid", "owner", "state", "address", "placed", "placement", "mac")]')" "$shown"
is "the ledger is the same" "$(promises)" "$before"
is "its agent answers, in the same boot" "$(hvm exec a -- cat /proc/sys/kernel/random/boot_id)" "$booted"
t "the old session's command was ended" wait_for 30 hvm exec a -- sh -c '! pgrep -x sleep'
is "bob still does not see it" "$(as bob hvm list --json | json '[g["name"] for g in x["guests"]]')" ""
create all --cpus $cores >/dev/null
refuses "its core is still not given away" 7 "guest 'all'" hvm start all
hvm destroy all >/dev/null

# libvirtd goes and comes back; guests run on without it.
libvirt_kill -9
is "the guest runs on without libvirtd" "$(gone "$pid" || echo runs)" runs
is "exec does not need libvirtd" "$(hvm exec a -- echo here)" here
libvirtd -d
t "hvmd finds libvirtd again" wait_for 60 connected
is "the guest runs" "$(state_of a)" running
is "the ledger is the same" "$(promises)" "$before"

# Killed while libvirtd is away, started before it is back.
libvirt_kill
hvmd_kill
hvmd_start
refuses "nobody is told that there are no guests" 9 libvirtd hvm list
refuses "nor that there is no such guest" 9 libvirtd hvm show a
refuses "nor is another user" 9 libvirtd as alice hvm show a
like "nor that nothing is promised" "$(hvm host)" "what is promised to guests is not known"
libvirtd -d
t "hvmd that started without libvirtd finds it, and the guest" wait_for 60 is_state a running
is "the ledger is the same" "$(promises)" "$before"

# A guest that powers itself off.
hvm exec a -- systemctl poweroff >/dev/null 2>&1
t "a guest that powers itself off is shown off" wait_for 120 is_state a off
no_leaks "its cores and memory are free" off

# A guest whose QEMU dies, and one that does so while hvmd is dead.
t "it starts again" hvm start a
kill -9 "$(qemu_pid a)"
t "a guest whose QEMU dies is shown crashed" wait_for 60 is_state a crashed
no_leaks "its cores and memory are free" off
t "and can be started again" hvm start a --no-wait
hvm stop --hard a >/dev/null

# A guest whose kernel panics.
hvm start a >/dev/null || bail "a does not start"
timeout 60 hvm exec a -- sh -c 'sync; echo c >/proc/sysrq-trigger' >/dev/null 2>&1
t "a guest whose kernel panics is shown crashed" wait_for 60 is_state a crashed
like "its log tells why" "$(hvm logs a)" "Kernel panic - not syncing: sysrq triggered crash"
no_leaks "its cores and memory are free" off
t "and can be started again" hvm start a --no-wait
hvmd_kill
kill -9 "$(qemu_pid a)"
hvmd_start
t "a guest that died while hvmd was dead is not running" wait_for 60 eval '[[ $(state_of a) =~ ^(off|crashed)$ ]]'
no_leaks "its cores and memory are free" off

t "one starts" start_nowait a
hvmd_kill
fault_set recover.listed wait
before=$(grep -c "connected to" "$log")
die_once_listed() {
    wait_for 30 eval '[ $(grep -c "connected to" "$log") -gt $before ]'
    sleep 1 # the listing follows at once
    kill -9 "$(qemu_pid a)"
    wait_for 30 eval 'vsh domstate a | grep -q "shut off"'
    fault_clear
}
die_once_listed &
hvmd_start
t "a guest that died while hvmd read the guests back is shown crashed" wait_for 60 is_state a crashed
no_leaks "its cores and memory are free" off

# What somebody does with virsh is seen.
start_nowait a || bail "a does not start"
vsh destroy a >/dev/null
t "virsh destroy is noticed" wait_for 60 eval '[[ $(state_of a) =~ ^(off|crashed)$ ]]'
no_leaks "its cores and memory are free" off
cat >"$work/foreign.xml" <<END
<domain type='qemu'><name>foreign</name><memory unit='MiB'>64</memory><vcpu cpuset='0'>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>
END
vsh create --paused "$work/foreign.xml" >/dev/null
takes_cpu() { promises | grep -q foreign; }
t "a domain that hvm did not make counts as taking its CPU" wait_for 30 takes_cpu
refuses "its name is taken" 4 "foreign" create foreign
refuses "hvm does not touch it" 3 "no guest 'foreign'" hvm destroy foreign
vsh destroy foreign >/dev/null
t "until it is gone" wait_for 30 eval '! takes_cpu'

# After a reboot: all domains are off, and only those with autostart start; all of them, though hvmd is killed after the first.
create auto --autostart >/dev/null
create auto2 --autostart >/dev/null
hvmd_stop
libvirt_kill
rm -rf /run/hvm/* /run/libvirt/qemu/*
libvirtd -d && wait_for 30 vsh uri
fault_set start.domain kill
setsid "$build/hvmd" --config $conf >>"$log" 2>&1 </dev/null &
t "hvmd is killed between two guests with autostart" wait_for 60 gone $!
is "one of which runs" "$(vsh list --name | grep -c auto)" 1
fault_clear
hvmd_start
t "the other starts too" wait_for 60 is_state auto2 running
t "a guest with autostart starts after a boot" wait_for 60 eval '[[ $(state_of auto) =~ ^(starting|running)$ ]]'
is "one without does not" "$(state_of a | sed s/crashed/off/)" off
hvm destroy a auto auto2 >/dev/null
no_leaks "nothing is left"
done_testing
