"""flood: a client of hvmd that does not behave, for the tests; it speaks D-Bus by hand, because a library would not let it.

usage: flood.py SOCKET silent COUNT SECONDS        connections that never say who they are
       flood.py SOCKET leave COUNT                  connections that say who they are, and go
       flood.py SOCKET unread MEMBER COUNT          calls whose answers are not read (MEMBER: Interface.Member)
       flood.py SOCKET logs NAME COUNT              calls to Logs whose answers are not read
       flood.py SOCKET descriptors COUNT            calls to Doctor, each with 200 descriptors
       flood.py SOCKET trickle SIZE COUNT           a message of SIZE bytes, COUNT of them one by one, each with 200 descriptors
       flood.py SOCKET malformed SIZE               a message of SIZE bytes that is none
       flood.py SOCKET hasty NAME COUNT             an Exec and COUNT calls in one write, then the connection is cut

Prints what became of it: `refused N` connections, or `cut` where hvmd closed the connection and `open` where not.
"""
import array
import errno
import os
import socket
import struct
import sys
import time


def pad(data, to):
    return data + b"\0" * (-len(data) % to)


def text(value):
    return struct.pack("<I", len(value)) + value.encode() + b"\0"


def field(code, signature, value):
    return struct.pack("<BB", code, len(signature)) + signature.encode() + b"\0" + value


def call(serial, interface, member, signature="a{sv}", body=None, descriptors=0):
    if body is None:
        body = struct.pack("<II", 0, 0) if signature else b""  # an empty a{sv}
    fields = b""
    items = [(1, "o", text("/io/hvm1")), (2, "s", text(interface)), (3, "s", text(member))]
    if signature:
        items.append((8, "g", bytes([len(signature)]) + signature.encode() + b"\0"))
    if descriptors:
        items.append((9, "u", struct.pack("<I", descriptors)))
    for code, kind, value in items:
        fields = pad(fields, 8)
        head = field(code, kind, b"")
        fields += pad(head, 4) + value if kind != "g" else head + value
    head = struct.pack("<cBBBIII", b"l", 1, 0, 1, len(body), serial, len(fields))
    return pad(head + fields, 8) + body


def variant_entry(key, signature, value, align):
    entry = text(key) + bytes([len(signature)]) + signature.encode() + b"\0"
    return pad(entry, align) + value


def exec_call(serial, name):
    first = variant_entry("name", "s", text(name), 4)
    argv = b"/no/such/program\0"
    inner = struct.pack("<I", len(argv)) + argv
    second = variant_entry("argv", "aay", struct.pack("<I", len(inner)) + inner, 4)
    entries = pad(first, 8) + second
    return call(serial, "io.hvm1", "Exec", body=struct.pack("<II", len(entries), 0) + entries)


def connect(path):
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(path)
    return peer


def login(path):
    peer = connect(path)
    peer.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
    if not peer.recv(4096).startswith(b"OK"):
        sys.exit("not let in")
    peer.sendall(b"NEGOTIATE_UNIX_FD\r\n")
    peer.recv(4096)
    peer.sendall(b"BEGIN\r\n")
    return peer


def is_cut(peer):
    """Reads what there is, for as long as something comes."""
    peer.settimeout(5)
    try:
        while peer.recv(1 << 20):
            pass
        return True
    except socket.timeout:
        return False
    except OSError:
        return True


def silent(path, count, seconds):
    peers = [connect(path) for _ in range(count)]
    time.sleep(seconds)
    refused = 0
    for peer in peers:
        peer.setblocking(False)
        try:
            refused += peer.recv(1) == b""
        except BlockingIOError:
            pass
    print("refused", refused)


def leave(path, count):
    for _ in range(count):
        login(path).close()
    print("left", count)


def unread(path, member, count):
    peer = login(path)
    interface, _, method = member.rpartition(".")
    signature = "a{sv}" if interface == "io.hvm1" else ""
    peer.settimeout(5)
    sent = 0
    try:
        for serial in range(1, count + 1):
            peer.sendall(call(serial, interface, method, signature))
            sent = serial
    except OSError:
        pass
    time.sleep(1)
    peer.setblocking(False)
    try:
        peer.sendall(call(count + 1, interface, method, signature))
        time.sleep(0.5)
        peer.sendall(call(count + 2, interface, method, signature))
    except BlockingIOError:
        pass
    except OSError:
        print("cut after", sent)
        return
    print("cut" if is_cut(peer) else "open")


def logs(path, name, count):
    entry = variant_entry("name", "s", text(name), 4)
    peer = login(path)
    peer.sendall(b"".join(call(serial, "io.hvm1", "Logs", body=struct.pack("<II", len(entry), 0) + entry)
                          for serial in range(1, count + 1)))
    time.sleep(2)
    print("cut" if is_cut(peer) else "open")


def descriptors(path, count):
    peer = login(path)
    null = os.open("/dev/null", os.O_RDONLY)
    fds = array.array("i", [null] * 200)
    for serial in range(1, count + 1):
        peer.sendmsg([call(serial, "io.hvm1", "Doctor", descriptors=200)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    time.sleep(0.5)
    print("sent")
    sys.stdout.flush()
    time.sleep(1)


def trickle(path, size, count):
    peer = login(path)
    null = os.open("/dev/null", os.O_RDONLY)
    fds = array.array("i", [null] * 200)
    message = call(1, "io.hvm1", "Doctor", body=bytes(8))
    message = message[:4] + struct.pack("<I", size) + message[8:]
    try:
        peer.sendall(message)
        while count:
            try:
                peer.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
                count -= 1
            except OSError as error:
                if error.errno != errno.ETOOMANYREFS:  # of this user's, on their way to hvmd
                    raise
                time.sleep(0.001)
    except OSError:
        print("cut")
        return
    print("sent")
    sys.stdout.flush()
    time.sleep(1)
    print("cut" if is_cut(peer) else "open")


def malformed(path, size):
    peer = login(path)
    peer.sendall(call(1, "io.hvm1", "Doctor", body=b"\xff" * size))
    print("cut" if is_cut(peer) else "open")


def hasty(path, name, count):
    peer = login(path)
    peer.sendall(exec_call(1, name) + b"".join(call(serial, "io.hvm1", "List") for serial in range(2, count + 2)))
    peer.close()


def main():
    path, what, rest = sys.argv[1], sys.argv[2], sys.argv[3:]
    if what == "silent":
        silent(path, int(rest[0]), float(rest[1]))
    elif what == "leave":
        leave(path, int(rest[0]))
    elif what == "unread":
        unread(path, rest[0], int(rest[1]))
    elif what == "logs":
        logs(path, rest[0], int(rest[1]))
    elif what == "descriptors":
        descriptors(path, int(rest[0]))
    elif what == "trickle":
        trickle(path, int(rest[0]), int(rest[1]))
    elif what == "malformed":
        malformed(path, int(rest[0]))
    else:
        hasty(path, rest[0], int(rest[1]))


main()
