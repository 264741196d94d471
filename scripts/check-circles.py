#!/usr/bin/env python3
"""Finds import circles between the files of limiter-core/src/limit.

A file depends on the file that defines what it imports: re-exports are followed to the definition. The one circle that is
allowed stands below with its reason.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "limiter-core/src/limit"

# A quota is the closed set of the algorithms' numbers, and the algorithms' functions take a quota.
ALLOWED = {"algorithm", "quota.rs"}


def modules():
    """Module path (a tuple below crate::limit) -> file."""
    found = {}
    for file in sorted(ROOT.rglob("*.rs")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        if "tests" in parts or "interleavings" in parts:
            continue
        found[parts[:-1] if parts[-1] == "mod" else parts] = file
    return found


def expand(tree):
    """The paths of a use tree: `a::{b, c::d}` -> a::b, a::c::d."""
    tree = tree.strip()
    brace = tree.find("{")
    if brace < 0:
        return [tree.split(" as ")[0].strip()]
    head, body = tree[:brace], tree[brace + 1 : tree.rindex("}")]
    parts, depth, last = [], 0, 0
    for at, char in enumerate(body + ","):
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            parts.append(body[last:at])
            last = at + 1
    return [head + path for part in parts if part.strip() for path in expand(part)]


def code(file):
    text = file.read_text()
    text = re.split(r"^#\[cfg\(test\)\]\s*\nmod tests \{", text, flags=re.M)[0]
    return re.sub(r"//.*", "", text)


def uses(file):
    return re.findall(r"^\s*(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);", code(file), flags=re.M)


def absolute(path, here):
    parts = path.split("::")
    if parts[:2] == ["crate", "limit"]:
        return tuple(parts[2:])
    if parts[0] == "self":
        return here + tuple(parts[1:])
    base = here
    while parts and parts[0] == "super":
        base, parts = base[:-1], parts[1:]
        if not parts or parts[0] != "super":
            return base + tuple(parts)
    if (here + (parts[0],)) in MODULES:
        return here + tuple(parts)
    return None


def definition(target, seen=()):
    """The module that defines what a path names."""
    module = target
    while module not in MODULES:
        module = module[:-1]
    if module == target or target in seen:
        return module
    name = target[len(module)]
    for public, tree in uses(MODULES[module]):
        for path in expand(tree):
            if public and path.split("::")[-1] == name:
                further = absolute(path, module)
                if further is not None and further != target:
                    return definition(further, (*seen, target))
    return module


MODULES = modules()


def main():
    edges = {}
    for module, file in MODULES.items():
        targets = set()
        for public, tree in uses(file):
            if public and public.strip() == "pub" and file.name == "mod.rs":
                continue  # A room's map.
            for path in expand(tree):
                target = absolute(path, module)
                if target is not None:
                    targets.add(definition(target))
        edges[module] = targets - {module}

    def room(module):
        name = str(MODULES[module].relative_to(ROOT))
        return "algorithm" if name.startswith("algorithm/") else name

    def reach(start):
        seen, stack = set(), [start]
        while stack:
            for target in edges[stack.pop()]:
                if target not in seen:
                    seen.add(target)
                    stack.append(target)
        return seen

    circles = set()
    for module in MODULES:
        circle = {other for other in reach(module) if module in reach(other)}
        names = {room(other) for other in circle}
        if circle and not names <= ALLOWED:
            circles.add(", ".join(sorted(str(MODULES[other].relative_to(ROOT)) for other in circle)))
    for circle in sorted(circles):
        print(f"limiter-core/src/limit: these files import each other: {circle}", file=sys.stderr)
    return 1 if circles else 0


if __name__ == "__main__":
    sys.exit(main())
