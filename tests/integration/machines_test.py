#!/usr/bin/env python3
"""Named machines: every verb with its exact output, bad input, kills of every process in every state, several processes at once."""
import json
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import threading
import time
import unittest
import urllib.request

import smolvm
import vmm_guest

UNTIL_TOLD = "until test -e /told; do sleep 0.1; done; "
HEADER = "NAME STATE CPUS MEMORY MOUNTS PORTS STORAGE OVERLAY".split()


class NamedTest(smolvm.MachineTest):
    def setUp(self):
        super().setUp()
        self.data = self.path("data")
        self.env["SMOLVM_DATA_DIR"] = self.data
        self.env.pop("NO_COLOR", None)
        self.addCleanup(self.delete_all)  # runs before the check that nothing is left

    def delete_all(self):
        if os.path.exists(os.path.join(self.data, "machines.db")):
            listed = self.vm("ls", "--json")
            for machine in json.loads(listed.out) if listed.status == 0 else []:
                self.vm("rm", "-f", machine["name"])

    def vm(self, *words, stdin=None, env=None, limit=smolvm.LIMIT, prefix=()):
        done = subprocess.run([*prefix, smolvm.SMOLVM, "machine", *words], input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
                              capture_output=True, env={**self.env, **(env or {})}, timeout=limit, check=False)
        return smolvm.Result(done.returncode, done.stdout, done.stderr)

    def good(self, *words, out=None, **options):
        result = self.vm(*words, **options)
        self.assertEqual((result.status, result.err), (0, b""), f"{words}: {result!r}")
        if out is not None:
            self.assertEqual(result.out.decode(), out, f"{words}")
        return result.out.decode()

    def bad(self, *words, status=1, says=(), **options):
        result = self.vm(*words, **options)
        if status == 1:
            self.assert_error(result, *says)
        else:
            self.assertEqual(result.status, status, repr(result))
            self.assertTrue(result.err.startswith(b"Error: "), repr(result))
            for text in says:
                self.assertIn(text, result.err.decode())
        return result

    def create(self, name="web", *options):
        return self.good("create", "--name", name, "--accel", smolvm.ACCEL, *options)

    def limit(self, process):
        """For a process whose lines are read."""
        timer = threading.Timer(smolvm.LIMIT, process.kill)
        timer.start()
        self.addCleanup(timer.cancel)

    def record(self, name="web"):
        return json.loads(self.vm("status", name, "--json").out)

    def assert_pid_namespace(self, name="web", prefix=()):
        """The monitor is process 1 of a namespace where the host allows one."""
        doctor = subprocess.run([*prefix, smolvm.SMOLVM, "doctor", "--json"], env=self.env, capture_output=True, check=True)
        if not json.loads(doctor.stdout)["sandbox"]["pid_namespace"]["in_force"]:
            return
        self.assertEqual(self.record(name)["sandbox"]["pid_namespace"], "in force")
        with open(f"/proc/{self.pid(name)}/status", encoding="ascii") as status:
            numbers = next(line for line in status if line.startswith("NSpid:")).split()
        self.assertEqual((int(numbers[1]), numbers[-1]), (self.pid(name), "1"))
        self.assertEqual(vmm_guest.Api(os.path.join(self.record(name)["data_dir"], "api.sock")).get("vmm.ping")["pid"], self.pid(name))

    def let_go(self, name):
        """Ends a main program that waits by UNTIL_TOLD, and its machine."""
        self.vm("exec", name, "--", "touch", "/told")  # whose own end may go under with the machine
        self.assertTrue(smolvm.wait_until(lambda: self.state(name) == "stopped"))

    def state(self, name="web"):
        return self.record(name)["state"]

    def pid(self, name="web"):
        return self.record(name)["pid"]


