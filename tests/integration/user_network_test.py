#!/usr/bin/env python3
"""The user-mode network under Linux's own driver: a BusyBox guest that gets its addresses by DHCP and router advertisement and talks to
servers of the host over IPv4 and IPv6, is reached through published ports, resolves names, and is held by an egress policy. smol-vmm is
run itself, with an initramfs of BusyBox and one script; everything on the host is on its loopback."""
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import unittest

import smolvm

SIZE = 20_000_000

COMMON = """#!/bin/busybox sh
/bin/busybox mount -t proc none /proc; /bin/busybox mount -t sysfs none /sys; /bin/busybox mount -t devtmpfs none /dev
export PATH=/bin; /bin/busybox --install -s /bin
exec >/dev/hvc0 2>&1 </dev/null
ip link set lo up; ip link set eth0 up
udhcpc -q -n -t 30 -i eth0 -s /lease 2>/dev/null | grep ^lease
"""

LEASE = """#!/bin/busybox sh
[ "$1" = bound ] || exit 0
ip addr add $ip/$mask dev $interface; ip route add default via $router
for address in $dns; do echo "nameserver $address"; done >/etc/resolv.conf; echo "lease $ip/$mask $router $dns $mtu"
"""

TALK = COMMON + """
i=0; until ip -6 addr show eth0 | grep -q 'fd00.* scope global' && ! ip -6 addr show eth0 | grep -q tentative || [ $i = 600 ]; do
  i=$((i + 1)); sleep 0.1; done
answers() { i=0; until ping -q -c 1 -W 5 $1 >/dev/null || [ $i = 50 ]; do i=$((i + 1)); sleep 0.1; done; [ $i != 50 ] && echo "$1 answers"; }
answers 10.0.2.2
answers fd00:0:0:2::2
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
echo bye | nc -l -p 9 >/dev/null
echo END
"""

# Programs of the host's Debian, in the guest with their libraries.
PROGRAMS = ["/usr/bin/curl", "/usr/bin/dig", "/usr/bin/iperf3", "/usr/bin/rsync", "/usr/bin/git", "/usr/bin/ssh"]

