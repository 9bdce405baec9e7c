#!/usr/bin/env python3
"""Memory that guests give back: free page reporting, the balloon, deflating instead of running out; and memory that the host lacks."""
import os
import shutil
import subprocess

import smolvm
import vmm_guest

MIB = 1024  # of KiB
POOL = "/proc/sys/vm/nr_hugepages"
THP = "/sys/kernel/mm/transparent_hugepage"
# Touches memory: 100 MiB of a tmpfs.
FILL = """
mount -t tmpfs -o size=150m none /tmp
dd if=/dev/zero of=/tmp/x bs=1M count=100 2>/dev/null
echo USED; read go
"""


def read(path):
    with open(path, encoding="ascii") as file:
        return file.read()


def meminfo(key):
    return next(int(line.split()[1]) for line in read("/proc/meminfo").splitlines() if line.startswith(key + ":"))


def free_huge_pages_possible():
    """Whether the host has free pieces of 2 MiB at all (order 9 and above)."""
    return any(int(count) for line in read("/proc/buddyinfo").splitlines() for count in line.split()[13:])


class MemoryTest(vmm_guest.GuestTest):
    def test_freed_memory_goes_back_to_the_host(self):
        for options in ("1536M", "1536M,shared=off"):
            with self.subTest(options):
                self.freed_memory_goes_back(options)
                subprocess.run(["rm", "-r", self.path("root")], check=True)

    def freed_memory_goes_back(self, memory):
        guest = self.start_guest("""
mount -t tmpfs -o size=1200m none /tmp
echo START; read go
dd if=/dev/zero of=/tmp/x bs=1M count=1024 2>/dev/null
echo USED; read go
rm /tmp/x
echo FREED; read go
""", "--balloon", "size=0", memory=memory)
        self.assertTrue(guest.wait_line("START"))
        before = guest.status("VmRSS")
        guest.say()
        self.assertTrue(guest.wait_line("USED"))
        used = guest.status("VmRSS")
        self.assertGreater(used - before, 1000 * MIB)
        guest.say()
        self.assertTrue(guest.wait_line("FREED"))
        wanted = used - 1024 * MIB * 9 // 10
        returned = smolvm.wait_until(lambda: guest.status("VmRSS") < wanted, smolvm.LIMIT)
        self.assertTrue(returned, f"{guest.status('VmRSS')} KiB resident, {used} before, {wanted} wanted")
        guest.say()
        self.assertEqual(guest.end()[-1], "END")

    def test_the_balloon_takes_and_out_of_memory_gives(self):
        guest = self.start_guest("""
mount -t tmpfs -o size=100% none /tmp
free_memory() { sed -n 's/MemFree: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo; }
for i in $(seq 900); do [ $(free_memory) -lt 110000 ] && break; sleep 0.1; done
[ $(free_memory) -lt 110000 ] && echo small || echo "not small: $(free_memory)"
dd if=/dev/zero of=/tmp/x bs=1M count=150 2>/dev/null && echo written
md5sum </tmp/x
""", "--balloon", "size=140M", memory="256M")
        lines = guest.end()
        for word in ("small", "written", "END"):
            self.assertIn(word, lines)
        self.assertIn(self.zero_digest(150) + "  -", lines)

    def test_the_balloon_by_the_api(self):
        path = self.path("api")
        guest = self.start_guest("echo START; read go", "--balloon", "size=0", "--api-socket", f"path={path}", "--after-reset", "end",
                                 memory="256M")
        self.assertTrue(guest.wait_line("START"))
        api = vmm_guest.Api(path)
        actual = lambda: api.get("vm.info")["memory_actual_size"]
        self.assertEqual(actual(), 256 << 20)
        for size in (100 << 20, 30 << 20, 0):
            self.assertEqual(api.put("vm.resize", {"desired_balloon": size})[0], 204)
            self.assertTrue(smolvm.wait_until(lambda: actual() == (256 << 20) - size, smolvm.LIMIT), f"{actual()} with a balloon of {size}")
        self.assertNotEqual(api.put("vm.resize", {"desired_balloon": 256 << 20})[0], 204)
        self.assertEqual(api.get("vm.info")["config"]["balloon"]["size"], 0)
        guest.say()
        self.assertEqual(guest.end()[-1], "END")

    def test_the_guest_tells_its_memory_when_asked(self):
        path = self.path("api")
        guest = self.start_guest("""
mount -t tmpfs -o size=100% none /tmp
echo START; read go
dd if=/dev/zero of=/tmp/x bs=1M count=100 2>/dev/null
echo USED; read go
""", "--balloon", "size=0,free_page_reporting=off", "--api-socket", f"path={path}", "--after-reset", "end", memory="256M")
        self.assertTrue(guest.wait_line("START"))
        api = vmm_guest.Api(path)

        def figures():
            return next(device for device in api.get("vm.counters").values() if "inflated_pages" in device)

        def fresh():
            """What the guest said after this call; it may take longer than the monitor waits."""
            told = figures()["guest_figures_told"]
            self.assertTrue(smolvm.wait_until(lambda: figures()["guest_figures_told"] >= told + 2, smolvm.LIMIT))
            return figures()

        first = fresh()
        self.assertGreater(first["guest_total_bytes"], 200 << 20)
        self.assertLess(first["guest_total_bytes"], 256 << 20)
        self.assertLess(first["guest_free_bytes"], first["guest_total_bytes"])
        for name in ("guest_available_bytes", "guest_cache_bytes", "guest_minor_faults"):
            self.assertIn(name, first)
        guest.say()
        self.assertTrue(guest.wait_line("USED"))
        second = fresh()
        self.assertGreater(first["guest_free_bytes"] - second["guest_free_bytes"], 90 << 20)
        self.assertGreater(second["guest_cache_bytes"] - first["guest_cache_bytes"], 90 << 20)
        # A paused guest is not waited for, and what it said stays.
        self.assertEqual(api.put("vm.pause", None)[0], 204)
        paused = figures()
        self.assertEqual(figures(), paused)
        self.assertEqual(api.put("vm.resume", None)[0], 204)
        fresh()
        guest.say()
        self.assertEqual(guest.end()[-1], "END")

    # --- What the options of --memory do to the mapping that is the guest's memory (proc(5), smaps) ---

    def guest_memory(self, guest):
        """Figures in KiB and flags of the guest's memory in the monitor: the one mapping that has what the guest used. Not all kernels know its name, and
        without advice it is one with what lies beside it."""
        mappings = []
        for line in read(f"/proc/{guest.process.pid}/smaps").splitlines():
            words = line.split()
            if not words[0].endswith(":"):
                mappings.append({})
            elif words[0] == "VmFlags:":
                mappings[-1]["flags"] = set(words[1:])
            elif words[-1] == "kB":
                mappings[-1][words[0][:-1]] = int(words[1])
        found = [one for one in mappings if sum(one[key] for key in ("Rss", "Private_Hugetlb", "Shared_Hugetlb")) > 100 * MIB]
        self.assertEqual(len(found), 1, [one["Size"] for one in mappings])
        return found[0], found[0]["flags"]

    def with_memory(self, options, check):
        """check(figures, flags) of a guest that has used 100 MiB."""
        with self.subTest(options):
            shutil.rmtree(self.path("root"), ignore_errors=True)
            guest = self.start_guest(FILL, memory="192M" + options)
            self.assertTrue(guest.wait_line("USED"), guest.lines)
            figures, flags = self.guest_memory(guest)
            check(figures, flags)
            guest.say()
            self.assertEqual(guest.end()[-1], "END")

    def test_transparent_huge_pages_as_chosen(self):
        allowed = "[never]" not in read(f"{THP}/enabled") and free_huge_pages_possible()
        always = "[always]" in read(f"{THP}/enabled")

        def asked(figures, flags):
            self.assertIn("hg", flags)
            self.assertNotIn("mg", flags)
            self.assertGreater(figures["Rss"], 100 * MIB)
            if allowed:
                self.assertGreater(figures["AnonHugePages"], 0)

        def refused(figures, flags):
            self.assertIn("nh", flags)
            self.assertEqual(figures["AnonHugePages"] + figures["ShmemPmdMapped"], 0)

        def left_to_the_host(figures, flags):
            self.assertFalse(flags & {"hg", "nh"}, flags)
            if not always:
                self.assertEqual(figures["AnonHugePages"], 0)

        def usual_shared(figures, flags):
            self.assertFalse(flags & {"hg", "nh"}, flags)
            self.assertIn("sh", flags)

        self.with_memory(",shared=off", asked)
        self.with_memory(",shared=off,thp=off", refused)
        self.with_memory(",shared=on,thp=off", refused)
        self.with_memory(",shared=off,thp=madvise", left_to_the_host)
        self.with_memory(",shared=on", usual_shared)

    def test_mergeable_memory_is_offered_to_the_host(self):
        if not os.path.exists("/sys/kernel/mm/ksm"):
            self.skipTest("the host's kernel has no KSM")
        self.with_memory(",mergeable=on,thp=on", lambda _, flags: self.assertLessEqual({"mg", "hg"}, flags))

    def test_huge_pages_of_the_pool(self):
        """96 pages of 2 MiB, reserved at the start; as root the pool is made larger for the test, and put back."""
        wanted = 192 // 2
        before = int(read(POOL))
        if meminfo("HugePages_Free") - meminfo("HugePages_Rsvd") < wanted:
            if not os.access(POOL, os.W_OK):
                self.skipTest("the host's pool of huge pages has too few, and only root makes it larger")
            self.addCleanup(lambda: self.set_pool(before))
            self.set_pool(before + wanted)
            if meminfo("HugePages_Free") - meminfo("HugePages_Rsvd") < wanted:
                self.skipTest("the host has no memory left for huge pages")

        def huge(figures, flags):
            self.assertIn("ht", flags)
            self.assertEqual(figures["KernelPageSize"] // MIB, 2)
            self.assertGreater(figures["Private_Hugetlb"] + figures["Shared_Hugetlb"], 100 * MIB)

        self.with_memory(",hugepages=on,shared=off", huge)
        self.with_memory(",hugepages=on,shared=on", huge)

    @staticmethod
    def set_pool(pages):
        with open(POOL, "w", encoding="ascii") as file:
            file.write(str(pages))

    @staticmethod
    def zero_digest(mebibytes):
        out = subprocess.run(f"head -c {mebibytes}M /dev/zero | md5sum", shell=True, check=True, capture_output=True, text=True).stdout
        return out.split()[0]

    def test_memory_that_the_host_lacks(self):
        image = self.initramfs("")
        for option, words in (("size=1T", ("this host's",)), ("size=513M,hugepages=on", ("multiple of 2 MiB",)),
                              ("size=64M,mergeable=on,shared=on", ("mergeable",)), ("size=64M,thp=perhaps", ("thp=perhaps",)),
                              ("size=64M,hugepages=maybe", ("hugepages=maybe",))):
            self.refused(self.vmm_command(image, "--memory", option), *words)
        with open("/proc/meminfo", encoding="ascii") as file:
            if "HugePages_Free:        0\n" in file.read():
                self.refused(self.vmm_command(image, "--memory", "size=64M,hugepages=on"), "needs 32 huge pages of 2 MiB, the host has 0 free")
        self.refused(self.vmm_command(image, "--balloon", "size=1G"), "would leave nothing")
        self.refused(self.vmm_command(image, "--balloon", "size=0,statistics=on"), "statistics")

    def refused(self, command, *words):
        # The last of two --memory options stands.
        first = command.index("--memory")
        if command.count("--memory") == 2:
            del command[first:first + 2]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=self.env, timeout=smolvm.LIMIT, check=False)
        text = done.stderr.decode()
        self.assertNotEqual(done.returncode, 0)
        self.assertTrue(text.startswith("Error: "), text)
        for word in words:
            self.assertIn(word, text)


if __name__ == "__main__":
    smolvm.main()
