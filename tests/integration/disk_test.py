#!/usr/bin/env python3
"""Disks under Linux: a qcow2 overlay with a file system, a monitor that is killed while the guest writes, a full host,
and disks that are refused. smol-vmm is run itself, with the default image and a script in it."""
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import unittest

import smolvm

HEAD = """#!/bin/sh
mount -t devtmpfs dev /dev 2>/dev/null
"""
# Each block is written with its own number and synced before the number is told.
WRITER = HEAD + """i=0
while :; do
  i=$((i + 1))
  printf '%-4096s' "block $i" | dd of=/dev/vda bs=4096 seek=$((i * 37 % 2000)) conv=notrunc,fsync 2>/dev/null || echo failed
  echo "synced $i"
done
"""
FULL = HEAD + """
dd if=/dev/zero bs=64k count=16 2>/dev/null | tr '\\0' x | dd of=/dev/vda bs=64k conv=notrunc,fsync 2>/dev/null && echo "first part written"
dd if=/dev/zero bs=64k count=512 2>/dev/null | tr '\\0' y | dd of=/dev/vda bs=64k seek=16 conv=notrunc,fsync 2>/dev/null || echo "no more"
dd if=/dev/vda bs=64k count=16 2>/dev/null | md5sum
echo alive
"""
FILES = HEAD + """
mkdir -p /mnt; mount -t ext4 /dev/vda /mnt || exit 1
cat /mnt/kept; cp -a /bin /mnt/copy; echo "$RANDOM" >/mnt/new; sync
umount /mnt; echo done
"""


class DiskCase(smolvm.MachineTest):
    """A disk image, and an initial root with a script."""
    ENDED = 3  # the guest ends by a triple fault (reboot=t)

    def setUp(self):
        super().setUp()
        self.image = self.path("disk.qcow2")

    def qemu_img(self, *words, ok=(0,)):
        done = subprocess.run(["qemu-img", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        self.assertIn(done.returncode, ok, done.stdout)
        return done.stdout

    def initramfs(self, script):
        """The default image with the script in it as /job."""
        tree = self.path("tree")
        shutil.rmtree(tree, ignore_errors=True)
        os.mkdir(tree)
        with open(os.path.join(tree, "job"), "w", encoding="utf-8") as job:
            job.write(script)
        os.chmod(os.path.join(tree, "job"), 0o755)
        archive = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], input=b"job", cwd=tree, check=True, capture_output=True).stdout
        with open(os.environ["SMOL_IMAGE"], "rb") as file:
            base = file.read()
        path = self.path("job.cpio")
        with open(path, "wb") as out:
            out.write(base + b"\0" * (-len(base) % 4) + archive)
        return path


