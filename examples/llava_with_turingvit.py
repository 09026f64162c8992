# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A LLaVA around a TuringViT tower and a language model: built, asked about an image, saved.

    python examples/llava_with_turingvit.py --tower turingvit-quickstart/vision_tower --language-model path/to/llm \\
        --image photo.jpg --question "What is this?" --output llava
    python examples/llava_with_turingvit.py --smoke

Tower and language model keep their weights; the projector between them is new, so the answers mean nothing until it is
trained. What is saved is an ordinary LLaVA: after `import turingvit_hf`, `AutoModelForImageTextToText` and
`AutoProcessor` load it. The language model is a causal one whose embeddings are called `embed_tokens`, the name that
LLaVA asks for: Llama, Qwen, Gemma and most others. To put the tower into a VLM that exists: `turingvit swap`.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from PIL import Image
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerBase,
)

from turingvit_hf import TuringViTConfig, TuringViTImageProcessor, TuringViTLlavaProcessor, TuringViTModel
from turingvit_hf.data.shapes import generate_shapes
from turingvit_hf.training.text import train_tokenizer


IMAGE_TOKEN = "<image>"


def build_llava(tower_path: str, language_path: str) -> tuple[LlavaForConditionalGeneration, TuringViTLlavaProcessor]:
    """A LLaVA with the weights of both models and a new projector, and its processor."""
    # the head would get no gradient inside a LLaVA, which reads the patch tokens
    tower = AutoModel.from_pretrained(tower_path, vision_use_head=False)
    language = AutoModelForCausalLM.from_pretrained(language_path)
    if not hasattr(language.base_model, "embed_tokens"):
        raise SystemExit(f"a LLaVA cannot hold a {type(language).__name__}: it has no embed_tokens")
    tokenizer = AutoTokenizer.from_pretrained(language_path)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    language.resize_token_embeddings(max(len(tokenizer), language.config.vocab_size))
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=language.config,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        vision_feature_layer=-1,
        # no class token that "default" would drop
        vision_feature_select_strategy="full",
        tie_word_embeddings=language.config.tie_word_embeddings,
    )
    llava = LlavaForConditionalGeneration(config)
    llava.model.vision_tower = tower
    llava.model.language_model = language.base_model
    llava.lm_head = language.get_output_embeddings()
    llava.generation_config = language.generation_config
    return llava.to(language.dtype).eval(), make_processor(tower_path, tokenizer)


def make_processor(tower_path: str, tokenizer: PreTrainedTokenizerBase) -> TuringViTLlavaProcessor:
    """The tower's image processor in the form that LLaVA reads, with the tokenizer."""
    image_processor = TuringViTImageProcessor.from_pretrained(tower_path, return_image_sizes=True)
    return TuringViTLlavaProcessor(image_processor, tokenizer, image_token=IMAGE_TOKEN)


@torch.inference_mode()
def ask(
    llava: LlavaForConditionalGeneration, processor: TuringViTLlavaProcessor, image: Image.Image, question: str
) -> str:
    """The model's answer to a question about an image, at most 32 tokens, greedy."""
    inputs = processor(images=image, text=f"{IMAGE_TOKEN}\n{question}", return_tensors="pt").to(llava.device)
    num_image_tokens = int((inputs["input_ids"] == llava.config.image_token_id).sum())
    print(f"{image.width} x {image.height} pixels: {num_image_tokens} image tokens")
    tokens = llava.generate(**inputs, max_new_tokens=32, do_sample=False)
    return processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def make_smoke_input(folder: Path) -> None:
    """A small tower, a small language model with its tokenizer, both with random weights, and a picture."""
    config = TuringViTConfig(hidden_size=64, intermediate_size=256, num_hidden_layers=6, num_attention_heads=4)
    TuringViTModel(config).save_pretrained(folder / "tower")
    TuringViTImageProcessor().save_pretrained(folder / "tower")
    pairs = list(generate_shapes(50, seed=0))
    pairs[0][0].save(folder / "picture.png")
    tokenizer = train_tokenizer((caption for _, caption in pairs), vocab_size=400, max_length=512)
    tokenizer.save_pretrained(folder / "language")
    language = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(language).save_pretrained(folder / "language")


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, build, ask, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tower", help="checkpoint of the tower: a folder or a hub id")
    parser.add_argument("--language-model", help="checkpoint of the language model: a folder or a hub id")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--question", default="What is in this picture?")
    parser.add_argument("--output", type=Path, help="where to save the LLaVA; not saved if left out")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smoke", action="store_true", help="tiny random models and a picture, made on the spot")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        if options.smoke:
            make_smoke_input(folder := Path(scratch))
            options.tower, options.language_model = str(folder / "tower"), str(folder / "language")
            options.image = options.image or folder / "picture.png"
        if not (options.tower and options.language_model and options.image):
            parser.error("give --tower, --language-model and --image, or --smoke")
        llava, processor = build_llava(options.tower, options.language_model)
        with Image.open(options.image) as image:
            print("answer:", ask(llava.to(options.device), processor, image, options.question))
    if options.output:
        llava.save_pretrained(options.output)
        processor.save_pretrained(options.output)
        print(f"saved to {options.output}")


if __name__ == "__main__":
    main()
