#!/bin/bash
# What bad input gets: one sentence, an exit status from the table, nothing half made.
# needs: image
. "$HVM_TEST_SOURCE/tests/daemon/lib.sh"
use_image copy
libvirt_start
write_conf
hvmd_start

long=$(printf 'a%.0s' $(seq 300))
template() { printf '%s\n' "${@:2}" >"$work/templates/$1.conf"; }
template misspelt "[template]" "inherits=debian12" "[cpu]" "cuont=2"
template badgroup "[template]" "inherits=debian12" "[cpus]" "count=2"
template badname "[template]" "inherits=debian12" "[disk rot]" "size=20G"
template badlink "[template]" "inherits=debian12" "[network ib0]" "kind=none"
template doubled "[template]" "inherits=debian12" "[cpu]" "count=2" "count=3"
template regrouped "[cpu]" "count=2" "[memory]" "size=1G" "[cpu]" "smt=any"
template loop-a "[template]" "inherits=loop-b"
template loop-b "[template]" "inherits=loop-a"
template orphan "[template]" "inherits=no-such-parent"
template badvalue "[template]" "inherits=debian12" "[memory]" "size=lots"
template noimage "[template]" "inherits=debian12"
printf 'no key file at all\n' >"$work/templates/noise.conf"
printf '[cpu]\ncount=\xff\xfe\n' >"$work/templates/binary.conf"
head -c 2000000 /dev/zero | tr '\0' '#' >"$work/templates/huge.conf"
memory=$(awk '/^MemTotal/ { print int($2 / 1024) * 4 }' /proc/meminfo)

# Rows: STATUS | PATTERN | what follows `hvm`. Words are split as the shell would.
while IFS='|' read -r status pattern words; do
    [ -n "$status" ] || continue
    eval "set -- $words"
    refuses "hvm$words" $status "$pattern" timeout 60 hvm "$@"
done <<END
2|unknown|frobnicate
2|option|create g --no-such-option
2|NAME|create
2|template|create g
2|template name|create g --template ../../etc/passwd
3|no-such-template|create g --template no-such-template
3|debain12.*debian12|create g --template debain12
2|guest name|create ../x --template debian12
2|guest name|create $long --template debian12
2|guest name|create 'a;reboot' --template debian12
2|guest name|create 'a\$(id)' --template debian12
2|guest name|create 'a b' --template debian12
2|guest name|create \$'a\\nb' --template debian12
2|guest name|create '' --template debian12
2|guest name|create --template debian12 -- -x
2|guest name|create A --template debian12
2|guest name|create x/y --template debian12
7|4000|create g --template debian12 --cpus 4000
2|0|create g --template debian12 --cpus 0
2|-1|create g --template debian12 --cpus=-1
2|two|create g --template debian12 --cpus two
2|99999999999999999999|create g --template debian12 --cpus 99999999999999999999
7|${memory}M|create g --template debian12 --memory ${memory}M
2|1K|create g --template debian12 --memory 1K
2|lots|create g --template debian12 --memory lots
2|3M|create g --template debian12 --pages 3M
7|1G|create g --template debian12 --memory 1G --pages 1G
2|multiple|create g --template debian12 --memory 1500M --pages 1G
2|smaller than the image|create g --template debian12 --disk 64M
2|xen|create g --template debian12 --accel xen
2|twice|create g --template debian12 --cpus 1 --cpus 2
2|misspelt.conf.*cuont.*count|create g --template misspelt
2|badgroup.conf.*cpus|create g --template badgroup
2|badname.conf.*disk rot.*disk root|create g --template badname
2|badlink.conf.*network ib0|create g --template badlink
2|doubled.conf.*count|create g --template doubled
2|regrouped.conf.*cpu|create g --template regrouped
2|loop-a.*loop-b|create g --template loop-a
2|no-such-parent|create g --template orphan
2|badvalue.conf.*size.*lots|create g --template badvalue
2|noise.conf|create g --template noise
2|binary.conf|create g --template binary
2|huge.conf|create g --template huge
3|build one|create g --template noimage
3|no guest 'g'|show g
3|no guest 'g'|start g
3|no guest 'g'|stop g
3|no guest 'g'|destroy g
3|no guest 'g'|logs g
125|no guest 'g'|exec g -- true
3|no-such-template|template show no-such-template
3|no-such-template|template build no-such-template
3|no-such-template|template remove no-such-template
2|revision|template remove debian12 ../../guests
END
is "nothing came to be" "$(hvm list --json | json '[g["name"] for g in x["guests"]]')" ""
no_leaks "nothing is half made"

