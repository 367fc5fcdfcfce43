#!/bin/bash
# Template builds: interrupted, failed, full, twice at once. Needs the machine's package source.
# needs: packages
. "$HVM_TEST_SOURCE/tests/daemon/lib.sh"
libvirt_start
hvmd_start
left() { find "$store/images" -mindepth 1 ! -name '.build-*.lock' 2>/dev/null; ls "$store/guests" 2>/dev/null; }
nothing_left() { [ -z "$(left)" ]; }
builders() { cat /proc/[0-9]*/comm | grep -cE '^(mmdebstrap|mke2fs|apt-get|dpkg)$'; }
no_builders() { [ "$(builders)" = 0 ]; }

# Small and quick: what is tested here is the building, not the guest.
steps() { grep -rhoE 'step_reached\("build\.[a-z-]+"' "$source"/guest-templates "$source"/storage | cut -d'"' -f2 | sort -u; }
like "a build has steps" "$(steps | paste -sd' ')" "build\.image build\.publish build\.root build\.staging"

# step_cut STEP ACTION: that build leaves nothing. build.image, at the end of all the work, takes a whole build;
# build.publish, behind it, is cut short by the unit tests of the store.
step_cut() {
    fault_set $1 $2
    out=$(hvm template build debian12 2>&1)
    is "$1 $2: the build fails" "$([ $? != 0 ] && echo failed)" failed
    fault_clear
    hvmd_running || hvmd_start
    wait_for 20 nothing_left
    is "$1 $2: nothing is left" "$(left)" ""
}
step_cut build.staging fail
step_cut build.staging kill
step_cut build.image kill

# Interrupted in the middle of mmdebstrap.
for signal in INT TERM; do
    env --default-signal=INT hvm template build debian12 >/dev/null 2>&1 & client=$!
    t "mmdebstrap runs" wait_for 120 eval '[ "$(builders)" -gt 0 ]'
    kill -$signal $client
    wait $client
    is "a build that SIG$signal ends, ends as one" $? $((128 + $(kill -l $signal)))
    t "its programs are ended" wait_for 60 no_builders
    t "an interrupted build leaves nothing" wait_for 60 nothing_left
done

# hvmd is killed in the middle.
hvm template build debian12 >/dev/null 2>&1 & client=$!
t "mmdebstrap runs again" wait_for 120 eval '[ "$(builders)" -gt 0 ]'
hvmd_kill
wait $client
t "a killed hvmd's build programs end with it" wait_for 60 no_builders
hvmd_start
wait_for 20 nothing_left
is "after a restart nothing is left of it" "$(left)" ""

# A disk that fills up.
mkdir "$work/small" && mount -t tmpfs -o size=40M,mode=755 tmpfs "$work/small"
hvmd_stop
sed -i "s|^path=.*|path=$work/small|" $conf
hvmd_start
refuses "a disk that fills up in the middle" 11 "is full" hvm template build debian12
is "nothing is left on it" "$(find "$work/small" -mindepth 2 ! -name '.build-*.lock')" ""
hvmd_stop
write_conf
hvmd_start

# Two at once: the second waits and takes the first's result, or makes one of its own; neither harms the other.
hvm template build debian12 >/dev/null 2>"$work/one" & first=$!
hvm template build debian12 >/dev/null 2>"$work/two" & second=$!
wait $first; status_a=$?
wait $second; status_b=$?
is "two builds at once both end well" "$status_a $status_b" "0 0" || diag <"$work/one"
is "the images are whole" "$(hvm template show debian12 --json | json '[len(x["images"]) in (1, 2), all(i["digest"].startswith("sha256:") for i in x["images"])]' | paste -sd' ')" "True True"
is "its files are root's and 0444" "$(find "$store"/images/debian12 -type f -printf '%u %m\n' | sort -u)" "root 444"
is "no staging is left" "$(find "$store/images" -name '.staging*')" ""
done_testing
