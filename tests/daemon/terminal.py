#!/usr/bin/python3
"""Runs a command on a terminal of its own and talks with it.

usage: terminal.py ROWSxCOLUMNS [wait:TEXT | send:TEXT | size:ROWSxCOLUMNS | until:FILE | touch:FILE]... -- COMMAND [ARGUMENT]...

Does the steps one after the other: waits until TEXT has come (since the last wait), sends TEXT (with \\n, \\x1d as in Python), changes the
terminal's size, waits until a FILE is there, makes one. Then reads to the end. Prints all that came, and ends with the command's status
(128+N by a signal); 124 where a step took too long, 123 where the command ended before a step.
"""
import errno
import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time

LIMIT_S = 120
text = b""


def set_size(fd, word):
    rows, columns = word.split("x")
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", int(rows), int(columns), 0, 0))


def give_up(pid, status):
    sys.stdout.buffer.write(text)
    sys.stdout.flush()
    os.kill(pid, 9)
    sys.exit(status)


def read_some(fd, pid, end):
    """What came, or b'' at the end."""
    global text
    if not select.select([fd], [], [], max(0, end - time.time()))[0]:
        give_up(pid, 124)
    try:
        some = os.read(fd, 65536)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        some = b""
    text += some
    return some


def main():
    split = sys.argv.index("--")
    steps, command = sys.argv[2:split], sys.argv[split + 1:]
    read_end, write_end = os.pipe()
    pid, fd = pty.fork()
    if pid == 0:
        os.read(read_end, 1)  # until the terminal has its size
        os.execvp(command[0], command)
    set_size(fd, sys.argv[1])
    os.write(write_end, b"x")
    seen = 0
    for step in steps:
        end = time.time() + LIMIT_S
        kind, word = step.split(":", 1)
        data = word.encode().decode("unicode_escape").encode("latin1")
        if kind == "wait":
            while (at := text.find(data, seen)) < 0:
                if not read_some(fd, pid, end):
                    give_up(pid, 123)
            seen = at + len(data)
        elif kind == "send":
            os.write(fd, data)
        elif kind == "size":
            set_size(fd, word)
        elif kind == "touch":
            open(word, "w").close()
        elif kind == "until":
            while not os.path.exists(word):
                if time.time() > end:
                    give_up(pid, 124)
                time.sleep(0.05)
    end = time.time() + LIMIT_S
    while read_some(fd, pid, end):
        pass
    sys.stdout.buffer.write(text)
    sys.stdout.flush()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    sys.exit(status if status >= 0 else 128 - status)


main()