# States.
create g >/dev/null || bail "no guest"
refuses "a taken name" 4 "taken" create g
refuses "exec in a guest that is off" 125 "guest 'g'" hvm exec g -- true
out=$(hvm stop g 2>&1)
is "stop of a guest that is off is done already" $? 0
refuses "an image under a guest is not removed" 6 "guest 'g'" hvm template remove debian12

# An image that is removed while a guest is made on it.
template spare "[template]" "inherits=debian12"
cp -a "$store/images/debian12" "$store/images/spare"
sed -i s/debian12/spare/ "$store"/images/spare/*/image.conf
fault_set create.image wait
create late --template spare >/dev/null 2>"$work/late" & maker=$!
fault_reached || fail "a create comes to its image"
t "an image is removed while a guest is about to stand on it" hvm template remove spare
fault_clear
wait $maker
is "that guest is not made" $? 3
like "its creator is told why" "$(cat "$work/late")" "guest 'late': template 'spare' has no image of revision"

# More than is free: the second does not fit beside the first.
create h --memory 512M >/dev/null
create both --cpus $cores >/dev/null
t "one guest takes a core" hvm start h --no-wait
refuses "a guest for all cores does not fit beside it" 7 "guest 'both'.*cores" hvm start both
is "and is off" "$(state_of both)" off
refuses "nor one that is created and started at once" 7 "guest 'third'.*cores" create third --cpus $cores --start
refuses "of which nothing is left" 3 "no guest 'third'" hvm show third
hvm destroy h both >/dev/null

# Images that are damaged.
image=$(echo "$store"/images/debian12/*/)
mv "$image/root.raw" "$image/whole"
head -c 1M "$image/whole" >"$image/root.raw"
refuses "a truncated image: start" 11 "root.raw.*wanted.*found" hvm start g
refuses "a truncated image: create" 11 "root.raw" create g2
mv "$image/whole" "$image/root.raw"
mv "$image/vmlinuz" "$image/gone"
refuses "a missing kernel" 11 "vmlinuz" hvm start g
mv "$image/gone" "$image/vmlinuz"
mv "$store/guests/$(uuid_of g)/root.qcow2" "$work/"
refuses "a missing disk" 11 "root.qcow2" hvm start g
mv "$work/root.qcow2" "$store/guests/$(uuid_of g)/"
is "the guest is off after all that" "$(state_of g)" off

