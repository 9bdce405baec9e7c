#!/usr/bin/env python3
"""Cgroups of monitors: on this host as far as it lets us make them, and in a guest with our full kernel, where every controller is there."""
import json
import os
import re
import shutil
import subprocess

import machines_test
import smolvm
import vmm_guest

LIBRARIES = "/usr/lib/x86_64-linux-gnu"
# The guest is a host without systemd, whose root may all.
SCRIPT = """
mount -t cgroup2 none /sys/fs/cgroup
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 smol /mnt || echo 'no mount'
export HOME=/tmp
PROGRAM="/mnt/lib/ld-linux-x86-64.so.2 --library-path /mnt/lib /mnt/test/NAME"
mkdir /sys/fs/cgroup/group; echo $$ >/sys/fs/cgroup/group/cgroup.procs
$PROGRAM --gtest_filter='Cgroup*' 2>&1 | grep -v RUN
/mnt/bin/smolvm doctor --json | grep -A 3 '"cgroup"'
ls -d /sys/fs/cgroup/group/smolvm* /sys/fs/cgroup/smolvm* 2>/dev/null
"""


def cgroup_of(pid):
    with open(f"/proc/{pid}/cgroup", encoding="ascii") as file:
        return next((line[3:].rstrip("\n") for line in file if line.startswith("0::")), None)


class GuestCgroupTest(vmm_guest.GuestTest):
    def test_every_controller_in_a_guest(self):
        test = os.environ.get("SMOL_SANDBOX_TEST", "")
        folder, name = os.path.split(test)
        if not os.access(test, os.X_OK):
            self.skipTest("the unit tests of src/sandbox were not built")
        image = self.initramfs(SCRIPT.replace("NAME", name))
        command = self.vmm_command(image, "--share", f"tag=lib,path={LIBRARIES},readonly=on", "--share", f"tag=test,path={folder},readonly=on",
                                   "--share", f"tag=bin,path={os.path.dirname(smolvm.SMOLVM)},readonly=on")
        command[command.index("--kernel") + 1] = smolvm.kernel_path("full")
        done = subprocess.run(command, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, timeout=smolvm.LIMIT, check=False)
        text = done.stdout.decode().replace("\r", "")
        self.assertIn("[  PASSED  ] 7 tests.", text, text + done.stderr.decode())
        self.assertIn('"in_force": true', text)
        self.assertRegex(text, "smolvm-probe-[0-9]+: controllers memory cpu pids")
        self.assertNotIn("\n/sys/fs/cgroup", text, "a cgroup is left")


