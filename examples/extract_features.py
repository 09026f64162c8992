# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Features of images, or of all images under a folder, into one .safetensors file.

    python examples/extract_features.py photos/ --tower turingvit-quickstart/vision_tower
    python examples/extract_features.py cat.jpg --tower turingvit-quickstart/vision_tower --patches
    python examples/extract_features.py --smoke

Without `--patches` the file holds one tensor, `features` (N, D), and the names of the N files as JSON in its metadata,
under `files`. With it there is a tensor (rows, columns, D) for each file, under the file's name. Images keep their
resolution; each forward pass takes as many as its budget of patches allows.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoImageProcessor, AutoModel

from turingvit_hf import TuringViTConfig, TuringViTImageProcessor, TuringViTModel
from turingvit_hf.data.shapes import generate_shapes
from turingvit_hf.modeling.packing import split_by_image


def find_images(paths: list[Path]) -> list[Path]:
    """The files among `paths` and, below the folders among them, all files whose ending Pillow reads."""
    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    found = []
    for path in paths:
        if path.is_dir():
            found += sorted(file for file in path.rglob("*") if file.suffix.lower() in endings)
        elif path.is_file():
            found.append(path)
        else:
            raise SystemExit(f"there is no file or folder {path}")
    return list(dict.fromkeys(found))


def packs(
    files: list[Path], processor: TuringViTImageProcessor, max_patches: int
) -> Iterator[tuple[list[Path], dict]]:
    """Files and their packed inputs, at most `max_patches` at a time unless a single image has more.

    A file that is no readable image is named on standard error and left out.
    """
    names: list[Path] = []
    parts: list[dict[str, torch.Tensor]] = []
    num_patches = 0
    for file in files:
        try:
            part = processor(str(file), do_pack=True, return_tensors="pt")
        except (OSError, ValueError) as error:
            print(f"left out {file}: {error}", file=sys.stderr)
            continue
        size = len(part["pixel_values"])
        if names and num_patches + size > max_patches:
            yield names, join(parts)
            names, parts, num_patches = [], [], 0
        names.append(file)
        parts.append(part)
        num_patches += size
    if names:
        yield names, join(parts)


def join(parts: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """One pack of several."""
    return {name: torch.cat([part[name] for part in parts]) for name in ("pixel_values", "image_grid_thw")}


@torch.inference_mode()
def extract(files: list[Path], tower: TuringViTModel, processor, *, max_patches: int, patches: bool) -> dict:
    """Pooled vectors (D,), or patch vectors (rows, columns, D), by file, in float32 on the CPU."""
    features = {}
    for names, inputs in packs(files, processor, max_patches):
        grid = inputs["image_grid_thw"]
        outputs = tower(**{name: value.to(tower.device) for name, value in inputs.items()})
        if patches:
            tokens = split_by_image(outputs.last_hidden_state, grid)
            vectors = [x.unflatten(0, size) for x, size in zip(tokens, grid[:, 1:].tolist(), strict=True)]
        else:
            vectors = list(outputs.pooler_output)
        # copies, since tensors of one file may not share memory
        features |= {str(name): x.float().cpu().clone() for name, x in zip(names, vectors, strict=True)}
        print(f"{len(features)} of {len(files)} images", file=sys.stderr)
    return features


def make_smoke_input(folder: Path) -> None:
    """A small tower with random weights and six pictures, for a run that needs nothing."""
    config = TuringViTConfig(hidden_size=64, intermediate_size=256, num_hidden_layers=6, num_attention_heads=4)
    TuringViTModel(config).save_pretrained(folder / "tower")
    TuringViTImageProcessor().save_pretrained(folder / "tower")
    for index, (image, _) in enumerate(generate_shapes(6, seed=0)):
        image.save(folder / f"{index}.png")


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, extract, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", type=Path, help="image files and folders")
    parser.add_argument("--output", type=Path, default=Path("features.safetensors"), help="default: %(default)s")
    parser.add_argument("--tower", help="checkpoint of the tower: a folder or a hub id")
    parser.add_argument("--patches", action="store_true", help="a vector for each patch instead of one for each image")
    parser.add_argument("--max-patches", type=int, default=16384, help="in a forward pass; default: %(default)s")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smoke", action="store_true", help="six small pictures and a random tower, made on the spot")
    options = parser.parse_args(arguments)
    if not options.output.absolute().parent.is_dir():
        parser.error(f"the folder of {options.output} does not exist")
    with tempfile.TemporaryDirectory() as scratch:
        if options.smoke:
            make_smoke_input(Path(scratch))
            options.images, options.tower = [*options.images, Path(scratch)], str(Path(scratch, "tower"))
        if not options.images or not options.tower:
            parser.error("give images and --tower, or --smoke")
        files = find_images(options.images)
        processor = AutoImageProcessor.from_pretrained(options.tower)
        tower = AutoModel.from_pretrained(options.tower).to(options.device)
        if not options.patches and tower.head is None:
            raise SystemExit(f"{options.tower} has no pooling head: use --patches")
        features = extract(files, tower, processor, max_patches=options.max_patches, patches=options.patches)
    if not features:
        raise SystemExit("no image could be read")
    if options.patches:
        save_file(features, options.output)
    else:
        pooled = torch.stack(list(features.values()))
        save_file({"features": pooled}, options.output, metadata={"files": json.dumps(list(features))})
    print(f"{len(features)} images -> {options.output}")


if __name__ == "__main__":
    main()
