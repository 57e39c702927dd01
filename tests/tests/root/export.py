"""Reads what `flowctl export` wrote with the format's own tools, and prints what they found as JSON.

Usage: export.py FORMAT FILE. Ends with an error where a tool does, or a field is not of its type.
"""

import csv
import ipaddress
import json
import sys
from datetime import datetime


def objects(path):
    with open(path) as lines:
        for line in lines:
            yield json.loads(line)


def totals():
    return {"records": 0, "rx_packets": 0, "rx_bytes": 0, "tx_packets": 0, "tx_bytes": 0}


def add(sums, rx, tx):
    """Adds one record: packets and bytes of each direction."""
    sums["records"] += 1
    sums["rx_packets"] += rx[0]
    sums["rx_bytes"] += rx[1]
    sums["tx_packets"] += tx[0]
    sums["tx_bytes"] += tx[1]


def read_csv(path):
    sums = totals()
    with open(path, newline="") as file:
        for row in csv.DictReader(file, strict=True):
            number = lambda name: int(row[name])
            add(
                sums,
                (number("rx_packets"), number("rx_bytes")),
                (number("tx_packets"), number("tx_bytes")),
            )
    return sums


def read_jsonl(path):
    sums = totals()
    for record in objects(path):
        add(
            sums,
            (record["rx_packets"], record["rx_bytes"]),
            (record["tx_packets"], record["tx_bytes"]),
        )
    return sums


def read_parquet(path):
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    kinds = {
        "record_id": pyarrow.uint64(),
        "gateway": pyarrow.string(),
        "window_end": pyarrow.timestamp("ms", tz="UTC"),
        "src_port": pyarrow.uint16(),
        "rx_bytes": pyarrow.uint64(),
        "enforced": pyarrow.bool_(),
        "policy_revision": pyarrow.uint32(),
    }
    for name, kind in kinds.items():
        found = table.schema.field(name).type
        assert found == kind, f"{name} is {found}"
    groups = table.schema.field("peer_groups").type
    assert pyarrow.types.is_list(groups) and groups.value_type == pyarrow.string(), groups
    assert table.column("peer_groups").to_pylist()[0] == ["test"]
    sums = {"records": table.num_rows}
    for name in ["rx_packets", "rx_bytes", "tx_packets", "tx_bytes"]:
        sums[name] = pyarrow.compute.sum(table.column(name)).as_py() or 0
    return sums


def read_tailscale(path):
    sums = totals()
    kinds = {"virtualTraffic", "subnetTraffic", "exitTraffic"}
    for message in objects(path):
        datetime.fromisoformat(message["start"])
        datetime.fromisoformat(message["end"])
        assert message["nodeId"] == message["srcNode"]["nodeId"]
        (kind,) = kinds & message.keys()
        for one in message[kind]:
            address, port = one["src"].rsplit(":", 1)
            assert ipaddress.ip_address(address.strip("[]")) and 0 <= int(port) <= 65535
            assert address.strip("[]") in message["srcNode"]["addresses"]
            add(sums, (one["txPkts"], one["txBytes"]), (one["rxPkts"], one["rxBytes"]))
    return sums


def read_vpc(path):
    from flowlogs_reader import FlowRecord

    sums = totals()
    sums["rejected_packets"] = 0
    sums["skipped"] = 0
    with open(path) as file:
        names = [name.replace("-", "_") for name in next(file).split()]
        for line in file:
            cells = line.split()
            assert len(cells) == len(names), line
            record = FlowRecord(dict(zip(names, cells)))
            assert record.version == 5 and record.end >= record.start
            if record.packets is None:
                sums["skipped"] += 1
                continue
            none, counts = (0, 0), (record.packets, record.bytes)
            ingress = record.flow_direction == "ingress"
            assert ingress or record.flow_direction == "egress", line
            add(sums, counts if ingress else none, none if ingress else counts)
            if record.action == "REJECT":
                sums["rejected_packets"] += record.packets
    # A record is as many lines as it has directions with packets.
    del sums["records"]
    return sums


STATES = {
    "S0", "S1", "SF", "REJ", "S2", "S3", "RSTO", "RSTR", "RSTOS0", "RSTRH", "SH", "SHR", "OTH",
}


def both(records, packets, octets):
    return {"records": records, "packets": packets, "bytes": octets}


