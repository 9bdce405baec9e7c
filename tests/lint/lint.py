#!/usr/bin/env python3
"""The house's rules that a machine can check.

1. Layers: what a folder under src/ includes and links is what cmake/layers.cmake allows (transitively), and
   ARCHITECTURE.md describes the same folders.
2. Only src/hypervisor/kvm includes a KVM header.
3. Lengths: over 800 lines a file, or over 80 a function, only with a line in exceptions.txt (path: reason).
4. Words that do not belong in the repository: paths and host names of one machine.
"""
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILE_LIMIT = 800
FUNCTION_LIMIT = 80
problems = []


def complain(path, line, text):
    problems.append(f"{path}:{line}: {text}")


def read_layers():
    text = re.sub(r"#.*", "", (ROOT / "cmake/layers.cmake").read_text())
    found = re.finditer(r"smol_layer\(\s*(\S+?)(?:\s+DEPENDS\s+([^)]*))?\)", text)
    return {match.group(1): (match.group(2) or "").split() for match in found}


def closure(layers, name, seen=None):
    seen = set() if seen is None else seen
    for dependency in layers[name]:
        if dependency not in layers:
            problems.append(f"cmake/layers.cmake: {name} depends on {dependency}, which is not a layer")
        elif dependency not in seen:
            seen.add(dependency)
            closure(layers, dependency, seen)
    return seen


def tracked(*suffixes):
    out = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                         cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [pathlib.Path(name) for name in out.split("\0") if name]
    return [p for p in paths if (ROOT / p).is_file() and (not suffixes or p.suffix in suffixes)]


def check_includes(layers):
    allowed = {name: closure(layers, name) | {name} for name in layers}
    for path in tracked(".h", ".cc", ".inc"):
        if path.parts[0] != "src":
            continue
        folder = str(path.parent.relative_to("src"))
        if folder not in layers:
            complain(path, 1, f"folder src/{folder} is not in cmake/layers.cmake")
            continue
        for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
            if re.match(r"\s*#\s*include\s*<(linux|asm)/kvm\w*\.h>", line) and folder != "hypervisor/kvm":
                complain(path, number, "only src/hypervisor/kvm may include KVM's headers")
            match = re.match(r'\s*#\s*include\s*"([^"]+)"', line)
            if not match or not (ROOT / "src" / match.group(1)).exists():
                continue
            if os.path.dirname(match.group(1)) not in allowed[folder]:
                complain(path, number, f"src/{folder} may not include {match.group(1)}: see cmake/layers.cmake")


def check_links(layers):
    """A folder's own layer.cmake may link more; of our targets only allowed ones."""
    def target(name):
        return "smol_" + name.replace("/", "_")
    known = {target(name) for name in layers}
    for path in tracked(".cmake"):
        if path.name != "layer.cmake":
            continue
        folder = str(path.parent.relative_to("src"))
        names = {target(name) for name in closure(layers, folder) | {folder}}
        for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
            for word in re.findall(r"\bsmol_[a-z0-9_]+\b", line):
                if word in known and word not in names:
                    complain(path, number, f"src/{folder} may not link {word}")


def check_architecture(layers):
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for name in layers:
        if not (ROOT / "src" / name).exists():
            problems.append(f"cmake/layers.cmake: src/{name} does not exist")
        if f"`src/{name}`" not in text:
            problems.append(f"ARCHITECTURE.md: src/{name} is not described")


def read_exceptions():
    lines = (ROOT / "tests/lint/exceptions.txt").read_text().splitlines()
    return {line.partition(": ")[0] for line in lines if line and not line.startswith("#")}


def check_lengths(exceptions):
    opener = re.compile(r"[A-Za-z_\[].*\{$")
    not_function = ("namespace", "extern", "struct", "class", "enum", "union", "constexpr", "static const", "const")
    for path in tracked(".cc", ".h", ".c", ".py", ".inc"):
        lines = (ROOT / path).read_text().splitlines()
        if len(lines) > FILE_LIMIT and str(path) not in exceptions:
            complain(path, 1, f"{len(lines)} lines, more than {FILE_LIMIT}")
        if path.suffix not in (".cc", ".c") or str(path) in exceptions:
            continue
        start = None  # a definition opens at column 0, and its brace closes there
        for number, line in enumerate(lines, 1):
            if opener.match(line) and not line.startswith(not_function):
                start = number
            elif line.startswith("}") and start is not None:
                if number - start > FUNCTION_LIMIT:
                    complain(path, start, f"function of {number - start} lines, more than {FUNCTION_LIMIT}")
                start = None


def check_words():
    pattern = re.compile("|".join(["/work" + "/main", "/work" + "/shared", "/tmp" + "/w/", "/tmp" + "/wt/",
                                   "deb" + r"\.debian\.org", "registry" + r"\.npmjs"]))
    for path in tracked():
        try:
            text = (ROOT / path).read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if pattern.search(line):
                complain(path, number, "a path or a host name of one machine")


def main():
    layers = read_layers()
    check_includes(layers)
    check_links(layers)
    check_architecture(layers)
    check_lengths(read_exceptions())
    check_words()
    for problem in problems:
        print(problem)
    print(f"lint: {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
