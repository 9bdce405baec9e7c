#!/usr/bin/env python3
"""The monitor's sandbox, seen from outside: what a running monitor may still do, and what becomes of one that tries more."""
import json
import os
import subprocess

import smolvm
import vmm_guest

HERE = os.path.dirname(os.path.abspath(__file__))
FORBIDDEN = 101  # ptrace(2), on no thread's list


def status_of(pid, thread=None):
    path = f"/proc/{pid}/status" if thread is None else f"/proc/{pid}/task/{thread}/status"
    with open(path, encoding="ascii", errors="replace") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def threads_of(pid):
    """Kernel thread id by name."""
    found = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            found[status_of(pid, thread)["Name"]] = int(thread)
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has ended since
    return found


class SandboxTest(smolvm.MachineTest):
    @classmethod
    def setUpClass(cls):
        cls.inject = os.path.join("/tmp", f"smol-inject-{os.getpid()}")
        subprocess.run(["cc", "-O1", "-o", cls.inject, os.path.join(HERE, "inject.c")], check=True)
        cls.addClassCleanup(os.unlink, cls.inject)

    def running_monitor(self, *options):
        """A run that waits, and its monitor's process id once the guest's program has begun."""
        process = self.start_machine("sh", "-c", "echo up; sleep 1000", options=options)
        self.assertEqual(process.stdout.readline(), b"up\n")
        monitors = [pid for pid in smolvm.processes_with(self.mark) if pid != process.pid and status_of(pid)["Name"] == "smol-vmm"]
        self.assertEqual(len(monitors), 1, monitors)
        return process, monitors[0]

    def test_every_thread_is_filtered_and_has_no_privilege(self):
        process, monitor = self.running_monitor()
        for name, thread in threads_of(monitor).items():
            status = status_of(monitor, thread)
            self.assertEqual((status["Seccomp"], status["NoNewPrivs"], status["CapEff"]), ("2", "1", "0" * 16), name)
        process.terminate()

    def test_only_the_machines_files_are_there(self):
        process, monitor = self.running_monitor()
        root = os.listdir(f"/proc/{monitor}/root")
        self.assertNotIn("etc", root)
        self.assertNotIn("home", root)
        process.terminate()

    def test_a_forbidden_call_kills_the_monitor_and_is_reported(self):
        for name in ("smol-vmm", "vcpu0", "devices"):
            with self.subTest(thread=name):
                process, monitor = self.running_monitor()
                thread = threads_of(monitor)[name]
                # A thread that computes at that moment is asked again.
                self.assertTrue(smolvm.wait_until(
                    lambda t=thread: subprocess.run([self.inject, str(t), str(FORBIDDEN)], check=False).returncode == 0))
                _, errors = process.communicate(timeout=smolvm.LIMIT)
                self.assertEqual(process.returncode, 1)
                self.assertIn(b"system call filter", errors)

    def test_a_monitor_without_it_does_not_die_of_it(self):
        """That the injected call is what kills: the same call, the sandbox off."""
        env_kernel = smolvm.kernel_path("micro")
        monitor = subprocess.Popen(
            [os.path.join(os.path.dirname(smolvm.SMOLVM), "smol-vmm"), "--accel", smolvm.ACCEL, "--sandbox", "off", "--serial", "null",
             "--kernel", env_kernel, "--initramfs", os.environ["SMOL_IMAGE"], "--tables", "mp", "--memory", "size=64M",
             "--cmdline", "quiet smol.exec=/bin/sleep -- 1000"], env=self.env)
        self.addCleanup(self.end_process, monitor)
        self.assertTrue(smolvm.wait_until(lambda: "devices" in threads_of(monitor.pid)))
        thread = threads_of(monitor.pid)["devices"]
        self.assertTrue(smolvm.wait_until(
            lambda: subprocess.run([self.inject, str(thread), "39"], check=False).returncode == 0))  # getpid
        self.assertIsNone(monitor.poll())

    def test_a_machine_that_comes_by_the_api(self):
        """Root's has namespaces too, though a thread ran before them; and that thread has nothing but its sockets."""
        path = self.path("api")
        monitor = subprocess.Popen([os.path.join(os.path.dirname(smolvm.SMOLVM), "smol-vmm"), "--accel", smolvm.ACCEL, "--api-socket", f"path={path}",
                                    "--event-monitor", f"path={self.path('events')}"], env=self.env, stdin=subprocess.DEVNULL)
        self.addCleanup(self.end_process, monitor)

        api = vmm_guest.Api(path)

        def up():
            self.assertIsNone(monitor.poll())
            try:
                return "pid" in api.get("vmm.ping")
            except OSError:
                api.close()
                return False
        self.assertTrue(smolvm.wait_until(up))
        config = {"payload": {"kernel": smolvm.kernel_path("micro"), "initramfs": os.environ["SMOL_IMAGE"],
                              "cmdline": "quiet smol.exec=/bin/sleep -- 1000"},
                  "memory": {"size": 64 << 20}, "serial": {"mode": "Null"}, "console": {"mode": "Off"}, "platform": {"tables": "mp"}}
        self.assertEqual(api.put("vm.create", config)[0], 204)
        self.assertEqual(api.put("vm.boot", None)[0], 204)
        self.assertTrue(smolvm.wait_until(lambda: "devices" in threads_of(monitor.pid)))
        with open(self.path("events"), encoding="utf-8") as file:
            told = next(event["properties"] for event in map(json.loads, file) if event["event"] == "sandboxed")
        threads = threads_of(monitor.pid)
        self.assertIn("api", threads)
        for name, thread in threads.items():
            status = status_of(monitor.pid, thread)
            self.assertEqual((status["Seccomp"], status["NoNewPrivs"], status["CapEff"]), ("2", "1", "0" * 16), name)
            for kind in ("mnt", "net", "ipc"):
                part = {"mnt": "mount_namespace", "net": "network_namespace", "ipc": "ipc_namespace"}[kind]
                if told[part] == "in force":
                    self.assertNotEqual(os.readlink(f"/proc/{monitor.pid}/task/{thread}/ns/{kind}"), os.readlink(f"/proc/self/ns/{kind}"), name)
        doctor = json.loads(subprocess.run([smolvm.SMOLVM, "doctor", "--json"], env=self.env, capture_output=True, check=True).stdout)
        for part in ("mount_namespace", "network_namespace", "ipc_namespace"):
            self.assertEqual(told[part] == "in force", doctor["sandbox"][part]["in_force"], part)
        # What a later machine would need is gone, and that is said.
        self.assertEqual(api.put("vm.delete", None)[0], 204)
        self.assertEqual(api.put("vm.create", {**config, "net": [{"mode": "user"}]})[0], 204)
        if told["network_namespace"] == "in force":
            status, text = api.put("vm.boot", None)
            self.assertEqual(status, 500, text)
            self.assertIn(b"network of its first machine", text)
        self.assertEqual(api.put("vmm.shutdown", None)[0], 204)
        self.assertEqual(monitor.wait(smolvm.LIMIT), 0)

    def test_a_file_directly_below_the_root_is_refused(self):
        """Its folder would be the whole host."""
        done = subprocess.run(
            [os.path.join(os.path.dirname(smolvm.SMOLVM), "smol-vmm"), "--accel", smolvm.ACCEL, "--serial", "null", "--kernel",
             smolvm.kernel_path("micro"), "--tables", "mp", "--memory", "size=64M", "--stats", "/smol-test-stats.json"],
            env=self.env, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=smolvm.LIMIT)
        self.assert_error(smolvm.Result(done.returncode, done.stdout, done.stderr), "lies in /", "folder")
        self.assertFalse(os.path.exists("/smol-test-stats.json"))

    def test_the_event_monitor_tells_what_is_in_force(self):
        events = self.path("events")
        done = subprocess.run(
            [os.path.join(os.path.dirname(smolvm.SMOLVM), "smol-vmm"), "--accel", smolvm.ACCEL, "--serial", "null", "--kernel",
             smolvm.kernel_path("micro"), "--initramfs", os.environ["SMOL_IMAGE"], "--tables", "mp", "--memory", "size=64M",
             "--event-monitor", f"path={events}", "--cmdline", "quiet reboot=t panic=-1 no_timer_check smol.exec=/bin/true"],
            env=self.env, stdin=subprocess.DEVNULL, check=False, timeout=smolvm.LIMIT)
        self.assertIn(done.returncode, (0, 3))
        with open(events, encoding="utf-8") as file:
            told = [json.loads(line) for line in file]
        sandboxed = [event["properties"] for event in told if event["event"] == "sandboxed"]
        self.assertEqual(len(sandboxed), 1)
        self.assertEqual((sandboxed[0]["seccomp"], sandboxed[0]["no_new_privileges"]), ("in force", "in force"))


if __name__ == "__main__":
    if os.geteuid() != 0:
        raise SystemExit("needs root to trace a monitor")
    smolvm.main()
