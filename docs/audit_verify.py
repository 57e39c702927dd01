#!/usr/bin/env python3
"""Checks an audit log of flowd, as docs/audit.md describes it: audit.sqlite, or JSON Lines.

usage: audit_verify.py FILE [SEQ:HASH]     SEQ:HASH is a head that was kept elsewhere
"""
import datetime
import hashlib
import json
import sqlite3
import sys

NAMES = ("seq time until count event actor uid gid pid executable source resource details "
         "outcome previous hash").split()
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def millis(text):
    if text is None:
        return None
    time = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (time - EPOCH) // datetime.timedelta(milliseconds=1)


def from_sqlite(path):
    db = sqlite3.connect(path)
    last = db.execute("SELECT seq, hash FROM checkpoint ORDER BY seq DESC LIMIT 1").fetchone()
    yield (last[0], last[1].hex()) if last else (0, "0" * 64)
    for row in db.execute(f"SELECT {', '.join(NAMES)} FROM entry ORDER BY seq"):
        entry = dict(zip(NAMES, row))
        yield dict(entry, previous=entry["previous"].hex(), hash=entry["hash"].hex())


def from_lines(path):
    for number, line in enumerate(open(path, encoding="utf-8")):
        entry = json.loads(line)
        if number == 0:
            yield entry["seq"] - 1, entry["previous"]
        details = json.dumps(entry["details"], sort_keys=True, separators=(",", ":"),
                             ensure_ascii=False)
        yield dict(entry, time=millis(entry["time"]), until=millis(entry["until"]),
                   details=details)


def computed(entry):
    text = b"flowd-audit-1\n"
    for name in ["previous"] + NAMES[:14]:
        member = entry[name]
        encoded = b"" if member is None else str(member).encode()
        text += b"-," if member is None else b"%d:%s," % (len(encoded), encoded)
    return hashlib.sha256(text).hexdigest()


def main(path, kept=None):
    entries = from_lines(path) if path.endswith(".jsonl") else from_sqlite(path)
    seq, before = next(entries, (0, "0" * 64))
    wrong, seen = [], {f"{seq}:{before}"}
    for entry in entries:
        if (entry["seq"], entry["previous"]) != (seq + 1, before):
            wrong.append(f"entry {entry['seq']} does not follow entry {seq}")
        if computed(entry) != entry["hash"]:
            wrong.append(f"entry {entry['seq']} was edited")
        seq, before = entry["seq"], entry["hash"]
        seen.add(f"{seq}:{before}")
    if kept and kept not in seen:
        wrong.append(f"{kept} is not there")
    print("\n".join(wrong) or "ok", f"head {seq}:{before}", sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
