"""bench/run exec: `true` and bulk in a guest that runs.

Like is put beside like: a process against a process, a call over an open connection against such a call (calls.c).
"""
import json
import os
import re
import shutil
import subprocess
import sys
import time

# The same both ways and for both, each with the start of its session in it. hvm alone is shown with more, too.
BULK_MIB, BULK_ALONE_MIB = 16, 64


def virsh(*words):
    return ["virsh", "-q", "-c", "qemu:///system", *words]


def ssh_command(m, name):
    """A multiplexed ssh into the guest."""
    key = f"{m.options.work}/id"
    m.output("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    with open(f"{key}.pub") as file:
        m.output("hvm", "exec", name, "--", "sh", "-c", "mkdir -p /root/.ssh && cat >>/root/.ssh/authorized_keys", stdin=file)
    address = json.loads(m.output("hvm", "show", name, "--json"))["address"]
    command = ["ssh", "-F", "none", "-i", key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o",
               "LogLevel=ERROR", "-o", f"ControlPath={m.options.work}/ssh.sock", f"root@{address}"]
    for _ in range(60):
        if subprocess.run(command[:-1] + ["-o", "ControlMaster=yes", "-fN", command[-1]], stdin=m.NULL, timeout=60).returncode == 0:
            return command
        time.sleep(2)
    sys.exit("bench: no ssh to the guest")


def start_guest_agent(m, name):
    """Puts qemu-guest-agent and its libraries into the guest and starts it on a channel of its own."""
    with open(f"{m.options.work}/channel.xml", "w") as file:
        file.write("<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>")
    folder = f"{m.options.work}/qga"
    os.mkdir(folder)
    shutil.copy(m.options.qga, f"{folder}/qemu-ga")
    for path in re.findall(r"(/\S+) \(0x", m.output("ldd", m.options.qga)):
        if "libc.so" not in path and "ld-linux" not in path and "libm.so" not in path:
            shutil.copy(path, folder)
    m.output(*virsh("attach-device", name, f"{m.options.work}/channel.xml", "--live"))
    m.output("hvm", "cp", folder, f"{name}:/opt/")
    m.output("hvm", "exec", name, "--", "sh", "-c",
             "mkdir -p /run/qga; sleep 1; port=$(grep -l org.qemu.guest_agent.0 /sys/class/virtio-ports/*/name); port=${port%/name}; "
             "LD_LIBRARY_PATH=/opt/qga exec /opt/qga/qemu-ga -d -m virtio-serial -t /run/qga -p /dev/${port##*/} -f /run/qga/pid "
             "</dev/null >/run/qga/log 2>&1", timeout=60)
    for _ in range(30):
        if subprocess.run(virsh("qemu-agent-command", name, '{"execute":"guest-ping"}'), stdout=m.NULL, stderr=m.NULL).returncode == 0:
            return
        time.sleep(1)
    sys.exit("bench: qemu-guest-agent does not answer: " + m.output("hvm", "exec", name, "--", "cat", "/run/qga/log"))


def guest_exec_ms(m, name):
    """`true` by processes of virsh: one that starts it, and one for each look whether it has ended. Its output is read back."""
    def ask(command, **arguments):
        text = m.output(*virsh("qemu-agent-command", name, json.dumps({"execute": command, "arguments": arguments})))
        return json.loads(text)["return"]

    begin = time.perf_counter()
    pid = ask("guest-exec", path="/bin/true", **{"capture-output": True})["pid"]
    while not (found := ask("guest-exec-status", pid=pid))["exited"]:
        pass
    if found["exitcode"] != 0:
        sys.exit(f"bench: guest-exec of true: status {found['exitcode']}")
    return (time.perf_counter() - begin) * 1000


def against_guest_agent(m, ours):
    start_guest_agent(m, "a")
    m.compare("exec of true, a process", "virsh qemu-agent-command: guest-exec, then guest-exec-status", *m.alternate(
        m.options.rounds, ours, lambda: guest_exec_ms(m, "a")), "< 1")
    m.compare("exec of true, a process", "virsh qemu-agent-command: guest-ping, which runs nothing", *m.alternate(
        m.options.rounds, ours, lambda: m.timed(virsh("qemu-agent-command", "a", '{"execute":"guest-ping"}'))), "")
    calls = m.Calls()
    m.compare("exec of true, a call", "guest-exec, then guest-exec-status, calls", *m.alternate(
        m.options.rounds, lambda: calls.ms("exec", "a"), lambda: calls.ms("guest-exec", "a")), "< 1")
    calls.close()


def bulk(m, ssh):
    """MiB/s both ways."""
    remote = " ".join(ssh)
    ways = {
        "in": (lambda n: f"head -c {n}M /dev/zero | hvm exec a -- sh -c 'cat >/dev/null'",
               lambda n: f"head -c {n}M /dev/zero | {remote} 'cat >/dev/null'"),
        "out": (lambda n: f"hvm exec a -- head -c {n}M /dev/zero >/dev/null",
                lambda n: f"{remote} head -c {n}M /dev/zero >/dev/null"),
    }
    rounds = max(m.options.rounds // 5, 1)
    for way, (ours, other) in ways.items():
        m.compare(f"bulk {way}, {BULK_MIB} MiB", "ssh, multiplexed", *m.alternate(
            rounds, lambda: BULK_MIB * 1000 / m.shell(ours(BULK_MIB)), lambda: BULK_MIB * 1000 / m.shell(other(BULK_MIB))), "> 1", "MiB/s")
        m.figure(f"bulk {way}, {BULK_ALONE_MIB} MiB", [BULK_ALONE_MIB * 1000 / m.shell(ours(BULK_ALONE_MIB)) for _ in range(rounds)],
                 "", "MiB/s")


def execute(m):
    # Without a service manager, whose work in the background would fall on one or the other; sshd is started by hand.
    m.create_running("a", "--init", "agent")
    m.output("hvm", "exec", "a", "--", "sh", "-c", "mkdir -p /run/sshd && ssh-keygen -A && /usr/sbin/sshd </dev/null >/dev/null 2>&1",
             timeout=120)
    ssh = ssh_command(m, "a")

    def ours():
        return m.timed(["hvm", "exec", "a", "--", "true"])

    m.compare("exec of true, a process", "ssh, multiplexed", *m.alternate(m.options.rounds, ours, lambda: m.timed(ssh + ["true"])), "< 1")
    if m.options.qga:
        against_guest_agent(m, ours)
    else:
        print(f"guest-exec was not measured: {m.options.no_qga}", file=sys.stderr)
        m.notes.append(f"guest-exec was not measured: {m.options.no_qga}")
    bulk(m, ssh)
    subprocess.run(ssh[:-1] + ["-O", "exit", ssh[-1]], stderr=m.NULL)
    m.output("hvm", "destroy", "a")
