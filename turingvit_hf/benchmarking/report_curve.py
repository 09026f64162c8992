# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The latency figure of TuringViT's technical report, as a reference beside what is measured here."""

SOURCE = "https://turingvit.github.io"
SETTING = "report: FP16, TensorRT, RTX 3080 Ti, read off its figure, within 5 %"
# milliseconds an image by side in pixels
MILLISECONDS = {
    "TuringViT-18L": {512: 18, 768: 43, 1024: 83, 1280: 145, 1536: 348},
    "SigLIP2-L": {512: 20, 768: 55, 1024: 126, 1280: 290, 1536: 760},
    "Seed1.5-ViT": {512: 22, 768: 72, 1024: 178, 1280: 420, 1536: 1060},
}
# the towers measured here that stand for them
NAMES = {
    "turingvit-18l": "TuringViT-18L",
    "siglip2-l": "SigLIP2-L",
    "siglip2-l-naflex": "SigLIP2-L",
    "seed1.5-like": "Seed1.5-ViT",
}


def reported_ratio(tower: str, baseline: str, side: int) -> float | None:
    """How many times the baseline's time a tower takes in the report; None where the figure does not have them."""
    times = [MILLISECONDS.get(NAMES.get(name, ""), {}).get(side) for name in (tower, baseline)]
    return None if times[0] is None or times[1] is None else times[0] / times[1]