# A silent agent: its guest boots into a shell.
template mute "[template]" "inherits=debian12" "[boot]" "timeout=20" "kernel-arguments=init=/bin/sh"
cp -a "$store/images/debian12" "$store/images/mute"
sed -i s/debian12/mute/ "$store"/images/mute/*/image.conf
refuses "an agent that does not answer in time, with the console's last line" 13 "mute.*console's last line: .+" \
    create mute --template mute --start
is "the guest is there and runs, for whoever wants to look" "$(state_of mute)" running
refuses "exec in it, in time" 125 "mute" timeout 200 hvm exec mute -- true
t "it is stopped, for it must" timeout 60 hvm stop mute --timeout 6
is "hard, after it was asked" "$out" "guest 'mute' is stopped hard: what it had not written to its disk is lost"
hvm start mute --no-wait >/dev/null

# A stop that waits for a guest which does not hear it is no lock on the guest, nor are many of them one on hvmd.
like "a stop waits for a day at most" "$(raw --wait /run/hvm/hvmd.sock io.hvm1.Stop "{'name': <'mute'>, 'timeout': <uint32 86401>}")" \
    'Error\.Invalid.*at most 86400.*86401'
hvm stop mute --timeout 3000 >"$work/stop" 2>&1 &
stop=$!
t "it is asked to stop" wait_for 20 is_state mute stopping
for ((i = 0; i < 140; i++)); do raw_call Stop "{'name': <'mute'>, 'timeout': <uint32 3000>}" >/dev/null; done
t "a hard stop does not wait for it" hvm stop --hard mute
wait $stop
is "who waited is told that it is off" $? 0
hvm start mute --no-wait >/dev/null
hvm stop mute --timeout 3000 >"$work/stop" 2>&1 &
stop=$!
t "it is asked to stop" wait_for 20 is_state mute stopping
t "nor does destroy" hvm destroy mute
wait $stop

# A full disk.
mkdir "$work/small" && mount -t tmpfs -o size=192M,mode=755 tmpfs "$work/small"
hvmd_stop
sed -i "s|^path=.*|path=$work/small|" $conf
hvmd_start
store_before=$store
store=$work/small
mkdir -p "$store/images" && mount --bind "$store_before/images" "$store/images"
dd if=/dev/zero of="$store/fill" bs=1M >/dev/null 2>&1
refuses "a full disk at create" 11 "(No space|full)" create full
rm -f "$store/fill"
is "nothing is left of it" "$(ls "$store/guests")" ""
create full --network none >/dev/null || bail "no guest"
dd if=/dev/zero of="$store/fill" bs=1M >/dev/null 2>&1
refuses "a full disk in the middle of a start" 11 "guest 'full': image store $store is full: it is paused" timeout 120 hvm start full
is "it is paused, for whoever makes room" "$(state_of full)" paused
rm -f "$store/fill"
t "with room it goes on" vsh resume full
t "to the end of its boot" wait_for 300 hvm exec full -- true
dd if=/dev/zero of="$store/fill" bs=1M >/dev/null 2>&1
hvm exec full -- dd if=/dev/zero of=/root/zero bs=1M count=16 oflag=direct >/dev/null 2>&1 &
t "a disk that fills up under a running guest pauses it" wait_for 120 is_state full paused
rm -f "$store/fill"
t "a paused guest is stopped" hvm stop full --timeout 300
like "and not hard: what it had to write is written" "$out" "^guest 'full' is stopped($|: its agent did not answer, its power button did$)"
hvm destroy full >/dev/null
umount "$store/images"
hvmd_stop
store=$store_before
write_conf
hvmd_start

# No libvirt, no hvmd, no permission.
libvirt_kill
wait_for 20 sh -c '! hvm start g 2>&1 | grep -q already'
refuses "no libvirt" 9 "libvirt" hvm start g
is "what is known is still told" "$(hvm list --json | json '[g["name"] for g in x["guests"]]')" g
libvirtd -d
t "libvirt is back" wait_for 60 hvm start g --no-wait
hvm stop --hard g >/dev/null
chmod 700 /run/hvm
refuses "no permission to reach hvmd" 5 "/run/hvm/hvmd.sock" as eve hvm list
chmod 755 /run/hvm
hvm destroy g >/dev/null
no_leaks "nothing is left"
hvmd_stop
refuses "no hvmd" 8 "/run/hvm/hvmd.sock" hvm list
refuses "no hvmd, exec" 125 "/run/hvm/hvmd.sock" hvm exec g -- true

# Configurations that hvmd refuses: it says why and does not start.
bad_conf() {
    local what=$1 pattern=$2

    shift 2
    printf '%s\n' "$@" >"$work/bad.conf"
    refuses "hvmd.conf: $what" 2 "$pattern" timeout 20 "$build/hvmd" --config "$work/bad.conf"
}
bad_conf "an unknown key" "bad.conf.*pth.*storage" "[storage]" "pth=/x"
bad_conf "a relative path" "bad.conf.*path.*relative" "[storage]" "path=relative"
bad_conf "a doubled key" "bad.conf.*path" "[storage]" "path=/x" "path=/y"
bad_conf "a CPU list that is none" "housekeeping.*one-two" "[cpu]" "housekeeping=one-two"
bad_conf "a pool that is none" "300.1.2.3/8" "[network]" "nat-pool=300.1.2.3/8"
refuses "hvmd.conf: missing" 3 "/no/such.conf" timeout 20 "$build/hvmd" --config /no/such.conf

# Malformed messages: hvmd closes or refuses, and lives.
hvmd_start
exec 5<>/dev/null
for bytes in '\0AUTH EXTERNAL 30\r\nBEGIN\r\nl\1\0\1\xff\xff\xff\xff' '\0AUTH ANONYMOUS\r\n' 'garbage\r\n\r\n' '\0' ''; do
    t "hvmd lives after '$bytes'" python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(2)
s.connect("/run/hvm/hvmd.sock")
s.sendall(sys.argv[1].encode().decode("unicode_escape").encode("latin-1"))
try:
    while s.recv(4096): pass
except OSError:
    pass' "$bytes"
    hvmd_running && hvmd_answers >/dev/null 2>&1 || fail "hvmd is gone"
done
like "a missing key" "$(raw_call Show '@a{sv} {}')" 'Error\.Invalid.*name'
like "an unknown key" "$(raw_call Show "{'name': <'g'>, 'nmae': <'g'>}")" 'Error\.Invalid.*nmae'
like "a wrong type" "$(raw_call Show "{'name': <7>}")" 'Error\.Invalid.*name'
like "a key twice" "$(raw_call Show "{'name': <'g'>, 'name': <'h'>}")" 'Error\.Invalid|duplicate|twice'
settings=$(for ((i = 0; i < 257; i++)); do printf "'device d%d.kind': 'x', " $i; done)
like "more settings than a guest can have" "$(raw --wait /run/hvm/hvmd.sock io.hvm1.Create \
    "{'name': <'g'>, 'template': <'debian12'>, 'settings': <{${settings%, }}>}")" 'Error\.Invalid: settings: wanted at most 256, found 257'
like "a job that is none" "$(raw_call WaitJob "{'job': <uint32 77>}")" 'Error\.NotFound'
t "hvmd lives" hvmd_answers
done_testing
