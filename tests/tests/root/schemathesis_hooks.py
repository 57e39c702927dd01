"""What schemathesis has to be told of the API."""

import json

import jsonschema
import schemathesis


@schemathesis.serializer("application/toml")
def policy(context, value):
    """A policy is sent as it is. Of a value that is no text nothing can be sent."""
    return value.encode() if isinstance(value, str) else b""


@schemathesis.hook
def before_call(context, case, kwargs):
    """Leaves out what no schema can say, so that what is asked is answered for the most part.

    That one instant is before another, and what a cursor is: those that are tried are where an
    answer leads to the next page. Without filters, there is something that it leads to. What is
    wrong on purpose stays.
    """
    meta = case.meta
    if meta is None or not meta.generation.mode.is_positive or not case.query:
        return
    if "since" in case.query:
        case.query.pop("until", None)
    if meta.phase.name.value != "stateful":
        case.query.pop("cursor", None)
    elif case.operation.path in ("/v1/flows", "/v1/records", "/v1/peers"):
        for name in case.query.keys() - {"sort", "order", "limit", "cursor"}:
            del case.query[name]


@schemathesis.check
def every_line_is_as_documented(context, response, case):
    """JSON lines: the schema is that of a line."""
    kind = "application/x-ndjson"
    if not response.headers.get("content-type", [""])[0].startswith(kind):
        return
    document = case.operation.schema.raw_schema
    operation = document["paths"][case.operation.path][case.operation.method]
    schema = operation["responses"]["200"]["content"][kind]["schema"]
    validator = jsonschema.Draft202012Validator(schema | {"components": document["components"]})
    for line in response.content.splitlines():
        validator.validate(json.loads(line))
