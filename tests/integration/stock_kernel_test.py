#!/usr/bin/env python3
"""Debian's cloud kernel as it comes, with its own modules in an initrd, to user space and to a root on a block device."""
import glob
import importlib.machinery
import importlib.util
import os
import subprocess

import roots_test
import smolvm

# What a machine of ours needs of a kernel that has its drivers in modules; what is built in has no file and is skipped.
WANTED = ["virtio_mmio", "virtio_blk", "vmw_vsock_virtio_transport", "crc32c_generic", "ext4", "overlay"]


def bench_host():
    """tools/benchhost knows how to fetch and cache the kernel package, and in which order modules load."""
    path = os.path.join(smolvm.SOURCE, "tools", "benchhost")
    loader = importlib.machinery.SourceFileLoader("benchhost", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("benchhost", loader))
    loader.exec_module(module)
    return module


class StockKernelTest(smolvm.MachineTest):
    def setUp(self):
        super().setUp()
        bench = bench_host()
        tree = bench.kernel_tree()
        self.kernel = glob.glob(os.path.join(tree, "boot/vmlinuz-*"))[0]
        self.release = os.path.basename(self.kernel).removeprefix("vmlinuz-")
        present = bench.module_files(tree)
        words = []
        for name, data in bench.load_order(tree, [name for name in WANTED if name in present]):
            words += ["--module", self.path(name + ".ko", data)]
        self.initrd = self.path("modules.cpio")
        subprocess.run([os.path.join(smolvm.SOURCE, "guest/image/build"), self.initrd, "--init", os.environ["SMOL_INIT"],
                        "--no-busybox", *words], check=True)

    def run_stock(self, *words, options=()):
        return self.run_machine(*words, options=["--kernel", self.kernel, "--initrd", self.initrd, *options], limit=900)

    def test_to_user_space(self):
        result = self.run_stock("sh", "-c", "uname -r; grep -c ^virtio_mmio /proc/modules; exit 5")
        self.assert_output(result, f"{self.release}\n1\n", 5)

    def test_a_root_on_a_block_device(self):
        root = self.path("root")
        roots_test.busybox_folder(root)
        image = self.path("root.ext4", b"")
        os.truncate(image, 32 << 20)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", root, image], check=True)
        result = self.run_stock("sh", "-c", "grep -c ' / overlay ' /proc/mounts; echo new >/data/new; cat /data/new", options=["--rootfs", image])
        self.assert_output(result, "1\nnew\n")


if __name__ == "__main__":
    smolvm.main()
