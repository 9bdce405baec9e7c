"""What the integration tests share: running `smolvm machine run`, and seeing that it leaves nothing behind.

SMOLVM: the program. SMOL_ACCEL: soft (default) or kvm. Each run gets a folder of its own as HOME, TMPDIR and
XDG_RUNTIME_DIR, and a mark in its environment by which every process of it is found in /proc.
"""
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import uuid

SMOLVM = os.environ.get("SMOLVM", "")
ACCEL = os.environ.get("SMOL_ACCEL", "soft")
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Generous: a hang is what it is for, and machines that test are busy.
LIMIT = float(os.environ.get("SMOL_TEST_LIMIT", "240"))


class Result:
    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    def __repr__(self):
        return f"status {self.status}, out {self.out[:2000]!r}, err {self.err[-3000:]!r}"


def kernel_path(name):
    return subprocess.run([SMOLVM, "kernel", "path", name], check=True, capture_output=True, text=True).stdout.strip()


def processes_with(mark):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if mark.encode() in file.read():
                    found.append(int(pid))
        except OSError:
            pass
    return found


def kill(pid, number=signal.SIGKILL):
    """Of a process that may have ended since it was listed."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


_ports = []  # locks that this process holds until it ends


def free_port():
    """A port of 127.0.0.1 (TCP and UDP) that nobody else takes before it is used: the kernel gives out none of these by itself, and
    other tests see the lock."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        first_given = int(file.read().split()[0])
    while True:
        port = random.SystemRandom().randrange(10000, first_given if first_given > 11000 else 32000)
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            lock.bind(f"\0smol-test-port-{port}")
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            lock.close()
            continue
        _ports.append(lock)
        return port


def listens(port):
    """Whether a program listens at a TCP port of 127.0.0.1; it is not disturbed."""
    with open("/proc/net/tcp", encoding="ascii") as file:
        return any(words[1] == f"0100007F:{port:04X}" and words[3] == "0A" for words in map(str.split, file))


def wait_until(condition, seconds=LIMIT):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class MachineTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="smolvm-test-")
        self.private = os.path.join(self.folder, "private")  # the program's temporary files, were there any
        os.mkdir(self.private)
        self.mark = f"SMOL_TEST_MARK={uuid.uuid4()}"
        self.env = dict(os.environ)
        self.env.update({"TMPDIR": self.private, "XDG_RUNTIME_DIR": self.private})
        name, value = self.mark.split("=")
        self.env[name] = value
        self.addCleanup(self.check_nothing_is_left)

    def check_nothing_is_left(self):
        gone = wait_until(lambda: not processes_with(self.mark), 60)
        left = processes_with(self.mark)
        for pid in left:
            kill(pid)
        files = os.listdir(self.private)
        shutil.rmtree(self.folder)
        self.assertTrue(gone, f"processes are left: {left}")
        self.assertEqual(files, [], "files are left")

    def command(self, options, words):
        return [SMOLVM, "machine", "run", "--accel", ACCEL, *options, *(["--", *words] if words else [])]

    def run_machine(self, *words, options=(), stdin=None, limit=LIMIT):
        options = [*options, *(["-i"] if stdin is not None and "-i" not in options else [])]
        done = subprocess.run(self.command(options, words), input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
                              capture_output=True, env=self.env, timeout=limit, check=False)
        return Result(done.returncode, done.stdout, done.stderr)

    def start_machine(self, *words, options=(), **streams):
        process = subprocess.Popen(self.command(options, words), env=self.env,
                                   **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams})
        self.addCleanup(self.end_process, process)
        return process

    @staticmethod
    def end_process(process):
        if process.poll() is None:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()

    def assert_output(self, result, out, status=0):
        self.assertEqual((result.status, result.out), (status, out.encode() if isinstance(out, str) else out), repr(result))

    def assert_error(self, result, *words, status=1):
        """One clear line that names the thing."""
        text = result.err.decode()
        self.assertEqual(result.status, status, repr(result))
        self.assertTrue(text.startswith("Error: "), repr(result))
        self.assertEqual(text.count("\n"), 1, repr(result))
        self.assertEqual(result.out, b"", repr(result))
        for word in words:
            self.assertIn(word, text)

    def path(self, name, content=None):
        path = os.path.join(self.folder, name)
        if content is not None:
            with open(path, "wb") as file:
                file.write(content)
        return path


def main():
    if not SMOLVM:
        raise SystemExit("SMOLVM must name the program to test")
    unittest.main(module="__main__", verbosity=2)
