"""Loads records into DuckDB, and asks it questions as they come: a line of JSON in, a line of JSON out."""

import json
import os
import sys
import time

import duckdb

# As flowd's own SQL has them: Unix milliseconds.
TIMES = ["window_start", "window_end", "first_seen", "last_seen"]
TRIES = 7
LONG_S = 10.0
SHORT_S = 1.0


def cool(path):
    """Has the kernel forget what it read of a file."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def opened(path, read_only=True):
    """A connection that writes nothing to standard output by itself."""
    connection = duckdb.connect(path, read_only=read_only)
    connection.execute("SET enable_progress_bar = false")
    return connection


def ask(connection, text):
    """A number, or how many rows there are; and the milliseconds it took."""
    start = time.perf_counter()
    rows = connection.execute(text).fetchall()
    took = (time.perf_counter() - start) * 1e3
    is_number = len(rows) == 1 and len(rows[0]) == 1
    return int(rows[0][0] or 0) if is_number else len(rows), took


def median(once):
    taken = []
    while sum(taken) < (LONG_S if len(taken) < TRIES else SHORT_S) * 1e3:
        taken.append(once())
    return sorted(taken)[len(taken) // 2]


def load(task):
    """Has the records in a table; says what that took."""
    path = task["database"]
    connection = opened(path, read_only=False)
    start = time.perf_counter()
    source = task["parquet"]
    times = ", ".join(f"epoch_ms({name}) AS {name}" for name in TIMES)
    rows = f"SELECT * REPLACE ({times}) FROM read_parquet('{source}')"
    connection.execute(f"CREATE TABLE records AS {rows}")
    connection.execute("CHECKPOINT")
    load_s = time.perf_counter() - start
    connection.close()
    size = os.stat(path).st_blocks * 512
    return {"version": duckdb.__version__, "load_s": load_s, "bytes": size}


def times(path, text):
    """What the answer is and how long it takes."""
    with opened(path) as warm:
        answer, _ = ask(warm, text)
        warm_ms = median(lambda: ask(warm, text)[1])

    def cold():
        cool(path)
        with opened(path) as fresh:
            return ask(fresh, text)[1]

    return {"answer": answer, "warm_ms": warm_ms, "cold_ms": median(cold)}


def main():
    lines = map(json.loads, sys.stdin)
    task = next(lines)
    print(json.dumps(load(task)), flush=True)
    for question in lines:
        print(json.dumps(times(task["database"], question)), flush=True)


main()
