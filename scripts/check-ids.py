#!/usr/bin/env python3
"""The ids of docs/requirements.md and docs/semantics.md, and the tests that cite them, hold together.

Every id is cited by a comment of a test, or named with a reason in the list of those that no test proves; and no
comment cites an id that is not there.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEFINED = re.compile(r"^- \*\*([A-Z](?:-[A-Z])?\d+)\*\*", re.M)
EXCEPTED = re.compile(r"^\| ([A-Z](?:-[A-Z])?\d+) \| \S.* \|$", re.M)
COMMENT = re.compile(r"^\s*//.*$", re.M)
CITED = re.compile(r"(?<![\w-])(?:[A-ENW]\d{1,2}|I-[A-Z]\d)(?![\w-])")
TEST = re.compile(r"#\[(?:tokio::)?test|proptest!")


def is_test(path: str, text: str) -> bool:
    return "tests/" in path or "/conformance/" in path or "benches/" in path or bool(TEST.search(text))


def main() -> int:
    requirements = (ROOT / "docs/requirements.md").read_text()
    semantics = (ROOT / "docs/semantics.md").read_text()
    defined = DEFINED.findall(requirements) + DEFINED.findall(semantics)
    excepted = EXCEPTED.findall(requirements)
    files = subprocess.run(
        ["git", "ls-files", "*.rs"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    faults, tested = [], set()
    for path in files:
        text = (ROOT / path).read_text()
        for comment in COMMENT.findall(text):
            for cited in CITED.findall(comment):
                if cited not in defined:
                    faults.append(f"{path}: {cited} is defined nowhere: {comment.strip()}")
                elif is_test(path, text):
                    tested.add(cited)
    for one in sorted(set(defined)):
        if defined.count(one) > 1:
            faults.append(f"{one} is defined twice")
        if one not in tested and one not in excepted:
            faults.append(f"{one} is cited by no test, and no reason is given in docs/requirements.md")
        if one in tested and one in excepted:
            faults.append(f"{one} is cited by a test and is an exception")
    faults += [f"{one} is an exception and defined nowhere" for one in excepted if one not in defined]
    if len(defined) < 50:
        faults.append("the ids are not found any more")
    for fault in faults:
        print(fault, file=sys.stderr)
    if not faults:
        print(f"{len(defined)} ids: {len(tested)} cited by tests, {len(excepted)} with a reason")
    return bool(faults)


sys.exit(main())
