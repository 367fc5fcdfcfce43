#!/bin/bash
# The NAT network: addresses, names, isolation, removal.
# needs: image
. "$HVM_TEST_SOURCE/tests/daemon/lib.sh"
use_image
libvirt_start
# The first subnet of the pool is taken by a route of the host.
ip link add taken type veth peer name taken-peer && ip address add 10.88.0.1/24 dev taken && ip link set taken up
write_conf
hvmd_start

# serve GUEST: something listens in it. reach GUEST ADDRESS: it hears that. Perl is in every Debian.
serve() {
    hvm exec "$1" -- perl -MIO::Socket::INET -e '
        $server = IO::Socket::INET->new(Listen => 5, LocalPort => 7777, ReuseAddr => 1) or die "listen: $!";
        while ($client = $server->accept) { print $client "heard\n"; close $client }' >/dev/null 2>&1 &
    wait_for 60 hears "$(field "$1" address)"
}
hears() { [ "$(timeout 5 bash -c "head -n1 </dev/tcp/$1/7777" 2>/dev/null)" = heard ]; }
reach() {
    [ "$(hvm exec "$1" -- perl -MIO::Socket::INET -e '
        $server = IO::Socket::INET->new(PeerAddr => "$ARGV[0]:7777", Timeout => 5) or exit 1; print <$server>' "$2")" = heard ]
}

create a >/dev/null && create b >/dev/null || bail "no guests"
t "two guests of one owner start" hvm start a b
address_a=$(field a address)
address_b=$(field b address)
like "their subnet collides with no route" "$address_a" '^10\.88\.[1-9]'
t "the first is reachable at the address that is shown" wait_for 60 ping -c1 -W2 "$address_a"
t "and the second" wait_for 60 ping -c1 -W2 "$address_b"
is "the guest has that address" "$(hvm exec a -- sh -c "ip -4 -o address show 2>/dev/null | grep -c '$address_a/' || hostname -I | grep -c '$address_a'")" 1
t "one finds the other by name" wait_for 60 hvm exec a -- getent ahostsv4 b
is "at its address" "$(hvm exec a -- getent ahostsv4 b | awk 'NR == 1 { print $1 }')" "$address_b"
is "and by its whole name" "$(hvm exec a -- getent hosts b.hvm | awk '{ print $1 }')" "$address_b"
serve b
t "guests of one owner reach each other" wait_for 60 reach a "$address_b"
is "the address is in the list" "$(hvm list --json | json '[g["address"] for g in x["guests"] if g["name"] == "a"]')" "$address_a"
hvm stop --hard b >/dev/null

as alice hvm create h --template debian12 --cpus 1 --memory 512M --start >/dev/null || bail "alice's guest does not start"
address_h=$(field h address)
t "alice's guest is reachable from the node" wait_for 60 ping -c1 -W2 "$address_h"
t "what listens in it is heard on the node" serve h
is "but not in another owner's guest" "$(reach a "$address_h" && echo heard || echo apart)" apart
t "what listens in the other's guest is heard on the node" serve a
is "but not in alice's guest" "$(reach h "$address_a" && echo heard || echo apart)" apart
is "nor told by name" "$(hvm exec a -- getent hosts h >/dev/null 2>&1 && echo told || echo unknown)" unknown

hvm destroy h >/dev/null
is "with an owner's last guest the network goes" "$(vsh net-list --all --name | grep -c 61001)" 0
t "the other owner's stays" wait_for 20 ping -c1 -W2 "$address_a"

# Names and addresses are each guest's own, and come back after a restart.
hvm stop --hard a >/dev/null
hvm start a --no-wait >/dev/null
is "a guest keeps its address" "$(field a address)" "$address_a"
vsh net-destroy hvm-nat-0 >/dev/null 2>&1
hvm stop --hard a >/dev/null
t "a network that somebody stopped is started again" hvm start a
t "and serves" wait_for 60 ping -c1 -W2 "$(field a address)"
create n --network none >/dev/null
hvm stop --hard a >/dev/null
t "a guest without a network starts" hvm start n
is "and has no address" "$(field n address)" ""
is "and no card" "$(hvm exec n -- ls /sys/class/net)" lo
hvm destroy a b n >/dev/null
ip link delete taken
no_leaks "nothing is left"
done_testing
