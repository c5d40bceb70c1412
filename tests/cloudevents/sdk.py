"""Publishes with the CloudEvents SDK for Python in every mode, and parses with it what a gateway sends."""

import asyncio
import json
import sys
import threading
import urllib.request
from datetime import datetime, timezone

import websockets
from cloudevents.core.bindings.http import HTTPMessage, from_structured, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

ADDRESS = sys.argv[1]
CHANNEL = "sdk.python"
URL = f"http://{ADDRESS}/channels/{CHANNEL}/events"
FORMAT = JSONFormat()
DEADLINE = 20
TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def made(number, data, kind="application/json"):
    """An event with every kind of attribute that the SDK has."""
    return CloudEvent(
        attributes={
            "id": f"e{number}",
            "source": "/python",
            "type": "com.example.test",
            "specversion": "1.0",
            "subject": 'café "x" 100%',
            "time": TIME,
            "datacontenttype": kind,
            "dataschema": "http://example.com/schema",
            "extension": "value",
        },
        data=data,
    )


EVENTS = [
    made(1, {"n": 1, "text": "grün"}),
    made(2, {"list": [1, 2.5, None]}),
    made(3, "plain", "text/plain"),
    made(4, b"\x00\xff", "application/octet-stream"),
]


def post(message):
    request = urllib.request.Request(URL, data=message.body or b"", headers=message.headers, method="POST")
    with urllib.request.urlopen(request, timeout=DEADLINE) as response:
        return json.load(response)


def parsed(text):
    """The event, as the SDK reads it."""
    return from_structured(HTTPMessage({"content-type": FORMAT.get_content_type()}, text), FORMAT)


def check(event, sent, offset):
    attributes, expected = dict(event.get_attributes()), dict(sent.get_attributes())
    assert attributes.pop("sgchannel") == CHANNEL
    assert attributes.pop("sgoffset") == str(offset), (attributes, offset)
    assert attributes.pop("sgepoch")
    assert attributes == expected, f"{attributes}\nis not\n{expected}"
    assert event.get_data() == sent.get_data(), f"{event.get_data()!r} is not {sent.get_data()!r}"


def publish():
    """Each event in each mode; answers what is to come, in its order."""
    order = []
    for event in EVENTS:
        for mode in (to_structured, to_binary):
            answer = post(mode(event, FORMAT))
            order.append(event)
            assert answer["id"] == event.get_id() and answer["position"]["offset"] == str(len(order)), answer
    batch = b"[" + b",".join(to_structured(event, FORMAT).body for event in EVENTS) + b"]"
    answer = post(HTTPMessage({"content-type": "application/cloudevents-batch+json"}, batch))
    assert [one["id"] for one in answer["results"]] == [event.get_id() for event in EVENTS], answer
    return order + EVENTS


def streamed(count, events):
    """Reads a stream until it has brought so many."""
    with urllib.request.urlopen(f"http://{ADDRESS}/sse?channel={CHANNEL}", timeout=DEADLINE) as stream:
        STREAMING.set()
        data, name = [], ""
        for line in stream:
            line = line.rstrip(b"\n")
            if line.startswith(b"event: "):
                name = line[7:]
            elif line.startswith(b"data: "):
                data.append(line[6:])
            elif not line and data:
                if not name:
                    events.append(parsed(b"\n".join(data)))
                if len(events) == count:
                    return
                data, name = [], ""


async def over_websocket():
    """Publishes over a WebSocket, and gets it back with its place."""
    url = f"ws://{ADDRESS}/ws?channel={CHANNEL}"
    async with websockets.connect(url, subprotocols=["cloudevents.json"]) as socket:
        assert parsed((await socket.recv()).encode()).get_type() == "io.streamgate.connected"
        await socket.send(to_structured(EVENTS[0], FORMAT).body.decode())
        got = {}
        while len(got) < 2:
            event = parsed((await asyncio.wait_for(socket.recv(), DEADLINE)).encode())
            got[event.get_type()] = event
        ack = got["io.streamgate.ack"].get_data()
        check(got["com.example.test"], EVENTS[0], ack["offset"])


STREAMING = threading.Event()
received = []
count = 3 * len(EVENTS)
listener = threading.Thread(target=streamed, args=(count, received), daemon=True)
listener.start()
assert STREAMING.wait(DEADLINE), "the stream does not begin"
sent = publish()
listener.join(DEADLINE)
assert len(received) == count, f"{len(received)} of {count} came"
with urllib.request.urlopen(URL, timeout=DEADLINE) as response:
    page = [parsed(json.dumps(one).encode()) for one in json.load(response)]
for place, (event, by_stream, by_page) in enumerate(zip(sent, received, page, strict=True), 1):
    check(by_stream, event, place)
    check(by_page, event, place)
asyncio.run(over_websocket())
print(f"CloudEvents SDK for Python: {count} events in three modes, parsed from a stream, a page and a socket")
