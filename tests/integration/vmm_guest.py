"""For tests that run smol-vmm itself: an initramfs of BusyBox, static C programs and one script, whose output is the console's."""
import http.client
import json
import os
import shutil
import socket
import subprocess
import threading
import time

import smolvm

PROLOGUE = """#!/bin/busybox sh
/bin/busybox mount -t proc none /proc; /bin/busybox mount -t sysfs none /sys; /bin/busybox mount -t devtmpfs none /dev
export PATH=/bin; /bin/busybox --install -s /bin
exec >/dev/hvc0 2>&1 </dev/hvc0
stty -echo
"""


class Guest:
    """A running machine. Lines of its console are collected; say() types one."""

    def __init__(self, process):
        self.process, self.lines = process, []
        self.changed = threading.Condition()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.decode(errors="replace").rstrip("\r\n"))
                self.changed.notify_all()

    def wait_line(self, text, seconds=smolvm.LIMIT):
        """The first line that starts with text; None when the machine ends before it or time is up."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while True:
                for line in self.lines:
                    if line.startswith(text):
                        return line
                if time.monotonic() > deadline or (self.process.poll() is not None and not self.reader.is_alive()):
                    return None
                self.changed.wait(0.2)

    def say(self, text=""):
        self.process.stdin.write((text + "\n").encode())
        self.process.stdin.flush()

    def end(self, seconds=smolvm.LIMIT):
        """Waits for the machine's end; all lines."""
        self.process.wait(seconds)
        self.reader.join(seconds)
        return [line for line in self.lines if not line.startswith("[")]

    def status(self, key):
        """A figure of the monitor's /proc/PID/status in KiB."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            for line in file:
                if line.startswith(key + ":"):
                    return int(line.split()[1])
        return None


class Api(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)

    def put(self, call, body):
        self.request("PUT", f"/api/v1/{call}", json.dumps(body), {"Content-Type": "application/json"})
        answer = self.getresponse()
        text = answer.read()
        self.close()
        return answer.status, text

    def get(self, call):
        self.request("GET", f"/api/v1/{call}")
        text = self.getresponse().read()
        self.close()
        return json.loads(text)


def compile_program(source, target):
    subprocess.run(["musl-gcc", "-static", "-O2", "-Wall", "-Werror", "-idirafter", "/usr/include", "-idirafter", "/usr/include/x86_64-linux-gnu",
                    "-o", target, os.path.join(smolvm.SOURCE, "tests/integration", source)], check=True)


class GuestTest(smolvm.MachineTest):
    def compile(self, source, target):
        compile_program(source, target)

    def initramfs(self, script, programs=()):
        root = self.path("root")
        for folder in ("bin", "dev", "proc", "sys", "tmp", "mnt"):
            os.makedirs(os.path.join(root, folder))
        shutil.copy("/bin/busybox", os.path.join(root, "bin"))
        for source in programs:
            self.compile(source, os.path.join(root, "bin", source.removesuffix(".c")))
        with open(os.path.join(root, "init"), "w", encoding="utf-8") as init:
            init.write(PROLOGUE + script + "\necho END\nreboot -f\n")
        os.chmod(os.path.join(root, "init"), 0o755)
        image = self.path("initramfs.cpio")
        with open(image, "wb") as out:
            names = subprocess.run(["find", "."], cwd=root, check=True, capture_output=True).stdout
            subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, check=True, input=names, stdout=out)
        return image

    def vmm_command(self, image, *options, memory="256M"):
        return [os.path.join(os.path.dirname(smolvm.SMOLVM), "smol-vmm"), "--accel", smolvm.ACCEL, "--kernel", smolvm.kernel_path("micro"),
                "--initramfs", image, "--memory", f"size={memory}", "--tables", "mp", "--serial", "off", "--console", "tty",
                "--cmdline", "console=hvc0 quiet reboot=t panic=-1", *options]

    def start_guest(self, script, *options, memory="256M", programs=()):
        process = subprocess.Popen(self.vmm_command(self.initramfs(script, programs), *options, memory=memory), env=self.env, stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE)
        self.addCleanup(self.end_process, process)
        return Guest(process)