class VerbTest(NamedTest):
    def test_the_life_of_a_machine_with_each_output(self):
        port = smolvm.free_port()
        site = self.path("site")
        os.mkdir(site)
        with open(os.path.join(site, "index.html"), "w", encoding="ascii") as file:
            file.write("hello from the host\n")
        self.assertEqual(self.create("web", "--net", "-p", f"{port}:80", "-v", f"{site}:/site:ro"),
                         "Created machine: web\n  CPUs: 1, Memory: 256 MiB\n")
        result = self.vm("status", "web")
        self.assertEqual((result.status, result.out), (1, b"Machine 'web': created\n"))
        started = self.good("start", "--name", "web")
        pid = self.pid()
        self.assertEqual(started, f"Started machine: web (PID: {pid})\n")
        self.good("status", "web", out=f"Machine 'web': running (PID: {pid})\n")
        self.assertTrue(smolvm.wait_until(lambda: self.record()["guest_memory"]), "the guest tells its memory")
        self.assertLess(self.record()["guest_memory"]["free_bytes"], 256 << 20)
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            self.assertIn(b"smol-vmm", file.read().split(b"\0")[0])
        self.good("exec", "web", "--", "cat", "/site/index.html", out="hello from the host\n")
        refused = self.vm("exec", "web", "--", "touch", "/site/new")
        self.assertEqual(refused.status, 1)
        self.assertIn(b"Read-only", refused.err)
        self.good("exec", "web", "--", "sh", "-c", "hostname; httpd -p 80 -h /site", out="web\n")
        with urllib.request.urlopen(f"http://localhost:{port}/index.html", timeout=smolvm.LIMIT) as reply:
            self.assertEqual(reply.read(), b"hello from the host\n")
        listed = self.good("ls").splitlines()
        self.assertEqual(listed[0].split(), HEADER)
        self.assertEqual(listed[1].split(), "web running 1 256 MiB 1 1 - 10 GiB".split())
        self.good("exec", "web", "--", "sh", "-c", "echo kept >/root/file; sync")
        self.bad("update", "web", "--mem", "512", says=["'web' is running", str(pid)])
        self.good("stop", "web", out="Stopped machine: web\n")
        result = self.vm("status", "web")
        self.assertEqual((result.status, result.out), (1, b"Machine 'web': stopped\n"))
        self.good("update", "web", "--mem", "512", "--remove-port", str(port), "--no-net",
                  out="Updated machine: web\n  CPUs: 1, Memory: 512 MiB\n")
        self.good("start", "web")
        self.good("exec", "web", "--", "sh", "-c", "cat /root/file; ls /sys/class/net", out="kept\nlo\n")
        self.bad("delete", "web", says=["'web' is running"])
        self.good("delete", "-f", "web", out="Deleted machine: web\n")
        self.good("ls", out="No machines found\n")
        self.good("ls", "--json", out="[]\n")
        self.assertEqual(os.listdir(os.path.join(self.data, "machines")), [])

    def test_start_creates_the_default_machine(self):
        self.bad("stop", says=["'default' not found"])
        self.assertRegex(self.good("start"), r"^Started machine: default \(PID: \d+\)\n$")
        self.good("exec", "--", "echo", "up", out="up\n")
        self.good("exec", "echo", "up", out="up\n")
        self.good("stop", out="Stopped machine: default\n")
        self.bad("start", "other", says=["'other' not found"])

    def test_exec_passes_streams_and_statuses_on(self):
        self.create()
        self.good("start", "web")
        for command, status in (("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)):
            self.assertEqual(self.vm("exec", "web", "--", "sh", "-c", command).status, status, command)
        self.assertEqual(self.vm("exec", "web", "--", "missing").status, 127)
        self.assertEqual(self.vm("exec", "web", "--", "/etc/passwd").status, 126)
        result = self.vm("exec", "--timeout", "1s", "web", "--", "sleep", "100")
        self.assertEqual((result.status, result.err), (124, b"Error: timed out after 1s\n"))
        everything = bytes(range(256)) * 5000
        result = self.vm("exec", "-i", "web", "--", "cat", stdin=everything)
        self.assertEqual((result.status, result.out == everything), (0, True))
        self.good("exec", "-e", "A=b c", "-w", "/usr", "--user", "nobody", "web", "--", "sh", "-c", "echo $A; pwd; id -un",
                  out="b c\n/usr\nnobody\n")
        self.assertRegex(self.good("exec", "-d", "web", "--", "sleep", "1000"), r"^\d+\n$")
        self.good("exec", "web", "--", "pidof", "sleep")
        self.assert_pid_namespace()
        self.assertEqual(self.state(), "running", "a failed command must not end the machine")
        result = self.vm("shell", "web", stdin=b"echo in the shell; exit 5\n")
        self.assertEqual((result.status, result.out), (5, b"in the shell\n"))

    def test_the_machines_own_settings_are_its_programs_defaults(self):
        self.create("web", "-e", "COLOUR=green", "-w", "/tmp", "--user", "nobody", "--label", "k=v", "--init", "echo ready >/tmp/init")
        self.good("start", "web")
        self.good("exec", "web", "--", "sh", "-c", "echo $COLOUR; pwd; id -un; cat /tmp/init", out="green\n/tmp\nnobody\nready\n")
        self.assertEqual(self.record()["labels"], {"k": "v"})

    def test_run_detached_is_a_machine_that_ends_with_its_command(self):
        self.good("run", "-d", "-n", "job", "--accel", smolvm.ACCEL, "--", "sh", "-c", "echo working; " + UNTIL_TOLD, out="job\n")
        self.assertEqual(self.state("job"), "running")
        self.let_go("job")
        self.assertEqual(self.record("job")["reason"], "the guest ended")
        self.assertIn("working", self.good("logs", "job"))
        self.bad("run", "-d", "-n", "job", "--", "true", says=["'job' already exists"])
        self.bad("run", "-d", "-n", "broken", "--rootfs", "/etc/passwd", "--accel", smolvm.ACCEL, "--", "true")
        self.assertEqual([machine["name"] for machine in json.loads(self.good("ls", "--json"))], ["job"])

    def test_how_the_main_program_ended_is_the_machines_reason(self):
        for name, command, reason in (("fails", "exit 3", "its main program ended with status 3"),
                                      ("killed", "kill -9 $$", "its main program was killed by signal 9")):
            self.good("run", "-d", "-n", name, "--accel", smolvm.ACCEL, "--", "sh", "-c", UNTIL_TOLD + command, out=f"{name}\n")
            self.let_go(name)
            self.assertEqual(self.record(name)["reason"], reason)

    def test_a_console_that_never_ends_is_cut_and_can_be_followed(self):
        self.create()
        self.good("start", "web")
        follower = subprocess.Popen([smolvm.SMOLVM, "machine", "logs", "-f", "web"], env=self.env, stdin=subprocess.DEVNULL,
                                    stdout=subprocess.PIPE, text=True, errors="replace")
        self.addCleanup(self.end_process, follower)
        # 1.2 MB in numbered lines of 200 bytes.
        self.good("exec", "web", "--", "sh", "-c", "for i in $(seq 10000 15999); do printf '%0198d\\n' $i; done >/dev/console")
        self.limit(follower)
        numbers = []
        for line in follower.stdout:
            if line.strip().isdigit():
                numbers.append(int(line))
                if numbers[-1] == 15999:
                    break
        self.assertEqual(numbers[-1], 15999)
        self.assertEqual(numbers, sorted(set(numbers)), "nothing is shown twice")
        path = os.path.join(self.record()["data_dir"], "console.log")
        size = os.path.getsize(path)
        self.assertLess(size, 1 << 20)
        with open(path, encoding="ascii", errors="replace") as file:
            lines = file.read().splitlines()
        first = int(lines[0])
        self.assertGreater(first, 10000)
        self.assertEqual([int(line) for line in lines if line.isdigit()], list(range(first, 16000)))
        self.assertEqual(self.state(), "running")

    def test_what_else_the_guest_says_on_its_way_out_is_not_its_end(self):
        # Anybody in the guest may connect there and send anything, or nothing, and hold on.
        self.good("run", "-d", "-n", "job", "--accel", smolvm.ACCEL, "--", "sleep", "1000")
        path = os.path.join(self.record("job")["data_dir"], "vsock.sock_1024")
        held = []
        for content in (b"", b"x" * 40, b"\x10\0\0\0\x01\0\0\0" + b"\0" * 16 + b"\xff" * 16):
            peer = socket.socket(socket.AF_UNIX)
            self.addCleanup(peer.close)
            peer.connect(path)
            peer.sendall(content)
            held.append(peer)
        pid = self.record("job")["pid"]
        os.kill(pid, signal.SIGTERM)
        self.assertTrue(smolvm.wait_until(lambda: self.state("job") == "stopped", smolvm.LIMIT))
        self.assertEqual(self.record("job")["reason"], "the guest ended")

    def test_monitor_restarts_by_how_the_main_program_ended(self):
        for name, command, status, restarts in (("good", "exit 0", 0, False), ("bad", "exit 3", None, True)):
            self.good("run", "-d", "-n", name, "--accel", smolvm.ACCEL, "--", "sh", "-c", UNTIL_TOLD + command)
            self.let_go(name)  # for good: the file stays
            watcher = subprocess.Popen([smolvm.SMOLVM, "machine", "monitor", name, "--restart", "on-failure"], env=self.env,
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            self.addCleanup(self.end_process, watcher)
            if not restarts:
                out = watcher.communicate(timeout=smolvm.LIMIT)[0]
                self.assertEqual(watcher.returncode, status, out)
                self.assertIn("the guest ended", out)
                continue
            self.limit(watcher)
            seen = []
            for line in watcher.stdout:
                seen.append(line)
                if "restarting in" in line:
                    break
            self.assertIn(f"{name}: its main program ended with status 3\n", seen)
            self.assertIn("restarting in 1 s", seen[-1])
            watcher.terminate()
            self.assertEqual(watcher.wait(timeout=smolvm.LIMIT), 0)

    def test_update_changes_what_it_says_and_nothing_else(self):
        folder = self.path("dir")
        os.mkdir(folder)
        self.create("web", "-e", "A=1", "-e", "B=2", "-v", f"{folder}:/a")
        self.good("update", "web", "--remove-env", "A", "-e", "B=3", "-e", "C=4", "--remove-volume", "/a", "-v", f"{folder}:/b:ro",
                  "-p", "8081:80", "--cpus", "2", "--overlay", "20", "--storage", "1", "-w", "/tmp")
        record = self.record()
        self.assertEqual(record["environment"], ["B", "C"])
        self.assertEqual(record["mounts"], [{"host": folder, "guest": "/b", "read_only": True}])
        self.assertEqual(record["ports"], [{"address": "127.0.0.1", "host": 8081, "guest": 80, "protocol": "tcp"}])
        self.assertEqual((record["cpus"], record["overlay_gib"], record["storage_gib"], record["workdir"]), (2, 20, 1, "/tmp"))
        before = self.record()
        for words, text in ((["--overlay", "10"], "shrink"), (["--storage", "0"], "shrink"), (["--remove-port", "1"], "'1'"),
                            (["--remove-volume", "/x"], "'/x'"), (["--remove-env", "A"], "'A'"), (["--mem", "0"], "--mem"),
                            (["-p", "8081:1"], "8081"), (["--net", "--no-net"], "contradict"), ([], "nothing"),
                            (["--add-host", "a:b:c", "--net"], "a:b:c"), (["--add-host", "a:10.0.0.1", "--no-net"], "contradict"),
                            (["--remove-host", "db"], "'db'"), (["--host-access", "1"], "on and off")):
            self.bad("update", "web", *words, says=[text])
        self.assertEqual(self.record(), before)

    def test_a_grown_disk_is_larger_in_the_guest(self):
        self.create("web", "--overlay", "1", "--storage", "1")
        self.good("start", "web")
        size = "df -m {} | tail -n 1 | awk '{{print $2}}'"
        first = [int(self.good("exec", "web", "--", "sh", "-c", size.format(path))) for path in ("/", "/storage")]
        self.good("stop", "web")
        self.good("update", "web", "--overlay", "3", "--storage", "2")
        self.good("start", "web")
        second = [int(self.good("exec", "web", "--", "sh", "-c", size.format(path))) for path in ("/", "/storage")]
        self.assertTrue(700 < first[0] <= 1024 and 700 < first[1] <= 1024, first)
        self.assertTrue(2 * 1024 < second[0] <= 3 * 1024 and 1500 < second[1] <= 2048, second)

    def test_copies_in_and_out(self):
        self.create()
        self.good("start", "web")
        tree = self.path("tree")
        os.makedirs(os.path.join(tree, "sub"))
        content = os.urandom(300000)
        with open(os.path.join(tree, "sub", "data"), "wb") as file:
            file.write(content)
        os.symlink("sub/data", os.path.join(tree, "link"))
        self.good("cp", tree, "web:/root/copy", out="")
        self.good("exec", "web", "--", "sh", "-c", "readlink /root/copy/link; wc -c </root/copy/sub/data", out="sub/data\n300000\n")
        self.good("cp", "web:/root/copy", self.path("back"), out="")
        with open(os.path.join(self.path("back"), "sub", "data"), "rb") as file:
            self.assertEqual(file.read(), content)
        self.good("cp", "--mode", "0750", "--uid", "7", "--gid", "8", os.path.join(tree, "sub", "data"), "web:/tmp/one")
        self.good("exec", "web", "--", "stat", "-c", "%a %u %g", "/tmp/one", out="750 7 8\n")
        self.bad("cp", "a", "b", says=["MACHINE:PATH"])
        self.bad("cp", "web:/a", "web:/b", says=["MACHINE:PATH"])
        self.bad("cp", self.path("missing"), "web:/tmp", says=["missing"])
        self.assertNotEqual(self.vm("cp", "web:/missing", self.path("x")).status, 0)
        self.bad("cp", "nobody:/a", self.path("x"), says=["'nobody' not found"])

    def test_pause_and_resume(self):
        self.create()
        self.bad("pause", "web", says=["not running"])
        self.good("start", "web")
        self.bad("resume", "web", says=["not paused"])
        self.good("pause", "web", out="Paused machine: web\n")
        self.good("status", "web", out=f"Machine 'web': paused (PID: {self.pid()})\n")
        self.bad("exec", "web", "--", "true", says=["paused"])
        self.good("resume", "web", out="Resumed machine: web\n")
        self.good("exec", "web", "--", "echo", "on", out="on\n")
        self.good("exec", "web", "--", "sh", "-c", "date -s @1000000000 >/dev/null")
        self.good("pause", "web")
        self.good("resume", "web")
        before = time.time()
        there = int(self.good("exec", "web", "--", "date", "+%s"))
        self.assertTrue(before - 5 < there < time.time() + 5, (before, there, time.time()))
        self.good("pause", "web")
        self.good("stop", "web", out="Stopped machine: web\n")

    def test_reading_verbs_and_what_is_made_from_the_table(self):
        self.good("data-dir", out=self.data + "\n")
        self.create()
        self.good("data-dir", "web", out=os.path.join(self.data, "machines", "web") + "\n")
        self.assertIn("\ndefault  linux/amd64  embedded", self.good("images"))
        self.assertEqual(json.loads(self.good("images", "--json"))[0]["name"], "default")
        self.assertEqual(self.good("egress-events", "web"), "")
        self.assertEqual(self.good("logs", "web"), "")
        os.mkdir(os.path.join(self.data, "machines", "left-over"))
        dry = self.good("prune", "--dry-run")
        self.assertIn("Would remove " + os.path.join(self.data, "machines", "left-over"), dry)
        self.assertIn("left-over", self.good("prune"))
        self.assertEqual(os.listdir(os.path.join(self.data, "machines")), ["web"])
        self.assertEqual(json.loads(self.good("prune", "--all", "--json"))["removed"][0]["machine"], "web")
        self.good("ls", out="No machines found\n")
        pages = self.path("man")
        subprocess.run([smolvm.SMOLVM, "man", pages], check=True, env=self.env)
        self.assertIn("smolvm-machine-create.1", os.listdir(pages))
        for shell in ("bash", "zsh", "fish"):
            script = subprocess.run([smolvm.SMOLVM, "completion", shell], check=True, env=self.env, capture_output=True).stdout
            self.assertIn(b"egress-events", script)
            if shell == "bash":
                subprocess.run(["bash", "-n"], input=script, check=True)
        help_text = subprocess.run([smolvm.SMOLVM, "machine", "create", "--help"], check=True, capture_output=True).stdout.decode()
        self.assertIn("--allow-cidr", help_text)

    def test_secrets_are_seen_in_the_guest_and_nowhere_else(self):
        secret = "s3cr3t-" + os.urandom(8).hex()
        file = self.path("secret", secret.encode())
        self.create("web", "--secret-env", "TOKEN=HOST_TOKEN", "--secret-file", f"key={file}")
        self.bad("start", "web", says=["HOST_TOKEN"])
        self.good("start", "web", env={"HOST_TOKEN": secret})
        self.good("exec", "web", "--", "sh", "-c", "echo $TOKEN; cat /run/secrets/key", out=f"{secret}\n{secret}")
        with open(f"/proc/{self.pid()}/cmdline", "rb") as words:
            self.assertNotIn(secret.encode(), words.read())
        for folder, _, names in os.walk(self.data):
            for name in names:
                if not name.endswith(".raw") and not name.endswith(".sock") and "sock_" not in name:
                    with open(os.path.join(folder, name), "rb") as content:
                        self.assertNotIn(secret.encode(), content.read(), name)

    def test_a_root_file_system_of_ones_own(self):
        root = self.path("root")
        os.makedirs(os.path.join(root, "opt"))
        with open(os.path.join(root, "opt", "mine"), "w", encoding="ascii") as file:
            file.write("mine\n")
        self.create("web", "-I", root)
        self.good("start", "web")
        self.good("exec", "web", "--", "cat", "/opt/mine", out="mine\n")


    def test_machines_of_a_network_know_each_other_by_name(self):
        for name, words in (("one", ["--add-host", "db:192.0.2.8", "--add-host", "db:2001:db8::8", "--add-host", "me:host-gateway"]),
                            ("two", ["--allow-host", "other.example", "--host-access", "off", "--add-host", "x:192.0.2.1"])):
            self.create(name, "--network", "lab", "--mem", "128", "--dns", f"127.0.0.1:{self.name_server()}", *words)
            self.good("start", name)
        self.assertIn("1 packets received", self.good("exec", "one", "--", "ping", "-c", "1", "-W", "20", "two"))
        self.good("exec", "two", "--", "sh", "-c", "ip -4 -o address show eth1 | grep -c 10.88.0.3; grep -c . /etc/resolv.conf", out="1\n1\n")
        for name, peer, address in (("one", "two", "10.88.0.3"), ("two", "one", "10.88.0.2")):  # each learns of the other when it comes to that
            self.assertTrue(smolvm.wait_until(lambda n=name, p=peer, a=address: self.looked_up(n, p) == [[a]]), f"{name} never hears of {peer}")
        # One name server knows peers, the world and what was added; a policy does not hide the machine's own network.
        self.assertEqual(self.looked_up("one", "two", "two.network", "outside.example", "db", "me", "nobody.example"),
                         [["10.88.0.3"], ["10.88.0.3"], ["192.0.2.7"], ["192.0.2.8", "2001:db8::8"], ["10.0.2.2"], []])
        self.assertIn("two.network", self.good("exec", "one", "--", "nslookup", "10.88.0.3"))
        self.assertEqual(self.looked_up("two", "one", "outside.example"), [["10.88.0.2"], []])
        self.good("exec", "two", "--", "sh", "-c", "nc -w 60 192.0.2.1 443 </dev/null 2>/dev/null || echo refused", out="refused\n")
        self.assertEqual({line.split(" ", 1)[1] for line in self.good("egress-events", "two").splitlines()},
                         {"dns outside.example name not allowed", "tcp 192.0.2.1:443 not allowed"})
        # The host's loopback, by its name and with host access alone.
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen()
            knock = f"nc -w 60 {{}} {server.getsockname()[1]} </dev/null >/dev/null 2>&1 && echo in || echo out"
            served = threading.Thread(target=lambda: server.accept()[0].close(), daemon=True)
            served.start()
            self.good("exec", "one", "--", "sh", "-c", knock.format("me"), out="in\n")
            served.join()
            self.good("stop", "two")
            self.good("update", "two", "--add-host", "me:host-gateway", "--remove-host", "x")
            self.assertEqual((self.record("two")["network"]["add_host"], self.record("two")["network"]["host_access"]), (["me:host-gateway"], False))
            self.good("start", "two")
            self.good("exec", "two", "--", "sh", "-c", knock.format("me"), out="out\n")

    def name_server(self):
        """The port of a name server on the loopback that knows outside.example as 192.0.2.7 and no other name."""
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 0))
        self.addCleanup(server.close)

        def serve():
            while True:
                try:
                    query, client = server.recvfrom(4096)
                except OSError:
                    return
                end = query.index(0, 12) + 5
                known = query[12:end - 4] == b"\7outside\7example\0"
                record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\7" if known and query[end - 4:end - 2] == b"\0\1" else b""
                flags = b"\x81\x80" if known else b"\x81\x83"
                server.sendto(query[:2] + flags + b"\0\1\0" + bytes([len(record) and 1]) + b"\0\0\0\0" + query[12:end] + record, client)
        threading.Thread(target=serve, daemon=True).start()
        return server.getsockname()[1]

    def looked_up(self, machine, *names):
        """The addresses of each name, as BusyBox's nslookup tells them in the guest."""
        found = []
        for name in names:
            told = self.vm("exec", machine, "--", "nslookup", name).out.decode().split("\n\n", 1)[-1]
            found.append(sorted(re.findall(r"^Address: *(\S+)$", told, re.M)))
        return found


class BadInputTest(NamedTest):
    def test_names(self):
        self.bad("create", "--name=", status=2, says=["--name"])
        for name in ("a/b", "..", "-", "a b", "x" * 64):
            self.bad("create", f"--name={name}", says=["name"])
        for verb in ("start", "stop", "delete", "status", "update", "exec", "shell", "pause", "resume", "logs", "egress-events"):
            extra = ["--mem", "512"] if verb == "update" else []
            command = ["--", "true"] if verb == "exec" else []
            self.bad(verb, "--name", "nobody", *extra, *command, says=["machine 'nobody' not found"])
            self.bad(verb, "--name", "a/b", *extra, *command, says=["a/b"])
        self.create()
        self.bad("create", "web", says=["'web' already exists"])
        self.bad("start", "--name", "web", "other", says=["'web'", "'other'"])

    def test_values(self):
        for words, text in ((["-p", "80"], "80"), (["-p", "0:80"], "0"), (["-p", "1:2", "-p", "1:3"], "twice"), (["-p", "a:b"], "a"),
                            (["-v", "/missing:/x"], "/missing"), (["-v", "/etc/passwd:/x"], "not a directory"), (["-v", "/tmp:x"], "absolute"),
                            (["-v", "/tmp:/x", "-v", "/usr:/x"], "/x"), (["--mem", "0"], "--mem"), (["--cpus", "0"], "--cpus"),
                            (["--cpus", "33"], "--cpus"), (["-I", "alpine:3.20"], "alpine:3.20"), (["--accel", "magic"], "magic"),
                            (["--secret-file", "a=b"], "absolute"), (["-e", "=x"], "=x"), (["--dns", "x"], "x"),
                            (["--add-host", "db"], "NAME:ADDRESS"), (["--add-host", "db:nowhere"], "nowhere"), (["--host-access", "maybe"], "maybe"),
                            (["--allow-cidr", "10.0.0.1/8"], "10.0.0.1/8"), (["--allow-cidr", "a.example"], "--allow-host"),
                            (["--allow-host", "a b"], "a b")):
            self.bad("create", "web", *words, says=[text])
        self.good("ls", out="No machines found\n")
        for words, text in ((["create", "--wings"], "--wings"), (["create", "--mem", "x"], "--mem"), (["fly"], "machine fly"), ([], "verb"),
                            (["create", "--gpu"], "--gpu"), (["branch"], "branch"), (["checkpoint"], "checkpoint"), (["cp", "a"], "")):
            self.bad(*words, status=2, says=[text])

    def test_what_a_stopped_machine_refuses(self):
        self.create()
        before = self.record()
        for words in (["exec", "web", "--", "true"], ["shell", "web"], ["stop", "web"], ["pause", "web"], ["cp", "/etc/passwd", "web:/tmp"]):
            self.bad(*words, says=["'web' is not running"])
        self.bad("resume", "web", says=["not paused"])
        self.assertEqual(self.record(), before)

    def test_a_taken_port(self):
        with socket.socket() as taken:
            port = smolvm.free_port()
            taken.bind(("127.0.0.1", port))
            taken.listen()
            self.create("web", "--net", "-p", f"{port}:80")
            self.bad("start", "web", says=[str(port), "in use"])
            self.assertEqual(self.state(), "created")
        self.good("start", "web")
        self.create("two", "--net", "-p", f"{port}:80")
        self.bad("start", "two", says=[str(port)])

    def test_a_mount_that_has_gone(self):
        folder = self.path("gone")
        os.mkdir(folder)
        self.create("web", "-v", f"{folder}:/x")
        os.rmdir(folder)
        self.bad("start", "web", says=[folder])
        with open(folder, "w", encoding="ascii"):
            pass
        self.bad("start", "web", says=[folder, "not a directory"])
        self.assertEqual(self.state(), "created")

    def test_a_database_of_a_newer_version(self):
        self.create()
        path = os.path.join(self.data, "machines.db")
        database = sqlite3.connect(path)
        database.execute("PRAGMA user_version = 99")
        database.commit()
        database.close()
        for words in (["ls"], ["create", "new"], ["start", "web"], ["rm", "web"]):
            self.bad(*words, says=["newer", path, "99"])
        database = sqlite3.connect(path)
        self.assertEqual(database.execute("SELECT count(*) FROM machines").fetchone(), (1,))
        database.execute("PRAGMA user_version = 1")
        database.commit()
        database.close()

    def test_a_full_disk_during_create(self):
        if os.geteuid() != 0:
            self.skipTest("a small file system needs root")
        os.mkdir(self.data)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", self.data], check=True)
        self.addCleanup(lambda: subprocess.run(["umount", "-l", self.data], check=True))
        self.bad("create", "web", says=["cannot create machine 'web'", "No space left"])
        self.good("ls", out="No machines found\n")
        self.assertEqual(os.listdir(os.path.join(self.data, "machines")), [])

    def test_folders_that_cannot_be_used(self):
        self.env["SMOLVM_DATA_DIR"] = self.path("file", b"x") + "/data"
        self.bad("create", "web", says=["file"])
        self.env["SMOLVM_DATA_DIR"] = "relative"
        self.bad("ls", says=["absolute"])
        self.env["SMOLVM_DATA_DIR"] = self.data

    def test_no_colours_where_nobody_looks(self):
        self.create()
        self.assertNotIn("\033", self.good("ls"))


class KillTest(NamedTest):
    def kill(self, pid):
        os.kill(pid, signal.SIGKILL)

    def test_a_killed_monitor_is_told(self):
        self.create()
        self.good("start", "web")
        self.kill(self.pid())
        self.assertTrue(smolvm.wait_until(lambda: self.state() == "stopped"))
        self.assertEqual(self.record()["reason"], "monitor was killed by signal 9")
        result = self.vm("status", "web")
        self.assertEqual((result.status, result.out), (1, b"Machine 'web': stopped (monitor was killed by signal 9)\n"))
        self.assertIn("State: stopped (monitor was killed by signal 9)", self.good("ls", "-v"))
        self.assertEqual(self.good("ls").splitlines()[1].split()[1], "stopped")
        self.bad("exec", "web", "--", "true", says=["not running"])
        self.good("start", "web")
        self.good("exec", "web", "--", "echo", "again", out="again\n")

    def test_a_killed_monitor_ends_what_waits_for_it(self):
        self.create()
        self.good("start", "web")
        process = subprocess.Popen([smolvm.SMOLVM, "machine", "exec", "web", "--", "sleep", "1000"], env=self.env, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(self.end_process, process)
        self.assertTrue(smolvm.wait_until(lambda: self.vm("exec", "web", "--", "pidof", "sleep").status == 0))
        self.kill(self.pid())
        _, err = process.communicate(timeout=smolvm.LIMIT)
        self.assertEqual(process.returncode, 1)
        self.assertTrue(err.startswith(b"Error: "), err)

    def test_a_panic_is_told(self):
        self.create()
        self.good("start", "web")
        self.vm("exec", "-d", "web", "--", "sh", "-c", "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger")
        self.assertTrue(smolvm.wait_until(lambda: self.state() == "stopped"))
        self.assertIn("panic", self.record()["reason"])

    def test_the_command_line_killed_at_any_moment(self):
        # Whatever a killed process leaves: the next ones see a machine that can be started, stopped and deleted.
        rounds = int(os.environ.get("SMOL_KILL_ROUNDS", "6"))
        source = random.Random(7)
        for verb, before in (("create", None), ("start", "create"), ("stop", "start"), ("delete", "stop")):
            for _ in range(rounds):
                self.vm("rm", "-f", "web")
                if before is not None:
                    self.create()
                if before in ("start", "stop"):
                    self.good("start", "web")
                if before == "stop":
                    self.good("stop", "web")
                options = ["--accel", smolvm.ACCEL] if verb == "create" else []
                process = subprocess.Popen([smolvm.SMOLVM, "machine", verb, "web", *options], env=self.env, stdin=subprocess.DEVNULL,
                                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                time.sleep(source.random() * {"create": 0.02, "start": 0.5, "stop": 0.1, "delete": 0.01}[verb])
                process.kill()
                process.wait()
                names = [machine["name"] for machine in json.loads(self.good("ls", "--json"))]
                if names:
                    self.assertIn(self.state(), ("created", "running", "stopped"), verb)
                else:
                    self.create()
                if self.state() != "running":
                    self.good("start", "web")
                self.good("exec", "web", "--", "echo", "fine", out="fine\n")
                self.good("stop", "web")
                self.good("delete", "web")
        self.good("prune")
        self.assertEqual(os.listdir(os.path.join(self.data, "machines")), [])

    def test_a_machine_survives_its_starter(self):
        self.create()
        # In a session whose terminal hangs up, and with the starter's group killed.
        process = subprocess.Popen([smolvm.SMOLVM, "machine", "start", "web"], env=self.env, start_new_session=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        process.communicate(timeout=smolvm.LIMIT)
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.good("exec", "web", "--", "echo", "alive", out="alive\n")


class TogetherTest(NamedTest):
    def at_once(self, *commands):
        processes = [subprocess.Popen([smolvm.SMOLVM, "machine", *words], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE) for words in commands]
        results = []
        for process in processes:
            out, err = process.communicate(timeout=smolvm.LIMIT)
            results.append(smolvm.Result(process.returncode, out, err))
        return results

    def test_two_starts_give_one_machine_and_one_error(self):
        self.create()
        results = self.at_once(*[["start", "web"]] * 4)
        self.assertEqual(sorted(result.status for result in results), [0, 1, 1, 1], results)
        for result in results:
            if result.status != 0:
                self.assertRegex(result.err.decode(), r"^Error: machine 'web' is (already running|being started)")
        monitors = [pid for pid in smolvm.processes_with(self.mark) if b"--api-socket" in self.command_line(pid) or
                    b"smol-vmm" in self.command_line(pid).split(b"\0")[0]]
        self.assertEqual(len(monitors), 1)
        self.good("exec", "web", "--", "echo", "one", out="one\n")
        results = self.at_once(["stop", "web"], ["stop", "web"])
        self.assertEqual(sorted(result.status for result in results), [0, 1], results)

    @staticmethod
    def command_line(pid):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                return file.read()
        except OSError:
            return b""

    def test_two_creates_give_one_machine_and_one_error(self):
        results = self.at_once(*[["create", "web"]] * 4)
        self.assertEqual(sorted(result.status for result in results), [0, 1, 1, 1], results)
        self.assertEqual(len(json.loads(self.good("ls", "--json"))), 1)

    def test_many_machines_from_many_processes(self):
        names = [f"m{i}" for i in range(4)]
        for results in (self.at_once(*[["create", name, "--mem", "64", "--accel", smolvm.ACCEL] for name in names]),
                        self.at_once(*[["start", name] for name in names]),
                        self.at_once(*[["exec", name, "--", "hostname"] for name in names])):
            self.assertEqual([result.status for result in results], [0] * 4, results)
        self.assertEqual([result.out.decode() for result in results], [name + "\n" for name in names])
        results = self.at_once(*[["exec", "m0", "--", "sh", "-c", f"sleep 0.2; echo {i}"] for i in range(6)])
        self.assertEqual([result.out.decode() for result in results], [f"{i}\n" for i in range(6)])
        results = self.at_once(*[["rm", "-f", name] for name in names])
        self.assertEqual([result.status for result in results], [0] * 4, results)


class MonitorTest(NamedTest):
    def watch(self, *options):
        process = subprocess.Popen([smolvm.SMOLVM, "machine", "monitor", "web", *options], env=self.env, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(self.end_process, process)
        self.limit(process)
        return process

    def until(self, process, pattern):
        for line in process.stdout:
            if re.search(pattern, line):
                return line
        return self.fail(f"no line with {pattern}")

    def test_a_killed_machine_is_restarted_and_a_stopped_one_is_not(self):
        self.create()
        process = self.watch()
        self.until(process, r"^web: started \(PID: \d+\)")
        first = self.pid()
        os.kill(first, signal.SIGKILL)
        self.until(process, "killed by signal 9")
        self.until(process, "restarting in 1 s")
        self.until(process, "started")
        second = self.pid()
        self.assertNotEqual(first, second)
        os.kill(second, signal.SIGKILL)
        self.until(process, "restarting in 2 s")
        self.until(process, "started")
        self.good("stop", "web")
        self.until(process, "^web: stopped$")
        self.assertEqual(process.wait(timeout=smolvm.LIMIT), 0)
        self.assertEqual(self.state(), "stopped")

    def test_an_unhealthy_machine_is_restarted(self):
        self.create()
        self.good("start", "web")
        process = self.watch("--health-cmd", "test ! -e /tmp/ill", "--interval", "200ms", "--health-retries", "2")
        time.sleep(1)  # some questions that it answers well
        self.assertEqual(self.state(), "running")
        first = self.pid()
        self.good("exec", "web", "--", "touch", "/run/x", "/tmp/ill")
        self.until(process, r"unhealthy \(1 of 2\)")
        self.until(process, r"unhealthy \(2 of 2\)")
        self.until(process, "restarting")
        self.until(process, "started")
        self.assertNotEqual(self.pid(), first)
        process.terminate()
        self.assertEqual(process.wait(timeout=smolvm.LIMIT), 0)
        self.assertEqual(self.state(), "running", "the machine outlives who watches it")

    def test_policies(self):
        self.create()
        process = self.watch("--restart", "never")
        self.until(process, "started")
        os.kill(self.pid(), signal.SIGKILL)
        self.assertEqual(process.wait(timeout=smolvm.LIMIT), 1)
        self.bad("monitor", "web", "--restart", "sometimes", says=["sometimes"])
        self.bad("monitor", "nobody", says=["'nobody' not found"])


class UnprivilegedTest(NamedTest):
    def test_an_ordinary_user_has_machines_too(self):
        if os.geteuid() != 0:
            self.skipTest("all other tests are this test")
        # Where the user may read: programs and kernels can lie below a home of root's.
        place = self.path("programs")
        os.makedirs(os.path.join(place, "share"))
        for program in (smolvm.SMOLVM, os.path.join(os.path.dirname(smolvm.SMOLVM), "smol-vmm")):
            shutil.copy(program, place)
        shutil.copy(smolvm.kernel_path("micro"), os.path.join(place, "share", "vmlinux-micro"))
        os.mkdir(self.data)
        os.chown(self.data, 65534, 65534)
        os.chmod(self.folder, 0o755)
        os.chmod(self.private, 0o777)
        self.env.update({"SMOLVM_SHARE": os.path.join(place, "share"), "HOME": "/nonexistent"})
        user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        original, smolvm.SMOLVM = smolvm.SMOLVM, os.path.join(place, "smolvm")
        self.addCleanup(setattr, smolvm, "SMOLVM", original)
        port = smolvm.free_port()
        folder = os.path.join(self.data, "shared")
        self.good("create", "web", "--accel", smolvm.ACCEL, "--net", "-p", f"{port}:80", "-v", "/usr:/host:ro", prefix=user)
        self.good("start", "web", prefix=user)
        with open(f"/proc/{self.pid()}/status", encoding="ascii") as status:
            self.assertIn("Uid:\t65534", status.read())
        self.good("exec", "web", "--", "sh", "-c", "id -u; test -d /host/bin && echo shared; echo ok >/root/x; sync", prefix=user, out="0\nshared\n")
        self.good("stop", "web", prefix=user)
        self.good("start", "web", prefix=user)
        self.good("exec", "web", "--", "cat", "/root/x", prefix=user, out="ok\n")
        self.good("rm", "-f", "web", prefix=user)
        self.assertFalse(os.path.exists(folder))
        # Without shared directories, whose owners a user namespace would hide, processes have a namespace, too.
        self.good("create", "alone", "--accel", smolvm.ACCEL, prefix=user)
        self.good("start", "alone", prefix=user)
        self.assert_pid_namespace("alone", prefix=user)
        self.good("exec", "alone", "--", "id", "-u", prefix=user, out="0\n")
        self.good("rm", "-f", "alone", prefix=user)


class LongPathTest(NamedTest):
    def test_sockets_find_a_place_when_the_data_folder_is_deep(self):
        deep = os.path.join(self.folder, *["a-rather-long-folder-name"] * 5)
        self.env["SMOLVM_DATA_DIR"] = deep
        self.data = deep
        self.create()
        self.good("start", "web")
        self.good("exec", "web", "--", "echo", "deep", out="deep\n")
        self.good("rm", "-f", "web")
        shutil.rmtree(os.path.join(self.private, "smolvm"), ignore_errors=True)


if __name__ == "__main__":
    smolvm.main()
