# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A swapped VLM behind transformers' OpenAI-compatible server, asked about a picture over HTTP."""

import base64
import io
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils.import_utils import is_serve_available
from typer.testing import CliRunner

from tests.integrations import tower_swap_cases as cases
from tests.integrations.tiny import pictures
from tests.processes import PATIENCE
from turingvit_hf.cli import app
from turingvit_hf.integrations import serving
from turingvit_hf.integrations.hub_export import export_for_hub
from turingvit_hf.integrations.tower_swap import swap_vision_tower


needs_server = pytest.mark.skipif(
    not is_serve_available(), reason="the server of transformers needs the extra `serving` (fastapi, uvicorn, openai)"
)
STOP = 10  # seconds
PICTURE = pictures([(40, 16)])[0]
COMMANDS = {
    "turingvit serve": ["-c", "from turingvit_hf.cli import app; app()", "serve"],
    "transformers serve": ["-m", "transformers.cli.transformers", "serve", "--trust-remote-code"],
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A LLaVA with a new tower, saved for each command: as it is, and exported with its code."""
    folder = tmp_path_factory.mktemp("serving")
    torch.manual_seed(0)
    vlm, processor = cases.make_llava()
    processor.chat_template = cases.CHAT_TEMPLATE
    # a random model may say any word, but not that it has finished, nor that an image follows
    vlm.generation_config.suppress_tokens = list(range(8))
    result = swap_vision_tower(vlm, cases.make_tower(), processor=processor)
    result.save(folder / "swapped")
    export_for_hub(result.model, result.processor, folder / "exported")
    return {"turingvit serve": folder / "swapped", "transformers serve": folder / "exported"}


@contextmanager
def served(command: list[str], model: Path, scratch: Path) -> Iterator[str]:
    """The address of a server for this model, which has answered that it is well and is stopped in the end."""
    arguments = [str(model), "--host", "127.0.0.1", "--port", "0", "--device", "cpu"]
    environment = os.environ | {"HF_HOME": str(scratch / "home"), "OMP_NUM_THREADS": "1"}
    log = scratch / "log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            [sys.executable, *command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=scratch,
        ) as process,
    ):
        try:
            yield address_of(process, log)
        finally:
            process.terminate()
            try:
                process.wait(STOP)
            except subprocess.TimeoutExpired:
                process.kill()


def address_of(process: subprocess.Popen, log: Path) -> str:
    """The address that a server names, as soon as it answers there; fail with its log if it ends or takes too long."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        # at port 0 the system chooses one that is free
        if found := re.search(r"running on (http://127\.0\.0\.1:[1-9]\d*) ", log.read_text()):
            with urllib.request.urlopen(f"{found[1]}/health", timeout=PATIENCE) as response:
                assert json.load(response) == {"status": "ok"}
            return found[1]
        time.sleep(0.2)
    pytest.fail(f"no server, exit code {process.poll()}:\n{log.read_text()}")


def post(address: str, body: dict) -> str:
    """What the server answers to a chat."""
    request = urllib.request.Request(
        f"{address}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        return response.read().decode()


def question(model: Path, **options) -> dict:
    """A request with a picture in it."""
    file = io.BytesIO()
    PICTURE.save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "w10"}]
    messages = [{"role": "user", "content": content}]
    return {"model": str(model), "messages": messages, "max_tokens": 5, "temperature": 0, **options}


def expected_answer(model: Path) -> str:
    """The model's own answer to that question."""
    vlm, processor = AutoModelForImageTextToText.from_pretrained(model), AutoProcessor.from_pretrained(model)
    inputs = processor(images=PICTURE, text="user <image> w10 w30", return_tensors="pt")
    generated = vlm.generate(**inputs, max_new_tokens=5, do_sample=False)
    return processor.tokenizer.decode(generated[0, inputs["input_ids"].shape[1] :])


@needs_server
@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_server_answers_about_a_picture(folders, command, tmp_path):
    model = folders[command]
    expected = expected_answer(folders["turingvit serve"])
    with served(COMMANDS[command], model, tmp_path) as address:
        answer = json.loads(post(address, question(model)))
        assert answer["choices"][0]["message"]["content"] == expected
        # role, 4 by 10 image tokens, question, start of the answer
        assert answer["usage"]["prompt_tokens"] == 1 + 40 + 1 + 1
        lines = post(address, question(model, stream=True)).split("\n\n")
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(pieces) == expected
    assert sum(map(bool, pieces)) == 5


def test_what_is_missing_is_one_line(monkeypatch):
    monkeypatch.setattr(serving, "is_serve_available", lambda: False)
    result = CliRunner().invoke(app, ["serve", "my-vlm"])
    assert result.exit_code == 1
    assert "pip install 'turingvit_hf[serving]'" in result.stderr
    assert "Traceback" not in result.output


@needs_server
def test_a_model_that_is_not_there_is_one_line():
    result = CliRunner().invoke(app, ["serve", "no/such/folder", "--device", "cpu"])
    assert result.exit_code == 1
    assert "error: " in result.stderr
    assert "no/such/folder" in result.stderr
    assert "Traceback" not in result.output


@needs_server
def test_help_is_that_of_transformers():
    result = CliRunner().invoke(app, ["serve", "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage: turingvit serve [OPTIONS] [FORCE_MODEL]" in result.output
    assert "--model-timeout" in result.output
