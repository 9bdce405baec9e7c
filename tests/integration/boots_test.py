#!/usr/bin/env python3
"""Many boots in a row without one failure: what goes wrong once in a hundred times shows here. SMOL_BOOTS: how many."""
import os

import smolvm


class BootsTest(smolvm.MachineTest):
    def test_boots_in_a_row(self):
        for number in range(int(os.environ.get("SMOL_BOOTS", "200"))):
            result = self.run_machine("sh", "-c", f"echo {number}; exit {number % 100}", options=["--mem", "64"])
            self.assert_output(result, f"{number}\n", number % 100)
            self.assertEqual(result.err, b"", f"boot {number}")


if __name__ == "__main__":
    smolvm.main()
