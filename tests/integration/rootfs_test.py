#!/usr/bin/env python3
"""`smolvm rootfs`: layers and directories as EROFS images under Linux's own driver, programs with their libraries."""
import io
import os
import random
import shutil
import subprocess
import tarfile

import smolvm

LISTING = os.path.join(smolvm.SOURCE, "tests/integration/tree_listing.c")


class Layer:
    """One layer as a pax archive, made entry by entry."""
    def __init__(self, path):
        self.path = path
        self.tar = tarfile.open(path, "w:gz" if path.endswith("z") else "w", format=tarfile.PAX_FORMAT)

    def add(self, name, kind=tarfile.REGTYPE, data=b"", pax=None, **fields):
        info = tarfile.TarInfo(name)
        info.type, info.size, info.mode, info.mtime = kind, len(data), 0o644, 1_600_000_000
        for key, value in fields.items():
            setattr(info, key, value)
        info.pax_headers.update(pax or {})
        self.tar.addfile(info, io.BytesIO(data))

    def folder(self, name, **fields):
        self.add(name, tarfile.DIRTYPE, mode=fields.pop("mode", 0o755), **fields)

    def close(self):
        self.tar.close()


def unpack(layer, root, times):
    """What a layer means, by GNU tar and the whiteouts' definition: they hide what lower layers have. times: of folders."""
    with tarfile.open(layer) as tar:
        names = tar.getnames()
        times.update({item.name: item.mtime for item in tar if item.isdir()})
    for name in names:
        folder, last = os.path.split(name)
        if last == ".wh..wh..opq":
            for child in os.listdir(os.path.join(root, folder)):
                remove(os.path.join(root, folder, child))
        elif last.startswith(".wh."):
            remove(os.path.join(root, folder, last[4:]))
    subprocess.run(["tar", "-xf", layer, "-C", root, "-p", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-owner",
                    "--exclude=.wh.*", "--sparse", "--delay-directory-restore", "--overwrite"], check=True)


def set_times(root, times):
    """A folder has the time that its last entry says, and 0 without one, whatever was unpacked into it since."""
    for folder, _, _ in os.walk(root):
        time = int(times.get(os.path.relpath(folder, root), 0) * 1_000_000_000)
        os.utime(folder, ns=(time, time))


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


