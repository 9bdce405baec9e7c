#!/usr/bin/env python3
"""Shared directories under Linux' own 9P client: the cases of share_cases.c, owners, changes by the host, trees, shares that come and go."""
import hashlib
import os
import random
import shutil
import subprocess
import threading
import unittest

import smolvm
import vmm_guest

MOUNT = "mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 smol /mnt || echo 'no mount'\n"


def digest_tree(root):
    """A line for each thing below root: path, mode, and content, target or nothing."""
    lines = []
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            content = ""
            if os.path.islink(path):
                content = os.readlink(path)
            elif name in files:
                with open(path, "rb") as file:
                    content = hashlib.sha256(file.read()).hexdigest()
            lines.append(f"{os.path.relpath(path, root)} {mode:o} {content}")
    return sorted(lines)


class SharesTest(vmm_guest.GuestTest):
    def folder_of(self, name):
        path = self.path(name)
        os.mkdir(path)
        os.chmod(path, 0o777)
        return path

    def run_guest(self, script, *options, **more):
        return self.start_guest(MOUNT + script, *options, **more).end()

    def check_cases(self, lines):
        verdict = [line for line in lines if line.startswith("cases ")]
        self.assertEqual(len(verdict), 1, lines[-20:])
        self.assertTrue(verdict[0].endswith(", wrong 0"), "\n".join(lines[-60:]))
        self.assertGreater(int(verdict[0].split()[1].rstrip(",")), 500)

    def test_cases(self):
        share = self.folder_of("share")
        owners = "root" if os.geteuid() == 0 else "user"
        self.check_cases(self.run_guest(f"cd /mnt/s && share_cases {owners}", "--share", f"tag=s,path={share}", programs=["share_cases.c"]))
        self.assertEqual(os.listdir(share), [])

    def test_cases_with_a_named_owner(self):
        share = self.folder_of("share")
        lines = self.run_guest("""cd /mnt/s && share_cases user
echo x >/mnt/s/made; chmod 4755 /mnt/s/made; chown 5:6 /mnt/s/made 2>&1; chown 1234:4321 /mnt/s/made && stat -c '%u %g %a' /mnt/s/made""",
                               "--share", f"tag=s,path={share},uid=1234,gid=4321", programs=["share_cases.c"])
        self.check_cases(lines)
        self.assertIn("1234 4321 755", lines)
        self.assertTrue(any("Operation not permitted" in line for line in lines), lines)
        status = os.stat(os.path.join(share, "made"))
        self.assertEqual((status.st_uid, status.st_gid, status.st_mode & 0o7777), (os.geteuid(), os.getegid(), 0o755))

    @unittest.skipUnless(os.geteuid() == 0, "needs to become another user")
    def test_cases_of_an_unprivileged_monitor(self):
        share = self.folder_of("share")
        os.chown(share, 1000, 1000)
        os.chmod(self.folder, 0o755)
        command = self.vmm_command(self.initramfs(MOUNT + """cd /mnt/s && share_cases user
echo x >/mnt/s/made; stat -c 'made %u %g' /mnt/s/made; stat -c 'root %u %g' /mnt/s/of_root; stat -c 'other %u %g' /mnt/s/of_other
echo x >/mnt/s/of_root; cat /mnt/s/secret; chown 77 /mnt/s/made""", ["share_cases.c"]), "--share", f"tag=s,path={self.prepare_owners(share)}")
        # What the other user must be able to read may be in somebody's home.
        for place in (0, command.index("--kernel") + 1):
            command[place] = shutil.copy(command[place], self.folder)
            os.chmod(command[place], 0o755)
        process = subprocess.Popen(["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", *command], env=self.env,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(self.end_process, process)
        lines = vmm_guest.Guest(process).end()
        self.check_cases(lines)
        for line in ("made 0 0", "root 65534 65534", "other 2000 2000"):
            self.assertIn(line, lines)
        self.assertEqual(sum("Permission denied" in line for line in lines), 2, lines)
        self.assertEqual(sum("Operation not permitted" in line for line in lines), 1, lines)
        self.assertEqual(os.stat(os.path.join(share, "made")).st_uid, 1000)

    def prepare_owners(self, share):
        for name, owner, mode in (("of_root", 0, 0o644), ("of_other", 2000, 0o644), ("secret", 0, 0o600)):
            path = os.path.join(share, name)
            with open(path, "w", encoding="ascii") as file:
                file.write(name)
            os.chown(path, owner, owner)
            os.chmod(path, mode)
        return share

    def test_the_host_changes_things(self):
        share = self.folder_of("share")
        with open(os.path.join(share, "f"), "w", encoding="ascii") as file:
            file.write("first")
        guest = self.start_guest(MOUNT + """cd /mnt/s
echo "f: $(cat f)"; echo ONE; read go
echo "f: $(cat f)"; ls -1; echo TWO; read go
cat f; ls -1; (exec 3<d/open; echo THREE; read go; cat <&3)
cat d/open
mkdir e; echo guest >e/g; mv e/g e/h; ln -s h e/l; echo FOUR; read go""", "--share", f"tag=s,path={share}")
        self.assertTrue(guest.wait_line("ONE"))
        with open(os.path.join(share, "f"), "w", encoding="ascii") as file:
            file.write("second and longer")
        os.mkdir(os.path.join(share, "d"))
        guest.say()
        self.assertTrue(guest.wait_line("TWO"))
        os.unlink(os.path.join(share, "f"))
        with open(os.path.join(share, "d/open"), "w", encoding="ascii") as file:
            file.write("still here\n")
        guest.say()
        self.assertTrue(guest.wait_line("THREE"))
        os.rename(os.path.join(share, "d"), os.path.join(share, "moved"))
        os.unlink(os.path.join(share, "moved/open"))
        guest.say()
        self.assertTrue(guest.wait_line("FOUR"))
        with open(os.path.join(share, "e/l"), encoding="ascii") as file:
            self.assertEqual(file.read(), "guest\n")
        guest.say()
        lines = guest.end()
        self.assertEqual(lines[lines.index("f: first"):lines.index("THREE")],
                         ["f: first", "ONE", "f: second and longer", "d", "f", "TWO", "cat: can't open 'f': No such file or directory", "d"])
        self.assertIn("still here", lines)
        self.assertIn("cat: can't open 'd/open': No such file or directory", lines)

    def test_read_only(self):
        share = self.folder_of("share")
        with open(os.path.join(share, "f"), "w", encoding="ascii") as file:
            file.write("content\n")
        lines = self.run_guest("""cd /mnt/s; cat f
echo x >f; echo x >>f; echo x >new; mkdir d; rm f; mv f g; ln f g; ln -s f g; chmod 600 f; touch f; mkfifo p; truncate -s 0 f
cd /mnt; mkdir x; rmdir s; mv s t; cat s/f""", "--share", f"tag=s,path={share},readonly=on")
        self.assertEqual(sum("Read-only file system" in line for line in lines), 15, lines)
        self.assertEqual(lines.count("content"), 2)
        self.assertEqual(os.listdir(share), ["f"])

    def test_trees_arrive_whole(self):
        source, target = self.folder_of("source"), self.folder_of("target")
        random.seed(9)
        for i in range(400):
            folder = os.path.join(source, *(f"d{random.randrange(4)}" for _ in range(random.randrange(5))))
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, f"f{i} \u00e4\u20ac{'x' * random.randrange(200)}"), "wb") as file:
                file.write(random.randbytes(random.choice((0, 1, 100, 5000, 70000, 600000))))
                os.fchmod(file.fileno(), random.choice((0o644, 0o755, 0o600)))
        os.symlink("d0/nowhere", os.path.join(source, "link"))
        lines = self.run_guest("""cp -a /mnt/from/. /mnt/to/copy && (cd /mnt/from && tar cf - .) | (mkdir /mnt/to/tar && cd /mnt/to/tar && tar xpf -)
cd /mnt/to/copy && find . -type f -print0 | xargs -0 sha256sum | sort | sha256sum""",
                               "--share", f"tag=from,path={source},readonly=on", "--share", f"tag=to,path={target}")
        wanted = digest_tree(source)
        self.assertEqual(digest_tree(os.path.join(target, "copy")), wanted, lines)
        self.assertEqual(digest_tree(os.path.join(target, "tar")), wanted, lines)

    def test_nobody_gets_out_by_a_race(self):
        share, outside = self.folder_of("share"), self.folder_of("outside")
        with open(os.path.join(outside, "secret"), "w", encoding="ascii") as file:
            file.write("SECRET\n")
        inside = os.path.join(share, "d")
        os.mkdir(inside)
        with open(os.path.join(inside, "secret"), "w", encoding="ascii") as file:
            file.write("inside\n")
        os.symlink(outside, os.path.join(share, "absolute"))
        os.symlink("../outside", os.path.join(share, "relative"))
        stop = threading.Event()

        def swap():
            while not stop.wait(0.0005):
                os.rename(inside, inside + ".kept")
                os.symlink("../outside", inside)
                os.unlink(inside)
                os.rename(inside + ".kept", inside)

        swapper = threading.Thread(target=swap)
        swapper.start()
        try:
            lines = self.run_guest("""cd /mnt/s
for i in $(seq 60); do cat d/secret; echo evil >d/evil; mv -f d/evil d/evil2; ln d/evil2 d/evil3; rm -f d/evil3; mkdir d/sub; rmdir d/sub; done 2>/dev/null </dev/null
cat absolute/secret relative/secret ../outside/secret s/../../outside/secret; echo x >relative/evil""", "--share", f"tag=s,path={share}")
        finally:
            stop.set()
            swapper.join()
        self.assertIn("END", lines)
        self.assertIn("inside", lines)
        self.assertNotIn("SECRET", lines)
        self.assertEqual(os.listdir(outside), ["secret"])

    def test_shares_come_and_go(self):
        first, second, socket_path = self.folder_of("first"), self.folder_of("second"), self.path("api")
        for folder in (first, second):
            with open(os.path.join(folder, "f"), "w", encoding="ascii") as file:
                file.write(f"of {os.path.basename(folder)}\n")
        guest = self.start_guest(MOUNT + """cd /mnt; cat one/f; ls; exec 4<one/f
(while echo data >>one/busy; do :; done) 2>/dev/null & loop=$!
echo ONE; read go
wait $loop; cat <&4; ls; cat one/f; cat two/f; echo TWO; read go
cat <&4; exec 4<&-; cat one/f; echo THREE""", "--share", f"tag=one,path={first}", "--api-socket", f"path={socket_path}", "--after-reset", "end")
        self.assertTrue(guest.wait_line("ONE"))
        busy = os.path.join(first, "busy")
        self.assertTrue(smolvm.wait_until(lambda: os.path.exists(busy) and os.stat(busy).st_size > 100))
        api = vmm_guest.Api(socket_path)
        self.assertEqual(api.put("vm.add-share", {"tag": "two", "path": second, "read_only": True})[0], 204)
        self.assertNotEqual(api.put("vm.add-share", {"tag": "three", "path": self.path("missing")})[0], 204)
        self.assertEqual(api.put("vm.remove-device", {"id": "one"})[0], 204)
        size = os.stat(busy).st_size
        guest.say()
        self.assertTrue(guest.wait_line("TWO"))
        self.assertEqual(os.stat(busy).st_size, size, "written after the removal")
        self.assertEqual(api.put("vm.add-share", {"tag": "one", "path": second, "read_only": False})[0], 204)
        guest.say()
        lines = guest.end()
        at = lines.index("TWO")
        self.assertTrue(any("Stale file handle" in line for line in lines[:at]), lines)
        self.assertIn("of second", lines[:at])
        self.assertIn("cat: can't open 'one/f': Stale file handle", lines[:at])
        self.assertIn("of second", lines[at:], "a new share of the same name, once nothing of the old one is open")
        self.assertIn("THREE", lines)

    def test_bad_shares(self):
        image, share = self.initramfs(""), self.folder_of("share")
        with open(self.path("file"), "w", encoding="ascii") as file:
            file.write("x")
        for text, word in ((f"tag=a,path={self.path('missing')}", "missing"), (f"tag=a,path={self.path('file')}", "is not a directory"),
                           (f"tag=a/b,path={share}", "a/b"), ("tag=a", "path="), (f"path={share}", "tag="), (f"tag=a,path={share},uid=x", "'x'"),
                           (f"tag=a,path={share},speed=fast", "speed"), (f"tag=a,path={share},uid=4294967295", "no ID")):
            done = subprocess.run(self.vmm_command(image, "--share", text), stdin=subprocess.DEVNULL, capture_output=True, env=self.env,
                                  timeout=smolvm.LIMIT, check=False)
            self.assertNotEqual(done.returncode, 0, text)
            self.assertTrue(done.stderr.decode().startswith("Error: "), done.stderr)
            self.assertIn(word, done.stderr.decode())
        twice = subprocess.run(self.vmm_command(image, "--share", f"tag=a,path={share}", "--share", f"tag=a,path={share}"),
                               stdin=subprocess.DEVNULL, capture_output=True, env=self.env, timeout=smolvm.LIMIT, check=False)
        self.assertIn("there already", twice.stderr.decode())


if __name__ == "__main__":
    smolvm.main()
