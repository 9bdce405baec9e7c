#!/usr/bin/env python3
"""virtio-net under Linux's own driver: two machines on one segment, which find each other by name, and a driver that is unbound and
bound again under load. smol-vmm is run itself, with an initramfs of BusyBox and one script."""
import os
import shutil
import subprocess
import threading

import smolvm

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
until nc server 82 </dev/null 2>/dev/null; do sleep 0.1; done
echo END
"""

LEASE = """#!/bin/busybox sh
[ "$1" = bound ] || exit 0
ip addr add $ip/$mask dev $interface; echo "nameserver $dns" >/etc/resolv.conf; echo "lease $ip/$mask $dns $hostname"
"""


class NetworkTest(smolvm.MachineTest):
    maxDiff = None

    def initramfs(self, name, script):
        root = self.path(name)
        for folder in ("bin", "dev", "proc", "sys", "etc"):
            os.makedirs(os.path.join(root, folder))
        shutil.copy("/bin/busybox", os.path.join(root, "bin"))
        for file, text in (("init", script.replace("SIZE", str(SIZE))), ("lease", LEASE)):
            with open(os.path.join(root, file), "w", encoding="utf-8") as out:
                out.write(text)
            os.chmod(os.path.join(root, file), 0o755)
        image = self.path(name + ".cpio")
        with open(image, "wb") as out:
            names = subprocess.run(["find", "."], cwd=root, check=True, capture_output=True).stdout
            subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, check=True, input=names, stdout=out)
        return image

    def start(self, name, script, net):
        command = [os.path.join(os.path.dirname(smolvm.SMOLVM), "smol-vmm"), "--accel", smolvm.ACCEL, "--kernel",
                   smolvm.kernel_path("micro"), "--initramfs", self.initramfs(name, script), "--memory", "size=128M", "--tables", "mp",
                   "--serial", "off", "--console", "tty", "--net", net, "--cmdline", "console=hvc0 quiet reboot=t panic=-1"]
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
