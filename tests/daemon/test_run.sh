#!/bin/bash
# `hvm run`: a guest for one command, booted to the agent alone; and nothing left of it, however it ends.
# needs: image
. "$HVM_TEST_SOURCE/tests/daemon/lib.sh"
begin copy

run() { hvm run --cpus 1 --memory 512M --pages 4K "$@"; }
runs() { hvm list --json | json '[g["name"] for g in x["guests"]]' | grep -c '^run-'; }
runs_are() { [ "$(runs)" = "$1" ]; }
no_domain() { [ -z "$(vsh list --all --name)" ]; }

# --- what a command sees ----------------------------------------------------------------------------------------------

run debian12 -- sh -c 'echo to-out; echo to-err >&2; exit 3' >"$work/out" 2>"$work/err" </dev/null
is "the command's status is run's" $? 3
is "stdout is stdout" "$(cat "$work/out")" to-out
is "stderr is stderr, and nothing else where that is no terminal" "$(cat "$work/err")" to-err
is "stdin arrives, and its end" "$(printf 'a\nb\n' | run debian12 -- wc -l)" 2
no_leaks "nothing is left after success"

run debian12 -- sh -c '
    cat /proc/1/comm
    uname -n
    cat /etc/machine-id
    stat -f -c %T /tmp /run /dev/shm /
    touch /root/writable /tmp/x && ls -l /dev/fd/0 >/dev/null && echo writable
    df --output=size -m / | tail -n1 | tr -d " "
    cat /sys/class/net/lo/operstate
    ip -4 -o addr show dev eth0 | awk "{ print \$4 }"
    ip -4 route show default | awk "{ print \$3 }"
    cat /etc/resolv.conf
    getent hosts "$(uname -n)" >/dev/null && echo resolves
    tty >/dev/null || echo no terminal' >"$work/out" 2>"$work/err" </dev/null
is "a command runs in a root with all that it expects" "$?" 0 || diag <"$work/err"
mapfile -t seen <"$work/out"
is "process 1 is the agent" "${seen[0]}" hvm-agent
like "the guest has a name of its own" "${seen[1]}" '^run-[0-9a-f]{8}$'
like "and a machine-id" "${seen[2]}" '^[0-9a-f]{32}$'
is "file systems" "${seen[*]:3:4}" "tmpfs tmpfs tmpfs ext2/ext3"
is "the root is writable" "${seen[7]}" writable
t "the root is grown to its disk" test "${seen[8]}" -gt 7000
like "lo is up" "${seen[9]}" 'unknown|up'
like "the card has an address" "${seen[10]}" '^10\.88\.[0-9]+\.[0-9]+/24$'
like "and a way out" "${seen[11]}" '^10\.88\.[0-9]+\.1$'
is "the gateway answers names" "${seen[12]}" "nameserver ${seen[11]}"
is "its own among them" "${seen[14]}" resolves
is "two guests differ" "$( [ "$(run debian12 -- cat /etc/machine-id)" != "${seen[2]}" ] && echo differ)" differ
is "it can reach its gateway" "$(run debian12 -- bash -c ': >/dev/udp/'"${seen[11]}"'/53 && echo reached')" reached
is "as the caller" "$(cd / && as alice hvm run --cpus 1 --memory 512M --pages 4K debian12 -- id -un)" alice
is "without a network" "$(run --network none debian12 -- sh -c 'ls /sys/class/net')" lo
is "with the packed kernel" "$(run --kaslr debian12 -- echo up)" up
is "the whole system, where asked for" "$(run --init system debian12 -- cat /proc/1/comm)" systemd
no_leaks "nothing is left"

# --- signals, and who is killed ---------------------------------------------------------------------------------------

# start_run WORDS...: in the background (where a shell would have SIGINT ignored); $client, and its output in $work/run.out.
start_run() {
    : >"$work/run.out"
    env --default-signal=INT hvm run --cpus 1 --memory 512M --pages 4K "$@" >"$work/run.out" 2>"$work/run.err" </dev/null &
    client=$!
}
says() { grep -q "$1" "$work/run.out"; }

for signal in INT TERM HUP; do
    start_run debian12 -- sh -c 'echo ready; exec sleep 1000'
    t "a command runs before SIG$signal" wait_for 120 says ready
    kill -$signal $client
    wait $client
    is "SIG$signal ends the command" $? $((128 + $(kill -l $signal)))
    no_leaks "nothing is left after SIG$signal"
done
start_run debian12 -- sh -c 'trap "echo caught; exit 9" INT; echo ready; while :; do sleep 0.1; done'
wait_for 120 says ready
kill -INT $client
wait $client
is "a command that catches SIGINT ends as it likes" "$? $(tail -n1 "$work/run.out")" "9 caught"

start_run debian12 -- true
t "a domain appears" wait_for 60 eval '[ -n "$(vsh list --name)" ]'
kill -INT $client
wait $client
is "SIGINT while it boots ends hvm" $? 130
no_leaks "nothing is left after SIGINT while it boots"

