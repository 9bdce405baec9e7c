#!/usr/bin/env python3
"""What a machine is given at its start: root, network, secrets, services; and how it ends."""
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import unittest

import agent_protocol
import run_protocol as p
import smolvm
from agent_test import CMDLINE, INIT, namespaces
from run_protocol import frame

NEVER, ON_FAILURE, ALWAYS, MAIN, SCRIPT = 0, 1, 2, 0x100, 0x200


def service(name, script, flags=0, **options):
    return p.setup(p.SERVICE, name, flags=flags, tail=p.config(["sh", "-c", script], **options))


class Cases:
    """What needs no device; `start(setups)` gives a machine whose boot connection waits."""

    def ready(self, setups):
        self.subject = self.start(setups)
        self.agent = self.subject.ready()
        return self.agent

    def sh(self, script, **options):
        result = self.agent.exec(["sh", "-c", script], **options)
        self.assertEqual((result.kind, result.value), (p.STATUS, 0), result.__dict__)
        return result.out.decode()

    def refused(self, setups, *words):
        result = self.start(setups).boot.finish().result
        self.assertEqual((result.kind, result.value), (p.INIT_FAILURE, 1), result.__dict__)
        for word in words:
            self.assertIn(word, result.text)

    def test_environment_reaches_every_program(self):
        self.ready(p.setup(p.ENVIRONMENT, "A=first") + p.setup(p.ENVIRONMENT, "A=second") + p.setup(p.ENVIRONMENT, "B=b") +
                   p.setup(p.SECRET, "KEY", "", flags=1, tail=b"se=cret") + p.setup(p.HOSTNAME, "box"))
        self.assertEqual(self.sh("echo $A $B $KEY $(hostname)"), "second b se=cret box\n")
        self.assertEqual(self.sh("echo $A $KEY", env=["A=mine", "KEY="]), "mine\n")

    def test_secrets_are_on_no_command_line(self):
        self.ready(p.setup(p.SECRET, "token", "", tail=b"hunter2") + p.setup(p.SECRET, "VARIABLE", "", flags=1, tail=b"hunter2"))
        self.assertEqual(self.sh("cat /run/secrets/token"), "hunter2")
        self.assertEqual(self.sh("cat /proc/[0-9]*/cmdline /proc/cmdline | tr '\\0' ' ' | grep -c h[u]nter2 || true"), "0\n")

    def test_init_scripts_run_in_order_before_the_agent(self):
        self.ready(service("one", "echo one >>/tmp/order", SCRIPT) + service("two", "sleep 0.3; echo two >>/tmp/order", SCRIPT) +
                   service("three", "echo three >>/tmp/order; exec sleep 1000"))
        self.assertEqual(self.sh("while ! grep three /tmp/order; do sleep 0.05; done >/dev/null; cat /tmp/order"),
                         "one\ntwo\nthree\n")

    def test_an_init_script_that_fails_ends_the_start(self):
        self.refused(service("one", "true", SCRIPT) + service("setup", "echo the disk is gone >&2; exit 3", SCRIPT),
                     "init script 'setup'", "status 3", "the disk is gone")

    def test_services_that_cannot_start_end_the_start(self):
        missing = p.setup(p.SERVICE, "web", tail=p.config(["/no/such/server"]))
        self.refused(missing, "web", "/no/such/server")
        self.refused(service("web", "true", user="nosuchuser"), "web", "nosuchuser")
        self.refused(p.setup(p.SERVICE, "web", tail=p.config(["sh"], flags=p.TTY)), "web")
        self.refused(p.setup(p.SERVICE, "web", tail=b"nonsense"), "web", "protocol:")

    def test_services_are_started_again_as_their_policy_says(self):
        self.ready(service("always", "echo a >>/tmp/always", ALWAYS) + service("failing", "echo f >>/tmp/failing; exit 1", ON_FAILURE) +
                   service("good", "echo g >>/tmp/good", ON_FAILURE) + service("never", "echo n >>/tmp/never; exit 1", NEVER) +
                   service("killed", "echo k >>/tmp/killed; kill -9 $$", ON_FAILURE))
        self.assertEqual(self.sh("for file in always:3 failing:3 killed:3 good:1 never:1; do "
                                 "until [ $(cat /tmp/${file%:*} 2>/dev/null | wc -l) -ge ${file#*:} ]; do sleep 0.1; done; done; "
                                 "cat /tmp/good /tmp/never"), "g\nn\n")

    def test_the_end_of_main_is_the_machines(self):
        self.ready(service("helper", "trap 'exit 0' TERM; while :; do sleep 0.05; done", ALWAYS) +
                   service("main", "while ! test -e /tmp/go; do sleep 0.05; done; exit 7", MAIN))
        self.sh("touch /tmp/go")
        self.subject.ended()

    def test_main_is_started_again_first(self):
        self.ready(service("main", "test -e /tmp/seen && exit 0; touch /tmp/seen; exit 1", MAIN | ON_FAILURE))
        self.subject.ended()

    def test_a_host_that_leaves_before_the_end_of_the_start(self):
        for setups, options in ((b"", {"last": b""}), (service("slow", "sleep 1000", SCRIPT), {})):
            machine = self.start(setups, **options)
            machine.boot.wait_for(p.HELLO)
            machine.boot.close()
            machine.ended()

    def test_a_log_takes_a_services_output(self):
        self.ready(service("web", "echo out; echo err >&2; exec sleep 1000", log="/tmp/web.log"))
        self.assertEqual(self.sh("while ! grep err /tmp/web.log; do sleep 0.05; done >/dev/null; cat /tmp/web.log"), "out\nerr\n")


