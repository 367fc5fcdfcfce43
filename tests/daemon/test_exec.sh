#!/bin/bash
# `hvm exec`: statuses, streams, signals, users.
# needs: image
# HVM_TEST_STREAM_MIB: how much goes through the streams (default 1024).
. "$HVM_TEST_SOURCE/tests/daemon/lib.sh"
begin
mib=${HVM_TEST_STREAM_MIB:-1024}

# status_is WHAT STATUS COMMAND...
status_is() {
    local what=$1 wanted=$2 found=0

    shift 2
    "$@" >"$work/out" 2>"$work/err" </dev/null || found=$?
    is "$what" "$found" "$wanted" || diag <"$work/err"
}

refuses "a guest that is not there" 125 "g" hvm exec g -- true
create g >/dev/null || bail "no guest"
refuses "a guest that is off" 125 "off|not running" hvm exec g -- true
hvm start g >/dev/null || bail "the guest does not start"

status_is "status 0" 0 hvm exec g -- true
status_is "status 3" 3 hvm exec g -- sh -c 'exit 3'
status_is "status 255" 255 hvm exec g -- sh -c 'exit 255'
status_is "not found is 127" 127 hvm exec g -- no-such-command
status_is "not executable is 126" 126 hvm exec g -- /etc/passwd
status_is "a folder is 126" 126 hvm exec g -- /etc
status_is "killed by SIGKILL is 137" 137 hvm exec g -- sh -c 'kill -9 $$'
status_is "killed by SIGTERM is 143" 143 hvm exec g -- sh -c 'kill -TERM $$'
status_is "an unknown option is hvm's own failure" 125 hvm exec --no-such-option g -- true
status_is "options of the command are not hvm's" 0 hvm exec g -- test -e /
refuses "an unknown user" 125 "nobody-here" hvm exec --user nobody-here g -- true
refuses "a folder that is asked for and is not there" 125 "/no/such" hvm exec --cwd /no/such g -- true

hvm exec g -- sh -c 'echo to-out; echo to-err >&2' >"$work/out" 2>"$work/err"
is "stdout is stdout" "$(cat "$work/out")" to-out
is "stderr is stderr" "$(cat "$work/err")" to-err
is "stdin arrives, and its end" "$(printf 'a\nb\n' | hvm exec g -- wc -l)" 2
is "a closed stdin is the end of file" "$(hvm exec g -- cat </dev/null | wc -c)" 0
head -c 100000 /dev/urandom >"$work/random"
is "all bytes pass" "$(hvm exec g -- cat <"$work/random" | cmp - "$work/random" && echo same)" same
is "arguments pass unchanged" "$(hvm exec g -- printf '%s|' 'a b' '' '*' '$HOME' $'x\ny' "'\"")" $'a b||*|$HOME|x\ny|\'"|'
is "environment passes" "$(hvm exec --env A=1 --env 'B=x y' g -- sh -c 'echo "$A $B"')" "1 x y"
is "a working directory passes" "$(hvm exec --cwd /usr/bin g -- pwd)" /usr/bin
is "the caller's directory is taken where the guest has it" "$(cd /usr/lib && hvm exec g -- pwd)" /usr/lib
is "else home" "$(cd "$work" && hvm exec g -- pwd)" /root
is "root is root" "$(hvm exec g -- id -u)" 0
is "a user of the guest" "$(hvm exec --user nobody g -- id -un)" nobody
is "output after the command's child has ended comes too" "$(hvm exec g -- sh -c 'echo first; (sleep 1; echo second) & wait')" $'first\nsecond'
is "a command that leaves a child behind ends" "$(hvm exec g -- sh -c 'sleep 1000 >/dev/null 2>&1 </dev/null & echo ended')" ended
status_is "a reader that goes away ends the command" 0 sh -c 'hvm exec g -- yes | head -n1'

