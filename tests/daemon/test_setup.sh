#!/bin/bash
# ./setup itself, as on a machine without systemd: start says and undoes what it changes, the demo runs, twice, and what install
# installs works: the units too, as far as that can be seen without systemd.
# needs: image
. "$HVM_TEST_SOURCE/tests/daemon/lib.sh"
cd "$source" || bail "no $source"
unset HVM_TEMPLATE_PATH HVM_FAULT_FILE
export PATH=${PATH#"$work/bin:"}
# As found: no hugetlbfs mount, /dev/kvm root's alone, an empty store but for the image (built: that needs the network).
umount -a -t hugetlbfs
[ ! -c /dev/kvm ] || { chown root:root /dev/kvm && chmod 600 /dev/kvm; }
mkdir -p /var/lib/hvm "$work/var/images"
mount --bind "$work/var" /var/lib/hvm
mount --bind "$HVM_TEST_STORE/images" /var/lib/hvm/images

# The machine as ./setup should leave it: processes, mounts, KVM's mode, pages.
machine() {
    cat /proc/[0-9]*/comm 2>/dev/null | grep -E '^(libvirtd|virtlogd|hvmd|qemu-.*|dnsmasq)$' | sort
    grep -c hugetlbfs /proc/mounts
    stat -c '%a %U:%G' /dev/kvm 2>/dev/null
    cat /proc/sys/vm/nr_hugepages
    ip -o link | grep -cE 'hvm-|vnet'
}
before=$(machine)

refuses "an unknown verb" 1 "unknown verb 'frobnicate'" bash -c 'set -o pipefail; ./setup frobnicate 2>&1 >/dev/null | tail -n1 >&2'
t "./setup help" ./setup help
t "./setup build" ./setup build
t "build/hvm runs from the tree" build/hvm --version
t "build/hvmd runs from the tree" build/hvmd --version
t "./setup start" ./setup start
like "it says what it started" "$out" "started libvirtd.*started hvmd"
like "and what it mounted" "$out" "mounted hugetlbfs"
t "libvirtd answers" vsh uri
t "hvmd answers" build/hvm list
t "./setup start, again" ./setup start
is "changes nothing" "$out" ""
t "./setup stop" ./setup stop
is "takes all of it back" "$(machine)" "$before"
t "./setup stop, again" ./setup stop

# Ended right after it mounted: that is known all the same.
mkdir "$work/fake"
printf '#!/bin/sh\n%s "$@" && kill -9 $PPID\n' "$(command -v mount)" >"$work/fake/mount"
chmod 755 "$work/fake/mount"
{ PATH=$work/fake:$PATH ./setup start; } >/dev/null 2>&1
is "./setup start, killed when it has mounted" "$? $(grep -c hugetlbfs /proc/mounts)" "137 1"
t "./setup stop" ./setup stop
is "takes back what was done" "$(grep -c hugetlbfs /proc/mounts)" 0
rm "$work/fake/mount"

# systemd, or what looks like it from here, has had hvmd for long: what start did not start, stop does not end.
mkdir -p /run/systemd/system
mount -t tmpfs tmpfs /lib/systemd/system && touch /lib/systemd/system/hvmd.socket || bail "no place for units"
printf '#!/bin/sh\necho "$*" >>%s\n' "$work/systemctl" >"$work/fake/systemctl"
chmod 755 "$work/fake/systemctl"
libvirt_start
PATH=$work/bin:$PATH hvmd_start
PATH=$work/fake:$PATH ./setup start >/dev/null 2>&1
is "./setup start beside systemd's hvmd" $? 0
PATH=$work/fake:$PATH ./setup stop >/dev/null 2>&1
is "./setup stop leaves it" "$(cat "$work/systemctl" 2>/dev/null)" ""
t "and ends one that start started" env PATH="$work/fake:$PATH" sh -c "echo 'unit hvmd.socket hvmd.service' >/run/hvm/setup.state && ./setup stop"
is "by its units" "$(cat "$work/systemctl")" "stop hvmd.socket hvmd.service"
hvmd_stop
libvirt_kill
kill "$(cat /run/virtlogd.pid)" && wait_for 20 gone "$(cat /run/virtlogd.pid)"
umount /lib/systemd/system
rm -r /run/systemd "$conf"

t "./setup demo" ./setup demo
like "boots a guest and runs commands in it" "$out" 'PRETTY_NAME="Debian GNU/Linux 12'
like "and ends with what to try next" "$out" "Three things to try next"
while read -r advice <&6; do
    t "its advice works: $advice" bash -c "$advice"
done 6< <(sed -n 's/^  \(build\/hvm .*\)/\1/p' <<<"$out")
t "the guest that it advised goes" build/hvm destroy mine
is "the demo leaves no guest" "$(build/hvm list --json | json '[g["name"] for g in x["guests"]]')" ""
t "./setup demo, again" ./setup demo
is "no guest is left" "$(vsh list --all --name | tr -d '\n')" ""

# With a guest running, stop takes back hvmd alone, and the guest runs on.
build/hvm create g --template debian12 --memory 256M >/dev/null && build/hvm start g --no-wait >/dev/null || bail "no guest"
t "./setup stop beside a running guest" ./setup stop
like "says that it runs" "$out" "guests are running.* g"
is "and leaves it" "$(vsh list --name | tr -d '\n')" g
t "./setup start finds it again" ./setup start
is "as it was" "$(build/hvm list --json | json '[(g["name"], g["state"]) for g in x["guests"]]')" "('g', 'running')"
build/hvm destroy g >/dev/null
t "./setup stop" ./setup stop
is "takes all of it back" "$(machine)" "$before"

# Installed into an overlay on /usr, which goes with the sandbox.
mkdir "$work/usr" && mount -t tmpfs tmpfs "$work/usr" && mkdir "$work/usr/upper" "$work/usr/work" &&
    mount -t overlay -o "lowerdir=/usr,upperdir=$work/usr/upper,workdir=$work/usr/work" overlay /usr || bail "no overlay on /usr"
t "./setup install" ./setup install
like "says where, and how it is undone" "$out" "installed below /usr \(undo: ninja -C build uninstall\)"
if command -v systemd-analyze >/dev/null; then
    is "its units are sound" "$(systemd-analyze verify /lib/systemd/system/hvmd.socket /lib/systemd/system/hvmd.service 2>&1)" ""
else
    skip "its units are sound" "systemd-analyze (package systemd) is not installed"
fi
is "its manual pages are there" "$(cd /usr/share/man && echo man?/hvm*)" "man1/hvm.1 man5/hvm-templates.5 man8/hvmd.8"
# Socket activation, as systemd does it (sd_listen_fds(3)): the socket listens, a client comes, hvmd is started with it.
rm -f /run/hvm/hvmd.sock
python3 -c '
import os, socket
listener = socket.socket(socket.AF_UNIX)
listener.bind("/run/hvm/hvmd.sock")
listener.listen()
os.dup2(listener.fileno(), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv("/usr/sbin/hvmd", ["hvmd"])' 2>"$log" &
activated=$!
wait_for 10 test -S /run/hvm/hvmd.sock
is "an hvmd that gets its socket from systemd serves, and finds the templates that were installed" \
    "$(timeout 60 /usr/bin/hvm template list --json | json '[x["templates"][i]["name"] for i in range(2)]' | paste -sd' ')" "debian11 debian12"
kill $activated
wait $activated
is "it ends when it is told to" $? 0
t "and leaves the socket, which is not its own" test -S /run/hvm/hvmd.sock
t "the installation is undone" ninja -C build uninstall
is "nothing of it is left" "$(find "$work/usr/upper" -type f ! -path '*/__pycache__/*')" ""
done_testing
