#!/usr/bin/env python3
"""What is written down twice is written by this: the table of values in helm/carillon/README.md, from the comments of
values.yaml, and the part `config` of values.schema.json, from docs/configuration.md.

  document.py          writes both
  document.py --check  says what is stale, and what in values.yaml has no comment
"""
import json
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/carillon"
BEGIN, END = "<!-- values: made by `make helm-docs` -->", "<!-- end of values -->"
DURATION = "^(0|([0-9]+(ms|s|m|h|d))+)$"


def config_schema():
    """The schema of `config`, and the sections' keys, from the reference page."""
    page = (ROOT / "docs/configuration.md").read_text()
    schema = {"type": "object", "additionalProperties": False, "properties": {},
              "description": "The configuration of Carillon, by section: docs/configuration.md."}
    for section in re.split(r"^## ", page, flags=re.M)[1:]:
        name = re.match(r"`\[(\w+)\]`", section).group(1)
        keys = {}
        for part in re.split(r"^### ", section, flags=re.M)[1:]:
            key = re.match(rf"`{name}\.(\w+)`", part).group(1)
            value = re.search(r"^- Value: (.*)$", part, flags=re.M).group(1)
            text = part.split("\n\n")[1].replace("\n", " ")
            keys[key] = {**type_of(value), "description": text}
        schema["properties"][name] = {"type": "object", "additionalProperties": False, "properties": keys}
    return schema


def type_of(value):
    """JSON schema for the words in which the page describes a value."""
    if value.startswith("a whole number"):
        limits = re.search(r"(\d+) to (\d+)", value)
        return {"type": "integer", **({"minimum": int(limits[1]), "maximum": int(limits[2])} if limits else {})}
    if value == "a number":
        return {"type": "number"}
    if value == "`true` or `false`":
        return {"type": "boolean"}
    if value.startswith("a duration"):
        return {"type": "string", "pattern": DURATION}
    if value.startswith("an array of"):
        items = {"type": "string", **({"pattern": DURATION} if "durations" in value else {})}
        return {"type": "array", "items": items}
    if value.startswith("a table such as `{ per_second"):
        rate = {"per_second": {"type": "number", "minimum": 0}, "burst": {"type": "integer", "minimum": 1}}
        return {"type": "object", "additionalProperties": False, "properties": rate}
    if re.fullmatch(r'`"\w+"`( or `"\w+"`)*', value):
        return {"enum": re.findall(r'"(\w+)"', value)}
    if value.startswith("an address and port"):
        return {"type": "string", "pattern": "^.+:[0-9]+$"}
    if re.match(r"text|a path|one or more URLs|a URL|an `http", value):
        return {"type": "string"}
    sys.exit(f"document.py: no schema for a value that is {value!r}: add a line to type_of")


def rows():
    """(path, default, comment) of every value, and those without a comment."""
    lines = (CHART / "values.yaml").read_text().splitlines()
    values = yaml.safe_load("\n".join(lines))
    found, bare, comment, path = [], [], [], []
    for line in lines:
        if match := re.match(r" *# ?(.*)", line):
            comment.append(match[1])
        elif match := re.match(r"( *)([\w.-]+):", line):
            depth = len(match[1]) // 2
            path = path[:depth] + [match[2]]
            value = values
            for key in path:
                value = value[key] if isinstance(value, dict) and key in value else None
            if comment:
                found.append((list(path), value, " ".join(comment)))
            else:
                bare.append(list(path))
            comment = []
        else:
            comment = []
    explained = [path for path, _, _ in found]
    return found, [".".join(path) for path in bare if not is_explained(path, explained)]


def is_explained(path, explained):
    """Without a comment of its own a value is explained by what is below it, or as a part of what is above it."""
    if any(other[: len(path)] == path for other in explained):
        return True
    above = [path[:length] for length in range(1, len(path))]
    return any(parent in explained and not any(o[:-1] == parent for o in explained) for parent in above)


def table():
    found, bare = rows()
    parents = {tuple(path[:length]) for path, _, _ in found for length in range(1, len(path))}
    lines = [BEGIN, "", "| value | default | |", "| --- | --- | --- |"]
    for path, value, comment in found:
        default = "" if tuple(path) in parents else f"`{json.dumps(value)}`"
        cells = [f"`{'.'.join(path)}`", default, comment]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, "", END]), bare


def main():
    checking = "--check" in sys.argv[1:]
    schema_file, readme = CHART / "values.schema.json", CHART / "README.md"
    schema = json.loads(schema_file.read_text())
    schema["properties"]["config"] = config_schema()
    values, bare = table()
    text = readme.read_text()
    before, rest = text.split(BEGIN)
    wanted = {schema_file: json.dumps(schema, indent=2, ensure_ascii=False) + "\n",
              readme: before + values + rest.split(END)[1]}
    faults = [f"values.yaml: {name} has no comment" for name in bare]
    for file, content in wanted.items():
        if file.read_text() != content:
            if checking:
                faults.append(f"{file.relative_to(ROOT)} is stale: make helm-docs")
            else:
                file.write_text(content)
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