# Twenty commands at once, each its own streams.
for i in $(seq 20); do hvm exec g -- sh -c "sleep 0.2; echo $i" >"$work/many.$i" & many[i]=$!; done
wait "${many[@]}"
is "twenty commands at once do not mix" "$(for i in $(seq 20); do cat "$work/many.$i"; done | paste -sd' ')" "$(seq -s' ' 20)"

# Signals, and a client that goes.
mkfifo "$work/fifo"
hvm exec g -- sh -c 'trap "echo got-it; exit 7" TERM; echo ready; while :; do sleep 0.1; done' >"$work/fifo" 2>"$work/err" &
client=$!
exec 5<"$work/fifo"
read -r -t 60 line <&5
is "a long command runs" "$line" ready
kill -TERM $client
read -r -t 60 line <&5
is "a signal is passed on" "$line" got-it
exec 5<&-
wait $client
is "and its status comes back" $? 7

hvm exec g -- sh -c 'echo $$ >/tmp/pid; exec sleep 1000' >/dev/null 2>&1 &
client=$!
wait_for 60 hvm exec g -- test -s /tmp/pid
kill -9 $client
wait $client 2>/dev/null
t "a command whose client is killed is ended" wait_for 30 hvm exec g -- sh -c '! kill -0 $(cat /tmp/pid)'

# A client that does not read stalls itself alone.
hvm exec g -- cat /dev/zero >"$work/fifo" 2>/dev/null &
client=$!
exec 5<"$work/fifo"
sleep 1
is "another command is served while one client does not read" "$(timeout 60 hvm exec g -- echo served)" served
kill -9 $client
exec 5<&-
wait $client 2>/dev/null

# In bulk: there and back, and, smaller because hashing in software is slow, each way against a checksum that the guest makes.
pattern() { seq 1 1000000000 2>/dev/null | head -c $(($1 << 20)) || true; }
is "$mib MiB through the guest and back, unaltered" "$(pattern $mib | hvm exec g -- cat | cmp - <(pattern $mib) && echo same)" same
want=$(pattern 64 | sha256sum)
is "64 MiB in, unaltered" "$(pattern 64 | hvm exec g -- sha256sum)" "$want"
is "64 MiB out, unaltered" "$(hvm exec g -- sh -c "seq 1 1000000000 | head -c $((64 << 20))" | sha256sum)" "$want"
mkdir -p "$work/tree/sub" && seq 100000 >"$work/tree/sub/numbers" && ln -s sub/numbers "$work/tree/link"
is "tar into the guest and back" "$(tar -C "$work/tree" -c . | hvm exec g -- sh -c 'mkdir -p /tmp/t && tar -C /tmp/t -x && tar -C /tmp/t -c .' |
    tar -x -O ./sub/numbers | cmp - "$work/tree/sub/numbers" && echo same)" same

# As another user: their own uid, gid and name, made in the guest.
as alice hvm create ga --template debian12 --cpus 1 --memory 512M --start >/dev/null || bail "alice's guest does not start"
is "a user is themselves in the guest, with their groups" "$(cd / && as alice hvm exec ga -- id)" "uid=61001(alice) gid=61001(alice) groups=61001(alice),60999"
is "and has a home" "$(cd / && as alice hvm exec ga -- sh -c 'cd && pwd && touch file && echo ok')" $'/home/alice\nok'

# A guest that floods stalls no other.
hvm exec g -- cat /dev/zero >/dev/null 2>&1 &
client=$!
flooded() { [ "$(awk '/^wchar/ { print $2 }' /proc/$client/io)" -gt $((1 << 24)) ]; }
t "one guest floods" wait_for 60 flooded
is "the other is served meanwhile" "$(timeout 60 hvm exec ga -- echo served)" served
t "the flood flows on" kill -0 $client
kill -9 $client
wait $client 2>/dev/null
hvm destroy ga >/dev/null
hvm destroy g >/dev/null
no_leaks "nothing is left"
done_testing
