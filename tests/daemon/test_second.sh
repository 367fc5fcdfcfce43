#!/bin/bash
# One hvmd for a socket and one for a store, whoever has made the socket.
. "$HVM_TEST_SOURCE/tests/daemon/lib.sh"
libvirt_start
second() { timeout 20 "$build/hvmd" --config "$work/second.conf"; }
first() { timeout 20 "$build/hvmd" --config $conf; }

# activate CONF: as systemd does: the socket is somebody else's, and hvmd gets it as descriptor 3. Its end does not close the socket.
cat >"$work/activate.py" <<'END'
import os, socket, sys
path, program, conf = sys.argv[1:]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
os.chmod(path, 0o666)
listener.listen(64)
print("listens", flush=True)
sys.stdin.readline()
os.dup2(listener.fileno(), 3)
if os.fork() == 0:
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
    os.execv(program, [program, "--config", conf])
os.wait()
print("left", flush=True)
sys.stdin.readline()
END
write_conf
hvmd_start
cp $conf "$work/second.conf"
refuses "a second hvmd on the socket" 6 "another hvmd serves /run/hvm/hvmd.sock" second
printf '[daemon]\nsocket=/run/hvm/second.sock\n' >>"$work/second.conf"
refuses "a second hvmd on the store" 6 "another hvmd works on the store $store" second
t "it has made no socket" test ! -e /run/hvm/second.sock
t "the first serves on" hvm list
hvmd_kill
hvmd_start
t "a killed one's locks are free" hvm list
hvmd_stop
t "and its socket is gone with it" test ! -e /run/hvm/hvmd.sock

# The socket is systemd's.
coproc python3 "$work/activate.py" /run/hvm/hvmd.sock "$build/hvmd" $conf 2>>"$log"
read -r said <&"${COPROC[0]}"
inode=$(stat -c %i /run/hvm/hvmd.sock)
refuses "an hvmd beside systemd's socket, which nobody serves yet" 6 "somebody else listens on /run/hvm/hvmd.sock" first
echo >&"${COPROC[1]}"
t "an hvmd that was handed its socket" wait_for 30 hvm list
refuses "a second one on its socket" 6 "another hvmd serves /run/hvm/hvmd.sock" first
refuses "a second one on its store" 6 "another hvmd works on the store $store" second
is "the socket is what it was" "$(stat -c %i /run/hvm/hvmd.sock)" "$inode"
t "and served" hvm list
kill "$(pgrep -x hvmd)"
read -r said <&"${COPROC[0]}"
is "it leaves" "$said" left
is "and leaves the socket there" "$(stat -c %i /run/hvm/hvmd.sock)" "$inode"
rm /run/hvm/hvmd.sock
echo >&"${COPROC[1]}"
done_testing