start_run debian12 -- sh -c 'echo ready; exec sleep 1000'
wait_for 120 says ready
kill -9 $client
wait $client 2>/dev/null
no_leaks "nothing is left after kill -9 of hvm"

# Its name may be another's before its connection closes.
start_run debian12 -- sh -c 'echo ready; exec sleep 1000'
wait_for 120 says ready
name=$(vsh list --name | head -n1)
kill -STOP $client
t "a run's guest is destroyed by somebody else" hvm destroy "$name"
t "a lasting guest gets its name" create "$name"
kill -9 $client
wait $client 2>/dev/null
t "a run as long as another" run debian12 -- true
t "the lasting guest outlives the connection" hvm show "$name"
t "so does its disk" test -e "$store/guests/$(uuid_of "$name")/root.qcow2"
hvm destroy "$name" >/dev/null
no_leaks "nothing is left of both"

start_run debian12 -- sh -c 'echo ready; exec sleep 1000'
wait_for 120 says ready
hvmd_kill
wait $client
is "kill -9 of hvmd is hvm's own failure" $? 125
like "and it says so" "$(cat "$work/run.err")" "the connection to hvmd ended"
t "libvirt ends the guest of an hvmd that was killed" wait_for 60 no_domain
t "its disk is still there" test -n "$(ls "$store/guests")"
hvmd_start
no_leaks "the next hvmd clears it"

# --- how many -----------------------------------------------------------------------------------------------------------

disk_of() { vsh domblklist "$1" | awk '$1 == "vda" { print $2 }'; }

start_run --disk-in-memory yes debian12 -- sh -c 'echo ready; exec sleep 1000'
first=$client
wait_for 120 says ready
one=$(vsh list --name | head -n1)
like "its disk is in memory where it shall" "$(disk_of "$one")" '^/dev/shm/hvm-[0-9a-f]*/[0-9a-f-]*/root.qcow2$'
like "and would be seen if it were left there" "$(leaks)" "disk in memory $(disk_of "$one")"
refuses "but not where that has no room" 125 "disk in memory: wanted .*TiB" run --disk-in-memory yes --disk 64T debian12 -- true
start_run --disk-in-memory no debian12 -- sh -c 'echo ready; exec sleep 1000'
t "two at once on two cores" wait_for 120 says ready
t "both are listed" runs_are 2
like "the disk of the other is in the store" "$(disk_of "$(vsh list --name | grep -vx "$one" | head -n1)")" "^$store/guests/"
refuses "a third has no core" 125 "core" run debian12 -- true
kill $first $client
wait $first $client
is "the next one waits for those which are about to go" "$(run debian12 -- echo fits)" fits
is "on both cores too" "$(hvm run --cpus 2 --memory 512M --pages 4K debian12 -- nproc)" 2
is "one after another" "$(for i in 1 2 3; do hvm run --cpus 2 --memory 512M --pages 4K debian12 -- echo $i; done | paste -sd' ')" "1 2 3"

# --- its own steps, failed and killed (those that it shares with start: test_faults.sh) --------------------------------

steps() { grep -hoE 'step_reached\("run\.[a-z-]+"' "$source"/vmm/guest/*.c | cut -d'"' -f2 | sort -u; }
is "run has steps of its own" "$(steps | paste -sd' ')" "run.disk run.domain"
for step in $(steps); do
    fault_set "$step" fail
    refuses "$step fails: the command says so" 125 "$step" run debian12 -- true
    fault_clear
    no_leaks "$step fails: nothing is left"
    fault_set "$step" kill
    refuses "$step: hvmd is killed, and the command says that it is gone" 125 "hvmd" run debian12 -- true
    fault_clear
    t "$step: hvmd is dead" gone "$hvmd_pid"
    t "$step: libvirt ends what there was of the guest" wait_for 60 no_domain
    hvmd_start
    no_leaks "$step: the next hvmd clears the rest"
done

# --- boots that fail --------------------------------------------------------------------------------------------------

printf '[template]\ninherits=debian12\n[boot]\nkernel-arguments=root=/dev/vdz\n' >"$work/templates/lost.conf"
cp -al "$store/images/debian12" "$store/images/lost"
sed -i 's/^template=.*/template=lost/' "$store"/images/lost/*/image.conf
run --verbose lost -- true >"$work/out" 2>"$work/err" </dev/null
is "a root that is not there is hvm's own failure" $? 125
like "in words of the guest's own" "$(tail -n1 "$work/err")" 'hvm-init: the root disk /dev/vdz did not appear'
like "after a second attempt" "$(cat "$work/err")" 'booting it once more'
rm -rf "$store/images/lost"

# A kernel that hangs: stopped, the first attempt runs out of time.
runs_vcpus() { name=$(vsh list --name | head -n1) && [ -n "$name" ] && vsh domstate "$name" | grep -q running; }
start_run --boot-timeout 45 debian12 -- echo booted
wait_for 60 runs_vcpus
kill -STOP "$(qemu_pid "$(vsh list --name | head -n1)")"
wait $client
is "a boot that hangs is tried once more" "$? $(cat "$work/run.out")" "0 booted"
no_leaks "nothing is left of a boot that failed"
done_testing
