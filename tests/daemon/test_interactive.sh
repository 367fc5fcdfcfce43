#!/bin/bash
# shell, console, cp and events: what people do with a guest by hand.
# needs: image
. "$HVM_TEST_SOURCE/tests/daemon/lib.sh"
begin
terminal() { timeout -k 5 300 python3 "$HVM_TEST_SOURCE/tests/daemon/terminal.py" "$@"; }

# --- events -----------------------------------------------------------------------------------------------------------

timeout 600 hvm events --verbose >"$work/events" 2>"$work/events.err" &
events=$!
timeout 600 hvm events --json --verbose >"$work/events.json" 2>"$work/events.json.err" &
events_json=$!
as alice timeout 600 hvm events --verbose >"$work/events.alice" 2>"$work/events.alice.err" &
events_alice=$!
wait_for 30 grep -q waiting "$work/events.err" "$work/events.json.err" || bail "nobody listens to events"
wait_for 30 grep -q waiting "$work/events.json.err" || bail "nobody listens to events"
wait_for 30 grep -q waiting "$work/events.alice.err" || bail "nobody listens to events"

create g >/dev/null || bail "no guest"
timeout 300 hvm start g >/dev/null || bail "the guest does not start"

# --- the terminal -----------------------------------------------------------------------------------------------------

like "exec -t has the caller's window size" "$(TERM=xterm terminal 33x101 -- hvm exec -t g -- sh -c 'stty size; echo $TERM')" $'33 101\r\nxterm'
like "and follows it" "$(terminal 33x101 wait:ready size:44x55 wait:44\ 55 'send:\n' -- hvm exec -t g -- sh -c \
    'trap "stty size" WINCH; echo ready; while ! read -r -t 1 line && [ "$(stty size)" != "44 55" ]; do :; done; stty size; read -r line')" "44 55"
like "a TERM that is no name is left out" "$(TERM='a b;c' terminal 33x101 -- hvm exec -t g -- sh -c 'echo "<$TERM>"')" '<>|<dumb>'
shell=$(TERM=xterm terminal 33x101 'wait:# ' 'send:pwd; echo "$0 $TERM"; shopt login_shell; stty size; exit 5\n' -- hvm shell g)
is "a shell ends with its status" $? 5
like "it is a login shell, at home" "$shell" $'/root\r\n'.*xterm.*'login_shell'.*on
like "and has the window's size" "$shell" "33 101"
is "a shell without a terminal reads commands" "$(echo 'pwd; tty' | timeout 60 hvm shell g)" $'/root\nnot a tty'
refuses "create's options are for a template" 125 "there already" timeout 60 hvm shell g --cpus 1
refuses "neither a guest nor a template" 125 "no guest 'none'; no template 'none'" timeout 60 hvm shell none

# --- console ----------------------------------------------------------------------------------------------------------

timeout 100 hvm console g --read-only </dev/null >"$work/watched" 2>"$work/watched.err" &
watcher=$!
terminal 24x80 'wait:Ctrl-] leaves' "touch:$work/writing" 'send:\n' 'wait:login:' "until:$work/refused" 'send:\x1d' \
    -- hvm console g >"$work/console" 2>&1 &
writer=$!
wait_for 60 test -e "$work/writing" || fail "the console does not open"
is "a second writer is refused" "$(terminal 24x80 -- hvm console g | tr -d '\r'; echo "${PIPESTATUS[0]}")" \
    $'hvm: guest \'g\': somebody else writes to its console: watch it with --read-only\n6'
