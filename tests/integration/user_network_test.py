#!/usr/bin/env python3
"""The user-mode network under Linux's own driver: a BusyBox guest that gets its addresses by DHCP and router advertisement and talks to
servers of the host over IPv4 and IPv6, is reached through published ports, resolves names, and is held by an egress policy. smol-vmm is
run itself, with an initramfs of BusyBox and one script; everything on the host is on its loopback."""
import hashlib
import json
import os
import shutil
import socket
import subprocess
import threading

import smolvm

SIZE = 20_000_000

COMMON = """#!/bin/busybox sh
/bin/busybox mount -t proc none /proc; /bin/busybox mount -t sysfs none /sys; /bin/busybox mount -t devtmpfs none /dev
export PATH=/bin; /bin/busybox --install -s /bin
exec >/dev/hvc0 2>&1 </dev/null
ip link set lo up; ip link set eth0 up
udhcpc -q -n -i eth0 -s /lease 2>/dev/null | grep ^lease
"""

LEASE = """#!/bin/busybox sh
[ "$1" = bound ] || exit 0
ip addr add $ip/$mask dev $interface; ip route add default via $router
for address in $dns; do echo "nameserver $address"; done >/etc/resolv.conf; echo "lease $ip/$mask $router $dns $mtu"
"""

TALK = COMMON + """
i=0; until ip -6 addr show eth0 | grep -q 'fd00.* scope global' && ! ip -6 addr show eth0 | grep -q tentative || [ $i = 100 ]; do
  i=$((i + 1)); sleep 0.1; done
ping -q -c 2 10.0.2.2 | grep -o '2 packets received'
ping -q -c 2 fd00:0:0:2::2 | grep -o '2 packets received'
wget -q -O /file http://10.0.2.2:WEB4/file; echo "file $(md5sum </file)"
wget -q -O /file6 "http://[fd00:0:0:2::2]:WEB6/file"; echo "file6 $(md5sum </file6)"
nc 10.0.2.2 UPLOAD </file
udp_peer ask 10.0.2.2 UDP4 0 5 1472 4000 60000
udp_peer ask fd00:0:0:2::2 UDP6 5 5000
udp_peer ask 10.0.2.2 CLOSED 5 2>&1
nslookup web.example | sed -n 's/^Address: *\\([0-9]\\)/address \\1/p' | grep -v :53
nslookup nothing.example 2>&1 | grep -o NXDOMAIN | head -n 1
wget -q -O - http://web.example:WEB4/small
wget -q -O - http://10.0.2.2:CLOSED/ 2>&1 | grep -o refused
mkdir /www; echo "from the guest" >/www/index.html; httpd -p 80 -h /www
udp_peer serve 7 &
echo ready
nc -l -p 9 >/dev/null
echo END
"""

HELD = COMMON + """
wget -q -O - http://web.example:WEB4/small
wget -q -O - http://10.0.2.2:WEB4/small
wget -q -O - http://10.0.2.2:CLOSED/small 2>&1 | grep -o refused
wget -q -O - http://192.0.2.9:443/small 2>&1 | grep -o refused
nslookup other.example 2>&1 | grep -o REFUSED | head -n 1
echo END
"""


