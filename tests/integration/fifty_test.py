#!/usr/bin/env python3
"""Fifty machines at once: all start, all execute, idle cheaply in memory and time, and go without a trace.

SMOL_MACHINES: another number of them. Conditions are waited for; the only clock here is the one that processor time is counted against.
"""
import concurrent.futures
import json
import os
import time
import unittest

import machines_test
import smolvm

COUNT = int(os.environ.get("SMOL_MACHINES", "50"))
MEMORY_MIB = 64
OWN_LIMIT_KIB = 5 * 1024  # a monitor's memory beyond the guest's
IDLE_PERCENT = 0.5        # of a core, a machine
WINDOW_SECONDS = 4


def pss_kib(pid):
    """Of the whole monitor, and of what is not the guest's memory."""
    total, own, guest = 0, 0, False
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as file:
        for line in file:
            key, _, rest = line.partition(":")
            if "-" in key:  # a mapping's first line: its range
                guest = "guest-memory" in line
            elif key == "Pss":
                total += int(rest.split()[0])
                own += 0 if guest else int(rest.split()[0])
    return total, own


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class FiftyTest(machines_test.NamedTest):
    def each(self, function):
        """function(name) for each machine, two at a time."""
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            return list(pool.map(function, [f"m{i}" for i in range(COUNT)]))

    def listed(self):
        return json.loads(self.good("ls", "--json"))

    def start_one(self, name):
        self.good("create", "--name", name, "--mem", str(MEMORY_MIB))
        self.good("start", name)
        self.assertEqual(self.good("exec", "--name", name, "--", "echo", name), f"{name}\n")

    def idle_share(self, pids):
        """Percent of a core that each used on average over a window."""
        before, start = sum(map(processor_seconds, pids)), time.monotonic()
        time.sleep(WINDOW_SECONDS)
        used = sum(map(processor_seconds, pids)) - before
        return 100 * used / (time.monotonic() - start) / len(pids)

    def test_fifty_at_once(self):
        self.each(self.start_one)
        pids = [machine["pid"] for machine in self.listed() if machine["state"] == "running"]
        self.assertEqual(len(set(pids)), COUNT)
        memory = {}

        def settled():
            memory.update((pid, pss_kib(pid)) for pid in pids if pid not in memory or memory[pid][1] > OWN_LIMIT_KIB)
            return all(own <= OWN_LIMIT_KIB for _, own in memory.values())
        self.assertTrue(smolvm.wait_until(settled, smolvm.LIMIT), f"KiB in all and beyond guest memory: {sorted(memory.values())}")
        shares = []

        def cheap():
            shares.append(self.idle_share(pids))
            return shares[-1] < IDLE_PERCENT
        self.assertTrue(smolvm.wait_until(cheap, smolvm.LIMIT), f"percent of a core each: {shares}")
        total, own = (sorted(figures)[COUNT // 2] for figures in zip(*map(pss_kib, pids)))
        print(f"{COUNT} machines: Pss {total} KiB each, beyond guest memory {own} KiB, {shares[-1]:.3f} % of a core", flush=True)
        # Who was asleep is there at once.
        self.assertEqual(self.each(lambda name: self.good("exec", "--name", name, "--", "echo", "again")), ["again\n"] * COUNT)
        self.each(lambda name: self.good("delete", "-f", name))
        self.assertEqual(self.listed(), [])
        self.assertEqual(os.listdir(os.path.join(self.data, "machines")), [])
        for pid in pids:
            # A process that has ended is there until its parent looks.
            self.assertTrue(smolvm.wait_until(lambda p=pid: not os.path.exists(f"/proc/{p}")), f"monitor {pid} is left")


if __name__ == "__main__":
    unittest.main()