@unittest.skipUnless(namespaces(), "this host forbids user namespaces")
class NamespaceTest(Cases, unittest.TestCase):
    def start(self, setups, **options):
        machine = agent_protocol.NamespaceMachine(INIT, setups, **options)
        self.addCleanup(machine.kill)
        return machine

    def test_settings_that_make_no_sense_end_the_start(self):
        self.refused(p.setup(p.NETWORK, "eth7", "10.0.2.15/24", "", "", "", ""), "eth7")
        self.refused(p.setup(p.NETWORK, "lo", "10.0.2.15", "", "", "", ""), "10.0.2.15")
        self.refused(p.setup(p.NETWORK, "lo", "10.0.2.15/33", "", "", "", ""), "10.0.2.15/33")
        self.refused(p.setup(p.NETWORK, "lo", "", "", "dns.example", "", ""), "dns.example")
        self.refused(p.setup(p.NETWORK, "lo", "", "", "", "", "big"), "big")
        self.refused(p.setup(p.TIME, "noon"), "noon")
        self.refused(p.setup(p.ENVIRONMENT, "NOVALUE"), "NOVALUE")
        self.refused(p.setup(p.MOUNT, "..", "/x"), "..")
        self.refused(p.setup(p.MOUNT, "tag", "relative"), "relative")
        self.refused(p.setup(p.FORWARD, "/tmp/x.sock", "0", ""), "port")
        self.refused(p.setup(p.FORWARD, "/tmp/" + "x" * 200, "5000", ""), "socket")
        self.refused(p.setup(p.DISK, "/dev/no-such-disk", "", "/mnt"), "/dev/no-such-disk")


