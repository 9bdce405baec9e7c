#!/usr/bin/env python3
"""The virtio devices under Linux's own drivers: requests, bulk data, and drivers that are unbound and bound again in
the middle of their work. smol-vmm is run itself, with an initramfs of BusyBox and one script."""
import hashlib
import os
import shutil
import socket
import subprocess
import threading
import time

import smolvm

TOTAL = 3_000_000
PERIOD = bytes((i * 7 + (i >> 8)) & 255 for i in range(65536)) * 2  # vsock_peer.c's pattern repeats every 65,536 bytes

SCRIPT = f"""#!/bin/busybox sh
/bin/busybox mount -t proc none /proc; /bin/busybox mount -t sysfs none /sys; /bin/busybox mount -t devtmpfs none /dev
export PATH=/bin; /bin/busybox --install -s /bin
exec >/dev/hvc0 2>&1 </dev/hvc0
echo "serial $(cat /sys/block/vda/serial)"
echo "before $(md5sum </dev/vda)"
echo "random $(head -c 1000 /dev/hwrng | wc -c)"
yes smol | head -c 1048576 | dd of=/dev/vda bs=4096 seek=256 conv=notrunc,fsync 2>/dev/null
echo "after $(md5sum </dev/vda)"
echo "read-only $(md5sum </dev/vdb)"
echo x 2>/dev/null >/dev/vdb && echo "read-only disk written"
for round in 1 2 3; do
  dd if=/dev/vda of=/dev/null bs=64k 2>/dev/null &
  for d in virtio_blk:virtio1 virtio_rng:virtio3 vmw_vsock_virtio_transport:virtio4; do
    echo ${{d#*:}} >/sys/bus/virtio/drivers/${{d%:*}}/unbind && echo ${{d#*:}} >/sys/bus/virtio/drivers/${{d%:*}}/bind || echo "no $d"
  done
  wait
done
# A disk that was open while it was bound again has another name now: once more, with nobody using it.
echo virtio1 >/sys/bus/virtio/drivers/virtio_blk/unbind; echo virtio1 >/sys/bus/virtio/drivers/virtio_blk/bind
echo "again $(md5sum </dev/vda)"
for i in $(seq 500); do echo "line $i $(printf '%060d' $i)"; done
vsock_peer connect 1000 {TOTAL}; echo "status $?"
vsock_peer connect 1001 1; echo "status $?"
vsock_peer listen 1002 {TOTAL}; echo "status $?"
echo END
"""


def exchange(stream, results, name):
    def send():
        for start in range(0, TOTAL, 65536):
            stream.sendall(PERIOD[:min(65536, TOTAL - start)])
        stream.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    received, good = 0, True
    while data := stream.recv(65536):
        good = good and data == PERIOD[received % 65536:received % 65536 + len(data)]
        received += len(data)
    sender.join()
    results[name] = (received, good)


class DevicesTest(smolvm.MachineTest):
    def initramfs(self):
        root = self.path("root")
        for folder in ("bin", "dev", "proc", "sys"):
            os.makedirs(os.path.join(root, folder))
        shutil.copy("/bin/busybox", os.path.join(root, "bin"))
        source = os.path.join(smolvm.SOURCE, "tests/integration/vsock_peer.c")
        subprocess.run(["musl-gcc", "-static", "-O2", "-idirafter", "/usr/include", "-idirafter", "/usr/include/x86_64-linux-gnu",
                        "-o", os.path.join(root, "bin/vsock_peer"), source], check=True)
        with open(os.path.join(root, "init"), "w", encoding="utf-8") as init:
            init.write(SCRIPT)
        os.chmod(os.path.join(root, "init"), 0o755)
        image = self.path("initramfs.cpio")
        with open(image, "wb") as out:
            names = subprocess.run(["find", "."], cwd=root, check=True, capture_output=True).stdout
            subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, check=True, input=names, stdout=out)
        return image

    def disk(self, name, size):
        path = self.path(name)
        content = os.urandom(size)
        with open(path, "wb") as file:
            file.write(content)
        return path, content

    def host_side(self, name, results):
        """A listener for the guest's connection, then a connection to the guest's listener."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"\0{name}_1000")
        listener.listen(1)
        listener.settimeout(smolvm.LIMIT)

        def run():
            with listener, listener.accept()[0] as stream:
                exchange(stream, results, "guest connects")
            deadline = time.monotonic() + smolvm.LIMIT
            while time.monotonic() < deadline:
                with socket.socket(socket.AF_UNIX) as stream:
                    stream.connect(f"\0{name}")
                    stream.sendall(b"CONNECT 1002\n")
                    if stream.recv(3, socket.MSG_WAITALL) != b"OK ":  # nobody listens yet
                        time.sleep(0.1)
                        continue
                    while stream.recv(1) != b"\n":
                        pass
                    return exchange(stream, results, "host connects")

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def test_devices_under_linux(self):
        disk, before = self.disk("a.img", 4 << 20)
        read_only, fixed = self.disk("b.img", 1 << 20)
        name, results = f"smol-devices-test-{os.getpid()}", {}
        host = self.host_side(name, results)
        command = [os.path.join(os.path.dirname(smolvm.SMOLVM), "smol-vmm"), "--accel", smolvm.ACCEL, "--kernel",
                   smolvm.kernel_path("micro"), "--initramfs", self.initramfs(), "--memory", "size=128M", "--tables", "mp",
                   "--serial", "off", "--console", "tty", "--disk", f"path={disk},serial=the-serial", "--disk",
                   f"path={read_only},readonly=on", "--vsock", f"cid=3,socket=@{name}",
                   "--cmdline", "console=hvc0 quiet reboot=t panic=-1"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=smolvm.LIMIT, env=self.env, check=False)
        host.join(smolvm.LIMIT)
        lines = done.stdout.decode(errors="replace").replace("\r", "").splitlines()
        after = before[:1 << 20] + (b"smol\n" * 209716)[:1 << 20] + before[2 << 20:]
        with open(disk, "rb") as file:
            self.assertEqual(file.read(), after, "the image")
        digest = lambda content: hashlib.md5(content).hexdigest()
        wanted = ["serial the-serial", f"before {digest(before)}  -", "random 1000", f"after {digest(after)}  -",
                  f"read-only {digest(fixed)}  -", f"again {digest(after)}  -", *(f"line {i} {i:060d}" for i in range(1, 501)),
                  f"connect: sent {TOTAL}, received {TOTAL}", "status 0", "connect: Connection reset by peer", "status 1",
                  f"listen: sent {TOTAL}, received {TOTAL}", "status 0", "END"]
        at = lines.index(wanted[0]) if wanted[0] in lines else 0
        self.assertEqual([line for line in lines[at:] if not line.startswith("[")][:len(wanted)], wanted, done.stderr[-2000:])
        self.assertEqual(results, {"guest connects": (TOTAL, True), "host connects": (TOTAL, True)})


if __name__ == "__main__":
    smolvm.main()
