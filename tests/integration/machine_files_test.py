#!/usr/bin/env python3
"""Machine files and capsules as files: what another implementation wrote is read, each part's damage is named, signatures go both
ways with minisign, and the settings' policy holds."""
import json
import os
import random
import shutil
import subprocess
import tempfile
import unittest

import machine_file
import smolvm

CONFIG = b'{"version": 1, "name": "test", "entrypoint": ["/bin/true"]}'


class MachineFileTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="smolvm-test-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.env = dict(os.environ, XDG_CONFIG_HOME=self.path("config"))
        noise = random.Random(7).randbytes
        self.sections = [("config", "config", CONFIG), ("kernel", "kernel", noise(70001)),
                         ("root", "root", noise(2 * machine_file.PIECE + 5)), ("sbom", "sbom", b"{}")]

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, data):
        with open(self.path(name), "wb") as file:
            file.write(data)
        return self.path(name)

    def read(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def smolvm(self, *words, status=0):
        done = subprocess.run([smolvm.SMOLVM, *words], env=self.env, cwd=self.folder, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, timeout=smolvm.LIMIT, check=False)
        self.assertEqual(done.returncode, status, done.stdout)
        return done.stdout

    def test_another_writers_file_is_read(self):
        path = self.write("a.smolmachine", machine_file.write(self.sections, created=1700000000))
        self.assertIn("all as they were written", self.smolvm("pack", "verify", path))
        shown = json.loads(self.smolvm("pack", "inspect", path, "--json"))
        self.assertEqual([s["name"] for s in shown["sections"]], ["config", "kernel", "root", "sbom"])
        self.assertEqual(shown["config"]["name"], "test")
        self.assertEqual(shown["created"], 1700000000)
        self.assertFalse(shown["capsule"])
        self.assertIn("kernel", self.smolvm("pack", "inspect", path))

    def test_a_flipped_byte_is_named(self):
        self.smolvm("pack", "keygen", "-W")
        program = random.Random(8).randbytes(9000)
        path = self.write("app", machine_file.write(self.sections, program))
        os.chmod(path, 0o777)
        self.smolvm("pack", "sign", path)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o777)
        good = self.read("app")
        self.assertIn("right", self.smolvm("pack", "verify", path, "--key", "smolvm.pub"))
        for part, (begin, end) in machine_file.parts(good).items():
            for at in (begin, begin + (end - begin) // 2, end - 1):  # the last one is padding, where there is some
                bad = bytearray(good)
                bad[at] ^= 0x40
                said = self.smolvm("pack", "verify", self.write("bad", bad), status=1)
                if part == "the trailer" and at == begin:
                    self.assertIn("trailer", said)
                else:
                    self.assertIn(part, said, f"byte {at}")
        for data in (good[:-1], good[:-4096], good + b"x", good[4096:], b"", b"x" * 10000):
            self.smolvm("pack", "verify", self.write("bad", data), status=1)

    def test_signatures_go_both_ways(self):
        path = self.write("a.smolmachine", machine_file.write(self.sections))
        self.smolvm("pack", "keygen", "-W", "-p", "ours.pub", "-s", "ours.key")
        subprocess.run(["minisign", "-G", "-W", "-p", "theirs.pub", "-s", "theirs.key"], cwd=self.folder, check=True,
                       stdout=subprocess.DEVNULL)
        for name in ("ours", "theirs"):
            self.smolvm("pack", "sign", path, "-s", name + ".key", "-o", name, "-c", "by " + name)
            said = self.smolvm("pack", "verify", name, "--key", name + ".pub")
            self.assertIn("by " + name, said)
            self.smolvm("pack", "inspect", name, "--export-index", name + ".index")
            done = subprocess.run(["minisign", "-V", "-p", name + ".pub", "-m", name + ".index"], cwd=self.folder, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
            self.assertEqual(done.returncode, 0, done.stdout)
            self.assertIn("by " + name, done.stdout)
        # minisign signs with the key that we made, too.
        subprocess.run(["minisign", "-S", "-s", "ours.key", "-m", "ours.index", "-x", "again"], cwd=self.folder, check=True,
                       stdout=subprocess.DEVNULL)
        self.assertIn("not trusted", self.smolvm("pack", "verify", "ours", "--key", "theirs.pub", status=1))
        self.assertIn("not signed", self.smolvm("pack", "verify", path, "--key", "theirs.pub", status=1))
        self.assertIn("there already", self.smolvm("pack", "keygen", "-W", "-p", "ours.pub", "-s", "x", status=1))

    def test_settings(self):
        path = self.write("a.smolmachine", machine_file.write(self.sections))
        self.smolvm("pack", "keygen", "-W")
        key = self.read("smolvm.pub").decode().splitlines()[1]
        os.makedirs(self.path("config/smolvm"))
        self.write("config/smolvm/config.toml", f'[pack]\nrequire-signed = true\ntrusted-keys = ["{key}"]\n'.encode())
        self.assertIn("require-signed = true", self.smolvm("config", "show"))
        self.assertEqual(json.loads(self.smolvm("config", "show", "--json"))["pack"]["trusted-keys"], [key])
        self.assertIn("not signed", self.smolvm("pack", "verify", path, status=1))
        self.smolvm("pack", "sign", path)
        self.assertIn("right", self.smolvm("pack", "verify", path))
        self.write("config/smolvm/config.toml", b"[pack]\nrequire-singed = true\n")
        self.assertIn("config.toml:2:1", self.smolvm("pack", "verify", path, status=1))


if __name__ == "__main__":
    unittest.main()
