#!/bin/bash
# Builds the image that the tests share, into $HVM_TEST_STORE (see run). Needs no libvirt, but the network.
. "$HVM_TEST_SOURCE/tests/daemon/lib.sh"
store=$HVM_TEST_STORE
hvmd_start
hvm template build debian12 || { show_log; exit 1; }
hvmd_stop
rm -rf "$store/guests" "$store/lock"
