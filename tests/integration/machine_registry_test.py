#!/usr/bin/env python3
"""Machine files in a registry: versions share their chunks, broken transfers go on, the signature is asked for before a chunk is
fetched, and skopeo reads what was pushed."""
import json
import os
import random
import re
import shutil
import subprocess
import tempfile
import unittest

import machine_file
import registry
import smolvm
from changed_image import LayeredImage

BLOB = re.compile(r"/v2/[^?]*/blobs/sha256:")


class MachineRegistryTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="smolvm-test-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.env = dict(os.environ, XDG_CONFIG_HOME=self.path("config"), SMOLVM_DATA_DIR=self.path("data"))
        self.registry = registry.Registry(self.path("registry"))
        self.addCleanup(self.registry.stop)
        self.noise = random.Random(11).randbytes
        self.root = self.noise(12 << 20)

    def path(self, name):
        return os.path.join(self.folder, name)

    def read(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def make(self, name, root):
        sections = [("config", "config", b'{"version": 1}'), ("kernel", "kernel", bytes(200000)), ("root", "root", root)]
        with open(self.path(name), "wb") as file:
            file.write(machine_file.write(sections))
        return name

    def smolvm(self, *words, status=0):
        done = subprocess.run([smolvm.SMOLVM, *words], env=self.env, cwd=self.folder, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, timeout=smolvm.LIMIT, check=False)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done.stdout if status == 0 else done.stderr

    def push(self, file, reference):
        return json.loads(self.smolvm("pack", "push", "--file", file, reference, "--json"))

    def proxy(self, fault=None):
        made = registry.FaultProxy(self.registry.port, fault)
        self.addCleanup(made.stop)
        return made

    def test_versions_share_chunks(self):
        reference = f"{self.registry.host}/team/app"
        first = self.push(self.make("v1.smolmachine", self.root), reference + ":v1")
        self.assertEqual(first["sent_chunks"], first["chunks"] + 1)  # and the configuration
        # 3 MiB changed, and all that follows moved by a page.
        changed = self.root[:4 << 20] + self.noise((3 << 20) + 4096) + self.root[7 << 20:]
        second = self.push(self.make("v2.smolmachine", changed), reference + ":v2")
        self.assertLess(second["sent_bytes"], (3 << 20) + 3 * (2 << 20))  # at most a chunk at each end, and index and header
        self.assertEqual(self.push("v2.smolmachine", reference + ":again")["sent_bytes"], 0)

        proxy = self.proxy()
        for version, known in (("v1", 0), ("v2", first["chunks"])):
            proxy.seen.clear()
            self.smolvm("pack", "pull", f"{proxy.host}/team/app:{version}", "-o", "got")
            self.assertEqual(self.read("got"), self.read(version + ".smolmachine"))
            fetched = [path for method, path, _ in proxy.seen if method == "GET" and BLOB.search(path)]
            self.assertTrue(fetched)
            if known:
                self.assertLess(len(fetched), known)
        self.assertFalse(os.access(self.path("got"), os.X_OK))

        copied = subprocess.run(["skopeo", "copy", "--src-tls-verify=false", f"docker://{reference}:v2", "oci:" + self.path("layout")],
                                text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        self.assertEqual(copied.returncode, 0, copied.stdout)
        raw = subprocess.run(["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{reference}:v2"], check=True,
                             capture_output=True, text=True).stdout
        self.assertEqual(len(json.loads(raw)["layers"]), second["chunks"])

    def test_one_changed_layer(self):
        """An OCI image of several layers with one of them changed: not much more than the change is sent (bench/push.py at 1 GiB)."""
        image = LayeredImage(self.path("layers"))
        rest = [(name, 6 << 20, seed) for seed, name in enumerate("abcd")]
        proxy = registry.CountingProxy(self.registry.port)
        self.addCleanup(proxy.stop)
        sent = []
        for number, seed in enumerate((100, 201)):
            changed = ("m", 6 << 20, seed)
            layout = image.layout(self.path(f"v{number}"), rest[:2] + [changed] + rest[2:])
            self.smolvm("pack", "create", "-I", layout, "-o", f"v{number}.smolmachine")
            before = proxy.sent
            self.smolvm("pack", "push", "--file", f"v{number}.smolmachine", f"{proxy.host}/layers:{number}")
            sent.append(proxy.sent - before)
        self.assertGreater(sent[0], 30 << 20)
        # Chunks are half a MiB and are cut where contents, directories and inodes change.
        self.assertLess(sent[1], (6 << 20) * 1.2 + 4 * (512 << 10))

    def test_broken_transfers_go_on(self):
        file = self.make("a.smolmachine", self.root)
        uploads = []

        def refuse_some(method, path, _count):
            if method == "POST" and "/blobs/uploads" in path:
                uploads.append(path)
                if len(uploads) > 6:
                    return {"status": 403}
            return None
        broken = self.proxy(refuse_some)
        self.assertIn("403", self.smolvm("pack", "push", "--file", file, f"{broken.host}/app:1", status=1))
        pushed = self.push(file, f"{self.registry.host}/app:1")
        self.assertLess(pushed["sent_chunks"], pushed["chunks"])

        fetched = []

        def end_early(method, path, _count):
            if method == "GET" and BLOB.search(path):
                fetched.append(path)
                if len(fetched) > 6:
                    return {"status": 403}
            return None
        broken = self.proxy(end_early)
        self.assertIn("403", self.smolvm("pack", "pull", f"{broken.host}/app:1", "-o", "got", status=1))
        self.assertEqual([name for name in os.listdir(self.folder) if name.startswith("got")], [])
        whole = self.proxy()
        self.smolvm("pack", "pull", f"{whole.host}/app:1", "-o", "got")
        self.assertEqual(self.read("got"), self.read(file))
        again = [path for method, path, _ in whole.seen if method == "GET" and BLOB.search(path)]
        self.assertLess(len(again), pushed["chunks"])

    def test_policy_comes_first(self):
        file = self.make("a.smolmachine", self.root)
        self.smolvm("pack", "keygen", "-W")
        self.smolvm("pack", "keygen", "-W", "-p", "other.pub", "-s", "other.key")
        self.push(file, f"{self.registry.host}/plain:1")
        self.smolvm("pack", "sign", file, "-c", "release")
        self.push(file, f"{self.registry.host}/signed:1")
        proxy = self.proxy()
        os.makedirs(self.path("config/smolvm"))

        def trust(key):
            with open(self.path("config/smolvm/config.toml"), "w", encoding="utf-8") as settings:
                settings.write(f'[pack]\nrequire-signed = true\ntrusted-keys = ["{self.path(key)}"]\n')
        # By the command line, and by the settings.
        for by_settings, name, key, word in ((by_settings, *case) for by_settings in (False, True) for case in (
                ("plain", "smolvm.pub", "not signed"), ("signed", "other.pub", "not trusted"))):
            proxy.seen.clear()
            if by_settings:
                trust(key)
            options = [] if by_settings else ["--key", key]
            self.assertIn(word, self.smolvm("pack", "pull", f"{proxy.host}/{name}:1", "-o", "got", *options, status=1))
            blobs = [path for method, path, _ in proxy.seen if method == "GET" and BLOB.search(path)]
            self.assertLessEqual(len(blobs), 1, "only the configuration may have been fetched")
            self.assertFalse(os.path.exists(self.path("got")))
        self.assertIn("signed by key", self.smolvm("pack", "pull", f"{proxy.host}/signed:1", "-o", "got", "--key", "smolvm.pub"))
        self.assertEqual(self.read("got"), self.read(file))
        trust("smolvm.pub")
        self.assertIn("signed by key", self.smolvm("pack", "pull", f"{proxy.host}/signed:1", "-o", "by-settings"))
        self.assertEqual(self.read("by-settings"), self.read(file))

    def test_bad_content(self):
        with open(self.path("bad"), "wb") as file:
            file.write(b"no machine file at all" * 1000)
        self.assertIn("not a machine file", self.smolvm("pack", "push", "--file", "bad", f"{self.registry.host}/bad:1", status=1))
        damaged = bytearray(self.read(self.make("a.smolmachine", self.root)))
        begin, end = machine_file.parts(damaged)["section 'root'"]
        damaged[(begin + end) // 2] ^= 1
        with open(self.path("damaged"), "wb") as file:
            file.write(damaged)
        self.assertIn("section 'root'", self.smolvm("pack", "push", "--file", "damaged", f"{self.registry.host}/bad:1", status=1))
        # An ordinary image is no machine file.
        registry.OciImage([{"a": b"1"}]).push(self.registry.port, "image", "1")
        self.assertIn("no machine file", self.smolvm("pack", "pull", f"{self.registry.host}/image:1", "-o", "got", status=1))
        self.push("a.smolmachine", f"{self.registry.host}/app:1")
        proxy = self.proxy(lambda method, path, _: {"flip": 100} if method == "GET" and BLOB.search(path) else None)
        self.smolvm("pack", "pull", f"{proxy.host}/app:1", "-o", "got", status=1)
        self.assertFalse(os.path.exists(self.path("got")))


if __name__ == "__main__":
    unittest.main()
