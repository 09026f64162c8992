# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A small OpenAI-compatible server in a thread: its answers follow from prompt and image, and it fails as told."""

import base64
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


NOUNS = ("kite", "dog", "boat", "tree", "lamp", "stone", "bird", "chair", "river", "house", "child", "wheel", "horse")
PLACES = ("on", "in", "under", "beside", "behind", "near", "above", "against")
COLORS = ("red", "green", "blue", "yellow", "gray", "white", "black", "brown")
# what a fault is called, and what it does to a response
FAULTS = (
    "429",  # with Retry-After
    "500",
    "503 with html",  # as a proxy gives it
    "401",
    "404",
    "400",
    "time-out",
    "connection reset",
    "trickle",  # one byte after another
    "cut body",  # the connection closes in the middle of the response
    "no choices",
    "truncated json",  # in the answer, as are all below
    "wrong schema",
    "refusal",
    "refusal in words",
    "empty",
    "length",
)


@dataclass(frozen=True)
class Request:
    """One request as it came.

    Attributes:
        key: of images and prompt.
        prompt: the text.
        images: the files.
        body: all of it.
        started: when, in seconds of `time.monotonic`.
    """

    key: str
    prompt: str
    images: list[bytes]
    body: dict[str, Any]
    started: float


@dataclass
class FaultPlan:
    """A fault for the first `times` requests of each key that `when` is true for; None: for all of them. Of the fault
    "body" it has what the response holds."""

    fault: str
    times: int | None
    when: Callable[[Request], bool]
    retry_after: str
    body: Any = None
    used: Counter = field(default_factory=Counter)


class FaultServer:
    """The server; `with FaultServer() as server:` runs it.

    Args:
        answer: a function of prompt and images; None gives captions, verdicts and scores by their hash.
        seconds: how long each answer takes.

    Attributes:
        base_url: where clients find it.
        requests: all that came, in order of arrival.
        max_active: the most that were under way at a time.
    """

    def __init__(self, answer: Callable[[str, list[bytes]], str] | None = None, *, seconds: float = 0.0):
        self.requests: list[Request] = []
        self.max_active = 0
        self.stop_sleeping = threading.Event()
        self._answer = answer or default_answer
        self._seconds = seconds
        self._plans: list[FaultPlan] = []
        self._num_active = 0
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> "FaultServer":
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_sleeping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def fail(
        self,
        fault: str,
        *,
        times: int | None = 1,
        when: Callable[[Request], bool] = lambda request: True,
        retry_after: str = "0.1",
    ) -> None:
        """Answer each key's first `times` requests (None: all) with a fault, those that `when` is true for."""
        assert fault in FAULTS, f"no fault {fault!r}; there are {FAULTS}"
        self._plans.append(FaultPlan(fault, times, when, retry_after))

    def replace(self, body: Any, *, when: Callable[[Request], bool] = lambda request: True) -> None:
        """Answer all requests that `when` is true for with this body and status 200."""
        self._plans.append(FaultPlan("body", None, when, "", body))

    def heal(self) -> None:
        """Fail no more."""
        self._plans.clear()

    @property
    def counts(self) -> Counter:
        """How many requests each key had, failed ones included."""
        with self._lock:
            return Counter(request.key for request in self.requests)

    @contextmanager
    def handling(self, request: Request) -> Iterator[FaultPlan | None]:
        """Counts the request in and out, and says with what it is to fail."""
        with self._lock:
            self.requests.append(request)
            self._num_active += 1
            self.max_active = max(self.max_active, self._num_active)
            plan = next((plan for plan in self._plans if self._is_due(plan, request)), None)
            if plan is not None:
                plan.used[request.key] += 1
        try:
            self.stop_sleeping.wait(self._seconds)
            yield plan
        finally:
            with self._lock:
                self._num_active -= 1

    def answer(self, request: Request) -> str:
        """The right answer to a request."""
        return self._answer(request.prompt, request.images)

    @staticmethod
    def _is_due(plan: FaultPlan, request: Request) -> bool:
        return plan.when(request) and (plan.times is None or plan.used[request.key] < plan.times)


