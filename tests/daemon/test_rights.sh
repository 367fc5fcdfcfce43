#!/bin/bash
# Every method of io.hvm1, called by those who may not: through hvm, and by raw D-Bus calls.
# needs: image pages=320
. "$HVM_TEST_SOURCE/tests/daemon/lib.sh"
begin
contract=$(find "$source/vmm" -name io.hvm1.xml)

# call USER METHOD REQUEST
call() { as "$1" raw /run/hvm/hvmd.sock "io.hvm1.$2" "$3" 2>&1; }

# Lines "METHOD RIGHT" of the contract.
methods() {
    python3 -c '
import sys, xml.etree.ElementTree as tree
for method in tree.parse(sys.argv[1]).iter("method"):
    print(method.get("name"), [a.get("value") for a in method.iter("annotation") if a.get("name") == "io.hvm1.Right"][0])' "$contract"
}

t "alice, in the group hvm, creates a guest" as alice hvm create hers --template debian12 --cpus 1 --memory 512M
is "it is alice's" "$(field hers owner)" 61001
is "alice sees it" "$(as alice hvm list --json | json '[g["name"] for g in x["guests"]]')" hers
is "bob does not" "$(as bob hvm list --json | json '[g["name"] for g in x["guests"]]')" ""
refuses "bob learns of the name alone" 4 "name is taken" as bob hvm create hers --template debian12
refuses "eve, not in the group, may not create" 5 "group" as eve hvm create mine --template debian12
refuses "alice may not build" 5 "root" as alice hvm template build debian12
refuses "alice may not remove an image" 5 "root" as alice hvm template remove debian12

for command in "show hers" "start hers" "stop hers" "destroy hers" "logs hers"; do
    refuses "to bob there is no guest: $command" 3 "no guest 'hers'" as bob hvm $command
done
refuses "to bob there is no guest: exec" 125 "no guest 'hers'" as bob hvm exec hers -- true
is "what bob is told does not depend on whether the guest is there" "$(as bob hvm show hers 2>&1 | sed s/hers/NAME/g)" \
    "$(as bob hvm show other 2>&1 | sed s/other/NAME/g)"

# Raw calls: each method with the request of its right, as a stranger (bob for an owner's, alice for root's, eve for the group's).
while read -r method right; do
    case $method in
    Exec) request="{'name': <'hers'>, 'argv': <[b'true']>, 'directory-required': <false>, 'pty': <false>, 'rows': <uint16 0>, 'columns': <uint16 0>}" ;;
    Create) request="{'name': <'evil'>, 'template': <'debian12'>}" ;;
    *Template) request="{'template': <'debian12'>}" ;;
    ExecWait) request="{'exec': <uint32 1>}" ;;
    ExecControl) request="{'exec': <uint32 1>, 'signal': <9>}" ;;
    *Job) request="{'job': <uint32 1>}" ;;
    Hello | Doctor | Host | List*) request="@a{sv} {}" ;;
    *) request="{'name': <'hers'>}" ;;
    esac
    case $right in
    root)
        for user in alice bob eve; do
            like "$method: $user is denied" "$(call $user "$method" "$request")" 'io\.hvm1\.Error\.Denied'
        done
        ;;
    group) like "$method: eve is denied" "$(call eve "$method" "$request")" 'io\.hvm1\.Error\.Denied' ;;
    owner)
        for user in bob eve; do
            like "$method: to $user there is no such guest" "$(call $user "$method" "$request")" 'io\.hvm1\.Error\.NotFound'
        done
        ;;
    anyone)
        reply=$(call eve "$method" "$request")
        like "$method: tells eve nothing of alice's guest" "$([[ $reply == *hers* ]] && echo "$reply" || echo nothing)" '^nothing$'
        ;;
    *) fail "$method: unknown right $right" ;;
    esac
done < <(methods)

# A job or a command belongs to its connection: every call above came from a connection of its own.
like "another connection's job does not exist" "$(call alice WaitJob "{'job': <uint32 1>}")" 'io\.hvm1\.Error\.NotFound'
like "another connection's command does not exist" "$(call alice ExecWait "{'exec': <uint32 1>}")" 'io\.hvm1\.Error\.NotFound'
like "there are no properties to read past the rights" \
    "$(as eve raw /run/hvm/hvmd.sock org.freedesktop.DBus.Properties.GetAll "'io.hvm1'" 2>&1)" \
    '^\(@a\{sv\} \{\},\)|Error'
is "alice's guest is unharmed" "$(as alice hvm show hers --json | json 'x["state"]')" off
is "no guest came to be" "$(hvm list --json | json '[g["name"] for g in x["guests"]]')" hers

t "alice starts hers" as alice hvm start hers --no-wait
is "bob sees that CPUs are taken, not by whom" "$(as bob hvm host --json | json '[(p["owner"], p["guest"]) for p in x["promises"]]')" \
    "('another user', '')"
t "root sees and ends it" hvm stop --hard hers
t "alice destroys it" as alice hvm destroy hers

# A group of ten thousand members is a group.
cp /etc/group "$work/group.before"
awk '/^hvm:/ { printf "%s", $0; for (i = 0; i < 10000; i++) printf ",member-number-%d", i; print ""; next } 1' \
    "$work/group.before" >/etc/group
t "alice is in a large group" as alice hvm create large --template debian12 --cpus 1 --memory 512M
refuses "eve is not" 5 "group 'hvm'" as eve hvm create mine --template debian12
hvm destroy large >/dev/null
cat "$work/group.before" >/etc/group

# Limits of one user.
hvmd_stop
write_conf "[limits]" "guests=1" "cpus=1" "memory=600M" "pages=256M"
hvmd_start
t "alice's first guest is within her limits" as alice hvm create one --template debian12 --cpus 1 --memory 512M
refuses "her second is not" 5 "limit of guests .*wanted 2 .*allowed 1" as alice hvm create two --template debian12 --cpus 1 --memory 512M
t "the limit is each user's own" as bob hvm create his --template debian12 --cpus 2 --memory 512M
refuses "more vCPUs than bob may run" 5 "limit of vCPUs .*wanted 2 .*allowed 1" as bob hvm start his --no-wait
# his WITH: bob's one guest, made anew.
his() { hvm destroy his >/dev/null && as bob hvm create his --template debian12 --cpus 1 "$@" >/dev/null; }
his --memory 700M
refuses "more memory than bob may have" 5 "limit of memory .*wanted 700M .*allowed 600M" as bob hvm start his --no-wait
his --memory 512M --pages 2M
refuses "more huge pages than bob may have" 5 "limit of huge pages .*wanted 512M .*allowed 256M" as bob hvm start his --no-wait
is "a refused start takes nothing" "$(hvm host --json | json 'x["promises"]')" ""
his --memory 256M --pages 2M
t "just as many as he may have" as bob hvm start his --no-wait
t "root has no limits" hvm create more --template debian12
hvm destroy one his more >/dev/null
no_leaks "nothing is left"
done_testing