class DiskTest(DiskCase):
    def start(self, script, disk):
        process = subprocess.Popen(
            [os.path.join(os.path.dirname(smolvm.SMOLVM), "smol-vmm"), "--accel", smolvm.ACCEL, "--tables", "mp", "--memory", "size=64M",
             "--kernel", smolvm.kernel_path("micro"), "--initramfs", self.initramfs(script), "--cmdline",
             "console=ttyS0 quiet reboot=t panic=-1 smol.exec=/job", "--serial", "tty", "--disk", disk],
            env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(self.end_process, process)
        return process

    def run_script(self, script, disk):
        process = self.start(script, disk)
        out, err = process.communicate(timeout=smolvm.LIMIT)
        return process.returncode, out.decode(errors="replace").replace("\r", ""), err.decode(errors="replace")

    def blocks_are_there(self, fmt, synced):
        """Every block has the last number that was told for its place, or one that was under way."""
        raw = self.path("out.raw")
        self.qemu_img("convert", "-f", fmt, "-O", "raw", self.image, raw)
        with open(raw, "rb") as file:
            content = file.read()
        last = {}
        for i in range(1, synced + 1):
            last[i * 37 % 2000] = i
        for place, number in last.items():
            block = content[place * 4096:(place + 1) * 4096]
            if place == (synced + 1) * 37 % 2000:
                continue  # may have been overwritten in part
            self.assertEqual(block, f"block {number}".encode().ljust(4096), f"block {number} at {place}")

    def in_memory(self):
        """What a killed process wrote is there without any disk, so the tests need not wait for one."""
        folder = tempfile.TemporaryDirectory(dir="/dev/shm")
        self.addCleanup(folder.cleanup)
        self.image = os.path.join(folder.name, "disk")

    def killed_while_writing(self, fmt, disk):
        process = self.start(WRITER, disk)
        synced, deadline = 0, time.monotonic() + smolvm.LIMIT
        while synced < 25:
            self.assertLess(time.monotonic(), deadline)
            match = re.match(rb"synced (\d+)", process.stdout.readline().strip())
            synced = int(match.group(1)) if match else synced
        process.kill()
        rest, _ = process.communicate()
        for match in re.finditer(rb"synced (\d+)\r?\n", rest):
            synced = int(match.group(1))
        if fmt == "qcow2":
            self.qemu_img("check", "-f", "qcow2", self.image, ok=(0, 3))  # 3: leaks, nothing else
        self.blocks_are_there(fmt, synced)

    def test_killed_while_writing_qcow2(self):
        self.in_memory()
        self.qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4096", self.image, "16M")
        for _ in range(2):  # each on what the last one left
            self.killed_while_writing("qcow2", f"path={self.image}")

    def test_killed_while_writing_raw(self):
        self.in_memory()
        with open(self.image, "wb"):
            os.truncate(self.image, 16 << 20)
        self.killed_while_writing("raw", f"path={self.image},image_type=raw")

    def test_a_file_system_on_an_overlay(self):
        base, tree = self.path("base.raw", b""), self.path("files")
        os.mkdir(tree)
        with open(os.path.join(tree, "kept"), "w", encoding="utf-8") as file:
            file.write("kept since\n")
        os.truncate(base, 32 << 20)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, base], check=True)
        self.qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", self.image)
        with open(base, "rb") as file:
            before = file.read()
        for _ in range(2):
            status, out, err = self.run_script(FILES, f"path={self.image},image_type=qcow2,backing_files=on,num_queues=2")
            self.assertEqual((status, "kept since\n" in out, "done\n" in out), (self.ENDED, True, True), out + err)
            self.qemu_img("check", "-f", "qcow2", self.image)
        with open(base, "rb") as file:
            self.assertEqual(file.read(), before, "the base is as it was")
        raw = self.path("out.raw")
        self.qemu_img("convert", "-f", "qcow2", "-O", "raw", self.image, raw)
        subprocess.run(["e2fsck", "-fn", raw], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    @unittest.skipIf(os.geteuid() != 0, "needs a small file system of its own")
    def test_a_full_host(self):
        small = self.path("small")
        os.mkdir(small)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", small], check=True)
        for fmt in ("qcow2", "raw"):
            self.image = os.path.join(small, "disk." + fmt)
            self.qemu_img("create", "-q", "-f", fmt, self.image, "64M")
            status, out, err = self.run_script(FULL, f"path={self.image},image_type={fmt}")
            self.assertEqual(status, self.ENDED, out + err)
            written = (b"x" * 65536) * 16
            for line in ("first part written", "no more", hashlib.md5(written).hexdigest(), "alive"):
                self.assertIn(line, out, err)
            self.assertIn("No space left on device", err)
            if fmt == "qcow2":
                self.qemu_img("check", "-f", "qcow2", self.image, ok=(0, 3))
            os.unlink(self.image)

    def refused(self, disk, *words):
        status, out, err = self.run_script(HEAD, disk)
        self.assertEqual((status, out), (1, ""), err)
        for word in words:
            self.assertIn(word, err)

    def test_refused_disks(self):
        base = self.path("base.raw", b"x" * 65536)
        self.qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", self.image)
        self.refused(f"path={self.image}", self.image, base, "image_type=qcow2")
        self.refused(f"path={self.image},image_type=qcow2", self.image, base, "backing_files=on")
        os.unlink(base)
        self.refused(f"path={self.image},image_type=qcow2,backing_files=on", base, "No such file")
        self.refused(f"path={base}", base, "No such file")
        plain = self.path("plain.raw", b"x" * 4096)
        self.refused(f"path={plain},image_type=qcow2", plain, "not a qcow2 image")

    def test_a_raw_disk_does_not_become_qcow2(self):
        disk = self.path("disk.raw", b"\0" * (1 << 20))
        script = HEAD + "printf 'QFI\\373' | dd of=/dev/vda bs=512 conv=notrunc,sync,fsync 2>/dev/null && echo written || echo refused\n"
        _, out, err = self.run_script(script, f"path={disk}")
        self.assertIn("refused\n", out, err)
        self.assertIn("image_type=raw", err)
        _, out, _ = self.run_script(script, f"path={disk},image_type=raw")
        self.assertIn("written\n", out)
        _, out, err = self.run_script(script, f"path={disk}")
        self.assertIn("qcow2", err)
        self.assertEqual(json.loads(self.qemu_img("info", "--output=json", "-f", "raw", disk))["virtual-size"], 1 << 20)


if __name__ == "__main__":
    smolvm.main()
