"""Serves every hook with grpcio and with a plain HTTP server, and drives a gateway that uses them by a WebSocket client."""

import asyncio
import json
import queue
import subprocess
import sys
import tempfile
import threading
import urllib.request
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import websockets
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

DEADLINE = 20
SERVICE = "messageloop.proxy.v1.ProxyService"


def described(path):
    """The service, from the descriptor set in this file."""
    pool = descriptor_pool.DescriptorPool()
    with open(path, "rb") as file:
        for proto in descriptor_pb2.FileDescriptorSet.FromString(file.read()).file:
            pool.Add(proto)
    return pool.FindServiceByName(SERVICE)


METHODS = described(sys.argv[2]).methods_by_name
HOOKS = sorted(METHODS)


def answer(hook, asked):
    """What a backend says: `asked` and the answer are dicts in proto3 JSON with the field names of the .proto files."""
    if hook == "Authenticate":
        if asked.get("password") == "good":
            return {"user_info": {"id": "ann", "channels": ["news"]}}
        return {"error": {"code": "WHO", "message": "never heard of"}}
    if hook == "RPC":
        payload = dict(asked["payload"], text_data=asked["payload"]["text_data"].upper())
        return {"id": asked["id"], "payload": payload}
    if hook == "SubscribeAcl":
        if asked["channel"] == "room.no":
            return {"error": {"code": "ACL_ERROR", "message": "not you"}}
        return {}
    if hook == "PublishAcl":
        return {"payload": dict(asked["payload"], text_data="marked")}
    return {}


def serve_grpc(told):
    def handler(hook):
        asked_type = message_factory.GetMessageClass(METHODS[hook].input_type)
        answer_type = message_factory.GetMessageClass(METHODS[hook].output_type)

        def serve(request, _context):
            asked = json_format.MessageToDict(request, preserving_proto_field_name=True)
            told.put((hook, asked))
            return json_format.ParseDict(answer(hook, asked), answer_type())

        return grpc.unary_unary_rpc_method_handler(serve, asked_type.FromString, answer_type.SerializeToString)

    server = grpc.server(futures.ThreadPoolExecutor(4))
    handlers = {hook: handler(hook) for hook in HOOKS}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return f"grpc://127.0.0.1:{port}", lambda: server.stop(None)


def serve_http(told):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            hook = self.headers["Streamgate-Hook"]
            assert self.path == f"/hooks/{hook}", self.path
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.put((hook, asked))
            body = json.dumps(answer(hook, asked)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/hooks/{{hook}}", server.shutdown


def configuration(endpoint):
    return f"""
proxy:
  - endpoint: '{endpoint}'
    lifecycle: true
    occupancy: true
    routes:
      - {{channel: '', method: $authenticate}}
      - {{channel: 'room.*', method: subscribe}}
      - {{channel: 'room.*', method: publish}}
      - {{channel: 'shop', method: '*'}}
"""


class Client:
    """One WebSocket connection, JSON frames."""

    def __init__(self, socket):
        self.socket = socket
        self.requests = 0
        self.others = []

    async def ask(self, **frame):
        self.requests += 1
        frame["id"] = f"r{self.requests}"
        await self.socket.send(json.dumps(frame))
        while True:
            got = json.loads(await asyncio.wait_for(self.socket.recv(), DEADLINE))
            if got["id"] == frame["id"]:
                return got
            self.others.append(got)

    async def message(self):
        while True:
            got = self.others.pop(0) if self.others else json.loads(await asyncio.wait_for(self.socket.recv(), DEADLINE))
            if "publication" in got:
                return got["publication"]["messages"][0]


def event(text):
    return {"id": "e", "source": "/t", "spec_version": "1.0", "type": "t", "text_data": text}


async def drive(url):
    def connect(token):
        return {"client_id": "py", "token": token, "caps": ["streamgate.v1"]}

    async with websockets.connect(url, subprotocols=["messageloop+json"]) as socket:
        refused = await Client(socket).ask(connect=connect("bad"))
        assert refused["error"]["code"] == "AUTH_ERROR", refused
    async with websockets.connect(url, subprotocols=["messageloop+json"]) as socket:
        client = Client(socket)
        connected = (await client.ask(connect=connect("good")))["connected"]
        assert connected["user_id"] == "ann" and connected["subscriptions"][0]["channel"] == "news", connected
        reply = await client.ask(channel="shop", method="shout", rpc_request=event("hello"))
        assert reply["rpc_reply"]["text_data"] == "HELLO", reply
        await client.ask(subscribe={"subscriptions": [{"channel": "room.blue"}]})
        refused = await client.ask(subscribe={"subscriptions": [{"channel": "room.no"}]})
        assert (refused["error"]["code"], refused["error"]["message"]) == ("ACL_ERROR", "not you"), refused
        await client.ask(channel="room.blue", publish=event("word"))
        assert (await client.message())["payload"]["text_data"] == "marked"
        await client.ask(unsubscribe={"subscriptions": [{"channel": "room.blue"}]})
        return connected["session_id"]


def until(told, seen, hook, wanted):
    """The first notice of `hook` that is `wanted`."""
    while True:
        for name, asked in seen:
            if name == hook and wanted(asked):
                return asked
        seen.append(told.get(timeout=DEADLINE))


def try_backend(name, serve, binary):
    told, seen = queue.Queue(), []
    endpoint, stop = serve(told)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(configuration(endpoint))
        file.flush()
        ports = free_ports(3)
        environment = {
            "STREAMGATE_TRANSPORT__WEBSOCKET__ADDR": f"127.0.0.1:{ports[0]}",
            "STREAMGATE_TRANSPORT__GRPC__ADDR": f"127.0.0.1:{ports[1]}",
            "STREAMGATE_SERVER__HTTP__ADDR": f"127.0.0.1:{ports[2]}",
            "PATH": "/usr/bin:/bin",
        }
        gateway = subprocess.Popen([binary, "serve", "--config", file.name], env=environment, stdout=subprocess.DEVNULL)
        try:
            wait_ready(f"http://127.0.0.1:{ports[2]}/health/ready", gateway)
            session = asyncio.run(drive(f"ws://127.0.0.1:{ports[0]}/ws"))
            mine = lambda asked: asked.get("session_id") == session  # noqa: E731
            until(told, seen, "OnConnected", mine)
            until(told, seen, "OnSubscribed", lambda asked: mine(asked) and asked["channel"] == "room.blue")
            until(told, seen, "OnUnsubscribed", lambda asked: mine(asked) and asked["channel"] == "room.blue")
            until(told, seen, "OnDisconnected", mine)
            until(told, seen, "OnChannelOccupied", lambda asked: asked["channel"] == "room.blue")
            until(told, seen, "OnChannelVacated", lambda asked: asked["channel"] == "room.blue")
        finally:
            gateway.kill()
            gateway.wait()
            stop()
    served = {hook for hook, _ in seen}
    assert served == set(HOOKS), f"{name} was not asked {set(HOOKS) - served}"
    print(f"{name}: every hook was served: {', '.join(sorted(served))}")


def free_ports(count):
    import socket

    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_ready(url, gateway):
    import time

    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        assert gateway.poll() is None, "the gateway ended"
        try:
            with urllib.request.urlopen(url, timeout=1) as answered:
                if answered.status == 200:
                    return
        except OSError:
            # Readiness has no event to wait for.
            time.sleep(0.05)
    raise TimeoutError("the gateway is not ready")


if __name__ == "__main__":
    try_backend("grpcio", serve_grpc, sys.argv[1])
    try_backend("http.server", serve_http, sys.argv[1])