def read_zeek(path):
    from zat.zeek_log_reader import ZeekLogReader

    records = packets = octets = 0
    for row in ZeekLogReader(path).readrows():
        records += 1
        packets += row["orig_pkts"] + row["resp_pkts"]
        octets += row["orig_ip_bytes"] + row["resp_ip_bytes"]
        assert isinstance(row["ts"], datetime), row["ts"]
        assert row["conn_state"] in STATES, row["conn_state"]
        ipaddress.ip_address(row["id.orig_h"])
    return both(records, packets, octets)


def read_zeek_json(path):
    records = packets = octets = 0
    for row in objects(path):
        records += 1
        packets += row["orig_pkts"] + row["resp_pkts"]
        octets += row["orig_ip_bytes"] + row["resp_ip_bytes"]
        assert row["conn_state"] in STATES, row["conn_state"]
        ipaddress.ip_address(row["id.orig_h"])
    return both(records, packets, octets)


# Types of ECS 8.17, of the fields that are written. No package of Debian or PyPI has the list.
ECS = {
    "@timestamp": "date", "ecs.version": "keyword", "event.kind": "keyword",
    "event.category": "keyword", "event.type": "keyword", "event.module": "keyword",
    "event.dataset": "keyword", "event.id": "keyword", "event.sequence": "long",
    "event.start": "date", "event.end": "date", "event.duration": "long",
    "event.reason": "keyword", "network.transport": "keyword", "network.iana_number": "keyword",
    "network.type": "keyword", "network.direction": "keyword", "network.packets": "long",
    "network.bytes": "long", "source.address": "keyword", "source.ip": "ip",
    "source.port": "long", "source.packets": "long", "source.bytes": "long",
    "source.user.name": "keyword", "destination.address": "keyword", "destination.ip": "ip",
    "destination.port": "long", "destination.packets": "long", "destination.bytes": "long",
    "destination.user.name": "keyword", "observer.name": "keyword", "observer.vendor": "keyword",
    "observer.product": "keyword", "observer.version": "keyword", "observer.type": "keyword",
    "observer.ingress.interface.name": "keyword", "observer.egress.interface.name": "keyword",
    "rule.id": "keyword", "rule.name": "keyword", "rule.ruleset": "keyword",
    "rule.version": "keyword", "related.ip": "ip", "related.user": "keyword",
    "related.hosts": "keyword",
}
IS_OF = {
    "date": datetime.fromisoformat,
    "ip": ipaddress.ip_address,
    "keyword": lambda value: value.encode(),
    "long": lambda value: value.to_bytes(8, "big", signed=True),
}
EVENT_TYPES = {"connection", "allowed", "denied", "start", "end"}


def leaves(value, path=""):
    if isinstance(value, dict):
        for name, field in value.items():
            yield from leaves(field, f"{path}.{name}" if path else name)
    else:
        yield path, value


def read_ecs(path):
    sums = totals()
    for document in objects(path):
        for name, value in leaves(document):
            if not name.startswith("flowd."):
                for one in value if isinstance(value, list) else [value]:
                    IS_OF[ECS[name]](one)
        assert set(document["event"]["type"]) <= EVENT_TYPES
        ends = [document["source"], document["destination"]]
        for name in ["packets", "bytes"]:
            assert document["network"][name] == sum(end[name] for end in ends)
        source, destination = ((end["packets"], end["bytes"]) for end in ends)
        inside = "ingress" in document["observer"]
        add(sums, source if inside else destination, destination if inside else source)
    return sums


def read_ocsf(path):
    import jsonschema
    from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

    sums = totals()
    checks = {}
    for event in objects(path):
        version = event["metadata"]["version"]
        profiles = event["metadata"]["profiles"]
        if version not in checks:
            embedded = OcsfJsonSchemaEmbedded(get_ocsf_schema(version))
            schema = embedded.get_class_schema("network_activity", profiles)
            checks[version] = jsonschema.Draft202012Validator(schema)
        checks[version].validate(event)
        traffic = event["traffic"]
        assert traffic["bytes"] == traffic["bytes_in"] + traffic["bytes_out"]
        sent = (traffic["packets_out"], traffic["bytes_out"])
        received = (traffic["packets_in"], traffic["bytes_in"])
        inside = "interface_name" in event["src_endpoint"]
        add(sums, sent if inside else received, received if inside else sent)
    return sums


READERS = {
    "csv": read_csv,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
    "tailscale": read_tailscale,
    "vpc": read_vpc,
    "zeek": read_zeek,
    "zeek-json": read_zeek_json,
    "ecs": read_ecs,
    "ocsf": read_ocsf,
}

if __name__ == "__main__":
    # Tools tell things on standard output too.
    answer, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps(READERS[sys.argv[1]](sys.argv[2])), file=answer)
