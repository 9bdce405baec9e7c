#!/usr/bin/env python3
"""Root file systems of the user's: a folder, an image file, a whole Debian."""
import os
import subprocess

import debian_root
import smolvm

BUSYBOX = "/bin/busybox"


def busybox_folder(path):
    """A small root: BusyBox, some links, users, and files with modes worth checking."""
    for folder in ("bin", "dev", "etc", "proc", "sys", "tmp", "run", "data/deep/er"):
        os.makedirs(os.path.join(path, folder), exist_ok=True)
    subprocess.run(["cp", BUSYBOX, os.path.join(path, "bin/busybox")], check=True)
    for applet in ("sh", "cat", "ls", "stat", "id", "echo", "touch", "sha256sum", "dd", "df", "mount", "grep", "sync", "readlink", "sleep", "env"):
        os.symlink("busybox", os.path.join(path, "bin", applet))
    with open(os.path.join(path, "etc/passwd"), "w", encoding="utf-8") as file:
        file.write("root:x:0:0::/root:/bin/sh\nweb:x:77:78::/data:/bin/sh\n")
    with open(os.path.join(path, "etc/group"), "w", encoding="utf-8") as file:
        file.write("root:x:0:\nweb:x:78:\nextra:x:79:root,web\n")
    with open(os.path.join(path, "data/deep/er/file"), "wb") as file:
        file.write(b"content\n" * 1000)
    os.chmod(os.path.join(path, "data/deep/er/file"), 0o4751)
    os.symlink("../data/deep", os.path.join(path, "data/link"))


class RootsTest(smolvm.MachineTest):
    CHECK = "stat -c %a /data/deep/er/file; sha256sum /data/deep/er/file | cut -c1-8; readlink /data/link; echo new >/data/new; cat /data/new"

    def setUp(self):
        super().setUp()
        self.root = self.path("root")
        busybox_folder(self.root)

    def image(self, size=32 << 20):
        path = self.path("root.ext4", b"")
        os.truncate(path, size)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", self.root, path], check=True)
        return path

    def check_root(self, root):
        script = self.CHECK.replace("| cut -c1-8", "")
        result = self.run_machine("sh", "-c", script, options=["--rootfs", root])
        want = subprocess.run(["sha256sum", os.path.join(self.root, "data/deep/er/file")], check=True, capture_output=True, text=True)
        digest = want.stdout.split()[0]
        self.assert_output(result, f"4751\n{digest}  /data/deep/er/file\n../data/deep\nnew\n")
        self.assertFalse(os.path.exists(os.path.join(self.root, "data/new")), "the machine wrote into the host's folder")

    def test_a_folder(self):
        self.check_root(self.root)

    def test_an_ext4_image_is_read_only_with_writes_in_memory(self):
        image = self.image()
        with open(image, "rb") as file:
            before = file.read()
        self.check_root(image)
        with open(image, "rb") as file:
            self.assertEqual(file.read(), before, "the image was written to")

    def test_users_and_groups_of_the_image(self):
        image = self.image()
        for user, want in (("web", "77:78 78,79 /data"), ("77", "77:78 78 /data"), ("web:extra", "77:79 79 /data"), ("5", "5:0 0 /")):
            result = self.run_machine("sh", "-c", 'echo "$(id -u):$(id -g) $(id -G) $HOME"', options=["--rootfs", image, "--user", user])
            self.assertEqual(result.out.decode().replace(" 79 ", ",79 ") if user == "web" else result.out.decode(), want + "\n", repr(result))

    def test_an_image_in_the_midst_of_another_machine(self):
        # Two machines may read one image at once.
        image = self.image()
        first = self.start_machine("sh", "-c", "echo up; sleep 5; cat /data/deep/er/file | sha256sum >/dev/null; echo ok",
                                   options=["--rootfs", image])
        self.assertEqual(first.stdout.readline(), b"up\n")
        self.assert_output(self.run_machine("echo", "second", options=["--rootfs", image]), "second\n")
        self.assertEqual(first.communicate(timeout=smolvm.LIMIT)[0], b"ok\n")

    def test_an_image_without_a_usable_program(self):
        os.unlink(os.path.join(self.root, "bin/ls"))
        self.assertEqual(self.run_machine("ls", options=["--rootfs", self.image()]).status, 127)

    def test_a_damaged_image_is_an_error(self):
        image = self.image()
        with open(image, "r+b") as file:
            file.seek(1024 + 0x18)
            file.write(b"\xff" * 64)  # block size and more, the magic number stays out of it
            file.seek(1080)
            file.write(b"\x53\xef")
        self.assert_error(self.run_machine("true", options=["--rootfs", image]), image)


class DebianTest(smolvm.MachineTest):
    def test_debian_gives_the_same_output_as_on_this_host(self):
        try:
            image, expected = debian_root.debian_root()
        except (OSError, RuntimeError) as error:
            if os.geteuid() != 0:
                self.skipTest(f"making the Debian root needs root: {error}")
            raise
        result = self.run_machine("bash", "/commands.sh", options=["--rootfs", image, "--mem", "512", "-e", "LC_ALL=C"], limit=900)
        self.assertEqual(result.out.decode().splitlines(), expected.decode().splitlines(), repr(result))
        self.assertEqual(result.status, 0, repr(result))


if __name__ == "__main__":
    smolvm.main()