class RootfsTest(smolvm.MachineTest):
    def rootfs(self, *words, stdin=None, status=0):
        done = subprocess.run([smolvm.SMOLVM, "rootfs", *words], input=stdin, capture_output=True, env=self.env, timeout=smolvm.LIMIT, check=False)
        self.assertEqual(done.returncode, status, done.stderr.decode())
        return done

    def listing_program(self):
        path = self.path("tree_listing")
        subprocess.run(["musl-gcc", "-static", "-O2", "-o", path, LISTING], check=True)
        return path

    def compare(self, image, truth, program, mem="512"):
        want = subprocess.run([program, truth], check=True, capture_output=True).stdout.decode(errors="surrogateescape").splitlines()
        result = self.run_machine("/usr/bin/tree_listing", "/t", options=["--rootfs", image, "--mem", mem])
        got = result.out.decode(errors="surrogateescape").splitlines()
        self.assertEqual(result.status, 0, result.err[-2000:])
        self.assertGreater(len(want), 10)
        for ours, theirs in zip(got, want):
            self.assertEqual(ours[:3000], theirs[:3000])
        self.assertEqual(len(got), len(want))

    def base_layer(self, program):
        layer = Layer(self.path("base.tar"))
        for name in ("dev", "proc", "sys", "tmp", "run", "usr", "usr/bin", "t"):
            layer.folder(name)
        with open(program, "rb") as file:
            layer.add("usr/bin/tree_listing", data=file.read(), mode=0o755)
        layer.close()
        return layer.path

    @staticmethod
    def fill(layer):
        layer.folder("t/sizes", mode=0o1777, mtime=1_500_000_000.5)
        chance = random.Random(1)
        for size in (0, 1, 4000, 4032, 4095, 4096, 4097, 12_288, 70_000, 1 << 20):
            layer.add(f"t/sizes/{size}", data=chance.randbytes(size), mtime=1_600_000_000.25 + size)
        layer.add("t/owner", data=b"x", mode=0o6755, uid=70_000, gid=3_000_000)
        layer.add("t/xattrs", data=b"caps", pax={"SCHILY.xattr.user.note": "hello", "SCHILY.xattr.user.long": "v" * 3000})
        layer.add("t/" + "n" * 255, data=b"long")
        layer.add("t/link", tarfile.SYMTYPE, linkname="l" * 4095, mode=0o777)
        layer.add("t/short", tarfile.SYMTYPE, linkname="sizes/1", mode=0o777)
        layer.add("t/null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
        layer.add("t/far", tarfile.BLKTYPE, devmajor=259, devminor=70_000, mode=0o600)
        layer.add("t/fifo", tarfile.FIFOTYPE)
        layer.add("t/hard", tarfile.LNKTYPE, linkname="t/sizes/4097")
        layer.folder("t/many")
        for i in range(20_000):
            layer.add(f"t/many/{i * 7919 % 20_000:05}-{'x' * (i % 40)}")

    @staticmethod
    def sparse(folder, path):
        """3 GiB with three pieces of data, in GNU's own format."""
        os.makedirs(os.path.join(folder, "t"))
        with open(os.path.join(folder, "t/sparse"), "wb") as file:
            for at in (0, (3 << 29) + 100, (3 << 30) - 5):
                file.seek(at)
                file.write(b"12345")
        subprocess.run(["tar", "-C", folder, "--sparse", "--format=pax", "-cf", path, "t/sparse"], check=True)

    def sixty_layers(self):
        paths = []
        for i in range(60):
            layer = Layer(self.path(f"layer{i}.tar" + (".gz" if i % 2 else "")))
            layer.add(f"t/by-layer/{i}", data=str(i).encode(), mtime=1_600_000_000 + i)
            layer.add("t/by-layer/last", data=str(i).encode() * i)
            if i % 7 == 1:
                layer.add(f"t/linked-{i}", tarfile.LNKTYPE, linkname="t/sizes/12288")
            if i % 7 == 2:
                layer.add(f"t/by-layer/.wh.{i - 2}")
            if i % 20 == 10:
                layer.add("t/opaque/.wh..wh..opq")
            layer.add(f"t/opaque/{i}/deep", data=b"o")
            if i == 30:
                layer.add("t/opaque/3/.wh.deep")
                layer.add("t/sizes/70000", tarfile.SYMTYPE, linkname="../short", mode=0o777)
                layer.add("t/short", data=b"now a file")
            layer.close()
            paths.append(layer.path)
        return paths

    def test_sixty_layers_under_linux(self):
        if os.geteuid() != 0:
            self.skipTest("the truth, tar's, needs root for owners and devices")
        program = self.listing_program()
        first = Layer(self.path("first.tar.gz"))
        self.fill(first)
        first.close()
        self.sparse(self.path("sparse"), self.path("sparse.tar"))
        layers = [self.base_layer(program), first.path, self.path("sparse.tar"), *self.sixty_layers()]
        image, truth = self.path("root.erofs"), self.path("truth")
        os.mkdir(truth)
        times = {}
        for layer in layers:
            unpack(layer, truth, times)
        set_times(truth, times)
        self.rootfs("-o", image, *[word for layer in layers for word in ("--tar", layer)])
        self.assertEqual(subprocess.run(["fsck.erofs", image], capture_output=True, check=False).returncode, 0)
        self.compare(image, os.path.join(truth, "t"), program)
        # The same layers give the same bytes.
        self.rootfs("-o", self.path("again.erofs"), *[word for layer in layers for word in ("--tar", layer)])
        self.assertEqual(subprocess.run(["cmp", image, self.path("again.erofs")], check=False).returncode, 0)

    def test_programs_bring_their_libraries(self):
        image = self.path("root.erofs")
        done = self.rootfs("-o", image, "--busybox", "-v", "/usr/bin/openssl", "--add", "/etc/debian_version:/etc/version")
        self.assertIn(b"libcrypto.so", done.stderr)
        self.assertIn(b"Created root file system: ", done.stdout)
        with open("/etc/debian_version", "rb") as file:
            version = file.read()
        script = "cat /etc/version; printf smol | openssl dgst -sha256 -r | cut -d' ' -f1; id -un"
        result = self.run_machine("/bin/sh", "-c", script, options=["--rootfs", image])
        digest = subprocess.run(["sha256sum"], input=b"smol", check=True, capture_output=True).stdout[:64]
        self.assert_output(result, (version + digest + b"\nroot\n").decode())

    def test_libraries_by_origin_and_a_missing_one(self):
        for name in ("app/bin", "app/lib"):
            os.makedirs(self.path(name))
        with open(self.path("answer.c"), "w", encoding="utf-8") as file:
            file.write("int answer(void) { return 42; }\n")
        with open(self.path("main.c"), "w", encoding="utf-8") as file:
            file.write("int answer(void); int main(void) { return answer(); }\n")
        library, program = self.path("app/lib/libanswer.so"), self.path("app/bin/ask")
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, self.path("answer.c")], check=True)
        subprocess.run(["gcc", "-o", program, self.path("main.c"), library, "-Wl,-rpath,$ORIGIN/../lib"], check=True)
        # gcc put the library's path into the program, unless it has a name of its own.
        subprocess.run(["gcc", "-shared", "-fPIC", "-Wl,-soname,libanswer.so", "-o", library, self.path("answer.c")], check=True)
        subprocess.run(["gcc", "-o", program, self.path("main.c"), library, "-Wl,-rpath,$ORIGIN/../lib"], check=True)
        self.rootfs("-o", self.path("root.erofs"), f"{program}:/srv/bin/ask")
        self.assertEqual(self.run_machine("/srv/bin/ask", options=["--rootfs", self.path("root.erofs")]).status, 42)
        os.unlink(library)
        failed = self.rootfs("-o", self.path("none.erofs"), program, status=1)
        self.assertEqual(failed.stderr.decode(), f"Error: {program} needs the library libanswer.so, which is not there\n")
        self.assertFalse(os.path.exists(self.path("none.erofs")))

    def test_forms_of_output(self):
        self.rootfs("-o", self.path("dir"), "/bin/ls")
        self.rootfs("-o", self.path("root.tar"), "--dir", self.path("dir"))
        with open(self.path("root.tar"), "rb") as file:
            archive = file.read()
        self.rootfs("-o", self.path("again.tar"), "--tar", "-", stdin=archive)
        with open(self.path("again.tar"), "rb") as file:
            self.assertEqual(file.read(), archive)
        names = subprocess.run(["tar", "-tf", self.path("root.tar")], check=True, capture_output=True, text=True).stdout.split()
        self.assertIn("usr/bin/ls", names)
        self.assertIn("lib", names)
        if os.geteuid() == 0:
            done = subprocess.run(["chroot", self.path("dir"), "/bin/ls", "/etc"], check=True, capture_output=True, text=True)
            self.assertIn("passwd", done.stdout)

    def test_bad_input(self):
        layer = Layer(self.path("bad.tar"))
        layer.add("../escape")
        layer.close()
        for words, said in ((("--tar", layer.path), "leads out of the root"), (("/etc/hostname",), "neither an ELF file nor a script"),
                            (("--add", "/etc/passwd"), "HOST:PATH"), (("--tar", "/etc/hostname"), "the archive ends in the middle"),
                            (("/nowhere/program",), "/nowhere/program"), ((), "nothing to make")):
            done = self.rootfs("-o", self.path("x.erofs"), *words, status=1)
            self.assertIn(said, done.stderr.decode())
            self.assertEqual(done.stderr.count(b"\n"), 1)
        self.assertEqual([name for name in os.listdir(self.folder) if name.startswith("x.erofs")], [])


if __name__ == "__main__":
    smolvm.main()
