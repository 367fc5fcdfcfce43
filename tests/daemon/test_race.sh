#!/bin/bash
# Two starts for the last core: one wins, one is told. Many clients at once.
# needs: image
. "$HVM_TEST_SOURCE/tests/daemon/lib.sh"
begin

for name in a b c; do create $name >/dev/null || bail "no guest $name"; done
start_nowait c || bail "c does not start"
for round in 1 2 3; do
    hvm start a --no-wait >/dev/null 2>"$work/a" & first=$!
    hvm start b --no-wait >/dev/null 2>"$work/b" & second=$!
    wait $first; status_a=$?
    wait $second; status_b=$?
    is "round $round: of two starts for the last core one wins, one finds no place" \
        "$(printf '%s\n' $status_a $status_b | sort -n | paste -sd' ')" "0 7"
    like "round $round: and is told why" "$(cat "$work/a" "$work/b")" "core"
    is "round $round: no CPU has two owners" \
        "$(hvm host --json | json '[p["cpus"] for p in x["promises"]]' | sort | uniq -d)" ""
    for name in a b; do [ "$(state_of $name)" = off ] || hvm stop --hard $name >/dev/null; done
done
hvm stop --hard c >/dev/null

# The same name from two sides; the same guest started, stopped, destroyed from many.
hvm create twin --template debian12 --cpus 1 >/dev/null 2>/dev/null & first=$!
as alice hvm create twin --template debian12 --cpus 1 >/dev/null 2>/dev/null & second=$!
wait $first; status_a=$?
wait $second; status_b=$?
is "of two creates of one name one wins" "$(printf '%s\n' $status_a $status_b | sort -n | paste -sd' ')" "0 4"
hvm destroy twin >/dev/null

pids=()
for i in 1 2 3 4 5 6; do
    hvm start a --no-wait >/dev/null 2>&1 & pids+=($!)
    hvm stop --hard a >/dev/null 2>&1 & pids+=($!)
done
wait "${pids[@]}"
like "after a scramble of starts and stops it is off or runs" "$(state_of a)" '^(off|running)$'
pids=()
for i in 1 2 3; do hvm destroy a >/dev/null 2>&1 & pids+=($!); hvm start a --no-wait >/dev/null 2>&1 & pids+=($!); done
wait "${pids[@]}"
refuses "after a scramble of destroys it is gone" 3 "no guest 'a'" hvm show a

pids=()
for i in $(seq 50); do hvm list >/dev/null 2>"$work/many.$i" & pids+=($!); done
wrong=0
for pid in "${pids[@]}"; do wait "$pid" || wrong=$((wrong + 1)); done
is "fifty clients at once are all served" $wrong 0 || sort "$work"/many.* | uniq -c | diag
t "clients that say nothing do not stop the others" python3 -c '
import socket, subprocess
idle = []
for i in range(100):
    s = socket.socket(socket.AF_UNIX)
    s.setblocking(False)
    try:
        s.connect("/run/hvm/hvmd.sock")
    except BlockingIOError:
        pass
    idle.append(s)
subprocess.run(["hvm", "list"], check=True, timeout=60)'
hvm destroy b c >/dev/null
no_leaks "nothing is left"
done_testing