is "one more may watch" "$(terminal 24x80 'wait:read-only' 'send:\x1d' -- hvm console g --read-only >/dev/null; echo $?)" 0
touch "$work/refused"
wait $writer
is "the console shows a login, and Ctrl-] leaves it" $? 0 || diag <"$work/console"
t "a watcher sees the same" wait_for 60 grep -q login: "$work/watched"
kill -INT $watcher
wait $watcher
is "SIGINT ends a watcher" $? 0 || diag <"$work/watched.err"
is "the place is free again" "$(terminal 24x80 'wait:Ctrl-]' 'send:\x1d' -- hvm console g >/dev/null; echo $?)" 0
is "a terminal is put back" "$(terminal 24x80 'wait:Ctrl-] leaves' 'send:\x1d' wait:after -- \
    sh -c 'a=$(stty -g); hvm console g; [ "$a" = "$(stty -g)" ] && echo after same' | grep -c 'after same')" 1

# A guest's sockets lie in a folder of QEMU's user: who broke out of a guest does not get to root's sockets by a link there.
sockets=/run/hvm/guests/$(uuid_of g)
mv "$sockets/console.sock" "$sockets/kept"
setpriv --reuid "$(stat -c %u "$sockets")" --clear-groups ln -s /run/libvirt/libvirt-sock "$sockets/console.sock"
like "a link in place of its console is not followed" "$(raw_call Console "{'name': <'g'>}")" "Error.Host: .*console.sock: .*non-socket"
rm "$sockets/console.sock"
mv "$sockets/kept" "$sockets/console.sock"
like "the console itself is there again" "$(raw_call Console "{'name': <'g'>}")" "'console': <handle 0>"

# --- cp ---------------------------------------------------------------------------------------------------------------

# What a tree is: kinds, modes, times, links and content.
tree_sum() { (cd "$1" && find . -printf '%y %m %T@ %l %p\n' | sed 's/\.[0-9]* / /' | LC_ALL=C sort && find . -type f -exec sha256sum {} + | LC_ALL=C sort); }
tree=$work/tree
mkdir -p "$tree/sub/deep" "$tree/empty"
seq 200000 >"$tree/sub/numbers"
head -c 3000000 /dev/urandom >"$tree/sub/deep/random"
echo run >"$tree/run" && chmod 755 "$tree/run"
ln -s sub/numbers "$tree/link" && ln -s /nowhere "$tree/dangling" && ln "$tree/run" "$tree/again"
touch "$tree/with space" "$tree/$(printf 'n\303\244me')" "$tree/-dash" "$tree/$(printf 'long%.0s' $(seq 40))"
chmod 750 "$tree/sub" && chmod 500 "$tree/empty"
find "$tree" -depth -exec touch -h -d '2020-02-03 04:05:06' {} +

