#!/usr/bin/env python3
"""The agent: many requests at once in a machine that stays up.

Each test runs twice: with smol-init as PID 1 of namespaces on this host (SMOL_INIT; skipped, and said so, where the host
forbids them), and in a real machine on the software CPU (SMOLVM's monitor, kernel and image).
"""
import hashlib
import io
import os
import random
import re
import signal
import socket
import struct
import subprocess
import tarfile
import tempfile
import shutil
import time
import unittest

import agent_protocol
import run_protocol as p
import smolvm
from agent_protocol import tar_bytes
from run_protocol import frame

INIT = os.environ.get("SMOL_INIT", "")
CMDLINE = "console=ttyS0 quiet reboot=t panic=-1 no_timer_check"


def namespaces():
    return subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--net", "true"],
                          capture_output=True, check=False).returncode == 0


class Cases:
    """What holds for both; `machine` gives one that is ready."""

    virtual = False

    def setUp(self):
        self.agent = self.machine()

    def place(self):
        """A folder that the guest can write to, by its path there (its own /tmp, which is a tmpfs)."""
        return self.sh("mktemp -d").strip()

    def ended(self, result, kind, value, text=""):
        self.assertEqual((result.kind, result.value), (kind, value), result.__dict__)
        self.assertIn(text, result.text)

    def sh(self, script, **options):
        result = self.agent.exec(["sh", "-c", script], **options)
        self.ended(result, p.STATUS, 0)
        return result.out.decode()

    # --- exec ---

    def test_streams_and_status(self):
        result = self.agent.exec(["sh", "-c", "cat; echo err >&2; exit 7"], stdin=b"in")
        self.assertEqual(result.hello[0], p.VERSION)
        self.assertEqual((result.out, result.err), (b"in", b"err\n"))
        self.ended(result, p.STATUS, 7)

    def test_environment_directory_user(self):
        self.assertEqual(self.sh('echo "$A|$PWD|$HOME"; id -u', env=["A=x y"], cwd="/proc", user="0:0"), "x y|/proc|/root\n0\n")

    def test_what_cannot_start(self):
        self.ended(self.agent.exec(["no-such-program"]), p.STATUS, 127)
        self.ended(self.agent.exec(["/proc/version"]), p.STATUS, 126)
        self.ended(self.agent.exec(["true"], cwd="/no/such"), p.INIT_FAILURE, 1, "/no/such")
        self.ended(self.agent.exec(["true"], user="nosuchuser"), p.INIT_FAILURE, 1, "nosuchuser")
        self.ended(self.agent.exec(["true"]), p.STATUS, 0)

    def test_fifty_at_once(self):
        requests = [self.agent.start(["sh", "-c", f"cat; sleep 0.2; exit {i}"], stdin=True) for i in range(50)]
        for i, request in enumerate(requests):
            request.send(frame(p.STDIN, str(i).encode() * 100) + frame(p.STDIN_EOF))
        for i, request in enumerate(requests):
            result = request.finish().result
            self.assertEqual(result.out, str(i).encode() * 100)
            self.ended(result, p.STATUS, i)

    def test_megabytes_go_round_unchanged(self):
        data = random.Random(2).randbytes(5 << 20)
        result = self.agent.exec(["cat"], stdin=data)
        self.assertEqual(hashlib.sha256(result.out).digest(), hashlib.sha256(data).digest())
        self.ended(result, p.STATUS, 0)

    def test_signals(self):
        request = self.agent.start(["sh", "-c", "trap 'echo got; exit 9' USR1; echo up; while :; do sleep 0.05; done"])
        request.wait_for(p.STDOUT)
        request.send(frame(p.SIGNAL, struct.pack("<I", signal.SIGUSR1)))
        result = request.finish().result
        self.assertIn(b"got", result.out)
        self.ended(result, p.STATUS, 9)
        request = self.agent.start(["sleep", "1000"])
        request.wait_for(p.STARTED)
        request.send(frame(p.SIGNAL, struct.pack("<I", signal.SIGKILL)))
        self.ended(request.finish().result, p.SIGNALLED, signal.SIGKILL)

    def test_terminal(self):
        request = self.agent.start(["sh", "-c", "stty size; read x; stty size; echo $x"], flags=p.TTY | p.WITH_STDIN,
                                   rows=33, columns=101)
        request.wait_for(p.STDOUT)
        request.send(frame(p.WINSIZE, struct.pack("<HH", 44, 77)) + frame(p.STDIN, b"hello\n"))
        out = request.finish().result.out.replace(b"\r", b"")
        self.assertEqual(out, b"33 101\nhello\n44 77\nhello\n")

    def test_control_c(self):
        request = self.agent.start(["sh", "-c", "echo up; exec sleep 1000"], flags=p.TTY | p.WITH_STDIN)
        request.wait_for(p.STDOUT)
        request.send(frame(p.STDIN, b"\x03"))
        self.ended(request.finish().result, p.SIGNALLED, signal.SIGINT)

    def test_timeout(self):
        for milliseconds in (300, 1000, 4000, 16000, 64000):  # until the program came to say so
            result = self.agent.exec(["sh", "-c", "echo begun; sleep 1000"], timeout_ms=milliseconds)
            self.ended(result, 4, 124)
            if result.out:
                break
        self.assertEqual(result.out, b"begun\n")

    def test_a_server_left_behind_does_not_hold_the_exec(self):
        result = self.agent.exec(["sh", "-c", "sleep 1000 & echo $!"])
        self.ended(result, p.STATUS, 0)
        self.assertEqual(self.sh(f"kill -0 {result.out.decode().strip()} && echo alive"), "alive\n")

    def test_a_chatterbox_left_behind_does_not_hold_the_exec(self):
        result = self.agent.exec(["sh", "-c", "yes & echo end"])
        self.ended(result, p.STATUS, 0)
        self.assertIn(b"end\n", result.out)

    def test_the_last_output_is_whole(self):
        for _ in range(20):
            result = self.agent.exec(["sh", "-c", "head -c 65536 /dev/zero; exit 3"])
            self.ended(result, p.STATUS, 3)
            self.assertEqual(len(result.out), 65536)

    def test_detached(self):
        log = self.place() + "/log"
        request = self.agent.request(p.EXEC, p.config(["sh", "-c", "echo begun; sleep 1000"], flags=p.DETACHED, log=log)).finish()
        self.assertEqual(request.done, (0, 0, ""))
        self.assertEqual(self.sh(f"kill -0 {request.pid} && while ! grep begun {log}; do sleep 0.05; done"), "begun\n")
        request = self.agent.request(p.EXEC, p.config(["no-such-program"], flags=p.DETACHED)).finish()
        self.ended(request.result, p.INIT_FAILURE, 127, "no-such-program")

    def test_a_host_that_vanishes_takes_the_program_along(self):
        for script, flags in (("trap '' HUP; echo $$; sleep 1000", 0), ("echo $$; sleep 1000 & wait", p.TTY)):
            request = self.agent.start(["sh", "-c", script], flags=flags)
            pid = int(request.wait_for(p.STDOUT))
            request.close()
            self.sh(f"while kill -0 {pid} 2>/dev/null; do sleep 0.05; done")

    def test_an_agents_child_that_is_killed_harms_nobody(self):
        bystander = self.agent.start(["sh", "-c", "read x; echo $x"], stdin=True)
        bystander.wait_for(p.STARTED)
        victim = self.agent.start(["sh", "-c", "echo $PPID; sleep 1000"])
        self.sh(f"kill -9 {int(victim.wait_for(p.STDOUT))}")
        self.assertIsNone(victim.finish().result.kind)
        bystander.send(frame(p.STDIN, b"fine\n"))
        self.assertEqual(bystander.finish().result.out, b"fine\n")
        self.assertEqual(self.sh("echo also"), "also\n")

    def test_orphans_and_children_leave_no_zombies(self):
        self.sh("(sh -c 'sleep 0.1 & exit' &) ; true")
        for _ in range(20):
            self.agent.exec(["true"])
        if self.virtual:
            self.sh("while cat /proc/[0-9]*/stat 2>/dev/null | grep -q ' Z '; do sleep 0.1; done")

    def test_hostile_requests_are_answered(self):
        good = p.config(["true"])
        bad = {
            "an unknown type": frame(99),
            "a guest's type": frame(p.EXIT, b"\0" * 8),
            "flags": frame(p.EXEC, good, flags=1),
            "a huge length": struct.pack("<IHH", 0xFFFFFFFF, p.EXEC, 0),
            "a CONFIG": frame(p.CONFIG, good),
            "no request": frame(p.STDIN, b"x"),
            "a short setup": frame(p.SETUP, b"x"),
            "a second root": p.root(1, "/dev/vda"),
            "an unknown setup": p.setup(77),
            "a service": p.setup(p.SERVICE, "x", tail=good),
            "an environment secret": p.setup(p.SECRET, "x", "", flags=1, tail=b"v"),
            "a shutdown without an end": frame(p.SHUTDOWN, struct.pack("<II", 0xFFFFFFFF, 0)),
            "a short shutdown": frame(p.SHUTDOWN, b""),
            "a copy to nowhere": frame(p.COPY_IN, b"\0" * 16),
            "a relative copy": frame(p.COPY_OUT, b"\0" * 16 + b"etc\0"),
            "a copy with two paths": frame(p.COPY_OUT, b"\0" * 16 + b"/etc\0/x\0"),
            "a connection to nothing": frame(p.CONNECT, b"/no/such/socket\0"),
            "a connection without a path": frame(p.CONNECT, b""),
        }
        for name, data in bad.items():
            with self.subTest(name):
                request = agent_protocol.Request(self.agent.connect(), data)
                request.finish()
                self.assertIsNotNone(request.done, name)
                self.assertNotEqual(request.done[0], 0)
                self.assertNotEqual(request.done[2], "")
        for name, data in {"an old version": p.config(["true"], version=1), "no arguments": p.config([]),
                           "a detached terminal": p.config(["true"], flags=p.DETACHED | p.TTY)}.items():
            with self.subTest(name):
                self.ended(self.agent.request(p.EXEC, data).finish().result, p.INIT_FAILURE, 1)
        self.ended(self.agent.exec(["true"]), p.STATUS, 0)

    def test_hostile_frames_while_a_program_runs(self):
        for name, data in {"a second EXEC": frame(p.EXEC, p.config(["true"])),
                           "a large second EXEC": frame(p.EXEC, p.config(["true", "x" * 100000])),
                           "input beyond the window": frame(p.STDIN, b"x" * 65536) * 6,
                           "signal 0": frame(p.SIGNAL, struct.pack("<I", 0)), "data": frame(p.DATA, b"x")}.items():
            with self.subTest(name):
                request = self.agent.start(["sh", "-c", "echo $$; sleep 1000"], stdin=True)
                pid = int(request.wait_for(p.STDOUT))
                request.send(data)
                self.ended(request.finish().result, p.INIT_FAILURE, 1, "protocol:")
                self.sh(f"while kill -0 {pid} 2>/dev/null; do sleep 0.05; done")

    def test_noise_never_stops_the_agent(self):
        for seed in range(20):
            request = agent_protocol.Request(self.agent.connect(), random.Random(seed).randbytes(500))
            request.socket.shutdown(socket.SHUT_WR)
            request.finish()
        for _ in range(20):
            self.agent.connect().close()
        self.ended(self.agent.exec(["true"]), p.STATUS, 0)

    def test_mutated_requests_never_stop_the_agent(self):
        good = [frame(p.EXEC, p.config(["true", "x"], env=["A=b"], cwd="/", user="0:0")),
                frame(p.EXEC, p.config(["cat"], flags=p.WITH_STDIN)) + frame(p.STDIN, b"in") + frame(p.STDIN_EOF),
                p.setup(p.MOUNT, "a", "/tmp/x"), p.setup(p.SECRET, "k", "0", tail=b"v"),
                p.setup(p.NETWORK, "lo", "127.0.0.2/8", "", "127.0.0.1", "x", "1400"),
                p.setup(p.FORWARD, "/tmp/f.sock", "77", "0"), p.setup(p.DISK, "/dev/x", "ext4", "/tmp/y"),
                frame(p.COPY_IN, struct.pack("<IIII", 1, 0, 0, 0) + b"/tmp/in\0") +
                frame(p.DATA, tar_bytes(lambda archive: archive.addfile(tarfile.TarInfo("x")))) + frame(p.DATA_END),
                frame(p.COPY_OUT, struct.pack("<IIII", 0, 0, 0, 0) + b"/run\0"), frame(p.STATS), frame(p.CONNECT, b"/tmp/f.sock\0")]
        noise = random.Random(5)
        for _ in range(200):
            data = bytearray(noise.choice(good))
            for _ in range(noise.randrange(1, 4)):
                at = noise.randrange(len(data)) if data else 0
                data[at:at + noise.randrange(3)] = noise.choice([b"\0", b"\x7f", b"\x80", b"\xff", b"", noise.randbytes(4)])
            if len(data) > 4 and data[4] == p.SHUTDOWN:
                continue
            request = agent_protocol.Request(self.agent.connect())
            try:
                request.send(bytes(data))
                request.socket.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError, OSError):
                pass  # it has answered and gone
            request.finish()
        self.ended(self.agent.exec(["true"]), p.STATUS, 0)

    # --- the small requests ---

    def test_stats(self):
        stats = self.agent.stats()
        self.assertGreater(stats["total"], stats["free"])
        self.assertGreaterEqual(stats["total"], stats["available"])
        self.assertGreaterEqual(stats["cpus"], 1)
        self.assertGreater(stats["processes"], 0)
        self.assertGreater(stats["root_total"], 0)
        self.assertLess(abs(stats["realtime"] - time.time_ns()), 120 * 10**9)

    def test_secrets_are_files_that_only_their_owner_reads(self):
        self.assertEqual(self.agent.setup(p.SECRET, "token", "", tail=b"first"), (0, 0, ""))
        self.assertEqual(self.agent.setup(p.SECRET, "token", "", tail=b"a\0b"), (0, 0, ""))
        self.assertEqual(self.agent.exec(["cat", "/run/secrets/token"]).out, b"a\0b")
        self.assertEqual(self.sh("stat -c %a /run/secrets/token; grep -c 'tmpfs /run/secrets' /proc/mounts"), "400\n1\n")
        self.assertNotEqual(self.agent.setup(p.SECRET, "../x", "", tail=b"v")[0], 0)

    def test_connections_to_a_socket_in_the_guest(self):
        path = self.place() + "/echo.sock"
        server = self.agent.start(["python3", "-c", "import socket,sys\n"
                                   f"s=socket.socket(socket.AF_UNIX);s.bind('{path}');s.listen(4);print('up',flush=True)\n"
                                   "while True:\n c,_=s.accept()\n d=b''\n"
                                   " while True:\n  x=c.recv(65536)\n  if not x: break\n  d+=x\n"
                                   " c.sendall(d[::-1]);c.close()"])
        if self.virtual:
            server.finish()
            self.skipTest("no Unix socket server in the image")
        server.wait_for(p.STDOUT)
        data = random.Random(3).randbytes(1 << 20)
        request = self.agent.request(p.CONNECT, path.encode() + b"\0")
        self.assertEqual(request.finish_done(), (0, 0, ""))
        request.socket.sendall(data)
        request.socket.shutdown(socket.SHUT_WR)
        got = request.buffer
        while chunk := request.socket.recv(1 << 18):
            got += chunk
        self.assertEqual(got, data[::-1])
        request.close()
        server.close()

    # --- copies ---

    def test_a_tree_goes_in_and_out(self):
        place = self.place()

        def build(archive):
            def add(name, kind=tarfile.REGTYPE, data=b"", **fields):
                info = tarfile.TarInfo(name)
                info.type, info.size, info.mtime = kind, len(data), 1234567890.5
                for key, value in fields.items():
                    setattr(info, key, value)
                archive.addfile(info, io.BytesIO(data))
            add("tree", tarfile.DIRTYPE, mode=0o750)
            add("tree/file", data=b"content", mode=0o640)
            add("tree/program", data=b"#!/bin/sh\necho ran\n", mode=0o4755)
            add("tree/" + "n" * 150 + "/" + "m" * 200, data=b"long")
            add("tree/link", tarfile.SYMTYPE, mode=0o777, linkname="../else/where")
            add("tree/hard", tarfile.LNKTYPE, linkname="tree/file")
            add("tree/fifo", tarfile.FIFOTYPE, mode=0o600)
            add("tree/closed", tarfile.DIRTYPE, mode=0o500)
            add("tree/closed/inside", data=b"x" * 70000)
        archive = tar_bytes(build)
        done = self.agent.copy_in(place, archive)
        self.assertEqual((done.done, done.problems), ((0, 0, ""), []))
        self.assertEqual(self.sh(f"cd {place}/tree; stat -c '%n %a %F %Y' file program link fifo closed; ./program; "
                                 "stat -c %h file; readlink link; wc -c <closed/inside"),
                         "file 640 regular file 1234567890\nprogram 4755 regular file 1234567890\n"
                         "link 777 symbolic link 1234567890\nfifo 600 fifo 1234567890\nclosed 500 directory 1234567890\n"
                         "ran\n2\n../else/where\n70000\n")
        out = self.agent.copy_out(place + "/tree")
        self.assertEqual((out.done, out.problems), ((0, 0, ""), []))
        with tarfile.open(fileobj=io.BytesIO(out.archive)) as got, tarfile.open(fileobj=io.BytesIO(archive)) as sent:
            have = {m.name: m for m in got.getmembers()}
            for member in sent.getmembers():
                there = have[member.name]
                if member.type != tarfile.LNKTYPE and there.type != tarfile.LNKTYPE:
                    self.assertEqual((there.type, there.mode, there.mtime, there.linkname),
                                     (member.type, member.mode, member.mtime, member.linkname), member.name)
                    if member.isreg():
                        self.assertEqual(got.extractfile(there).read(), sent.extractfile(member).read())
            self.assertEqual(sum(m.type == tarfile.LNKTYPE for m in have.values()), 1)

    def test_copies_are_named_as_cp_does(self):
        place = self.place()

        def build(archive):
            info = tarfile.TarInfo("file")
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
        archive = tar_bytes(build)
        for path, there in ((place, "file"), (place + "/new", "new"), (place + "/new", "new")):
            self.assertEqual(self.agent.copy_in(path, archive, into=False).done, (0, 0, ""))
            self.assertEqual(self.sh(f"cat {place}/{there}"), "abc")
        self.assertNotEqual(self.agent.copy_in(place + "/no/such", archive, into=False).done[0], 0)
        self.assertNotEqual(self.agent.copy_in(place + "/none/", archive, into=False).done[0], 0)
        self.assertEqual(self.agent.copy_in(place + "/moded", archive, into=False, flags=4, mode=0o600).done, (0, 0, ""))
        self.assertEqual(self.sh(f"stat -c %a {place}/moded"), "600\n")
        self.assertNotEqual(self.agent.copy_out(place + "/no-such-file").done[0], 0)

    def test_holes_survive_both_ways(self):
        place = self.place()
        size = 6 << 30
        self.sh(f"truncate -s {size} {place}/holes && printf x | dd of={place}/holes bs=1 seek=1000000 conv=notrunc 2>/dev/null")
        out = self.agent.copy_out(place + "/holes")
        self.assertEqual((out.done, out.problems), ((0, 0, ""), []))
        self.assertLess(len(out.archive), 1 << 20)
        done = self.agent.copy_in(place + "/copy", out.archive, into=False)
        self.assertEqual((done.done, done.problems), ((0, 0, ""), []))
        self.assertEqual(self.sh(f"stat -c %s {place}/copy; test $(stat -c %b {place}/copy) -lt 1000 && echo sparse; "
                                 f"dd if={place}/copy bs=1 skip=1000000 count=1 2>/dev/null"), f"{size}\nsparse\nx")

    def test_hostile_archives_stay_in_their_folder(self):
        place = self.place()
        self.sh(f"mkdir {place}/in {place}/out; echo alive >{place}/out/canary")

        def build(archive):
            for name, kind, link in (("../out/canary", tarfile.REGTYPE, ""), ("way", tarfile.SYMTYPE, "../out"),
                                     ("way/canary", tarfile.REGTYPE, ""), ("abs", tarfile.SYMTYPE, f"{place}/out"),
                                     ("abs/canary", tarfile.REGTYPE, ""), ("hard", tarfile.LNKTYPE, "../out/canary"),
                                     ("hard", tarfile.LNKTYPE, "abs/canary"), ("hard", tarfile.REGTYPE, "")):
                info = tarfile.TarInfo(name)
                info.type, info.linkname = kind, link
                info.size = 4 if kind == tarfile.REGTYPE else 0
                archive.addfile(info, io.BytesIO(b"dead"))
        self.assertEqual(self.agent.copy_in(place + "/in", tar_bytes(build)).done[0], 0)
        self.assertEqual(self.sh(f"ls {place}/out; cat {place}/out/canary"), "canary\nalive\n")
        self.assertNotEqual(self.agent.copy_in(place + "/in", b"no archive" * 1000).done[0], 0)
        cut = tar_bytes(build)[:1000]
        self.assertNotEqual(self.agent.copy_in(place + "/in", cut).done[0], 0)

    def test_a_full_disk_ends_the_copy(self):
        place = self.place()
        holder = self.agent.exec(["sh", "-c", f"mkdir {place}/small && mount -t tmpfs -o size=1m none {place}/small"])
        self.ended(holder, p.STATUS, 0)

        def build(archive):
            for name in ("one", "two"):
                info = tarfile.TarInfo(name)
                info.size = 4 << 20
                archive.addfile(info, io.BytesIO(b"x" * info.size))
        request = self.agent.copy_in(place + "/small", tar_bytes(build))
        self.assertIn("No space left", request.done[2])
        self.assertEqual(len(request.problems), 1)
        self.assertIn("one", request.problems[0])
        self.ended(self.agent.exec(["true"]), p.STATUS, 0)

    def test_a_host_that_vanishes_in_a_copy(self):
        place = self.place()
        self.sh(f"head -c 3000000 /dev/zero >{place}/big")
        head = struct.pack("<IIII", 1, 0, 0, 0) + place.encode() + b"\0"
        for _ in range(5):
            self.agent.request(p.COPY_IN, head + b"").close()
            request = self.agent.request(p.COPY_OUT, struct.pack("<IIII", 0, 0, 0, 0) + f"{place}/big".encode() + b"\0")
            request.wait_for(p.DATA)
            request.close()
        self.ended(self.agent.exec(["true"]), p.STATUS, 0)

    # --- the end ---

    def test_shutdown_lets_programs_end(self):
        request = self.agent.start(["sh", "-c", "trap 'echo saved; exit 5' TERM; echo up; while :; do sleep 0.05; done"])
        request.wait_for(p.STDOUT)
        stubborn = self.agent.start(["sh", "-c", "trap '' TERM HUP; echo up; while :; do sleep 0.05; done"])
        stubborn.wait_for(p.STDOUT)
        self.assertEqual(self.agent.shutdown(5000), (0, 0, ""))
        result = request.finish().result
        self.assertIn(b"saved", result.out)
        self.ended(result, p.STATUS, 5)
        self.subject.ended()

    def test_shutdown_ends_interactive_shells(self):
        request = self.agent.start(["sh", "-i"], flags=p.TTY | p.WITH_STDIN)
        request.wait_for(p.STDOUT)
        self.assertEqual(self.agent.shutdown(600000), (0, 0, ""))
        request.finish()
        self.subject.ended()  # fails long before the grace is over


@unittest.skipUnless(namespaces(), "this host forbids user namespaces")
class NamespaceTest(Cases, unittest.TestCase):
    def machine(self, setups=b""):
        self.subject = agent_protocol.NamespaceMachine(INIT, setups)
        self.addCleanup(self.subject.kill)
        return self.subject.ready()


class MachineTest(Cases, unittest.TestCase):
    virtual = True

    def machine(self, setups=b"", options=()):
        self.folder = tempfile.mkdtemp(prefix="agent-vm-")
        self.addCleanup(shutil.rmtree, self.folder)
        monitor = os.path.join(os.path.dirname(smolvm.SMOLVM), "smol-vmm")
        command = [monitor, "--accel", smolvm.ACCEL, "--tables", "mp", "--memory", "size=256M", "--kernel",
                   smolvm.kernel_path("micro"), "--initramfs", os.environ["SMOL_IMAGE"], "--cmdline", CMDLINE, "--serial", "tty",
                   "--console", "off", *options]
        self.subject = agent_protocol.VsockMachine(command, self.folder, setups)
        self.addCleanup(self.subject.kill)
        return self.subject.ready()


if __name__ == "__main__":
    smolvm.main()
