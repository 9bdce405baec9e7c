"""Packed applications: one file that runs where nothing is installed."""
import json
import os
import shutil
import subprocess
import tempfile
import unittest
import urllib.request

import smolvm
from smolvm import LIMIT, SMOLVM

HERE = os.path.dirname(os.path.abspath(__file__))
MOST_BYTES = 6_000_000  # of the HTTP echo server's capsule
SECTIONS = ("config", "kernel", "init", "sbom", "root")


def compile_static(source, target):
    subprocess.run(["musl-gcc", "-D_GNU_SOURCE", "-static", "-Os", "-s", "-o", target, os.path.join(HERE, source)], check=True)


class CapsuleTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="smolvm-capsule-")
        os.chmod(cls.folder, 0o755)
        cls.env = {**os.environ, "HOME": cls.folder, "XDG_CONFIG_HOME": cls.folder + "/config",
                   "SMOLVM_DATA_DIR": cls.folder + "/data", "SOURCE_DATE_EPOCH": "1700000000"}
        cls.root = os.path.join(cls.folder, "root")
        os.makedirs(cls.root + "/tmp")
        compile_static("speak.c", cls.root + "/speak")
        compile_static("echo_server.c", cls.root + "/echo_server")
        cls.app = os.path.join(cls.folder, "app")
        cls.pack(cls.app, "--entrypoint", "/speak", "-e", "WORD=packed")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    @classmethod
    def smolvm(cls, *words, check=True):
        done = subprocess.run([SMOLVM, *words], env=cls.env, capture_output=True, text=True, timeout=LIMIT, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"smolvm {words}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    @classmethod
    def pack(cls, output, *options, root=None):
        return cls.smolvm("pack", "create", "--rootfs", root or cls.root, "--mem", "64", "-o", output, *options)

    def run_app(self, *words, app=None, before=(), stdin=None, env=None):
        return subprocess.run([*before, app or self.app, *words], env=self.env if env is None else env, capture_output=True,
                              input=stdin, stdin=subprocess.DEVNULL if stdin is None else None, text=True, timeout=LIMIT,
                              check=False)

    def assert_said(self, done, *lines, status=0):
        self.assertEqual(done.returncode, status, done)
        for line in lines:
            self.assertIn(line + "\n", done.stdout, done)

    # --- As a program ---

    def test_all_words_are_the_programs(self):
        done = self.run_app("--mem", "a b", "", "exit=7", "stop")
        self.assert_said(done, "argument --mem", "argument a b", "argument ", "argument stop", "word packed", "folder / user 0", status=7)

    def test_own_words(self):
        self.assert_said(self.run_app("--", "start"), "argument start")
        self.assert_said(self.run_app("run", "-e", "WORD=given", "-w", "/tmp", "-u", "5:5", "--", "info"), "argument info",
                         "word given", "folder /tmp user 5")
        done = self.run_app("run", "--nonsense")
        self.assertEqual((done.returncode, done.stdout), (2, ""), done)
        self.assertIn("--nonsense", done.stderr)
        done = self.run_app("run", "--entrypoint", "/none")
        self.assertEqual(done.returncode, 127, done)

    def test_streams_and_ends(self):
        self.assert_said(self.run_app("-i", stdin="one\ntwo\n"), "input one", "input two")
        self.assertEqual(self.run_app("signal").returncode, 128 + 9)
        self.assertEqual(self.run_app("run", "--timeout", "1s", "wait").returncode, 124)

    def test_signals_reach_the_program(self):
        process = subprocess.Popen([self.app, "wait"], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.assertEqual(process.stdout.readline(), "argument wait\n")
        process.terminate()
        self.assertEqual(process.wait(LIMIT), 128 + 15)
        process.stdout.close()

    def test_volumes(self):
        shared = os.path.join(self.folder, "shared")
        os.makedirs(shared, exist_ok=True)
        self.assert_said(self.run_app("run", "-v", f"{shared}:/tmp", "--", "write=/tmp/new"), "write good")
        self.assertTrue(os.path.exists(shared + "/new"))

    def test_info(self):
        text = self.run_app("info").stdout
        self.assertIn("every byte agrees", text)
        told = json.loads(self.run_app("info", "--json").stdout)
        self.assertEqual([section["name"] for section in told["sections"]], list(SECTIONS))
        self.assertEqual(told["entrypoint"], "/speak")

    def test_same_inputs_same_bytes(self):
        again = os.path.join(self.folder, "again", "app")
        os.makedirs(os.path.dirname(again))
        self.pack(again, "--entrypoint", "/speak", "-e", "WORD=packed")
        with open(self.app, "rb") as one, open(again, "rb") as two:
            self.assertEqual(one.read(), two.read())

    # --- In the background ---

    def test_start_exec_stop(self):
        state = os.path.join(self.folder, "state")
        os.makedirs(state, mode=0o700)
        # With a folder for its socket, and without any.
        for number, env in enumerate(({"XDG_RUNTIME_DIR": state}, {})):
            with self.subTest(env=env):
                name = f"{os.getpid()}-{number}"
                words = ["-n", name]
                self.assertEqual(self.run_app("status", *words, env=env).returncode, 1)
                done = self.run_app("start", *words, "--", "wait", env=env)
                self.assertRegex(done.stdout, rf"^Started: {name} \(PID: \d+\)\n$", done)
                try:
                    self.assertEqual(self.run_app("start", *words, env=env).returncode, 1)
                    self.assertIn("running", self.run_app("status", *words, env=env).stdout)
                    self.assert_said(self.run_app("exec", *words, "-e", "WORD=x", "--", "/speak", "exit=5", env=env),
                                     "argument exit=5", "word x", status=5)
                finally:
                    done = self.run_app("stop", *words, env=env)
                self.assertEqual((done.returncode, done.stdout), (0, f"Stopped: {name}\n"), done)
                self.assertEqual(json.loads(self.run_app("status", "--json", *words, env=env).stdout)["state"], "stopped")
        self.assertEqual([entry for entry in os.listdir(state + "/smol-capsule") if not entry.endswith(".log")], [])

    # --- Other shapes ---

    def test_machine_files_and_split_ones(self):
        plain, split = os.path.join(self.folder, "m.smolmachine"), os.path.join(self.folder, "split")
        self.pack(plain, "--entrypoint", "/speak")
        done = self.smolvm("pack", "run", "--from", plain, "-e", "WORD=w", "--", "exit=6", check=False)
        self.assert_said(done, "argument exit=6", "word w", status=6)
        self.pack(split, "--split", "--entrypoint", "/speak")
        self.assertLess(os.path.getsize(split), 500_000)
        path = os.path.join(self.folder, "bin")
        os.makedirs(path)
        os.symlink(os.path.abspath(SMOLVM), path + "/smolvm")
        self.assert_said(self.run_app("--help", "exit=2", app=split, env={**self.env, "PATH": path + ":" + os.environ["PATH"]}),
                         "argument --help", status=2)

    def test_rebase_keeps_root_and_configuration(self):
        app = os.path.join(self.folder, "rebased")
        shutil.copy(self.app, app)
        before = json.loads(self.run_app("info", "--json", app=app).stdout)["sections"]
        done = self.smolvm("pack", "rebase", "--kernel", "full", app)
        self.assertRegex(done.stdout, "kernel: [0-9a-f]{16} -> [0-9a-f]{16}\n")
        self.assertRegex(done.stdout, "runtime: [0-9a-f]{16} as before\n")
        after = {section["name"]: section for section in json.loads(self.run_app("info", "--json", app=app).stdout)["sections"]}
        for section in before:
            same = after[section["name"]]["digest"] == section["digest"]
            self.assertEqual(same, section["name"] in ("init", "sbom", "root"), section)
        self.smolvm("pack", "rebase", "--kernel", "micro", app)
        with open(self.app, "rb") as one, open(app, "rb") as two:
            self.assertEqual(one.read(), two.read())

    def test_a_named_machine_out_of_it(self):
        self.smolvm("machine", "create", "--name", "packed", "--from", self.app, "-e", "MORE=1", "--accel", "soft")
        self.addCleanup(self.smolvm, "machine", "delete", "-f", "packed", check=False)
        told = json.loads(self.smolvm("machine", "ls", "--json").stdout)[0]
        self.assertEqual((told["name"], told["memory_mib"]), ("packed", 64))
        self.smolvm("machine", "start", "packed")
        done = self.smolvm("machine", "exec", "packed", "--", "/speak", "exit=5", check=False)
        self.assert_said(done, "argument exit=5", "word packed", status=5)
        self.smolvm("machine", "stop", "packed")
        done = self.smolvm("machine", "run", "--accel", "soft", "--from", self.app, "-e", "WORD=run", "--", "exit=6", check=False)
        self.assert_said(done, "argument exit=6", "word run", status=6)

    def test_no_machine_out_of_a_damaged_one(self):
        root = [each for each in json.loads(self.run_app("info", "--json").stdout)["sections"] if each["name"] == "root"][0]
        broken = os.path.join(self.folder, "broken-root")
        shutil.copy(self.app, broken)
        with open(broken, "r+b") as file:
            file.seek(root["offset"] + 100)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
        done = self.smolvm("machine", "create", "--name", "broken", "--from", broken, check=False)
        self.assertEqual((done.returncode, done.stdout), (1, ""), done)
        self.assertIn("root", done.stderr)
        self.assertNotIn("broken", self.smolvm("machine", "ls").stdout)
        done = self.smolvm("machine", "create", "--name", "two", "--from", self.app, "--rootfs", self.root, check=False)
        self.assertEqual(done.returncode, 1, done)
        self.assertIn("--rootfs", done.stderr)

    # --- Where there is nothing ---

    def empty_root(self):
        root = tempfile.mkdtemp(prefix="empty-", dir=self.folder)
        os.chmod(root, 0o755)
        shutil.copy(self.app, root + "/app")
        return root

    @unittest.skipUnless(os.geteuid() == 0, "chroot needs root")
    def test_runs_in_an_empty_root_directory(self):
        root = self.empty_root()
        for user in ([], ["--userspec=65534:65534"]):
            with self.subTest(user=user):
                done = self.run_app("here", "exit=3", app="/app", before=["chroot", *user, root], env={"PATH": os.environ["PATH"]})
                self.assert_said(done, "argument here", "word packed", status=3)
        self.assertEqual(os.listdir(root), ["app"], "something was left behind")

    @unittest.skipUnless(os.geteuid() == 0, "mounting needs root")
    def test_runs_from_read_only_media(self):
        media = tempfile.mkdtemp(prefix="media-", dir=self.folder)
        script = f"mount -t tmpfs none {media} && cp {self.app} {media}/app && mount -o remount,ro {media} && exec {media}/app exit=4"
        done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=LIMIT, check=False,
                              stdin=subprocess.DEVNULL, env={"PATH": os.environ["PATH"]})
        self.assert_said(done, "argument exit=4", status=4)

    # --- Damage ---

    def test_a_flipped_byte_in_each_section_is_named(self):
        with open(self.app, "rb") as file:
            good = file.read()
        broken = os.path.join(self.folder, "broken")
        told = json.loads(self.run_app("info", "--json").stdout)
        for section in told["sections"]:
            with self.subTest(section=section["name"]):
                at = section["offset"] + section["stored"] // 2
                with open(broken, "wb") as file:
                    file.write(good[:at] + bytes([good[at] ^ 1]) + good[at + 1:])
                os.chmod(broken, 0o755)
                for words in (["exit=0"], ["info"]):
                    done = self.run_app(*words, app=broken)
                    self.assertEqual((done.returncode, done.stdout), (1, ""), done)
                    self.assertRegex(done.stderr, f"^Error: .*'?{section['name']}", done)
                done = self.smolvm("pack", "verify", broken, check=False)
                self.assertEqual(done.returncode, 1, done)
                self.assertIn(section["name"], done.stderr)

    def test_a_short_file_is_refused(self):
        with open(self.app, "rb") as file:
            good = file.read()
        short = os.path.join(self.folder, "short")
        for keep in (len(good) - 1, len(good) - 100_000):
            with open(short, "wb") as file:
                file.write(good[:keep])
            os.chmod(short, 0o755)
            done = self.run_app(app=short)
            self.assertEqual(done.returncode, 1, done)
            self.assertTrue(done.stderr.startswith("Error: "), done)

    # --- The HTTP echo server ---

    def test_a_server_is_small_and_answers(self):
        server, port = os.path.join(self.folder, "server"), smolvm.free_port()
        root = os.path.join(self.folder, "server-root")
        os.makedirs(root)
        shutil.copy(self.root + "/echo_server", root)
        self.pack(server, "--entrypoint", "/echo_server", root=root)
        self.assertLessEqual(os.path.getsize(server), MOST_BYTES)
        process = subprocess.Popen([server, "run", "-p", f"{port}:8080"], env=self.env, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            self.assertEqual(process.stdout.readline(), "listening on 8080\n", process.poll())
            request = urllib.request.Request(f"http://127.0.0.1:{port}/path", data=b"body", method="POST")
            with urllib.request.urlopen(request, timeout=LIMIT) as answer:
                self.assertEqual(answer.read(), b"POST /path HTTP/1.1\nbody")
        finally:
            process.terminate()
            process.wait(LIMIT)
            process.stdout.close()
            process.stderr.close()


if __name__ == "__main__":
    smolvm.main()
