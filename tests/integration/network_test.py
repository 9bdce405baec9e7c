#!/usr/bin/env python3
"""virtio-net under Linux's own driver: two machines on one segment, which find each other by name, and a driver that is unbound and
bound again under load. smol-vmm is run itself, with an initramfs of BusyBox and one script."""
import os
import shutil
import subprocess
import threading

import smolvm
import vmm_guest

SIZE = 3_000_000

COMMON = """#!/bin/busybox sh
/bin/busybox mount -t proc none /proc; /bin/busybox mount -t sysfs none /sys; /bin/busybox mount -t devtmpfs none /dev
export PATH=/bin; /bin/busybox --install -s /bin
exec >/dev/hvc0 2>&1 </dev/null
ip link set lo up; ip link set eth0 up
"""

# Leases its address, serves a file under its name, and waits to be told that all is done.
SERVER = COMMON + """
udhcpc -q -n -t 30 -i eth0 -s /lease >/dev/null 2>&1 || echo "no lease"
echo "address $(ip -4 -o addr show eth0 | sed 's/.*inet \\([^ ]*\\).*/\\1/')"
yes smol | head -c SIZE >/file
(while true; do nc -l -p 81 </file 2>/dev/null; done) &
mkfifo /hold  # an input without an end: nc would end the connection with it
nc -l -p 80 <>/hold >/got
echo "got $(md5sum </got)"
nc -l -p 82 <>/hold >/dev/null
echo END
"""

CLIENT = COMMON + """
udhcpc -q -n -t 30 -i eth0 -s /lease >/dev/null 2>&1 || echo "no lease"
mkfifo /hold
answers() { i=0; until ping -q -c 1 -W 5 $1 >/dev/null || [ $i = 50 ]; do i=$((i + 1)); sleep 0.1; done; [ $i != 50 ] && echo "$1 answers"; }
answers 10.88.0.1
i=0; until nslookup server >/dev/null || [ $i = 500 ]; do i=$((i + 1)); sleep 0.1; done
answers server
answers server.network
nslookup nobody | grep -q NXDOMAIN && echo "nobody is nobody"
nslookup 10.88.0.2 | grep -o 'server.network'
get() { i=0; until nc server 81 <>/hold 2>/dev/null >$1 || [ $i = 500 ]; do i=$((i + 1)); sleep 0.1; done; }
get /file
echo "file $(md5sum </file)"
until nc server 80 </file 2>/dev/null; do sleep 0.1; done
# Unbound in the middle of receiving, twice; the link works again each time.
for round in 1 2; do
  timeout 3 nc server 81 <>/hold 2>/dev/null >/dev/null &
  sleep 0.1
  echo virtio1 >/sys/bus/virtio/drivers/virtio_net/unbind; echo virtio1 >/sys/bus/virtio/drivers/virtio_net/bind
  wait
  ip link set eth0 up; udhcpc -q -n -t 30 -i eth0 -s /lease >/dev/null 2>&1
done
get /again
echo "again $(md5sum </again)"
echo "dropped $(cat /sys/class/net/eth0/statistics/rx_errors)"
# The server's last words may be lost with its machine: they are not waited for without end.
until timeout 10 nc server 82 </dev/null 2>/dev/null || [ $? -ge 124 ]; do sleep 0.1; done
echo END
"""

# Answers pings until it is ended.
PEER = COMMON + """
udhcpc -q -n -i eth0 -s /lease >/dev/null 2>&1 || echo "no lease"
echo ready; sleep 100000
"""

# With two queue pairs an interface, one, and two again: pings from each CPU, which each have a pair.
PAIRS = COMMON + """
spread() { # INTERFACE ADDRESS PAIRS
  channels $1 $3
  for mask in 2 1; do  # ping does not wait long for its last answers
    received=$(taskset $mask ping -q -c 30 -i 0.02 $2 | sed -n 's/.* \\([0-9]*\\) packets received.*/\\1/p')
    [ $received -ge 25 ] && echo "answers come" || echo "$received of 30"
  done
}
udhcpc -q -n -t 30 -i eth0 -s /lease >/dev/null 2>&1 || echo "no lease"
mkfifo /hold
i=0; until nslookup peer >/dev/null || [ $i = 300 ]; do i=$((i + 1)); sleep 0.1; done
for pairs in 2 1 2; do spread eth0 peer $pairs; done
if ip link set eth1 up 2>/dev/null; then
  ip addr add 10.254.252.2/24 dev eth1; ping -q -c 1 -W 30 10.254.252.1 >/dev/null
  for pairs in 2 1 2; do spread eth1 10.254.252.1 $pairs; done
fi
echo done; sleep 100000
"""

LEASE = """#!/bin/busybox sh
[ "$1" = bound ] || exit 0
ip addr add $ip/$mask dev $interface; echo "nameserver $dns" >/etc/resolv.conf; echo "lease $ip/$mask $dns $hostname"
"""


