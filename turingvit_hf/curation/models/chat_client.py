# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A client of any OpenAI-compatible endpoint (vLLM, SGLang, `transformers serve`, hosted) that loses no question."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from turingvit_hf.curation.models.answers import Answer, Failure, Question
from turingvit_hf.curation.models.pacing import Pace
from turingvit_hf.curation.models.pictures import DataUrls
from turingvit_hf.curation.models.requests import failure_of, retry_after_of
from turingvit_hf.curation.models.responses import Reply, read_reply
from turingvit_hf.curation.optional import require
from turingvit_hf.errors import InputError


MAX_PIXELS = 1024 * 1024
# a guess at what an image costs, for the limit of tokens alone; corrected by what the server reports
PIXELS_PER_TOKEN = 28 * 28
CHARACTERS_PER_TOKEN = 4


class EndpointChat:
    """A model behind `{base_url}/chat/completions`.

    Up to `concurrency` questions are under way at a time, started in the order given: those about one image follow
    each other, so that the server's prefix cache has the image. A request that fails in passing (time-out, connection,
    408, 409, 429, 5xx, a response that cannot be read) is sent again after a growing pause, or after what
    `Retry-After` asks for; in that time nothing else is started either.

    Args:
        model: the name that the server knows.
        base_url: such as `http://localhost:8000/v1`.
        name: how reports call it; empty: `model`.
        revision: of the weights, for the key of answers and for provenance; the server is not told.
        api_key_variable: the environment variable that holds the key, read when the endpoint is asked; None sends no
            key, as local servers want it.
        concurrency: how many questions may be under way, their pauses included.
        requests_per_minute: None sets no limit.
        tokens_per_minute: of prompts and answers together; None sets no limit.
        timeout: seconds for one request.
        max_retries: further tries of a request that failed in passing.
        max_wait: seconds between two tries at most; a `Retry-After` beyond that ends the tries.
        give_up_after: after so many questions in a row without any response the endpoint counts as down.
        temperature: 0 for the likeliest answer; None does not send it.
        top_p: None does not send it.
        max_tokens: of an answer; None does not send it, for models that want `max_completion_tokens` in `extra_body`.
        seed: for servers that draw; None does not send it.
        max_pixels: images are made this small before they are sent.
        jpeg_quality: of images that are sent.
        structured: whether the server is told the schema of JSON answers by `response_format`; False for those that
            reject it. The answers are checked in any case.
        extra_body: further parameters of the server, such as vLLM's `mm_processor_kwargs`.
        prompt_price: for a million tokens, in any currency.
        completion_price: likewise.

    Raises:
        InputError: a value is out of its range, or the environment variable of the key is not set.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        name: str = "",
        revision: str | None = None,
        api_key_variable: str | None = None,
        concurrency: int = 16,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        timeout: float = 120.0,
        max_retries: int = 4,
        max_wait: float = 120.0,
        give_up_after: int = 20,
        temperature: float | None = 0.0,
        top_p: float | None = None,
        max_tokens: int | None = 256,
        seed: int | None = None,
        max_pixels: int = MAX_PIXELS,
        jpeg_quality: int = 90,
        structured: bool = True,
        extra_body: Mapping[str, Any] | None = None,
        prompt_price: float = 0.0,
        completion_price: float = 0.0,
    ):
        positive = {"concurrency": concurrency, "timeout": timeout, "max_pixels": max_pixels, "max_wait": max_wait}
        positive |= {"give_up_after": give_up_after, "max_tokens": max_tokens}
        positive |= {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
        for option, value in positive.items():
            if value is not None and not value > 0:
                raise InputError(f"{option} must be more than 0, not {value!r}")
        if not base_url.startswith(("http://", "https://")):
            raise InputError(f"base_url must start with http:// or https://, not {base_url!r}")
        self.model = model
        self.name = name or model
        self.revision = revision
        self.base_url = base_url
        self.prompt_price = prompt_price
        self.completion_price = completion_price
        sampling = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens, "seed": seed}
        self._sampling = {option: value for option, value in sampling.items() if value is not None}
        self._extra_body = dict(extra_body or {})
        pictures = {"max_pixels": max_pixels, "jpeg_quality": jpeg_quality}
        self.parameters: dict[str, Any] = self._sampling | pictures | {"extra_body": self._extra_body}
        self._api_key_variable = api_key_variable
        self._structured = structured
        self._concurrency = concurrency
        self._timeout = timeout
        self._max_tries = max_retries + 1
        self._max_wait = max_wait
        self._give_up_after = give_up_after
        self._request_pace = Pace(requests_per_minute)
        self._token_pace = Pace(tokens_per_minute)
        self._num_unreached = 0

    def answer(self, questions: Sequence[Question], done: Callable[[int, Answer], None]) -> None:
        """Answer every question; `done(index, answer)` is called for each as soon as its answer is there.

        Raises:
            InputError: the key is refused, the model or the address is not there, or the endpoint is down for good.
        """
        _run(self._answer_all(questions, done))

    async def _answer_all(self, questions: Sequence[Question], done: Callable[[int, Answer], None]) -> None:
        openai = require("openai")
        key = "none"  # the client demands one, and local servers do not look at it
        if self._api_key_variable is not None:
            key = os.environ.get(self._api_key_variable, "")
            if not key:
                raise InputError(f"the environment variable {self._api_key_variable} for {self.base_url} is not set")
        async with openai.AsyncOpenAI(
            base_url=self.base_url, api_key=key, timeout=self._timeout, max_retries=0
        ) as client:
            urls = DataUrls(questions, self.parameters["max_pixels"], self.parameters["jpeg_quality"])
            numbered = iter(enumerate(questions))  # the workers take turns on it

            async def work() -> None:
                for index, question in numbered:
                    answer = await self._answer_one(client, question, await urls.of(question))
                    urls.release(question)
                    self._watch(answer)
                    done(index, answer)

            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self._concurrency, len(questions))):
                        group.create_task(work())
            except BaseExceptionGroup as errors:
                # the first one stopped the others; a group would hide it from whoever expects an InputError
                raise errors.exceptions[0] from None

    async def _answer_one(self, client: Any, question: Question, urls: list[str]) -> Answer:
        reply, started, num_tries = Reply("", None, "", None), 0.0, 0
        try:
            async for attempt in self._tries():
                with attempt:
                    num_tries += 1
                    await self._wait_for_turn(question)
                    started = time.monotonic()
                    reply = await self._request(client, question, urls)
        except Exception as error:
            failure = failure_of(error)
            if failure is not None:
                return Answer(failure=failure, num_tries=num_tries)
            status = getattr(error, "status_code", None)
            if status is None:
                raise
            hints = {
                401: f"is the key in {self._api_key_variable} right?",
                404: f"does it serve the model {self.model!r}?",
            }
            raise InputError(
                f"{self.base_url} answers {status}: {str(error)[:200]}; {hints.get(status, 'it will not serve us')}"
            ) from error
        return self._read(reply, time.monotonic() - started, num_tries, question)

    def _tries(self) -> Any:
        """The tries of one request, with pauses between them."""
        tenacity = require("tenacity")
        backoff = tenacity.wait_random_exponential(multiplier=0.5, max=min(30.0, self._max_wait))

        def wait(state: Any) -> float:
            return max(retry_after_of(state.outcome.exception()) or 0.0, backoff(state))

        def is_worth_it(error: BaseException) -> bool:
            failure = failure_of(error)
            return failure is not None and failure.passing and (retry_after_of(error) or 0.0) <= self._max_wait

        return tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self._max_tries),
            wait=wait,
            retry=tenacity.retry_if_exception(is_worth_it),
            reraise=True,
        )

    async def _wait_for_turn(self, question: Question) -> None:
        """Returns when neither requests nor tokens per minute nor a pause of the server forbid the next request."""
        wait = max(self._request_pace.reserve(), self._token_pace.reserve(self._estimate(question)))
        await asyncio.sleep(wait)
        # others may have been told to wait in the meantime
        while (rest := self._request_pace.paused_for()) > 0:
            await asyncio.sleep(rest)

    async def _request(self, client: Any, question: Question, urls: list[str]) -> Reply:
        content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        content.append({"type": "text", "text": question.prompt})
        options: dict[str, Any] = dict(self._sampling)
        if question.schema is not None and self._structured:
            schema = {"name": question.schema.__name__, "schema": question.schema.model_json_schema(), "strict": True}
            options["response_format"] = {"type": "json_schema", "json_schema": schema}
        try:
            # the client's own limit is on each wait for more bytes, and a server that trickles would never end
            async with asyncio.timeout(self._timeout):
                completion = await client.chat.completions.create(
                    model=self.model,
                    messages=[{"role": "user", "content": content}],
                    extra_body=self._extra_body or None,
                    **options,
                )
        except Exception as error:
            wait = retry_after_of(error)
            if wait is not None and wait <= self._max_wait:
                self._request_pace.pause(wait)
            raise
        return read_reply(completion)

    def _read(self, reply: Reply, latency: float, num_tries: int, question: Question) -> Answer:
        prompt_tokens, completion_tokens = reply.tokens or (0, 0)
        if reply.tokens is not None:
            self._token_pace.correct(prompt_tokens + completion_tokens - self._estimate(question))
        failure = None
        if reply.refusal is not None:
            failure = Failure("refused", f"it is a refusal: {reply.refusal[:80]!r}", passing=False)
        return Answer(
            text="" if failure else reply.text,
            finish_reason=reply.finish_reason,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            latency=latency,
            num_tries=num_tries,
            failure=failure,
        )

    def _estimate(self, question: Question) -> int:
        """How many tokens a request may take, before the server has counted them."""
        limit = self.parameters["max_pixels"]
        pixels = sum(min(image.shape[0] * image.shape[1], limit) for image in question.images)
        tokens = pixels // PIXELS_PER_TOKEN + len(question.prompt) // CHARACTERS_PER_TOKEN
        return tokens + int(self._sampling.get("max_tokens", 0))

    def _watch(self, answer: Answer) -> None:
        """Raises when nothing has come back for too many questions in a row."""
        if answer.failure is None or not answer.failure.passing:
            self._num_unreached = 0
            return
        self._num_unreached += 1
        if self._num_unreached >= self._give_up_after:
            self._num_unreached = 0
            raise InputError(
                f"{self.base_url} answered none of the last {self._give_up_after} questions, each tried up to "
                f"{self._max_tries} times; the last failure: {answer.failure.kind}, {answer.failure.detail}"
            )

    def __getstate__(self) -> dict[str, Any]:
        # what time it is, is each process's own affair
        state = self.__dict__.copy()
        for name in ("_request_pace", "_token_pace"):
            state[name] = Pace(state[name].per_minute)
        return state


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Runs to the end; in a thread of its own where an event loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    errors: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="questions")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
