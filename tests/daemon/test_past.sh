#!/bin/bash
# What happens past hvmd or in the middle of its work: virsh beside it, its end during a boot, a connection cut in the middle of a call,
# many callers at once.
# needs: image
. "$HVM_TEST_SOURCE/tests/daemon/lib.sh"
begin
promises() { hvm host --json | json '[(p["guest"], p["cpus"]) for p in x["promises"]]'; }
promised() { [ -n "$(promises)" ]; }

# hvmd is told to end while it waits for a guest to boot, and while it waits for one to power off.
create a >/dev/null
hvm start a >"$work/start" 2>&1 &
client=$!
t "a domain runs" wait_for 60 eval '[ -n "$(qemu_pid a)" ]'
pid=$(qemu_pid a)
kill "$hvmd_pid"
t "hvmd leaves in the middle of a boot" wait_for 10 gone "$hvmd_pid"
wait $client
is "who waited is told" $? 8
is "the guest boots on" "$(gone "$pid" || echo runs)" runs
hvmd_start
t "it is known again" wait_for 30 is_state a running
hvm stop a --timeout 600 >"$work/stop" 2>&1 &
client=$!
t "it is asked to stop" wait_for 10 is_state a stopping
vsh suspend a
kill "$hvmd_pid"
t "hvmd leaves while a guest powers off" wait_for 10 gone "$hvmd_pid"
wait $client
is "the guest was not ended for it" "$(gone "$pid" || echo runs)" runs
vsh resume a
hvmd_start
t "it is stopped" hvm stop a --timeout 0
no_leaks "what it held is free" off

# Started past hvmd, on the cores of its last start.
vsh start a >/dev/null
t "a guest started with virsh has its promise" wait_for 30 promised
like "on its cores" "$(promises)" "'a', '"
t "and its agent answers" wait_for 240 hvm exec a -- true

# The connection goes before the command's end is known; more than once, for the order of threads.
for i in 1 2 3 4 5 6 7 8; do
    timeout 20 python3 "$HVM_TEST_SOURCE/tests/daemon/flood.py" /run/hvm/hvmd.sock hasty a $((i * 10))
done
t "hvmd runs after calls in haste" hvm exec a -- true
vsh destroy a >/dev/null
t "a guest ended with virsh is off" wait_for 30 is_state a off
no_leaks "its promise is free" off

# Long answers that nobody reads do not add up.
head -c 2000000 /dev/zero | tr '\0' x >>"$store/guests/$(uuid_of a)/console.log"
is "a log's last MiB is read" "$(hvm logs a | wc -c)" $((1 << 20))
like "who asks for many and reads none is cut" "$(python3 "$HVM_TEST_SOURCE/tests/daemon/flood.py" /run/hvm/hvmd.sock logs a 20)" "^cut"

# A guest that is taken away with virsh, or that libvirt lost: its disk is not hvmd's to remove.
stray=$store/guests/$(uuid_of a)
vsh dumpxml --inactive a >"$work/a.xml"
vsh start a >/dev/null
t "it has its promise" wait_for 30 promised
vsh undefine a
vsh destroy a >/dev/null
t "a guest taken away with virsh is gone" wait_for 30 eval '! hvm show a'
is "with its promise" "$(promises)" ""

strays() { hvm doctor --json | json '[c["found"] for c in x["checks"] if c["name"] == "store guests" and c["state"] == "warning"]'; }
is "doctor tells of its disk" "$(strays)" "libvirt knows no guest for $stray"

# Guests come and go at once: each that was made is there.
for i in 1 2 3 4 5 6 7 8; do
    (
        create "old$i" >/dev/null
        hvm destroy "old$i" >/dev/null
        create "new$i" >/dev/null
    ) &
    callers[i]=$!
done
wait "${callers[@]}"
is "each guest that was made is there, and no other" "$(hvm list --json | json '" ".join(sorted(g["name"] for g in x["guests"]))')" \
    "new1 new2 new3 new4 new5 new6 new7 new8"
for i in 1 2 3 4 5 6 7 8; do hvm destroy "new$i" >/dev/null; done

# An ephemeral guest which hvmd and libvirtd have both forgotten, of an owner with a lasting one.
create b >/dev/null
hvm run debian12 --cpus 1 --memory 512M -- sleep 1000 >/dev/null 2>&1 </dev/null &
client=$!
t "an ephemeral guest runs" wait_for 120 eval 'vsh list --name | grep -q ^run-'
libvirt_kill -9
hvmd_kill
wait $client
libvirtd -d
hvmd_start
wait_for 30 connected
t "it is ended by the next hvmd" wait_for 30 eval '! vsh list --name | grep -q ^run-'
t "the disk of the one that is not known is kept" test -f "$stray/root.qcow2"
like "and named in the log" "$(cat "$log")" "libvirt knows no guest for $stray"
is "nobody holds an address for one that is gone" "$(vsh net-dumpxml hvm-nat-0 | grep '<hostname>')" ""
hvm destroy b >/dev/null
rm -r "$stray" "/run/hvm/guests/${stray##*/}"
is "until it is removed" "$(strays)" ""
no_leaks "nothing is left of the ephemeral one, nor promised to it"

# One whose boot is given up while libvirtd is away.
hvm run debian12 --cpus 1 --memory 512M -- true >/dev/null 2>&1 </dev/null &
client=$!
t "its domain is there" wait_for 60 eval 'vsh list --name | grep -q ^run-'
libvirt_kill -9
kill -INT $client
wait $client
libvirtd -d
t "hvmd finds libvirtd again" wait_for 60 connected
no_leaks "nothing is left of it"

# libvirtd goes in the moment in which it has started a domain, and again in that in which it has defined one.
create b >/dev/null
fault_set start.domain wait
hvm start b --no-wait >"$work/start" 2>&1 &
client=$!
t "a domain runs" wait_for 60 eval 'vsh domstate b | grep -q running'
pid=$(qemu_pid b)
sleep 1 # libvirtd forgets one that it has not started altogether
libvirt_kill -9
fault_set start.domain fail
wait $client
is "its start fails" $? 14
fault_clear
is "its QEMU cannot be ended" "$(gone "$pid" || echo runs)" runs
like "so that its cores stay its own" "$(promises)" "'b'"
libvirtd -d
t "hvmd finds it running when libvirtd is back" wait_for 60 is_state b running
like "on its cores" "$(promises)" "'b'"
hvm destroy b >/dev/null
fault_set create.define wait
create b >"$work/create" 2>&1 &
client=$!
t "a domain is defined" wait_for 60 vsh dominfo b
libvirt_kill -9
fault_set create.define fail
wait $client
is "its create fails" $? 14
fault_clear
libvirtd -d
t "hvmd finds libvirtd again" wait_for 60 connected
no_leaks "nothing is left of it, such as a domain without a disk"
t "hvmd leaves" hvmd_stop
is "hvmd says nothing bad" "$(grep -E 'CRITICAL|ERROR: AddressSanitizer|runtime error' "$log")" ""
done_testing
