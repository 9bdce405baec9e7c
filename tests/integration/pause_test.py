#!/usr/bin/env python3
"""A paused machine stands still: while its guest writes to a disk, a shared directory and the network, it is paused at moments that nobody
chose. Guest memory, disk, directory and counters do not change until it goes on, and then nothing is missing."""
import hashlib
import os
import socket
import threading
import time
import unittest

import smolvm
import vmm_guest

BLOCK = 512
ROUNDS = 6
# Every writer counts; a record that was lost or made twice shows.
SCRIPT = """
mount -t 9p -o trans=virtio,version=9p2000.L,msize=65536 smol /mnt || echo 'no mount'
ip link set lo up; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2
running() { [ ! -e /mnt/s/stop ]; }
( i=0; while running; do printf '%-512s' "block $i" | dd of=/dev/vda bs=512 seek=$i conv=notrunc,fsync 2>/dev/null || echo 'no disk'; i=$((i + 1)); done
  echo "blocks $i" ) &
( while running; do dd if=/dev/zero of=/dev/vda bs=256k seek=16 count=4 conv=notrunc,fsync 2>/dev/null; done ) &
( i=0; while running; do echo "line $i" >>/mnt/s/log || echo 'no share'; i=$((i + 1)); done; echo "lines $i" ) &
( i=0; while running; do echo "$i"; i=$((i + 1)); usleep 1000; done | nc 10.0.2.2 PORT; echo sent ) &
for n in 1 2 3; do ( while running; do dd if=/dev/zero of=/mnt/s/bulk$n bs=500k count=3 conv=fsync 2>/dev/null; done ) & done
( while running; do head -c 300000 /dev/urandom >/tmp/noise; done ) &
echo START
wait
"""


class Receiver(threading.Thread):
    """Takes one connection and keeps what comes."""

    def __init__(self):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.data = b""

    def run(self):
        with self.listener:
            connection, _ = self.listener.accept()
        with connection:
            try:
                while piece := connection.recv(65536):
                    self.data += piece
            except ConnectionResetError:  # the machine ended in the middle
                pass

    def lines(self):
        return self.data.decode().split("\n")[:-1]


class PauseTest(vmm_guest.GuestTest):
    def setUp(self):
        super().setUp()
        self.share = self.path("share")
        os.mkdir(self.share)
        self.disk = self.path("disk.img", bytes(8 << 20))
        self.socket = self.path("api")

    def digest(self, path):
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def guest_memory(self, pid):
        """The descriptor of the guest's memory, which the monitor keeps."""
        folder = f"/proc/{pid}/fd"
        found = []
        for name in os.listdir(folder):
            try:
                if os.readlink(os.path.join(folder, name)).startswith("/memfd:guest-memory"):
                    found.append(os.path.join(folder, name))
            except FileNotFoundError:
                pass  # a file of the share that the guest has closed since
        self.assertEqual(len(found), 1)
        return found[0]

    def log(self):
        try:
            with open(os.path.join(self.share, "log"), encoding="ascii") as file:
                return file.read().split("\n")[:-1]
        except FileNotFoundError:
            return []

    def blocks(self):
        """How many whole numbered blocks there are at the disk's start. (One that is being written may be there in part.)"""
        with open(self.disk, "rb") as file:
            data = file.read(4 << 20)
        count = 0
        while data[count * BLOCK:(count + 1) * BLOCK] == f"block {count}".ljust(BLOCK).encode():
            count += 1
        return count

    def state(self, api, memory):
        # What changes first is looked at first.
        return {"counters": api.get("vm.counters"), "memory": self.digest(memory), "disk": self.digest(self.disk), "log": self.log()}

    def progress(self):
        return len(self.log()), self.blocks(), len(self.receiver.lines())

    def wait_for_more(self, guest, than, by):
        def there():
            self.assertIsNone(guest.process.poll(), guest.lines)
            return all(now >= before + by for now, before in zip(self.progress(), than))
        self.assertTrue(smolvm.wait_until(there, smolvm.LIMIT), f"{self.progress()} after {than}: {guest.lines}")

    def test_nothing_moves_and_nothing_is_lost(self):
        self.receiver = Receiver()
        self.receiver.start()
        published = smolvm.free_port()
        guest = self.start_guest(SCRIPT.replace("PORT", str(self.receiver.port)), "--disk", f"path={self.disk}", "--share", f"tag=s,path={self.share}",
                                 "--net", f"mode=user,publish=udp:127.0.0.1:{published}:9", "--api-socket", f"path={self.socket}",
                                 "--after-reset", "end", memory="64M,shared=on")
        self.assertTrue(guest.wait_line("START"))
        api = vmm_guest.Api(self.socket)
        memory = self.guest_memory(guest.process.pid)
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(sender.close)
        for _ in range(ROUNDS):
            self.wait_for_more(guest, self.progress(), 3)
            self.assertEqual(api.put("vm.pause", None)[0], 204)
            before = self.state(api, memory)
            for number in range(50):  # frames that a device which is not paused would give the guest
                sender.sendto(f"datagram {number}".encode() * 20, ("127.0.0.1", published))
            time.sleep(0.2)  # what still moves has the time to
            after = self.state(api, memory)
            for part, value in before.items():
                self.assertEqual(after[part], value, part)
            self.assertEqual(api.put("vm.resume", None)[0], 204)
        self.wait_for_more(guest, self.progress(), 3)
        with open(os.path.join(self.share, "stop"), "wb"):
            pass
        lines = guest.end()
        self.assertEqual(lines[-1], "END", lines)
        told = {line.split()[0]: int(line.split()[1]) for line in lines if line.startswith(("blocks ", "lines "))}
        self.assertEqual(self.log(), [f"line {number}" for number in range(told["lines"])])
        self.assertEqual(self.blocks(), told["blocks"])
        self.receiver.join(smolvm.LIMIT)
        numbers = self.receiver.lines()
        self.assertEqual(numbers, [str(number) for number in range(len(numbers))])
        self.assertFalse([line for line in lines if line.startswith("no ")], lines)

    def test_a_machine_ends_while_it_is_paused(self):
        self.receiver = Receiver()
        self.receiver.start()
        guest = self.start_guest(SCRIPT.replace("PORT", str(self.receiver.port)), "--disk", f"path={self.disk}", "--share", f"tag=s,path={self.share}",
                                 "--net", "mode=user", "--api-socket", f"path={self.socket}", memory="64M")
        self.assertTrue(guest.wait_line("START"))
        self.wait_for_more(guest, (0, 0, 0), 1)
        api = vmm_guest.Api(self.socket)
        self.assertEqual(api.put("vm.pause", None)[0], 204)
        self.assertEqual(api.put("vmm.shutdown", None)[0], 204)
        guest.end()
        self.assertEqual(guest.process.returncode, 0)


if __name__ == "__main__":
    unittest.TestCase.maxDiff = 2000
    smolvm.main()