t "a tree goes into a guest" timeout 120 hvm cp "$tree" g:/tmp
t "and comes out" timeout 120 hvm cp g:/tmp/tree "$work/back"
is "unaltered" "$(tree_sum "$work/back")" "$(tree_sum "$tree")"
is "hard links stay" "$(stat -c %h "$work/back/run")" 2
is "in the guest it belongs to the user" "$(timeout 60 hvm exec g -- stat -c %U:%a /tmp/tree/run)" root:755
t "a file gets a new name" timeout 60 hvm cp "$tree/run" g:renamed
is "at home" "$(timeout 60 hvm exec g -- cat /root/renamed)" run
t "a file goes into a folder of this node" timeout 60 hvm cp g:renamed "$work/back/"
is "with its name" "$(cat "$work/back/renamed")" run
t "a file replaces a file" timeout 60 hvm cp "$tree/sub/numbers" g:renamed
is "wholly" "$(timeout 60 hvm exec g -- wc -l renamed | tr -d ' ')" 200000renamed
refuses "a source that is not there" 3 "/nowhere" timeout 60 hvm cp /nowhere g:
refuses "nor in the guest" 3 "guest 'g': there is no /nowhere" timeout 60 hvm cp g:/nowhere "$work"
refuses "a folder over a folder" 4 "there is a folder /tmp/tree already" timeout 60 hvm cp "$tree" g:/tmp
refuses "a folder over a file" 4 "/root/renamed is there already" timeout 60 hvm cp "$tree" g:/root/renamed
refuses "out, a folder over a folder" 4 "there is a folder .*back already" timeout 60 hvm cp g:/tmp/back "$work"
refuses "into a folder that is not there" 3 "there is no folder /no/" timeout 60 hvm cp "$tree" g:/no/thing
refuses "a guest that is not there" 3 "none" timeout 60 hvm cp "$tree" none:
refuses "as a user who may not" 5 "permission denied" timeout 60 hvm cp --user nobody "$tree" g:/root/
timeout 60 hvm exec g -- sh -c 'mount -t tmpfs -o size=1m tmpfs /mnt'
refuses "a full disk" 11 "guest .g.: tar: .*(No space left|Wrote only)" timeout 60 hvm cp "$tree" g:/mnt
is "leaves nothing half-made" "$(timeout 60 hvm exec g -- sh -c 'ls -A /mnt; ls -A /tmp | grep hvm-cp')" ""
# A client that is killed: the guest clears up.
mkfifo "$work/never"
timeout 60 hvm exec g -- sh -c 'mkdir -p /srv/in'
head -c 200000000 /dev/zero >"$work/big"
timeout 60 hvm cp "$work/big" g:/srv/in &
copy=$!
wait_for 30 hvm exec g -- sh -c 'ls -A /srv/in | grep .' || fail "a big copy does not begin"
kill -9 "$(pgrep -P $copy -x hvm)" 2>/dev/null || kill -9 $copy
wait $copy 2>/dev/null
t "a copy that is killed leaves nothing, or is whole" wait_for 60 hvm exec g -- sh -c '[ -z "$(ls -A /srv/in | grep hvm-cp)" ]'
rm -f "$work/big"

# --- an ephemeral guest ---------------------------------------------------------------------------------------------------

timeout 120 hvm stop g >/dev/null || fail "the guest does not stop"
shell=$(TERM=xterm terminal 33x101 'wait:# ' 'send:stty size; hostname; exit 6\n' -- hvm shell debian12 --cpus 1 --memory 512M)
is "a shell in a guest made for it" $? 6 || diag <<<"$shell"
like "has the window's size, and a guest of its own" "$shell" $'33 101\r\nrun-'
only_g() { [ "$(hvm list --json | json '[g["name"] for g in x["guests"]]')" = g ] && [ "$(vsh list --name | grep .)" = "" ]; }
t "and nothing is left of it" wait_for 30 only_g
like "run -t" "$(terminal 21x77 -- hvm run -t --cpus 1 --memory 512M debian12 -- stty size)" "21 77"
wait_for 30 only_g
timeout 120 hvm destroy g >/dev/null || fail "the guest cannot be destroyed"

# --- what was told ----------------------------------------------------------------------------------------------------

t "a guest's life was told" wait_for 30 grep -q '  g  destroyed$' "$work/events"
is "in order" "$(awk '$2 == "g" { print $3 }' "$work/events" | uniq | paste -sd' ')" "created starting running stopping off destroyed"
like "a line begins with the time" "$(head -n1 "$work/events")" '^[0-9]{2}:[0-9]{2}:[0-9]{2}  g  created$'
is "and as JSON" "$(python3 -c '
import json, sys
print(*[e["event"] for e in map(json.loads, sys.stdin) if e["name"] == "g" and e["time"] > 1e15 and e["uuid"] and e["owner"] == 0])
' <"$work/events.json" | tr ' ' '\n' | uniq | paste -sd' ')" "created starting running stopping off destroyed"
is "another user hears nothing of it" "$(cat "$work/events.alice")" ""
kill -INT $events
wait $events
is "SIGINT ends it well" $? 0
no_leaks "nothing is left"
hvmd_stop
wait $events_json
is "it ends with hvmd" $? 8
kill -INT $events_alice 2>/dev/null
wait $events_alice 2>/dev/null
done_testing
