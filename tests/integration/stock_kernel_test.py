#!/usr/bin/env python3
"""Debian's cloud kernel as it comes, with its own modules in an initrd, to user space."""
import glob
import importlib.machinery
import importlib.util
import os
import subprocess

import smolvm

# Dependencies first; what the kernel has built in is simply not among its files. `virtio_mmio` finds its devices on the
# command line or in the ACPI tables.
MODULES = ["virtio", "virtio_ring", "virtio_mmio", "virtio_blk", "vsock", "vmw_vsock_virtio_transport_common",
           "vmw_vsock_virtio_transport", "crc16", "mbcache", "jbd2", "crc32c_generic", "ext4", "overlay"]


def bench_host():
    """tools/benchhost knows how to fetch and cache the kernel package."""
    path = os.path.join(smolvm.SOURCE, "tools", "benchhost")
    loader = importlib.machinery.SourceFileLoader("benchhost", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("benchhost", loader))
    loader.exec_module(module)
    return module


def module_file(tree, name):
    for found in glob.glob(os.path.join(tree, "lib/modules/*/kernel/**", "*.ko*"), recursive=True):
        if os.path.basename(found).split(".")[0].replace("-", "_") == name:
            return found
    return None


class StockKernelTest(smolvm.MachineTest):
    def initrd(self, tree):
        path = self.path("modules.cpio")
        files = [found for found in (module_file(tree, name) for name in MODULES) if found]
        subprocess.run([os.path.join(smolvm.SOURCE, "guest/image/build"), path, "--init", os.environ["SMOL_INIT"], "--no-busybox",
                        *[word for file in files for word in ("--module", file)]], check=True)
        return path

    def test_debians_cloud_kernel_unmodified(self):
        tree = bench_host().kernel_tree()
        kernel = glob.glob(os.path.join(tree, "boot/vmlinuz-*"))[0]
        result = self.run_machine("sh", "-c", "uname -r; cat /proc/modules | cut -d' ' -f1 | sort | tr '\\n' ' '; exit 5",
                                  options=["--kernel", kernel, "--initrd", self.initrd(tree), "--mem", "256"], limit=600)
        self.assertEqual(result.status, 5, repr(result))
        release = os.path.basename(kernel).removeprefix("vmlinuz-")
        self.assertEqual(result.out.decode().splitlines()[0], release, repr(result))
        self.assertIn("virtio_mmio", result.out.decode())


if __name__ == "__main__":
    smolvm.main()
