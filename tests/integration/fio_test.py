#!/usr/bin/env python3
"""Disks under fio, which keeps many requests under way and checks every block that it wrote: raw and qcow2, one queue and two.
The guest has Debian's fio with its libraries on a disk of its own."""
import os
import re
import shutil
import subprocess

import disk_test
import smolvm

JOB = disk_test.HEAD + """
mount -t ext4 -o ro /dev/vda /mnt && mount -t proc proc /mnt/proc && mount -t devtmpfs dev /mnt/dev && mount -t tmpfs tmp /mnt/tmp || exit 1
fio() { chroot /mnt /bin/sh -c 'cd /tmp; exec /bin/fio --name=job --filename=/dev/vdb --direct=1 --ioengine=libaio --thread --iodepth=16 --eta=never "$@"' - "$@"; }
fio --rw=randrw --bsrange=4k-64k --size=12M --verify=crc32c --do_verify=1 --verify_fatal=1 --output=/tmp/log; echo "random $?"
fio --rw=randtrimwrite --bs=4k --size=4M --offset=16M --output=/tmp/log; echo "trim $?"
fio --rw=write --bs=1M --size=8M --offset=20M --verify=crc32c --do_verify=1 --verify_fatal=1 --fsync=4 --output=/tmp/log; echo "sequential $?"
cat /mnt/tmp/log | grep -c 'err= 0'
"""


class FioTest(disk_test.DiskCase):
    def setUp(self):
        super().setUp()
        tree = self.path("tools")
        for folder in ("bin", "dev", "proc", "tmp"):
            os.makedirs(os.path.join(tree, folder))
        fio = shutil.which("fio")
        listed = subprocess.run(["ldd", fio], check=True, capture_output=True, text=True).stdout
        for file in re.findall(r"(/\S+) \(0x", listed):
            os.makedirs(tree + os.path.dirname(file), exist_ok=True)
            shutil.copy(file, tree + file)
        shutil.copy(fio, tree + "/bin/fio")
        shutil.copy("/bin/busybox", tree + "/bin/sh")
        self.tools = self.path("tools.ext4")
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, self.tools, "160M"], stdout=subprocess.DEVNULL, check=True)

    def check(self, options):
        process = subprocess.Popen(
            [os.path.join(os.path.dirname(smolvm.SMOLVM), "smol-vmm"), "--accel", smolvm.ACCEL, "--tables", "mp", "--memory", "size=192M",
             "--kernel", smolvm.kernel_path("micro"), "--initramfs", self.initramfs(JOB), "--cmdline",
             "console=ttyS0 quiet reboot=t panic=-1 smol.exec=/job", "--serial", "tty",
             "--disk", f"path={self.tools},readonly=on,image_type=raw", "--disk", f"path={self.image},{options}"],
            env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(self.end_process, process)
        out, err = process.communicate(timeout=smolvm.LIMIT)
        lines = out.decode(errors="replace").replace("\r", "").splitlines()
        self.assertEqual([line for line in lines if re.match(r"(random|trim|sequential) |\d+$", line)],
                         ["random 0", "trim 0", "sequential 0", "1"], out.decode(errors="replace") + err.decode(errors="replace"))

    def test_raw(self):
        with open(self.image, "wb"):
            os.truncate(self.image, 32 << 20)
        self.check("image_type=raw")

    def test_qcow2_with_two_queues(self):
        self.qemu_img("create", "-q", "-f", "qcow2", self.image, "32M")
        self.check("image_type=qcow2,num_queues=2")
        self.qemu_img("check", "-f", "qcow2", self.image)


if __name__ == "__main__":
    smolvm.main()
