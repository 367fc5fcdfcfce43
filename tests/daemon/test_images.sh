#!/bin/bash
# Base images stay root's, 0444 and unchanged, whatever happens to the guests above them.
# needs: image
. "$HVM_TEST_SOURCE/tests/daemon/lib.sh"
begin copy
image=$(echo "$store"/images/debian12/*)
state() { (cd "$image" && stat -c '%n %U:%G %a %s' -- * && sha256sum -- *); }
before=$(state)

is "base files are root's and 0444" "$(cd "$image" && stat -c '%U:%G %a' root.raw vmlinuz initrd | sort -u)" "root:root 444"
digest=$(sha256sum <"$image/root.raw" | cut -d' ' -f1)
like "the digest that is shown is the file's" "$(hvm template show debian12 --json | json 'x["images"][0]["digest"]')" "$digest"
create g >/dev/null || bail "no guest"
overlay=$store/guests/$(uuid_of g)/root.qcow2
is "the overlay is QEMU's user's alone" "$(stat -c '%U %a' "$overlay")" "libvirt-qemu 600"
like "it stands on the image" "$(qemu-img info --output=json "$overlay" | json 'x["full-backing-filename"]')" "$image/root.raw"
is "with extended L2 entries and clusters of 128 KiB" \
    "$(qemu-img info --output=json "$overlay" | json '[x["cluster-size"], x["format-specific"]["data"]["extended-l2"]]' | paste -sd' ')" "131072 True"

t "a guest starts" hvm start g
hvm exec g -- sh -c 'dd if=/dev/urandom of=/root/junk bs=1M count=20 && sync' >/dev/null 2>&1
is "while it runs nothing of the base changes" "$(state)" "$before"
# What a guest deletes is given back: its root is mounted with discard, and the disk passes it on.
occupied() { echo $(($(stat -c '%b * %B' "$overlay") >> 20)); }
full=$(occupied)
hvm exec g -- sh -c 'rm /root/junk && sync' >/dev/null 2>&1
t "what the guest deletes leaves the overlay ($full MiB)" wait_for 30 eval '[ $(occupied) -le $((full - 15)) ]' || diag <<<"$(occupied) MiB"
refuses "the image cannot be removed under it" 6 "guest 'g'" hvm template remove debian12
refuses "nor its revision" 6 "guest 'g'" hvm template remove debian12 "$(basename "$image")"
is "QEMU has the base open for reading only" \
    "$(for fd in /proc/"$(qemu_pid g)"/fd/*; do [ "$(readlink "$fd")" = "$image/root.raw" ] && awk '/^flags/ { print $2 % 4 }' "/proc/$(qemu_pid g)/fdinfo/${fd##*/}"; done | sort -u)" 0
as_qemu() { setpriv --reuid libvirt-qemu --regid kvm --clear-groups "$@"; }
is "QEMU's user cannot write the base" "$(as_qemu sh -c ": >>'$image/root.raw'" 2>/dev/null || echo refused)" refused
kill -9 "$(qemu_pid g)"
wait_for 60 is_state g crashed
is "after QEMU was killed nothing of the base has changed" "$(state)" "$before"
start_nowait g
hvmd_kill
hvmd_start
hvm destroy g >/dev/null
is "nor after hvmd was killed and the guest destroyed" "$(state)" "$before"

# What is deleted is the guest's own folder alone.
create g >/dev/null
folder=$store/guests/$(uuid_of g)
mkdir "$work/precious" && touch "$work/precious/file"
ln -s "$work/precious" "$folder/link"
t "a guest with a link in its folder is destroyed" hvm destroy g
is "the link was not followed" "$(ls "$work/precious")" file
is "the folder is gone" "$(ls "$store/guests")" ""

t "an image that nobody uses can be removed" hvm template remove debian12
is "it is gone" "$(find "$store/images" -name root.raw)" ""
refuses "and cannot be removed twice" 3 "no image" hvm template remove debian12
no_leaks "nothing is left"
done_testing