def default_answer(prompt: str, images: list[bytes]) -> str:
    """A verdict, scores or a caption by the hash of prompt and images."""
    number = int.from_bytes(hashlib.sha256(prompt.encode() + b"".join(images)).digest()[:8], "big")
    if "hallucinated_phrases" in prompt:
        quality = 3 + number % 3
        return json.dumps({"grounded": True, "hallucinated_phrases": [], "quality": quality})
    if '"consistency"' in prompt:
        return json.dumps(dict.fromkeys(("quality", "relevance", "consistency"), 0.5 + number % 50 / 100))
    words = []
    for choices in (COLORS, NOUNS, PLACES, NOUNS, NOUNS):
        number, index = divmod(number, len(choices))
        words.append(choices[index])
    return "{} {} {} {} and {}".format(*words).capitalize()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    owner: FaultServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed or lose patience are what this server is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = read_request(body)
        owner = self.server.owner
        with owner.handling(request) as plan:
            if plan is None:
                self._complete(owner.answer(request))
            else:
                self._fail(plan, owner, request)

    def _fail(self, plan: FaultPlan, owner: FaultServer, request: Request) -> None:
        fault = plan.fault
        if fault == "429":
            self._send(429, {"error": {"message": "slow down"}}, {"Retry-After": plan.retry_after})
        elif fault in ("500", "401", "404", "400"):
            self._send(int(fault), {"error": {"message": f"told to answer {fault}"}})
        elif fault == "body":
            self._send(200, plan.body)
        elif fault == "503 with html":
            self._send(503, "<html><body>Bad gateway</body></html>")
        elif fault == "time-out":
            owner.stop_sleeping.wait(30)
            self.close_connection = True
        elif fault == "connection reset":
            # closed with unread data to be thrown away, which the other side sees as a reset
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        elif fault == "trickle":
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.close_connection = True
            for _ in range(150):
                self.wfile.write(b" ")
                if owner.stop_sleeping.wait(0.2):
                    break
        elif fault == "cut body":
            self._complete(owner.answer(request), cut=True)
        elif fault == "no choices":
            self._send(200, {"id": "x", "object": "chat.completion", "choices": [], "created": 0, "model": "m"})
        elif fault == "truncated json":
            self._complete('{"grounded": true, "hallucinated_ph')
        elif fault == "wrong schema":
            self._complete('{"grounded": "perhaps", "hallucinated_phrases": [], "quality": 11}')
        elif fault == "refusal":
            self._complete("", refusal="I will not look at this.")
        elif fault == "refusal in words":
            self._complete("I'm sorry, but I can't help with that.")
        elif fault == "empty":
            self._complete("  \n")
        elif fault == "length":
            self._complete("A dog on a", finish_reason="length")

    def _complete(
        self, text: str, *, finish_reason: str = "stop", refusal: str | None = None, cut: bool = False
    ) -> None:
        message = {"role": "assistant", "content": None if refusal else text, "refusal": refusal}
        answer = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": "fake",
            "choices": [{"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": None}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }
        self._send(200, answer, cut=cut)

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None, *, cut: bool = False) -> None:
        kind = "text/html" if isinstance(body, str) else "application/json"
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = cut


def read_request(body: dict[str, Any]) -> Request:
    """What a request's body asks."""
    parts = body["messages"][0]["content"]
    prompt = "".join(part["text"] for part in parts if part["type"] == "text")
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    images = [base64.b64decode(re.sub("^data:image/jpeg;base64,", "", url)) for url in urls]
    key = hashlib.sha256(b"\0".join([prompt.encode(), *images])).hexdigest()
    return Request(key, prompt, images, body, time.monotonic())
