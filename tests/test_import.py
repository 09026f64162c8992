# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""`import turingvit_hf` registers classes and does nothing else: it is quiet, offline and starts nothing."""

import os
import sys
import textwrap
from subprocess import CompletedProcess

from packaging.version import Version

import turingvit_hf
from tests.processes import run_command


def run_python(code: str) -> CompletedProcess:
    """Run `code` in a fresh interpreter that nobody has told to be offline."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
    command = [sys.executable, "-W", "error::UserWarning", "-c", textwrap.dedent(code)]
    return run_command(command, env=environment)


def test_importing_is_quiet_offline_and_starts_nothing():
    # torch and transformers come first: what they print, load or set is theirs
    result = run_python(
        """
        import os, sys, torch, transformers

        def no_network(event, args):
            if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system"):
                raise RuntimeError(f"{event}{args}")

        def state():
            threads = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
            return dict(os.environ), torch.get_rng_state().tolist(), threads

        sys.addaudithook(no_network)
        before = state()
        sys.stdout.flush(), sys.stderr.flush()
        os.dup2(1, 2)
        print("from here on")
        sys.stdout.flush()
        import turingvit_hf
        sys.stdout.flush(), sys.stderr.flush()
        print("to here")

        assert state() == before
        assert not torch.cuda.is_initialized()
        unwanted = "transformers.trainer matplotlib typer rich datasets peft av decord"
        unwanted += " turingvit_hf.cli turingvit_hf.training turingvit_hf.integrations turingvit_hf.curation"
        print([name for name in unwanted.split() if name in sys.modules])
        """
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.partition("from here on\n")[2] == "to here\n[]\n"


def test_auto_classes_know_the_tower_after_the_import_and_not_before():
    result = run_python(
        """
        from transformers import AutoConfig, AutoModel
        try:
            AutoConfig.for_model("turingvit")
        except ValueError as error:
            print("before:", "turingvit" in str(error))
        import turingvit_hf
        config = AutoConfig.for_model("turingvit", hidden_size=16, num_hidden_layers=6, num_attention_heads=2)
        print("after:", type(AutoModel.from_config(config)).__name__)
        """
    )
    assert result.stdout == "before: True\nafter: TuringViTModel\n", result.stderr


def test_the_version_is_one():
    assert str(Version(turingvit_hf.__version__)) == turingvit_hf.__version__


def test_public_names_exist_and_are_all_there_is():
    members = vars(turingvit_hf).items()
    own = {name for name, value in members if isinstance(value, type) and value.__module__.startswith("turingvit_hf.")}
    assert turingvit_hf.__all__ == sorted(own)
    tower = {"TuringViTConfig", "TuringViTModel", "TuringViTForImageClassification", "TuringViTBackbone"}
    processors = {"TuringViTImageProcessor", "TuringViTVideoProcessor", "TuringViTProcessor"}
    dual_encoder = {"TuringViTDualEncoderConfig", "TuringViTDualEncoderModel"}
    assert tower | processors | dual_encoder <= own


def test_the_command_line_waits_for_no_library_that_its_help_does_not_need():
    result = run_python(
        """
        import sys
        import turingvit_hf.cli

        unwanted = "transformers.trainer matplotlib datasets peft av cv2 faiss openai onnx bitsandbytes"
        print([name for name in unwanted.split() if name in sys.modules])
        """
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "[]\n"
