"""The host's side of the run protocol (docs/formats/run-protocol.md), written a second time for tests."""
import os
import select
import socket
import struct
import subprocess
import time

import smolvm

(HELLO, CONFIG, STDIN, STDIN_EOF, STDIN_TAKEN, STDOUT, STDERR, WINSIZE, SIGNAL, STARTED, EXIT, SETUP, AGENT, READY, EXEC,
 COPY_IN, COPY_OUT, DATA, DATA_END, PROBLEM, DONE, STATS, SHUTDOWN, CONNECT, MAIN_EXIT) = range(1, 26)
(ROOT, HOSTNAME, NETWORK, MOUNT, UNMOUNT, DISK, TIME, SECRET, ENVIRONMENT, SERVICE, FORWARD) = range(1, 12)
VERSION = 2
TTY, WITH_STDIN, DETACHED = 1, 2, 4
STATUS, SIGNALLED, INIT_FAILURE, OUT_OF_MEMORY = range(4)
WINDOW = 1 << 18


def frame(kind, payload=b"", flags=0):
    return struct.pack("<IHH", len(payload), kind, flags) + payload


def strings(*texts):
    return b"".join((t.encode() if isinstance(t, str) else t) + b"\0" for t in texts)


def config(argv, env=(), cwd="", user="", log="", flags=0, rows=0, columns=0, timeout_ms=0, version=VERSION):
    head = struct.pack("<IIIIIHH", version, flags, len(argv), len(env), timeout_ms, rows, columns)
    return head + strings(cwd, user, log, *argv, *env)


def setup(kind, *texts, flags=0, tail=b""):
    return frame(SETUP, struct.pack("<II", kind, flags) + strings(*texts) + tail)


def root(kind, device="", fstype="", upper="", upper_type=""):
    return setup(ROOT, device, fstype, upper, upper_type, flags=kind)


class Result:
    def __init__(self):
        self.out = b""
        self.err = b""
        self.kind = self.value = self.text = None
        self.started = False
        self.hello = None


class Init:
    """smol-init as PID 1 of new namespaces, with one end of a socket pair in place of vsock."""

    def __init__(self, binary):
        ours, theirs = socket.socketpair()
        env = {"SMOL_HOST_FD": str(theirs.fileno()), "PATH": os.environ["PATH"]}
        self.process = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--uts", "--net", "--ipc", binary],
            pass_fds=[theirs.fileno()], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        theirs.close()
        self.socket = ours
        self.buffer = b""
        self.result = Result()
        self.taken = 0

    def send(self, data):
        """Whole, unless init has hung up: what it said before is there to be read."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def frames(self, timeout=smolvm.LIMIT):
        """Yields (kind, payload) until EXIT or the end of the stream."""
        deadline = time.monotonic() + timeout
        while True:
            while len(self.buffer) >= 8:
                length, kind, flags = struct.unpack_from("<IHH", self.buffer)
                if len(self.buffer) < 8 + length:
                    break
                payload = self.buffer[8:8 + length]
                self.buffer = self.buffer[8 + length:]
                assert flags == 0
                self.note(kind, payload)
                yield kind, payload
                if kind == EXIT:
                    return
            if not select.select([self.socket], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError("init says nothing")
            try:
                data = self.socket.recv(1 << 18)
            except ConnectionResetError:
                return
            if not data:
                return
            self.buffer += data

    def note(self, kind, payload):
        r = self.result
        if kind == HELLO:
            r.hello = struct.unpack("<IIQ", payload)
        elif kind == STARTED:
            r.started = True
        elif kind == STDOUT:
            r.out += payload
        elif kind == STDERR:
            r.err += payload
        elif kind == STDIN_TAKEN:
            self.taken += struct.unpack("<I", payload)[0]
        elif kind == EXIT:
            r.kind, r.value = struct.unpack_from("<Ii", payload)
            r.text = payload[8:].decode()

    def wait_for(self, kind, timeout=smolvm.LIMIT):
        for got, payload in self.frames(timeout):
            if got == kind:
                return payload
        raise AssertionError(f"the stream ended before frame {kind}: {self.result.__dict__}")

    def finish(self, timeout=smolvm.LIMIT):
        for _ in self.frames(timeout):
            pass
        self.close()
        return self.result

    def close(self):
        self.socket.close()
        self.process.wait(timeout=smolvm.LIMIT)


def run(binary, argv, stdin=None, before=b"", **options):
    init = Init(binary)
    flags = options.pop("flags", 0) | (WITH_STDIN if stdin is not None else 0)
    init.send(before + frame(CONFIG, config(argv, flags=flags, **options)))
    if stdin is None:
        return init.finish()
    sent = 0
    eof = False
    for kind, _ in init.frames():
        if kind not in (STARTED, STDIN_TAKEN) or eof:
            continue
        while sent < len(stdin) and sent - init.taken < WINDOW:
            chunk = stdin[sent:sent + min(65536, WINDOW - (sent - init.taken))]
            init.send(frame(STDIN, chunk))
            sent += len(chunk)
        if sent == len(stdin):
            init.send(frame(STDIN_EOF))
            eof = True
    init.close()
    return init.result
