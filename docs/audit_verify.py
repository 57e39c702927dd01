#!/usr/bin/env python3
"""usage: audit_verify.py FILE [SEQ:HASH] checks an audit log of flowd as docs/audit.md has it, a
copy of audit.sqlite or JSON Lines (.jsonl); SEQ:HASH is a head that was kept elsewhere."""
import datetime, hashlib, json, os, sqlite3, sys, urllib.parse

NAMES = ("seq time until count event actor uid gid pid executable source resource details "
         "outcome previous hash").split()
COMPACT = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)

def millis(text):
    time = text and datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return time and (time - EPOCH) // datetime.timedelta(milliseconds=1)

def from_sqlite(path):
    how = "mode=ro" if os.path.exists(path + "-wal") else "mode=ro&immutable=1"
    db = sqlite3.connect(f"file:{urllib.parse.quote(os.fsencode(path))}?{how}", uri=True)
    db.text_factory = lambda text: text.decode(errors="surrogateescape")
    last = db.execute("SELECT seq, hash FROM checkpoint ORDER BY seq DESC LIMIT 1").fetchone()
    yield (last[0], last[1].hex()) if last else (0, "0" * 64)
    for row in db.execute(f"SELECT {', '.join(NAMES)} FROM entry ORDER BY seq"):
        yield dict(zip(NAMES, row), previous=row[14].hex(), hash=row[15].hex())

def from_lines(path):
    for number, entry in enumerate(map(json.loads, open(path, encoding="utf-8"))):
        if number == 0:
            yield entry["seq"] - 1, entry["previous"]
        yield dict(entry, time=millis(entry["time"]), until=millis(entry["until"]),
                   details=COMPACT(entry["details"]))

def computed(entry):
    members = [entry[name] for name in ["previous"] + NAMES[:14]]
    texts = [None if one is None else str(one).encode(errors="surrogateescape") for one in members]
    parts = [b"-," if text is None else b"%d:%s," % (len(text), text) for text in texts]
    return hashlib.sha256(b"flowd-audit-1\n" + b"".join(parts)).hexdigest()

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
    if len(sys.argv) < 2:
        sys.exit(print(__doc__, file=sys.stderr) or 2)
    try:
        sys.exit(main(*sys.argv[1:3]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, sqlite3.Error) as error:
        print(f"{sys.argv[1]} cannot be checked: {error}", file=sys.stderr)
        sys.exit(2)