class Servers:
    """What the guest talks to: a web server for each version of IP, a sink for an upload, a name server."""

    def __init__(self):
        self.content = os.urandom(SIZE)
        self.uploaded = hashlib.md5()
        self.sockets = []
        self.web4 = self.serve(socket.AF_INET, "127.0.0.1", self.web)
        self.web6 = self.serve(socket.AF_INET6, "::1", self.web)
        self.upload = self.serve(socket.AF_INET, "127.0.0.1", self.take)
        self.udp4 = self.answer(socket.AF_INET, "127.0.0.1", lambda query: query).getsockname()[1]
        self.udp6 = self.answer(socket.AF_INET6, "::1", lambda query: query).getsockname()[1]
        self.names = self.answer(socket.AF_INET, "127.0.0.1", self.resolve)

    def serve(self, family, address, handler):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.bind((address, 0))
        listener.listen(16)
        self.sockets.append(listener)

        def loop():
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return
                threading.Thread(target=handler, args=(connection,), daemon=True).start()
        threading.Thread(target=loop, daemon=True).start()
        return listener.getsockname()[1]

    def answer(self, family, address, handler):
        server = socket.socket(family, socket.SOCK_DGRAM)
        server.bind((address, 0))
        self.sockets.append(server)

        def loop():
            while True:
                try:
                    query, client = server.recvfrom(65536)
                except OSError:
                    return
                server.sendto(handler(query), client)
        threading.Thread(target=loop, daemon=True).start()
        return server

    def web(self, connection):
        with connection:
            request = connection.recv(4096)
            body = b"small from the host\n" if b" /small" in request else self.content
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    def take(self, connection):
        with connection:
            while data := connection.recv(1 << 16):
                self.uploaded.update(data)

    @staticmethod
    def resolve(query):
        name, at = [], 12
        while query[at]:
            name.append(query[at + 1:at + 1 + query[at]].decode())
            at += 1 + query[at]
        known = ".".join(name) == "web.example"
        answer = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04" + socket.inet_aton("10.0.2.2")
        answer = answer if known and query[at + 1:at + 3] == b"\0\x01" else b""
        header = query[:2] + (b"\x81\x80" if known else b"\x81\x83") + b"\0\1" + (b"\0\1" if answer else b"\0\0") + b"\0\0\0\0"
        return header + query[12:at + 5] + answer

    def close(self):
        for each in self.sockets:
            each.close()


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class UserNetworkTest(smolvm.MachineTest):
    maxDiff = None

    def setUp(self):
        super().setUp()
        self.servers = Servers()
        self.addCleanup(self.servers.close)
        self.closed = free_port()

    def initramfs(self, script):
        root = self.path("root")
        for folder in ("bin", "dev", "proc", "sys", "etc"):
            os.makedirs(os.path.join(root, folder))
        shutil.copy("/bin/busybox", os.path.join(root, "bin"))
        subprocess.run(["musl-gcc", "-static", "-O2", "-o", os.path.join(root, "bin/udp_peer"),
                        os.path.join(smolvm.SOURCE, "tests/integration/udp_peer.c")], check=True)
        for word, port in (("WEB4", self.servers.web4), ("WEB6", self.servers.web6), ("UPLOAD", self.servers.upload), ("UDP4", self.servers.udp4),
                           ("UDP6", self.servers.udp6), ("CLOSED", self.closed)):
            script = script.replace(word, str(port))
        for file, text in (("init", script), ("lease", LEASE)):
            with open(os.path.join(root, file), "w", encoding="utf-8") as out:
                out.write(text)
            os.chmod(os.path.join(root, file), 0o755)
        image = self.path("root.cpio")
        with open(image, "wb") as out:
            names = subprocess.run(["find", "."], cwd=root, check=True, capture_output=True).stdout
            subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, check=True, input=names, stdout=out)
        return image

    def command(self, image, net):
        return [os.path.join(os.path.dirname(smolvm.SMOLVM), "smol-vmm"), "--accel", smolvm.ACCEL, "--kernel",
                smolvm.kernel_path("micro"), "--initramfs", image, "--memory", "size=192M", "--tables", "mp", "--serial", "off",
                "--console", "tty", "--net", net, "--cmdline", "console=hvc0 quiet reboot=t panic=-1"]

    def run_guest(self, script, options, on_ready=None):
        """The guest's lines; on_ready is called when it says `ready`."""
        dns = self.servers.names.getsockname()[1]
        command = self.command(self.initramfs(script), f"mode=user,dns=127.0.0.1:{dns}{options}")
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.env)
        timer = threading.Timer(smolvm.LIMIT, process.kill)
        timer.start()
        self.addCleanup(timer.cancel)
        lines = []
        for raw in process.stdout:
            line = raw.decode(errors="replace").strip()
            if line == "ready" and on_ready:
                on_ready()
            if line and not line.startswith("["):
                lines.append(line)
        self.error = process.stderr.read().decode(errors="replace")
        process.wait()
        process.stdout.close()
        process.stderr.close()
        return lines

    def test_both_ways(self):
        web, echo, done = free_port(), free_port(socket.SOCK_DGRAM), free_port()
        got = {}

        def reach():
            with socket.create_connection(("127.0.0.1", web), timeout=30) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b""
                while data := connection.recv(4096):
                    answer += data
                got["web"] = answer.split(b"\r\n\r\n")[-1]
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
                datagrams.settimeout(1)
                for _ in range(20):
                    datagrams.sendto(b"echo", ("127.0.0.1", echo))
                    try:
                        got["echo"] = datagrams.recv(100)
                        break
                    except TimeoutError:
                        pass
            socket.create_connection(("127.0.0.1", done), timeout=30).close()

        ports = f",publish=[tcp:127.0.0.1:{web}:80,udp:127.0.0.1:{echo}:7,{done}:9]"
        lines = self.run_guest(TALK, ports, reach)
        digest = hashlib.md5(self.servers.content).hexdigest() + "  -"
        self.assertEqual(lines, ["lease 10.0.2.15/24 10.0.2.2 10.0.2.3 1500", "2 packets received", "2 packets received", f"file {digest}",
                                 f"file6 {digest}", "0 equal", "5 equal", "1472 equal", "4000 equal", "60000 equal", "5 equal",
                                 "5000 equal", "recv: Connection refused", "address 10.0.2.2", "NXDOMAIN", "small from the host", "refused", "ready", "END"],
                         self.error)
        self.assertEqual(got, {"web": b"from the guest\n", "echo": b"echo"}, self.error)
        self.assertTrue(smolvm.wait_until(lambda: self.servers.uploaded.hexdigest() + "  -" == digest))

    def test_policy(self):
        log = self.path("egress.jsonl")
        lines = self.run_guest(HELD, f",allow=[10.0.2.2:{self.servers.web4},web.example],egress_log={log}")
        self.assertEqual(lines, ["lease 10.0.2.15/24 10.0.2.2 10.0.2.3 1500", "small from the host", "small from the host", "refused",
                                 "refused", "REFUSED", "END"], self.error)
        with open(log, encoding="utf-8") as file:
            refused = [json.loads(line) for line in file]
        seen = {(each["proto"], each.get("dst"), each.get("port"), each.get("host"), each["reason"]) for each in refused}
        self.assertIn(("tcp", "10.0.2.2", self.closed, None, "not allowed"), seen)
        self.assertIn(("tcp", "192.0.2.9", 443, None, "not allowed"), seen)
        self.assertIn(("dns", None, None, "other.example", "name not allowed"), seen)

    def test_taken_port(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            command = self.command("/dev/null", f"mode=user,publish=[{port}:80]")
            done = subprocess.run(command, capture_output=True, text=True, timeout=smolvm.LIMIT, env=self.env, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(f"cannot publish the port tcp:127.0.0.1:{port}:80: Address already in use", done.stderr)


if __name__ == "__main__":
    smolvm.main()