REAL = COMMON + """
export HOME=/tmp; cd /tmp; chmod 600 /key
curl -s -o file http://web.example:WEB4/file && echo "curl $(md5sum <file)"
curl -s -T file http://10.0.2.2:WEB4/put; curl -s http://10.0.2.2:WEB4/small http://10.0.2.2:WEB4/small
dig +short web.example; dig +short +tcp web.example; dig +short nothing.example
# The server ends its last test after the client of it has ended.
measure() { while iperf3 -c 10.0.2.2 -p IPERF "$@" >log 2>&1; [ $? != 0 ] && grep -q 'the server is busy' log; do sleep 0.1; done; grep error log; }
for words in "" "-R" "-P 4"; do measure -n 30M $words; echo "iperf3 $words"; done
measure -u -b 20M -t 1; echo "iperf3 -u"
rsync -a rsync://10.0.2.2:RSYNC/tree/ /tmp/tree && (cd tree && find . -type f | sort | xargs cat | md5sum)
git clone -q --template= git://10.0.2.2:GIT/repo.git && cat repo/hello
ssh -p SSH -i /key -o StrictHostKeyChecking=no -o LogLevel=ERROR root@10.0.2.2 'echo "ssh $(md5sum)"' <file
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
        # The name server answers over TCP at the same port.
        self.name_port = self.serve(socket.AF_INET, "127.0.0.1", self.resolve_stream, smolvm.free_port())
        self.names = self.answer(socket.AF_INET, "127.0.0.1", self.resolve, self.name_port)

    def serve(self, family, address, handler, port=0):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.bind((address, port))
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

    def resolve_stream(self, connection):
        with connection:
            size = int.from_bytes(connection.recv(2, socket.MSG_WAITALL), "big")
            reply = self.resolve(connection.recv(size, socket.MSG_WAITALL))
            connection.sendall(len(reply).to_bytes(2, "big") + reply)
            connection.recv(1)

    def answer(self, family, address, handler, port=0):
        server = socket.socket(family, socket.SOCK_DGRAM)
        server.bind((address, port))
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
            if request.startswith(b"PUT"):
                head, body = request.split(b"\r\n\r\n", 1)
                wanted = int(re.search(rb"Content-Length: (\d+)", head).group(1))
                if b"100-continue" in head:
                    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                while len(body) < wanted and (data := connection.recv(1 << 16)):
                    body += data
                answer = b"put %s\n" % hashlib.md5(body).hexdigest().encode()
                connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)
                return
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


class UserNetworkTest(smolvm.MachineTest):
    maxDiff = None

    def setUp(self):
        super().setUp()
        self.servers = Servers()
        self.addCleanup(self.servers.close)
        self.closed = smolvm.free_port()

    def add_programs(self, root):
        """Programs of the host with the libraries that they name."""
        for program in PROGRAMS:
            listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
            for file in [program] + re.findall(r"(/\S+) \(0x", listed):
                os.makedirs(root + os.path.dirname(file), exist_ok=True)
                shutil.copy(file, root + file)
            os.symlink(program, os.path.join(root, "bin", os.path.basename(program)))
        os.makedirs(root + "/usr/lib/git-core", exist_ok=True)
        os.symlink("/usr/bin/git", root + "/usr/lib/git-core/git")
        os.makedirs(root + "/tmp", exist_ok=True)
        with open(root + "/etc/passwd", "w", encoding="utf-8") as file:
            file.write("root:x:0:0:root:/tmp:/bin/sh\n")

    def initramfs(self, script, prepare=None):
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
        if prepare:
            prepare(root)
        image = self.path("root.cpio")
        with open(image, "wb") as out:
            names = subprocess.run(["find", "."], cwd=root, check=True, capture_output=True).stdout
            subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, check=True, input=names, stdout=out)
        return image

    def command(self, image, net):
        return [os.path.join(os.path.dirname(smolvm.SMOLVM), "smol-vmm"), "--accel", smolvm.ACCEL, "--kernel",
                smolvm.kernel_path("micro"), "--initramfs", image, "--memory", "size=512M", "--tables", "mp", "--serial", "off",
                "--console", "tty", "--net", net, "--cmdline", "console=hvc0 quiet reboot=t panic=-1"]

    def run_guest(self, script, options, on_ready=None, prepare=None):
        """The guest's lines; on_ready is called when it says `ready`."""
        dns = self.servers.names.getsockname()[1]
        command = self.command(self.initramfs(script, prepare), f"mode=user,dns=127.0.0.1:{dns}{options}")
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.env)
        self.addCleanup(self.end_process, process)
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

    @staticmethod
    def says_bye(port):
        """Whether the guest's listener answered: as long as it does not listen, the connection ends without a word."""
        with socket.create_connection(("127.0.0.1", port), timeout=smolvm.LIMIT) as connection:
            try:
                return connection.recv(3, socket.MSG_WAITALL) == b"bye"
            except ConnectionError:
                return False

    def test_both_ways(self):
        web, echo, done = smolvm.free_port(), smolvm.free_port(), smolvm.free_port()
        got = {}

        def reach():
            with socket.create_connection(("127.0.0.1", web), timeout=smolvm.LIMIT) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b""
                while data := connection.recv(4096):
                    answer += data
                got["web"] = answer.split(b"\r\n\r\n")[-1]
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
                datagrams.settimeout(1)
                for _ in range(60):
                    datagrams.sendto(b"echo", ("127.0.0.1", echo))
                    try:
                        got["echo"] = datagrams.recv(100)
                        break
                    except TimeoutError:
                        pass
            self.assertTrue(smolvm.wait_until(lambda: self.says_bye(done)), "the guest never listened at port 9")

        ports = f",publish=[tcp:127.0.0.1:{web}:80,udp:127.0.0.1:{echo}:7,{done}:9]"
        lines = self.run_guest(TALK, ports, reach)
        digest = hashlib.md5(self.servers.content).hexdigest() + "  -"
        self.assertEqual(lines, ["lease 10.0.2.15/24 10.0.2.2 10.0.2.3 1500", "10.0.2.2 answers", "fd00:0:0:2::2 answers", f"file {digest}",
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

    def daemon(self, command):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.env)

        def stop():
            process.terminate()
            process.wait()
        self.addCleanup(stop)

    def write(self, name, text, mode=0o600):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(self.path(name), mode)
        return self.path(name)

    def start_daemons(self):
        ports = {name: str(smolvm.free_port()) for name in ("IPERF", "RSYNC", "GIT", "SSH")}
        self.daemon(["iperf3", "-s", "-B", "127.0.0.1", "-p", ports["IPERF"]])
        tree = self.path("tree")
        content = b""
        for i in range(200):
            os.makedirs(f"{tree}/{i % 7}", exist_ok=True)
            with open(f"{tree}/{i % 7}/{i:03}", "wb") as file:
                file.write(os.urandom(i * 97))
        for folder, _, files in sorted(os.walk(tree)):
            for name in sorted(files):
                with open(os.path.join(folder, name), "rb") as file:
                    content += file.read()
        rsync = self.write("rsyncd.conf", f"use chroot = no\nuid = root\ngid = root\n[tree]\npath = {tree}\n")
        self.daemon(["rsync", "--daemon", "--no-detach", "--address", "127.0.0.1", "--port", ports["RSYNC"], "--config", rsync])
        git = ["git", "-c", "user.name=smol", "-c", "user.email=smol@example.org", "-C", self.path("work")]
        os.mkdir(self.path("work"))
        with open(self.path("work/hello"), "w", encoding="utf-8") as file:
            file.write("from the repository\n")
        for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"], ["clone", "-q", "--bare", ".", self.path("repo.git")]):
            subprocess.run(git + words, check=True, env=self.env)
        self.daemon(["git", "daemon", "--export-all", "--listen=127.0.0.1", "--port=" + ports["GIT"], "--base-path=" + self.folder])
        for name in ("key", "hostkey"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.path(name)], check=True)
        os.makedirs("/run/sshd", exist_ok=True)
        self.daemon(["/usr/sbin/sshd", "-D", "-f", self.write("sshd_config", f"""ListenAddress 127.0.0.1:{ports["SSH"]}
HostKey {self.path("hostkey")}\nAuthorizedKeysFile {self.path("key.pub")}\nStrictModes no\nPermitRootLogin yes\nUsePAM no\nPidFile none
""")])
        for name, port in ports.items():
            self.assertTrue(smolvm.wait_until(lambda port=port: smolvm.listens(int(port))), name)
        return ports, hashlib.md5(content).hexdigest()

    @unittest.skipUnless(os.geteuid() == 0 and all(map(os.path.exists, PROGRAMS + ["/usr/sbin/sshd"])), "programs are missing")
    def test_real_programs(self):
        ports, tree = self.start_daemons()
        script = REAL
        for word, port in ports.items():
            script = script.replace(word, port)

        def prepare(root):
            self.add_programs(root)
            shutil.copy(self.path("key"), root + "/key")
        lines = self.run_guest(script, "", prepare=prepare)
        digest = hashlib.md5(self.servers.content).hexdigest()
        self.assertEqual(lines, ["lease 10.0.2.15/24 10.0.2.2 10.0.2.3 1500", f"curl {digest}  -", f"put {digest}", "small from the host",
                                 "small from the host", "10.0.2.2", "10.0.2.2", "iperf3", "iperf3 -R", "iperf3 -P 4", "iperf3 -u",
                                 f"{tree}  -", "from the repository", f"ssh {digest}  -", "END"], self.error)

    def test_taken_port(self):
        with socket.socket() as taken:
            port = smolvm.free_port()
            taken.bind(("127.0.0.1", port))
            taken.listen()
            command = self.command("/dev/null", f"mode=user,publish=[{port}:80]")
            done = subprocess.run(command, capture_output=True, text=True, timeout=smolvm.LIMIT, env=self.env, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(f"cannot publish the port tcp:127.0.0.1:{port}:80: Address already in use", done.stderr)


if __name__ == "__main__":
    smolvm.main()