class MachineTest(Cases, unittest.TestCase):
    def setUp(self):
        self.count = 0
        self.folder = tempfile.mkdtemp(prefix="agent-vm-")
        self.addCleanup(shutil.rmtree, self.folder)

    def start(self, setups, options=(), kernel="micro", **last):
        self.count += 1
        folder = os.path.join(self.folder, str(self.count))
        os.mkdir(folder)
        monitor = os.path.join(os.path.dirname(smolvm.SMOLVM), "smol-vmm")
        command = [monitor, "--accel", smolvm.ACCEL, "--tables", "mp", "--memory", "size=256M", "--kernel",
                   smolvm.kernel_path(kernel), "--initramfs", os.environ["SMOL_IMAGE"], "--cmdline", CMDLINE, "--serial", "tty",
                   "--console", "off", *options]
        machine = agent_protocol.VsockMachine(command, folder, setups, **last)
        self.addCleanup(machine.kill)
        return machine

    def up(self, setups, options=()):
        self.subject = self.start(setups, options)
        self.agent = self.subject.ready()
        return self.subject

    def test_main_tells_the_host_how_it_ended(self):
        machine = self.up(service("main", "while ! test -e /tmp/go; do sleep 0.05; done; kill -9 $$", MAIN))
        self.sh("touch /tmp/go")
        connection = machine.listener.accept()[0]
        request = agent_protocol.Request(connection)
        payload = request.wait_for(p.MAIN_EXIT)
        self.assertEqual(struct.unpack_from("<Ii", payload), (p.SIGNALLED, 9))
        request.close()
        machine.ended()
        self.assertIn("main ended by signal 9", machine.console_text())

    def disk(self, name, size, make=()):
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.truncate(size)
        if make:
            subprocess.run([*make, path], check=True, capture_output=True)
        return path

    def test_writes_on_an_upper_disk_survive_the_machine(self):
        upper = self.disk("upper", 64 << 20, ["mkfs.ext4", "-q", "-F"])
        setups, options = p.root(1, "", "", "/dev/vda"), ["--disk", f"path={upper}"]
        self.up(setups, options)
        self.sh("echo kept >/etc/kept; rm /bin/sha512sum; mkdir -p /srv/a; head -c 1000000 /dev/zero >/srv/a/big; touch /tmp/mine")
        self.agent.shutdown()
        self.subject.ended()
        state = subprocess.run(["dumpe2fs", "-h", upper], capture_output=True, text=True, check=True).stdout
        self.assertIn("Filesystem state:         clean", state)
        self.assertNotIn("needs_recovery", state)
        self.up(setups, options)
        self.assertEqual(self.sh("cat /etc/kept; ls /bin/sha512sum 2>/dev/null; wc -c </srv/a/big; ls /tmp"), "kept\n1000000\nmine\n")
        self.subject.process.kill()  # as a power cut: what was synced is there
        self.subject.ended()
        self.up(setups, options)
        self.assertEqual(self.sh("cat /etc/kept"), "kept\n")

    def test_a_busy_file_system_is_clean_at_the_end_as_well(self):
        upper = self.disk("upper", 64 << 20, ["mkfs.ext4", "-q", "-F"])
        self.up(p.root(1, "", "", "/dev/vda") + service("writer", "trap '' TERM; while :; do date >>/var/log.txt; done"),
                ["--disk", f"path={upper}"])
        self.agent.shutdown(500)
        self.subject.ended()
        state = subprocess.run(["dumpe2fs", "-h", upper], capture_output=True, text=True, check=True).stdout
        self.assertNotIn("needs_recovery", state)
        subprocess.run(["e2fsck", "-fn", upper], check=True, capture_output=True)

    def test_a_disk_at_a_path(self):
        disk = self.disk("disk", 16 << 20, ["mkfs.ext4", "-q", "-F"])
        self.up(p.setup(p.DISK, "/dev/vda", "", "/srv/data"), ["--disk", f"path={disk}"])
        self.sh("echo x >/srv/data/file")
        self.agent.shutdown()
        self.subject.ended()
        self.assertNotIn("needs_recovery", subprocess.run(["dumpe2fs", "-h", disk], capture_output=True, text=True, check=True).stdout)
        self.up(p.setup(p.DISK, "/dev/vda", "ext4", "/srv/data", flags=1), ["--disk", f"path={disk},readonly=on"])
        self.assertEqual(self.sh("cat /srv/data/file; touch /srv/data/new 2>/dev/null || echo closed"), "x\nclosed\n")

    def test_shares_at_their_places(self):
        for name in ("site", "data"):
            os.mkdir(os.path.join(self.folder, name))
        with open(os.path.join(self.folder, "site", "index"), "w", encoding="utf-8") as file:
            file.write("hello")
        shares = [f"tag={name},path={os.path.join(self.folder, name)}" for name in ("site", "data")]
        self.up(p.setup(p.MOUNT, "site", "/srv/site", flags=1) + p.setup(p.MOUNT, "data", "/data"),
                [word for share in shares for word in ("--share", share)])
        self.assertEqual(self.sh("cat /srv/site/index; touch /srv/site/new 2>/dev/null || echo closed; echo kept >/data/file"),
                         "helloclosed\n")
        with open(os.path.join(self.folder, "data", "file"), encoding="utf-8") as file:
            self.assertEqual(file.read(), "kept\n")
        # Taken away and put elsewhere while it runs; not while somebody stands in it.
        busy = self.agent.start(["sh", "-c", "cd /data; echo $$; exec sleep 1000"])
        pid = int(busy.wait_for(p.STDOUT))
        self.assertIn("/data", self.agent.setup(p.UNMOUNT, "/data")[2])
        busy.close()
        self.sh(f"while kill -0 {pid} 2>/dev/null; do sleep 0.05; done")
        self.assertEqual(self.agent.setup(p.UNMOUNT, "/data"), (0, 0, ""))
        self.assertEqual(self.sh("ls /data"), "")
        self.assertEqual(self.agent.setup(p.MOUNT, "data", "/mnt/new place/data"), (0, 0, ""))
        self.assertEqual(self.sh("cat '/mnt/new place/data/file'"), "kept\n")
        self.assertIn("none", self.agent.setup(p.MOUNT, "none", "/none")[2])

    def test_the_time_is_set(self):
        self.up(p.setup(p.TIME, "1000000000000000000"))
        self.assertEqual(self.sh("date +%s | cut -c1-8"), "10000000\n")
        self.assertEqual(self.agent.setup(p.TIME, "2000000000000000000"), (0, 0, ""))
        self.assertEqual(self.sh("date +%s | cut -c1-8"), "20000000\n")

    def test_the_network_is_set_up(self):
        self.up(p.setup(p.HOSTNAME, "box") +
                p.setup(p.NETWORK, "eth0", "10.0.2.15/24 fd00:0:0:2::15/64", "10.0.2.2 fe80::2", "10.0.2.3 fd00:0:0:2::3", "example.org",
                        "1400"), ["--net", "mode=user"])
        self.assertEqual(self.sh("ip -4 -o addr show eth0 | grep -o '10.0.2.15/24'; ip -6 -o addr show eth0 | grep -o 'fd00:0:0:2::15/64'; "
                                 "ip route | grep -o 'default via 10.0.2.2'; ip -6 route | grep -o 'default via fe80::2'; "
                                 "cat /sys/class/net/eth0/mtu; cat /etc/resolv.conf; cat /etc/hosts"),
                         "10.0.2.15/24\nfd00:0:0:2::15/64\ndefault via 10.0.2.2\ndefault via fe80::2\n1400\n"
                         "search example.org\nnameserver 10.0.2.3\nnameserver fd00:0:0:2::3\n"
                         "127.0.0.1 localhost\n::1 localhost\n10.0.2.15 box\n")
        self.sh("ping -c 1 -w 20 10.0.2.2")

    def test_sockets_of_the_guest_reach_the_host(self):
        # The monitor sees nothing of the host that it was not told of.
        self.up(p.setup(p.FORWARD, "/run/agent/ssh.sock", "5000", ""), ["--landlock-rules", f"path={self.folder}"])
        server = socket.socket(socket.AF_UNIX)
        server.bind(os.path.join(self.folder, "target.sock"))
        server.listen(8)
        # A link is enough: no process has to stand between.
        os.symlink(os.path.join(self.folder, "target.sock"), self.subject.path + "_5000")

        def serve():
            for _ in range(3):
                connection = server.accept()[0]
                data = b""
                while chunk := connection.recv(65536):
                    data += chunk
                connection.sendall(data.upper())
                connection.close()
        thread = threading.Thread(target=serve)
        thread.start()
        for data in (b"hello", b"x" * 300000, b""):
            request = self.agent.request(p.CONNECT, b"/run/agent/ssh.sock\0")
            self.assertEqual(request.finish_done(), (0, 0, ""))
            request.socket.sendall(data)
            request.socket.shutdown(socket.SHUT_WR)
            got = request.buffer
            while chunk := request.socket.recv(1 << 18):
                got += chunk
            self.assertEqual(got, data.upper())
            request.close()
        thread.join()
        server.close()
        self.assertEqual(self.sh("stat -c '%a %F' /run/agent/ssh.sock"), "600 socket\n")


if __name__ == "__main__":
    smolvm.main()