class HostCgroupTest(machines_test.NamedTest):
    def setUp(self):
        super().setUp()
        doctor = json.loads(subprocess.run([smolvm.SMOLVM, "doctor", "--json"], env=self.env, capture_output=True, check=True).stdout)
        self.found = doctor["sandbox"]["cgroup"]

    def need_cgroups(self):
        if not self.found["in_force"]:
            self.skipTest(f"no cgroup of its own here: {self.found['detail']}")

    def test_a_machine_has_its_own_as_long_as_it_lives(self):
        self.need_cgroups()
        self.create()
        self.assertIsNone(self.record()["cgroup"])
        self.good("start", "web")
        record = self.record()
        self.assertEqual(record["sandbox"]["cgroup"], "in force")
        path = record["cgroup"]["path"]
        self.assertTrue(os.path.basename(path).startswith("smolvm-web-"), path)
        self.assertTrue(path.endswith(cgroup_of(record["pid"])), cgroup_of(record["pid"]))
        self.assertNotEqual(cgroup_of(record["pid"]), cgroup_of(os.getpid()))
        with open(os.path.join(path, "cgroup.procs"), encoding="ascii") as file:
            self.assertEqual(file.read().split(), [str(record["pid"])], "the monitor, and nobody else")
        self.assertGreater(record["cgroup"]["cpu.usage_usec"], 0)
        self.good("stop", "web")
        self.assertTrue(smolvm.wait_until(lambda: not os.path.exists(path)))
        self.assertIsNone(self.record()["cgroup"])

    def test_a_killed_monitor_leaves_none(self):
        self.need_cgroups()
        self.create()
        self.good("start", "web")
        path = self.record()["cgroup"]["path"]
        os.kill(self.pid(), 9)
        self.assertTrue(smolvm.wait_until(lambda: not os.path.exists(path)))

    def test_a_run_has_one_too(self):
        self.need_cgroups()
        process = self.start_machine("sh", "-c", "echo up; sleep 1000")
        self.assertEqual(process.stdout.readline(), b"up\n")
        monitors = [pid for pid in smolvm.processes_with(self.mark) if pid != process.pid]
        paths = {cgroup_of(pid) for pid in monitors}
        self.assertEqual(len(paths), 1)
        path = os.path.join(os.path.dirname(self.found["detail"].split(": ")[0]), os.path.basename(paths.pop()))
        self.assertTrue(os.path.basename(path).startswith("smolvm-run-"), path)
        self.assertTrue(os.path.exists(path))
        process.terminate()
        process.wait(smolvm.LIMIT)
        self.assertTrue(smolvm.wait_until(lambda: not os.path.exists(path)))

    def doctor_as(self, group, user):
        """What a user's smolvm finds that runs in this cgroup."""
        words = ["sh", "-c", f'echo 0 >{group}/cgroup.procs; exec setpriv --reuid {user} --regid {user} --clear-groups "$0" doctor --json', self.program]
        env = {**self.env, "HOME": "/nonexistent"}
        done = subprocess.run(words, env=env, capture_output=True, check=False, timeout=smolvm.LIMIT)
        return json.loads(done.stdout)["sandbox"]["cgroup"]

    def test_a_delegated_part_is_enough(self):
        self.need_cgroups()
        if os.geteuid() != 0:
            self.skipTest("only root delegates")
        os.chmod(self.folder, 0o755)
        os.chmod(self.private, 0o777)
        self.program = self.path("smolvm")
        shutil.copy(smolvm.SMOLVM, self.program)
        group = os.path.join(os.path.dirname(self.found["detail"].split(": ")[0]), f"delegated-{os.getpid()}")
        inner = os.path.join(group, "session")
        os.mkdir(group)
        self.addCleanup(lambda: smolvm.wait_until(lambda: self.removed(group)))
        os.mkdir(inner)
        self.addCleanup(lambda: smolvm.wait_until(lambda: self.removed(inner)))
        refused = self.doctor_as(inner, 65534)
        self.assertFalse(refused["in_force"], refused)
        self.assertIn("not delegated", refused["detail"])
        for folder in (group, inner):  # as systemd does it
            for name in ("", "cgroup.procs", "cgroup.subtree_control"):
                os.chown(os.path.join(folder, name), 65534, 65534)
        found = self.doctor_as(inner, 65534)
        self.assertTrue(found["in_force"], found)
        self.assertTrue(found["detail"].startswith(group + "/"), found)
        self.assertEqual([name for name in os.listdir(group) + os.listdir(inner) if name.startswith("smolvm-")], [])

    @staticmethod
    def removed(path):
        try:
            os.rmdir(path)
        except OSError:
            return not os.path.exists(path)
        return True

    def test_limits_are_kept_shown_and_changed(self):
        self.create("web", "--memory-max", "400", "--cpu-max", "150", "--pids-max", "64")
        self.assertEqual(self.record()["host_limits"], {"memory_mib": 400, "cpu_percent": 150, "processes": 64})
        started = self.vm("start", "web")
        self.assertEqual(started.status, 0, repr(started))
        record = self.record()
        missing = re.findall(r"Warning: 'web' runs without .*", started.err.decode())
        for name, value in (("memory.max", 400 << 20), ("pids.max", 64)):
            if record["cgroup"] and name in record["cgroup"]:
                self.assertEqual(record["cgroup"][name], value)
            else:
                self.assertTrue([line for line in missing if name in line or "the limits that were asked for" in line], started)
        self.good("stop", "web")
        self.good("update", "web", "--memory-max", "0", "--pids-max", "0", "--cpu-max", "0")
        self.assertEqual(self.record()["host_limits"], {"memory_mib": None, "cpu_percent": None, "processes": None})
        self.good("start", "web")

    def test_limits_that_no_machine_could_live_with(self):
        for option, value, word in (("--memory-max", "256", "256 MiB"), ("--pids-max", "5", "threads"), ("--cpu-max", "1000000", "percent")):
            self.bad("create", "--name", "web", option, value, says=(f"{option} {value}", word))


if __name__ == "__main__":
    smolvm.main()
