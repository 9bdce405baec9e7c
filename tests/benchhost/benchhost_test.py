"""The bench host's own promises: output and status come back as they were, failures are told, nothing is left.

Each boot takes seconds, so one boot checks several things.
"""
import os
import subprocess
import sys
import tempfile
import unittest

TOOL = os.path.join(os.path.dirname(__file__), '..', '..', 'tools', 'benchhost')


def bench(*arguments):
    return subprocess.run([sys.executable, TOOL, *arguments], capture_output=True, check=False)


class BenchHost(unittest.TestCase):
    def test_output_errors_and_status_come_back_byte_for_byte(self):
        with tempfile.TemporaryDirectory() as folder:
            data = bytes(range(256)) * 300
            with open(os.path.join(folder, 'data'), 'wb') as file:
                file.write(data)
            result = bench('--file', f'{folder}/data:/host/some data', '--', 'sh', '-c',
                           'cat "some data"; echo to errors >&2; test -c /dev/kvm && exit 37')
        self.assertEqual(result.stdout, data, result.stderr[-2000:])
        self.assertEqual(result.stderr, b'to errors\n')
        self.assertEqual(result.returncode, 37)

    def test_a_folder_and_what_a_signal_kills(self):
        with tempfile.TemporaryDirectory() as folder:
            os.mkdir(os.path.join(folder, 'inner'))
            with open(os.path.join(folder, 'inner', 'file'), 'w', encoding='utf-8') as file:
                file.write('found\n')
            result = bench('--file', f'{folder}:/folder', '--', 'sh', '-c', 'cat /folder/inner/file; kill -9 $$')
        self.assertEqual(result.stdout, b'found\n', result.stderr[-2000:])
        self.assertEqual(result.returncode, 128 + 9)

    def test_a_command_that_does_not_end(self):
        result = bench('--timeout', '8', '--', 'sleep', '1000')
        self.assertEqual(result.returncode, 124)
        self.assertIn(b'not done after', result.stderr)

    def test_a_host_that_dies(self):
        result = bench('--', 'sh', '-c', 'echo c >/proc/sysrq-trigger')
        self.assertEqual(result.returncode, 125)
        self.assertIn(b'Kernel panic', result.stderr)

    def test_a_file_that_is_not_there(self):
        result = bench('--file', '/nonexistent/program', '--', 'true')
        self.assertEqual(result.returncode, 125)
        self.assertIn(b'/nonexistent/program', result.stderr)


if __name__ == '__main__':
    unittest.main()
