#!/bin/bash
# What a stranger, a hasty client and hostile metadata can do to hvmd: nothing.
. "$HVM_TEST_SOURCE/tests/daemon/lib.sh"
# as() wants a program, and it may not reach the sources.
eve_floods() { as eve timeout 60 python3 "$work/flood.py" /run/hvm/hvmd.sock "$@"; }
resident_kib() { awk '/^VmRSS/ { print $2 }' "/proc/$hvmd_pid/status"; }
cp "$HVM_TEST_SOURCE/tests/daemon/flood.py" "$work/"

# foreign NAME UUID METADATA: a domain that is off, and a disk of its.
foreign() {
    mkdir -p -m 711 "$store/guests/$2"
    echo disk >"$store/guests/$2/root.qcow2"
    vsh define /dev/stdin >/dev/null <<END
<domain type='qemu'><name>$1</name><uuid>$2</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<metadata>$3</metadata><os><type arch='x86_64' machine='q35'>hvm</type></os></domain>
END
}
guest="xmlns:hvm='$(sed -n 's/.*METADATA_URI "\(.*\)".*/\1/p' "$HVM_TEST_SOURCE/vmm/runtime/vm/metadata.h")'"

libvirt_start
write_conf
mkdir -p -m 711 "$store/guests"
foreign newer 11111111-1111-4111-8111-111111111111 "<hvm:guest $guest version='99' store='$store' owner='0' group='0'/>"
foreign broken 22222222-2222-4222-8222-222222222222 "<hvm:guest $guest version='1' store='$store' owner='-5' revision='../..'/>"
foreign none 33333333-3333-4333-8333-333333333333 ""
mkdir -p -m 711 "$store/guests/44444444-4444-4444-8444-444444444444" "$store/unfinished"
touch "$store/unfinished/44444444-4444-4444-8444-444444444444"
hvmd_start
wait_for 30 connected
t "what was half made is cleared" wait_for 20 test ! -e "$store/guests/44444444-4444-4444-8444-444444444444"
for uuid in 11111111-1111-4111-8111-111111111111 22222222-2222-4222-8222-222222222222 33333333-3333-4333-8333-333333333333; do
    t "the disk of a domain that hvmd cannot read stays: $uuid" test -e "$store/guests/$uuid/root.qcow2"
done

# Connections that say nothing hold up their own user alone.
eve_floods silent 200 4 >"$work/silent" &
client=$!
sleep 1
t "root gets in while a stranger holds 200 silent connections" timeout 3 hvm list
t "so does another user" as alice timeout 3 hvm list
wait $client

# Nothing is kept of those that have gone.
before=$(ls "/proc/$hvmd_pid/fd" | wc -l)
like "clients that come and go" "$(eve_floods leave 300)" "left 300"
few_descriptors() { [ $(($(ls "/proc/$hvmd_pid/fd" | wc -l) - before)) -lt 10 ]; }
t "leave nothing behind" wait_for 10 few_descriptors
t "and do not count" as eve timeout 10 hvm list

# A client that does not read is cut, whatever it calls.
before=$(resident_kib)
like "answers of io.hvm1 not read" "$(eve_floods unread io.hvm1.Doctor 2000)" "^cut"
like "answers of GDBus's own not read" "$(eve_floods unread org.freedesktop.DBus.Introspectable.Introspect 20000)" "^cut"
like "errors not read" "$(eve_floods unread org.freedesktop.DBus.Properties.None 20000)" "^cut"
after=$(resident_kib)
[ $((after - before)) -lt 200000 ] && pass "hvmd did not grow" || fail "hvmd grew from $before to $after KiB"
t "hvmd serves others" timeout 10 hvm list

# Descriptors that nobody asked for are not kept.
for flood in "descriptors 60" "trickle 1000000 300"; do
    eve_floods $flood >"$work/flood" &
    client=$!
    n=0
    for ((i = 0; i < 15; i++)); do
        found=$(ls "/proc/$hvmd_pid/fd" | wc -l)
        [ "$found" -le $n ] || n=$found
        sleep 0.1
    done
    [ "$n" -lt 300 ] && pass "descriptors are not kept: $flood" || fail "hvmd holds $n descriptors: $flood"
    wait $client
    like "they were sent" "$(cat "$work/flood")" "^sent"
    t "hvmd serves others" timeout 10 hvm list
done

# Messages are bounded, and what is said of them.
like "a message larger than any call is not waited for" "$(eve_floods trickle 100000000 1)" "cut$"
before=$(stat -c %s "$log")
like "nor is one that is none" "$(eve_floods malformed 1000000)" "^cut"
t "nor is it shown at length" test $(($(stat -c %s "$log") - before)) -lt 2000
like "a request of many keys" "$(raw_call Show "{$(printf "'k%d': <1>, " {1..300})'name': <'g'>}")" "Error.Invalid.*at most 64 keys, found 301"
t "hvmd runs" hvmd_running

t "hvmd leaves" hvmd_stop
is "and says nothing bad" "$(grep -E 'CRITICAL|ERROR: AddressSanitizer|runtime error|ERROR: LeakSan' "$log")" ""
done_testing
