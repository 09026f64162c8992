# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A chat template with images, for language models whose own knows texts only."""

TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"

_TEMPLATE = """\
{%- for message in messages -%}
{{- 'TURN_START' + message['role'] + '\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{{- 'IMAGE\n' -}}{%- else -%}{{- part['text'] -}}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- 'TURN_END\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'TURN_STARTassistant\n' -}}{%- endif -%}
"""


def chat_template(image_token: str = "<image>") -> str:
    r"""Return ChatML with images, the form of SmolLM2 and Qwen, in Jinja.

    A question with an image is `<|im_start|>user\n<image>\nWhat is this?<|im_end|>\n`. The tokenizer should have
    `<|im_start|>` and `<|im_end|>` as special tokens, and the second as the one that ends generation.

    Args:
        image_token: what the VLM's processor reads as an image.
    """
    return _TEMPLATE.replace("TURN_START", TURN_START).replace("TURN_END", TURN_END).replace("IMAGE", image_token)


def prefix_template(image_token: str = "<image>") -> str:
    """Return a template for a VLM that is asked without roles, as a PaliGemma: images, then the question, in Jinja.

    Its processor writes the rest. With it `apply_chat_template` and pipelines ask what training has shown.

    Args:
        image_token: what the VLM's processor reads as an image.
    """
    images = "{%- for part in message['content'] if part['type'] == 'image' -%}{{- 'IMAGE' -}}{%- endfor -%}"
    texts = "{%- for part in message['content'] if part['type'] == 'text' -%}{{- part['text'] -}}{%- endfor -%}"
    template = "{%- for message in messages -%}" + images + texts + "{%- endfor -%}"
    return template.replace("IMAGE", image_token)
