#!/bin/bash
# The main job with a real guest: create, start, exec, stop, start, destroy.
# needs: image pages=320
. "$HVM_TEST_SOURCE/tests/daemon/lib.sh"
echo "max_size = 262144" >>/etc/libvirt/virtlogd.conf
begin

like "doctor says whether the node is fit" "$(hvm doctor)" "libvirt +ok"
t "a guest is created" create g1 --disk 3G
is "it is off" "$(state_of g1)" off
refuses "its name is taken" 4 "name is taken" create g1
is "it stands in the list" "$(hvm list --json | json '[(g["name"], g["state"], g["cpus"], g["memory"]) for g in x["guests"]]')" \
    "('g1', 'off', 1, $((512 << 20)))"

t "it starts" hvm start g1
is "it runs" "$(state_of g1)" running
like "its address is in the list" "$(field g1 address)" '^[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+$'
like "its CPU is in the list" "$(field g1 placed)" '^[0-9]+$'
is "its CPU is in the ledger" "$(hvm host --json | json '[(p["guest"], p["owner"]) for p in x["promises"]]')" "('g1', '0')"
is "QEMU's vCPU thread is bound to that CPU" \
    "$(grep -l '^CPU 0' /proc/"$(qemu_pid g1)"/task/*/comm | head -n1 | sed 's/comm$/status/' | xargs awk '/^Cpus_allowed_list/ { print $2 }')" \
    "$(field g1 placed)"
refuses "it cannot be started twice" 6 "running already" hvm start g1

t "a command runs in it" hvm exec g1 -- uname -s
is "and says what it is" "$out" Linux
is "its host name is the guest's name" "$(hvm exec g1 -- hostname)" g1
is "it has the CPUs it was given" "$(hvm exec g1 -- nproc)" 1
is "its file system was grown" "$(hvm exec g1 -- df -BM --output=size / | awk 'NR == 2 { print ($1 > 2500) }')" 1
first_id=$(hvm exec g1 -- cat /etc/machine-id)
like "it has a machine id" "$first_id" '^[0-9a-f]{32}$'
t "a file is written in it" hvm exec g1 -- sh -c 'echo kept >/root/file && sync'
like "its console is in the log" "$(hvm logs g1)" "Linux version"

# virtlogd begins the log anew where it has grown: what was before is still told.
hvm exec g1 -- sh -c 'seq -f "line %.0f" 50000 >/dev/console'
folder=$store/guests/$(uuid_of g1)
t "a log that has grown is begun anew" wait_for 60 test -e "$folder/console.log.0"
t "its end is told" wait_for 60 eval 'hvm logs g1 | grep -q "^line 50000"'
is "with what came before and since" "$(hvm logs g1 | sha256sum)" "$(cat "$folder/console.log.0" "$folder/console.log" | sha256sum)"

t "it stops" hvm stop g1
is "asked by its agent" "$out" "guest 'g1' is stopped"
is "it is off again" "$(state_of g1)" off
is "no address is shown while it is off" "$(field g1 address)" ""
no_leaks "nothing of it runs" off

t "a second guest starts on huge pages" create g2 --pages 2M --start
like "it has huge pages, and says so" "$(field g2 placement)" '2097152'
is "they are really taken" "$(pages_taken)" 256
t "the first starts again beside it" hvm start g1
is "what was written is still there" "$(hvm exec g1 -- cat /root/file)" kept
is "it is the same machine" "$(hvm exec g1 -- cat /etc/machine-id)" "$first_id"
is "the second is another one" "$([ "$(hvm exec g2 -- cat /etc/machine-id)" != "$first_id" ] && echo other)" other
is "they are on different CPUs" "$([ "$(field g1 placed)" != "$(field g2 placed)" ] && echo different)" different

t "a running guest is destroyed" hvm destroy g1
refuses "it is gone" 3 "g1" hvm show g1
is "the other runs on" "$(hvm exec g2 -- echo here)" here
refuses "a command whose agent is killed is told" 125 "it has just started" hvm exec g2 -- systemctl kill --signal=KILL hvm-agent
is "the agent that is started anew serves" "$(hvm exec g2 -- echo here)" here
hvm exec g2 -- sh -c "(sleep 1; systemctl mask --runtime --now hvm-agent) >/dev/null 2>&1 </dev/null &"
t "a guest loses its agent" wait_for 60 eval '! timeout -s KILL 5 hvm exec g2 -- true'
t "a guest whose agent is gone stops" hvm stop g2
is "by its power button" "$out" "guest 'g2' is stopped: its agent did not answer, its power button did"
start_nowait g2
t "a guest is ended hard" hvm stop --hard g2
t "and destroyed" hvm destroy g2
no_leaks "nothing is left"
done_testing
