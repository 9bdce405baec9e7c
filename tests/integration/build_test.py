#!/usr/bin/env python3
"""Builds of Smolfiles: steps, the cache, the same bytes from two checkouts, and errors with their places."""
import os
import subprocess
import tarfile
import tempfile
import unittest

import debian_root
from oci_images import Image, busybox

SMOLVM = os.environ["SMOLVM"]

SMOLFILE = """
image = "hello"
entrypoint = ["/app/go"]
env = ["LAST=1"]
[build]
base = "./base.tar"
memory = 128
epoch = 1700000000
[[build.step]]
copy = ["src", "/app"]
exclude = ["*.o"]
[[build.step]]
env = ["WHO=smol"]
[[build.step]]
workdir = "/made/here"
[[build.step]]
run = "echo $WHO > file; ln file again; rm /bin/nproc; rm -r /etc; mkdir /etc; echo root:x:0:0::/:/bin/sh > /etc/passwd"
"""


class Build(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="smol-build-")
        self.addCleanup(self.folder.cleanup)
        self.data("data")

    def data(self, name):
        self.env = dict(os.environ, SMOLVM_DATA_DIR=self.path(name), HOME=self.path("home"))

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def smolvm(self, *words, status=0):
        done = subprocess.run([SMOLVM, *words], env=self.env, capture_output=True, timeout=240)
        self.assertEqual(done.returncode, status, f"{words}: {done.stdout!r} {done.stderr!r}")
        return done.stdout.decode(), done.stderr.decode()

    def checkout(self, name, text=SMOLFILE, umask=0o022, time=1):
        """The same files as another clone would have them: other times, modes and order."""
        old = os.umask(umask)
        try:
            os.makedirs(self.path(name + "/src/sub"))
            files = {"Smolfile": text, "src/sub/deep.txt": "deep\n", "src/a.txt": "a\n", "src/x.o": "left out\n",
                     "src/go": "#!/bin/sh\ncat /app/a.txt /app/sub/deep.txt /made/here/again\necho $WHO $LAST; pwd; ls /etc\n"}
            for path in files if time == 1 else reversed(files):
                with open(self.path(f"{name}/{path}"), "w") as file:
                    file.write(files[path])
                os.utime(self.path(f"{name}/{path}"), (time, time))
            os.chmod(self.path(name + "/src/go"), 0o777 & ~umask)
            Image([busybox()], {"Env": ["PATH=/bin"]}).oci_archive(self.path(name + "/base.tar"))
        finally:
            os.umask(old)
        return self.path(name)

    def test_two_checkouts_same_bytes(self):
        results = []
        for number, umask in ((1, 0o022), (2, 0o077)):
            self.data(f"data{number}")
            folder = self.checkout(f"checkout{number}", umask=umask, time=number)
            out = self.smolvm("build", "-s", folder, "-o", self.path(f"{number}.tar"))[0]
            self.smolvm("build", "-s", folder, "-o", self.path(f"{number}.erofs"))
            with open(self.path(f"{number}.tar"), "rb") as archive, open(self.path(f"{number}.erofs"), "rb") as root:
                results.append((out, archive.read(), root.read()))
        self.assertEqual(results[0], results[1])
        # What was built runs, and others can read it.
        self.assertEqual(self.smolvm("machine", "run", "-I", "hello")[0], "a\ndeep\nsmol\nsmol 1\n/made/here\npasswd\n")
        self.assertEqual(self.smolvm("machine", "run", "-I", self.path("1.tar"), "--entrypoint", "ls", "--", "/app")[0],
                         "a.txt\ngo\nsub\n")
        with tarfile.open(self.path("1.tar")) as archive:
            self.assertIn("index.json", archive.getnames())

    def test_cache(self):
        folder = self.checkout("checkout")
        self.assertNotIn("(cached)", self.smolvm("build", "-s", folder)[1])
        self.assertIn("(cached)", self.smolvm("build", "-s", folder)[1])
        self.assertNotIn("(cached)", self.smolvm("build", "-s", folder, "--no-cache")[1])
        with open(os.path.join(folder, "src/a.txt"), "w") as file:
            file.write("b\n")
        self.assertNotIn("(cached)", self.smolvm("build", "-s", folder)[1])
        # -s with a [build] runs what it builds.
        self.assertTrue(self.smolvm("machine", "run", "-s", folder)[0].startswith("b\ndeep\n"))
        self.assertIn("No machines found", self.smolvm("machine", "ls")[0])

    def test_on_scratch_and_on_another(self):
        folder = self.checkout("checkout", """
image = "base"
[build]
base = "scratch"
[[build.step]]
copy = ["busybox", "/bin/sh"]
""")
        subprocess.run(["cp", "/bin/busybox", os.path.join(folder, "busybox")], check=True)
        with open(os.path.join(folder, "Top"), "w") as file:
            file.write("image = 'top'\ncmd = ['/bin/sh', '-c', 'read line < /made; echo $line']\n[build]\nsmolfile = 'Smolfile'\n"
                       "[[build.step]]\nrun = 'echo top > /made'\n")
        self.smolvm("build", "-s", os.path.join(folder, "Top"))
        self.assertEqual(self.smolvm("machine", "run", "-I", "top")[0], "top\n")

    @unittest.skipUnless(os.geteuid() == 0, "the tree's owners are root's to read")
    def test_debian_with_python(self):
        """A whole distribution as the base, an interpreter with hundreds of files, and a step that runs it."""
        tree = debian_root.cached("tree", [debian_root.SUITE, *debian_root.PACKAGES, *debian_root.apt_sources()],
                                  debian_root.bootstrap)
        folder = self.checkout("checkout", f"""
image = "debian"
cmd = ["python3", "/made.py"]
[build]
rootfs = "{os.path.join(tree, "root")}"
memory = 256
[[build.step]]
env = ["PATH=/usr/bin:/bin"]
[[build.step]]
run = ["python3", "-c", "open('/made.py', 'w').write('import json, ssl; print(json.dumps([6 * 7]))')"]
""")
        self.smolvm("build", "-s", folder)
        self.assertEqual(self.smolvm("machine", "run", "-I", "debian")[0], "[42]\n")

    def test_errors(self):
        cases = {
            "[build]\nbase = 'scratch'\n[[build.step]]\ncopy = ['nothing', '/']\n": ":5:1: step 1: 'nothing' is not there",
            "[build]\nbase = './nowhere.tar'\n": ":3:1: the base",
            "[build]\nbase = './base.tar'\n[[build.step]]\nrun = 'exit 3'\n": ":4:1: step 1: it ended with status 3",
            "[build]\nsmolfile = 'Smolfile'\n": ":3:1: the base leads back to itself",
            "[build]\nbase = 'scratch'\n": "nothing was copied",
            "[build]\nbase = 'scratch'\n[[build.step]]\ncopy = ['out/passwd', '/']\n": "leads out of the Smolfile's folder",
            "[bild]\n": ":2:2: unknown key 'bild'; did you mean 'build'?",
        }
        for number, (text, said) in enumerate(cases.items()):
            folder = self.checkout(f"case{number}", "image = 'x'\n" + text)
            os.symlink("/etc", os.path.join(folder, "out"))
            errors = self.smolvm("build", "-s", folder, status=1)[1]
            self.assertIn(said.replace(":5:1: step", ":4:1: step"), errors.splitlines()[-1])
            self.assertTrue(errors.splitlines()[-1].startswith("Error: "), errors)
        self.assertIn("No machines found", self.smolvm("machine", "ls")[0])


if __name__ == "__main__":
    unittest.main()
