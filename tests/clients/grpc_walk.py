"""Calls of the public gRPC library to its own server, through Sluice: in clear, and over TLS on both sides.

Run by dp/tests/clients.rs, which talks to it: a line of JSON with the ports of its servers goes out,
one with the addresses of a gateway to each of them comes in, and then the tests run. The folder
CERTIFICATES has cert.pem and key.pem for a.test, and the ca.pem that signed them.
"""

import concurrent.futures
import http.client
import json
import os
import pathlib
import queue
import sys
import threading
import time
import unittest

import grpc

CERTIFICATES = pathlib.Path(os.environ["CERTIFICATES"])
NAME = "a.test"
# Every call must be over by then.
PATIENCE_SECONDS = 20
# The deadline of calls that are never answered.
DEADLINE_SECONDS = 0.5
LARGE_BYTES = 3_000_000
MANY = 200
# Where the gateway is, for servers in clear and over TLS.
GATEWAYS = {}


class Cart(grpc.GenericRpcHandler):
    """A service whose messages are bytes."""

    def __init__(self):
        self.cancelled = queue.Queue()

    def service(self, details):
        methods = {
            "/shop.Cart/Add": grpc.unary_unary_rpc_method_handler(self.add),
            "/shop.Cart/Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "/shop.Cart/Wait": grpc.unary_unary_rpc_method_handler(self.wait),
            "/shop.Cart/Count": grpc.unary_stream_rpc_method_handler(self.count),
            "/shop.Cart/Forever": grpc.unary_stream_rpc_method_handler(self.forever),
            "/shop.Cart/Sum": grpc.stream_unary_rpc_method_handler(self.sum),
            "/shop.Cart/Repeat": grpc.unary_stream_rpc_method_handler(self.repeat),
            "/shop.Cart/Echo": grpc.stream_stream_rpc_method_handler(self.echo),
        }
        return methods.get(details.method)

    def add(self, request, context):
        said = dict(context.invocation_metadata())
        context.send_initial_metadata((("x-first", said.get("x-said", "")),))
        context.set_trailing_metadata((("x-last", "yes"), ("x-raw-bin", said.get("x-raw-bin", b""))))
        return request

    def fail(self, request, context):
        context.set_trailing_metadata((("x-reason-bin", bytes(range(256))),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "sold out: 50 % é\n")

    def wait(self, request, context):
        over = threading.Event()
        context.add_callback(over.set)
        remaining = context.time_remaining()
        over.wait(PATIENCE_SECONDS)
        self.cancelled.put(remaining)
        return b""

    def count(self, request, context):
        for number in range(int(request)):
            yield str(number).encode()
        context.set_trailing_metadata((("x-last", "yes"),))
        if context.invocation_metadata() and ("x-fail", "yes") in context.invocation_metadata():
            context.abort(grpc.StatusCode.DATA_LOSS, "lost the rest")

    def repeat(self, request, context):
        for _ in range(3):
            yield request

    def forever(self, request, context):
        over = threading.Event()
        # Not after the wait: who is taken back before it comes there is not called again.
        context.add_callback(lambda: self.cancelled.put(None))
        context.add_callback(over.set)
        yield b"first"
        over.wait(2 * PATIENCE_SECONDS)

    def sum(self, requests, context):
        return str(sum(map(int, requests))).encode()

    def echo(self, requests, context):
        for request in requests:
            yield request


class Calls:
    """What is called, on a channel that the classes below make."""

    @classmethod
    def tearDownClass(cls):
        cls.channel.close()

    def unary(self, method):
        return self.channel.unary_unary(f"/shop.Cart/{method}")

    def failure(self, call):
        with self.assertRaises(grpc.RpcError) as raised:
            call()
        return raised.exception

    def test_unary_calls_keep_their_metadata(self):
        metadata = (("x-said", "words"), ("x-raw-bin", b"\x00\xff\x10"))
        answer, call = self.unary("Add").with_call(b"ping", metadata=metadata, timeout=PATIENCE_SECONDS)
        self.assertEqual(answer, b"ping")
        self.assertEqual(dict(call.initial_metadata())["x-first"], "words")
        trailing = dict(call.trailing_metadata())
        self.assertEqual((trailing["x-last"], trailing["x-raw-bin"]), ("yes", b"\x00\xff\x10"))
        self.assertEqual(call.code(), grpc.StatusCode.OK)

    def test_messages_of_all_sizes_pass(self):
        for size in [0, 1, 16_383, 16_384, 65_535, 65_536, LARGE_BYTES]:
            message = bytes(size)
            self.assertEqual(self.unary("Add")(message, timeout=PATIENCE_SECONDS), message)
        message = b"a" * LARGE_BYTES
        compressed = self.unary("Add")(message, timeout=PATIENCE_SECONDS, compression=grpc.Compression.Gzip)
        self.assertEqual(compressed, message)

    def test_many_calls_share_a_channel(self):
        calls = [self.unary("Add").future(str(n).encode(), timeout=PATIENCE_SECONDS) for n in range(MANY)]
        self.assertEqual([call.result() for call in calls], [str(n).encode() for n in range(MANY)])

    def test_servers_stream(self):
        call = self.channel.unary_stream("/shop.Cart/Count")(b"1000", timeout=PATIENCE_SECONDS)
        self.assertEqual(list(call), [str(n).encode() for n in range(1000)])
        self.assertEqual(dict(call.trailing_metadata())["x-last"], "yes")

    def test_clients_stream(self):
        numbers = (str(n).encode() for n in range(1000))
        answer = self.channel.stream_unary("/shop.Cart/Sum")(numbers, timeout=PATIENCE_SECONDS)
        self.assertEqual(answer, b"499500")

    def test_both_stream_at_once(self):
        # Each message is answered before the next one is sent.
        messages = queue.Queue()
        call = self.channel.stream_stream("/shop.Cart/Echo")(iter(messages.get, None), timeout=PATIENCE_SECONDS)
        for number in range(20):
            message = f"message {number}".encode()
            messages.put(message)
            self.assertEqual(next(call), message)
        messages.put(None)
        self.assertEqual(list(call), [])
        self.assertEqual(call.code(), grpc.StatusCode.OK)

    def test_failures_keep_status_words_and_trailers(self):
        failure = self.failure(lambda: self.unary("Fail")(b"", timeout=PATIENCE_SECONDS))
        self.assertEqual(failure.code(), grpc.StatusCode.FAILED_PRECONDITION)
        self.assertEqual(failure.details(), "sold out: 50 % é\n")
        self.assertEqual(dict(failure.trailing_metadata())["x-reason-bin"], bytes(range(256)))

    def test_a_stream_may_fail_after_messages(self):
        count = self.channel.unary_stream("/shop.Cart/Count")
        call = count(b"3", timeout=PATIENCE_SECONDS, metadata=(("x-fail", "yes"),))
        self.assertEqual([next(call) for _ in range(3)], [b"0", b"1", b"2"])
        failure = self.failure(lambda: next(call))
        self.assertEqual((failure.code(), failure.details()), (grpc.StatusCode.DATA_LOSS, "lost the rest"))

    def test_methods_that_are_not_there_are_told(self):
        failure = self.failure(lambda: self.unary("Nothing")(b"", timeout=PATIENCE_SECONDS))
        self.assertEqual(failure.code(), grpc.StatusCode.UNIMPLEMENTED)

    def test_what_no_route_wants_is_not_found(self):
        other = self.channel.unary_unary("/other.Service/Call")
        failure = self.failure(lambda: other(b"", timeout=PATIENCE_SECONDS))
        self.assertEqual(failure.code(), grpc.StatusCode.NOT_FOUND)
        self.assertEqual(failure.details(), "no Route matched with those values")

    def test_deadlines_reach_the_server_and_end_the_call(self):
        began = time.monotonic()
        failure = self.failure(lambda: self.unary("Wait")(b"", timeout=DEADLINE_SECONDS))
        self.assertEqual(failure.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assertLess(time.monotonic() - began, PATIENCE_SECONDS / 2)
        told = self.cart.cancelled.get(timeout=PATIENCE_SECONDS)
        # A header rounds it, so it is the same only about.
        self.assertLess(told, 2 * DEADLINE_SECONDS)

    def test_a_call_that_is_taken_back_ends_at_the_server(self):
        call = self.channel.unary_stream("/shop.Cart/Forever")(b"")
        self.assertEqual(next(call), b"first")
        call.cancel()
        self.assertIsNone(self.cart.cancelled.get(timeout=PATIENCE_SECONDS))


class InClear(Calls, unittest.TestCase):
    """In clear on both sides."""

    @classmethod
    def setUpClass(cls):
        cls.cart = CARTS["clear"]
        cls.channel = grpc.insecure_channel(GATEWAYS["clear"])


class InJson(unittest.TestCase):
    """The same server, called by HTTP and JSON through the plugin grpc-gateway."""

    def call(self, method, path, body=None):
        connection = http.client.HTTPConnection(GATEWAYS["clear"], timeout=PATIENCE_SECONDS)
        connection.request(method, path, body=json.dumps(body) if body is not None else None)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        self.assertEqual(answer.getheader("content-type"), "application/json")
        return answer.status, text

    def test_messages_there_and_back(self):
        item = {"id": "7", "tags": ["a", "ä"], "count": -1}
        status, text = self.call("POST", "/v1/items", item)
        self.assertEqual((status, json.loads(text)), (200, item))
        status, text = self.call("GET", "/v1/items/x%20y?tags=t&count=3")
        self.assertEqual((status, json.loads(text)), (200, {"id": "x y", "tags": ["t"], "count": 3}))

    def test_a_stream_of_messages(self):
        status, text = self.call("GET", "/v1/repeat/7")
        self.assertEqual(status, 200)
        one = json.dumps({"count": 0, "id": "7", "tags": []}, separators=(",", ":"))
        self.assertEqual(text, one * 3)

    def test_failures(self):
        status, text = self.call("GET", "/v1/fail")
        expected = {"code": grpc.StatusCode.FAILED_PRECONDITION.value[0], "message": "sold out: 50 % é\n"}
        self.assertEqual((status, json.loads(text)), (400, expected))
        status, text = self.call("GET", "/v1/missing")
        self.assertEqual((status, json.loads(text)["code"]), (500, grpc.StatusCode.UNIMPLEMENTED.value[0]))


class OverTls(Calls, unittest.TestCase):
    """Over TLS on both sides; the client verifies the gateway's certificate."""

    @classmethod
    def setUpClass(cls):
        cls.cart = CARTS["tls"]
        believed = grpc.ssl_channel_credentials((CERTIFICATES / "ca.pem").read_bytes())
        options = [("grpc.ssl_target_name_override", NAME)]
        cls.channel = grpc.secure_channel(GATEWAYS["tls"], believed, options)


CARTS = {"clear": Cart(), "tls": Cart()}


def serve(cart, credentials):
    """A server on a port of its own."""
    pool = concurrent.futures.ThreadPoolExecutor(max_workers=16)
    server = grpc.server(pool, handlers=(cart,))
    address = "127.0.0.1:0"
    if credentials is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials)
    server.start()
    return server, port


def main():
    pair = ((CERTIFICATES / "key.pem").read_bytes(), (CERTIFICATES / "cert.pem").read_bytes())
    secure = grpc.ssl_server_credentials([pair])
    clear, clear_port = serve(CARTS["clear"], None)
    tls, tls_port = serve(CARTS["tls"], secure)
    print(json.dumps({"clear": clear_port, "tls": tls_port}), flush=True)
    GATEWAYS.update(json.loads(sys.stdin.readline()))
    done = unittest.main(exit=False, verbosity=2)
    clear.stop(0)
    tls.stop(0)
    return 0 if done.result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
