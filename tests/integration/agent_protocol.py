"""The host's side of the agent's protocol (docs/formats/agent-protocol.md), written a second time for tests.

Agent(connect) speaks to a machine that stays up; connect() gives a fresh connection to the agent: through the monitor's
socket (VsockMachine below), or a Unix socket that smol-init was handed in its place (NamespaceMachine).
"""
import io
import os
import select
import socket
import struct
import subprocess
import tempfile
import time

import run_protocol as p
import smolvm
from run_protocol import frame

LIMIT = smolvm.LIMIT


class Request:
    """One connection with one request."""

    def __init__(self, connection, data=b""):
        self.socket = connection
        self.buffer = b""
        self.result = p.Result()
        self.problems = []
        self.archive = b""
        self.done = None
        self.taken = 0
        self.pid = None
        self.send(data)

    def send(self, data):
        """Whole, unless the other end has hung up: what it said before is there to be read."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def frames(self, timeout=LIMIT):
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
                if kind in (p.EXIT, p.DONE):
                    return
            if not select.select([self.socket], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError("the agent says nothing")
            try:
                data = self.socket.recv(1 << 18)
            except ConnectionResetError:
                return
            if not data:
                return
            self.buffer += data

    def note(self, kind, payload):
        r = self.result
        if kind == p.HELLO:
            r.hello = struct.unpack("<IIQ", payload)
        elif kind == p.STARTED:
            r.started = True
            self.pid = struct.unpack("<I", payload)[0]
        elif kind == p.STDOUT:
            r.out += payload
        elif kind == p.STDERR:
            r.err += payload
        elif kind == p.STDIN_TAKEN:
            self.taken += struct.unpack("<I", payload)[0]
        elif kind == p.EXIT:
            r.kind, r.value = struct.unpack_from("<Ii", payload)
            r.text = payload[8:].decode(errors="replace")
        elif kind == p.DATA:
            self.archive += payload
        elif kind == p.PROBLEM:
            self.problems.append(payload[4:].decode(errors="replace"))
        elif kind == p.DONE:
            error, problems = struct.unpack_from("<iI", payload)
            self.done = (error, problems, payload[8:].decode(errors="replace"))

    def wait_for(self, kind, timeout=LIMIT):
        for got, payload in self.frames(timeout):
            if got == kind:
                return payload
        raise AssertionError(f"the stream ended before frame {kind}: {self.result.__dict__} {self.done}")

    def finish_done(self):
        """Waits for DONE and keeps the connection."""
        self.wait_for(p.DONE)
        return self.done

    def finish(self, timeout=LIMIT):
        for _ in self.frames(timeout):
            pass
        self.socket.close()
        return self

    def close(self):
        self.socket.close()


class Agent:
    def __init__(self, connect):
        self.connect = connect

    def request(self, kind, payload=b""):
        return Request(self.connect(), frame(kind, payload))

    def start(self, argv, stdin=False, flags=0, **options):
        return self.request(p.EXEC, p.config(argv, flags=flags | (p.WITH_STDIN if stdin else 0), **options))

    def exec(self, argv, stdin=None, **options):
        request = self.start(argv, stdin is not None, **options)
        if stdin is None:
            return request.finish().result
        sent, eof = 0, False
        for kind, _ in request.frames():
            if kind not in (p.STARTED, p.STDIN_TAKEN) or eof:
                continue
            while sent < len(stdin) and sent - request.taken < p.WINDOW:
                chunk = stdin[sent:sent + min(65536, p.WINDOW - (sent - request.taken))]
                request.send(frame(p.STDIN, chunk))
                sent += len(chunk)
            if sent == len(stdin):
                request.send(frame(p.STDIN_EOF))
                eof = True
        request.close()
        return request.result

    def setup(self, kind, *texts, flags=0, tail=b""):
        return Request(self.connect(), p.setup(kind, *texts, flags=flags, tail=tail)).finish().done

    def stats(self):
        request = self.request(p.STATS)
        values = struct.unpack("<17Q", request.wait_for(p.STATS)[:136])
        request.close()
        names = ("uptime realtime total free available cached swap load1 load5 load15 processes running cpus busy idle "
                 "root_total root_free").split()
        return dict(zip(names, values))

    def copy_in(self, path, archive, into=True, flags=0, uid=0, gid=0, mode=0):
        head = struct.pack("<IIII", flags | (1 if into else 0), uid, gid, mode)
        request = self.request(p.COPY_IN, head + path.encode() + b"\0")
        for at in range(0, len(archive), 65536):
            request.send(frame(p.DATA, archive[at:at + 65536]))
        request.send(frame(p.DATA_END))
        return request.finish()

    def copy_out(self, path, flags=0):
        return self.request(p.COPY_OUT, struct.pack("<IIII", flags, 0, 0, 0) + path.encode() + b"\0").finish()

    def shutdown(self, grace_ms=3000):
        return self.request(p.SHUTDOWN, struct.pack("<II", grace_ms, 0)).finish().done


class NamespaceMachine:
    """smol-init as PID 1 of new namespaces on this host: no kernel of its own, but the whole protocol."""

    def __init__(self, binary, setups=b"", env=(), last=frame(p.AGENT, struct.pack("<II", p.VERSION, 0))):
        self.folder = tempfile.mkdtemp(prefix="agent-")
        self.path = os.path.join(self.folder, "agent.sock")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen(128)
        ours, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--uts", "--net", "--ipc", binary],
            pass_fds=[theirs.fileno(), listener.fileno()],
            env={"SMOL_HOST_FD": str(theirs.fileno()), "SMOL_AGENT_FD": str(listener.fileno()), "PATH": os.environ["PATH"],
                 **dict(env)},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        theirs.close()
        listener.close()
        self.boot = Request(ours, setups + last)
        self.agent = Agent(self.connect)

    def connect(self):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.path)
        return connection

    def ready(self):
        self.boot.wait_for(p.READY)
        self.boot.close()
        return self.agent

    def ended(self, timeout=LIMIT):
        self.process.wait(timeout=timeout)

    def kill(self):
        self.process.kill()
        self.process.wait()
        for name in os.listdir(self.folder):
            os.unlink(os.path.join(self.folder, name))
        os.rmdir(self.folder)


class VsockMachine:
    """A real machine: smol-vmm with its kernel and init."""

    def __init__(self, command, folder, setups=b"", last=frame(p.AGENT, struct.pack("<II", p.VERSION, 0))):
        self.path = os.path.join(folder, "v.sock")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path + "_1024")
        listener.listen(4)
        listener.settimeout(LIMIT)
        self.listener = listener
        self.console = open(os.path.join(folder, "console.log"), "w+b")
        self.process = subprocess.Popen([*command, "--vsock", f"cid=3,socket={self.path}"], stdin=subprocess.DEVNULL,
                                        stdout=self.console, stderr=self.console)
        self.boot = Request(listener.accept()[0], setups + last)
        self.agent = Agent(self.connect)

    def connect(self):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.path)
        connection.sendall(b"CONNECT 1025\n")
        line = b""
        while not line.endswith(b"\n"):
            byte = connection.recv(1)
            if not byte:
                raise ConnectionError("no agent")
            line += byte
        assert line.startswith(b"OK "), line
        return connection

    def ready(self):
        self.boot.wait_for(p.READY)
        self.boot.close()
        return self.agent

    def console_text(self):
        with open(self.console.name, "rb") as file:
            return file.read().decode(errors="replace")

    def ended(self, timeout=LIMIT):
        return self.process.wait(timeout=timeout)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.listener.close()
        self.console.close()


def tar_bytes(build):
    """build(tarfile) -> the archive's bytes."""
    import tarfile
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        build(archive)
    return out.getvalue()