class NetworkTest(smolvm.MachineTest):
    maxDiff = None

    def initramfs(self, name, script, programs=()):
        root = self.path(name)
        for folder in ("bin", "dev", "proc", "sys", "etc"):
            os.makedirs(os.path.join(root, folder))
        shutil.copy("/bin/busybox", os.path.join(root, "bin"))
        for program in programs:
            vmm_guest.compile_program(program, os.path.join(root, "bin", program.removesuffix(".c")))
        for file, text in (("init", script.replace("SIZE", str(SIZE))), ("lease", LEASE)):
            with open(os.path.join(root, file), "w", encoding="utf-8") as out:
                out.write(text)
            os.chmod(os.path.join(root, file), 0o755)
        image = self.path(name + ".cpio")
        with open(image, "wb") as out:
            names = subprocess.run(["find", "."], cwd=root, check=True, capture_output=True).stdout
            subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, check=True, input=names, stdout=out)
        return image

    def start(self, name, script, *nets, programs=(), prefix=(), cpus=1, api=None):
        command = [*prefix, os.path.join(os.path.dirname(smolvm.SMOLVM), "smol-vmm"), "--accel", smolvm.ACCEL, "--kernel",
                   smolvm.kernel_path("micro" if cpus == 1 else "full"), "--initramfs", self.initramfs(name, script, programs),
                   "--memory", "size=128M", "--cpus", f"boot={cpus}", "--tables", "mp",
                   "--serial", "off", "--console", "tty", "--cmdline", "console=hvc0 quiet reboot=t panic=-1"]
        for net in nets:
            command += ["--net", net]
        command += ["--api-socket", f"path={api}"] if api else []
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.env)
        self.addCleanup(self.end_process, process)
        return process

    def finish(self, process):
        timer = threading.Timer(smolvm.LIMIT, process.kill)
        timer.start()
        out, err = process.communicate()
        timer.cancel()
        lines = out.decode(errors="replace").replace("\r", "").splitlines()
        return [line for line in lines if not line.startswith("[")], err.decode(errors="replace")

    def test_two_machines_on_a_segment(self):
        segment = self.path("net")
        server = self.start("server", SERVER, f"mode=segment,segment={segment},name=server,ip=10.88.0.2,mac=52:54:00:00:00:02")
        client = self.start("client", CLIENT, f"mode=segment,segment={segment},name=client,ip=10.88.0.3,mac=52:54:00:00:00:03")
        client_lines, client_error = self.finish(client)
        server_lines, server_error = self.finish(server)
        digest = subprocess.run(f"yes smol | head -c {SIZE} | md5sum", shell=True, check=True, capture_output=True, text=True).stdout.strip()
        self.assertEqual(client_lines, ["10.88.0.1 answers", "server answers", "server.network answers", "nobody is nobody",
                                        "server.network", f"file {digest}", f"again {digest}", "dropped 0", "END"],
                         (client_error, server_lines, server_error))
        self.assertEqual(server_lines, ["address 10.88.0.2/16", f"got {digest}", "END"], server_error)
        self.assertEqual(os.listdir(segment), [".lock"], "the members' sockets are gone")

    def test_answers_come_to_the_queue_pair_that_asked(self):
        segment = self.path("net")
        nets = [f"mode=segment,segment={segment},name=pairs,ip=10.88.0.3,num_queues=4"]
        # The TAP is in a network namespace of the monitor's own.
        make = "import fcntl, struct; fcntl.ioctl(open('/dev/net/tun', 'r+b', 0), 0x400454CA, struct.pack('16sH22x', b'', 0x5102))"
        has_tap = subprocess.run(["unshare", "-n", "python3", "-c", make], capture_output=True, check=False).returncode == 0
        if has_tap:
            nets.append("tap=smoltest,ip=10.254.252.1,mask=255.255.255.0,num_queues=4")
        peer = self.start("peer", PEER, f"mode=segment,segment={segment},name=peer,ip=10.88.0.2")
        api = self.path("api.sock")
        self.addCleanup(peer.communicate)
        self.addCleanup(peer.kill)
        pairs = self.start("pairs", PAIRS, *nets, programs=["channels.c"], prefix=["unshare", "-n"] if has_tap else [], cpus=2, api=api)
        self.addCleanup(pairs.communicate)
        self.addCleanup(pairs.kill)
        expected = [line for one in ["eth0", "eth1"][:len(nets)] for used in (2, 1, 2)
                    for line in [f"{one} uses {used} of 2 pairs"] + ["answers come"] * 2]
        for process, last in ((peer, "ready"), (pairs, "done")):
            timer = threading.Timer(smolvm.LIMIT, process.kill)
            timer.start()
            lines = []
            while lines[-1:] != [last] and (line := process.stdout.readline()):
                lines += [line.decode(errors="replace").strip()] if not line.startswith(b"[") else []
            timer.cancel()
            self.assertEqual(lines, (expected if process is pairs else []) + [last])
        counters = vmm_guest.Api(api).get("vm.counters")
        for i in range(len(nets)):
            # The second CPU's pings and their answers, but for the time in which one pair was in use; a few frames more of other kinds.
            seen = counters[f"_net{i}"]
            for direction in ("rx", "tx"):
                self.assertTrue(50 <= seen[f"{direction}_frames_other_pairs"] < 90 <= 150 <= seen[f"{direction}_frames"], seen)

    def test_refusals(self):
        monitor = os.path.join(os.path.dirname(smolvm.SMOLVM), "smol-vmm")
        for net, words in (("mode=segment", "needs segment=DIR"),
                           ("tap=smol-no-such-network-device", "cannot be a network device's name"),
                           ("mode=segment,segment=/proc/none/x", "cannot make the segment's directory /proc/none/x"),
                           ("fd=77", "descriptor 77 cannot be used as a TAP")):
            done = subprocess.run([monitor, "--accel", smolvm.ACCEL, "--kernel", smolvm.kernel_path("micro"), "--serial", "off", "--net", net],
                                  capture_output=True, text=True, timeout=smolvm.LIMIT, env=self.env, check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(words, done.stderr)


if __name__ == "__main__":
    smolvm.main()
