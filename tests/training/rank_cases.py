# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What each process of `test_distributed.py` runs: `python -m tests.training.rank_cases RANK WORLD_SIZE FOLDER`."""

import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from tests.training.objective_cases import MAKE_PACK, make_dual_encoder, make_masked_model, run_step
from turingvit_hf.training.arguments import ObjectiveRecipe
from turingvit_hf.training.distributed import (
    barrier,
    gather_objects,
    gather_with_grad,
    mean_over_ranks,
    rank,
    sum_over_ranks,
    world_size,
)
from turingvit_hf.training.objectives import ContrastiveObjective, MaskedDistillationObjective


# images of each pack of each rank: one pack a rank, and two
SIZES = {"one": [[3], [5]], "two": [[1, 4], [3, 2]]}
ROWS = [[0, 3], [2, 0], [1, 4]]  # rows that each rank gathers


def make_setting(kinds: str):
    """A model without random augmentation and its objective."""
    if kinds == "mim":
        return make_masked_model(pos_embed_rescale=None), MaskedDistillationObjective()
    recipe = ObjectiveRecipe(siglip=0.7, superclass=0.3, video_siglip=1.3, chunk_size=3)
    return make_dual_encoder(pos_embed_rescale=None), ContrastiveObjective(recipe)


def packs_of(kind: str, sizes: list[int], first_seed: int) -> list[dict]:
    """Packs of these numbers of images, of seeds that count up."""
    return [MAKE_PACK[kind](size, seed=first_seed + number) for number, size in enumerate(sizes)]


def _ddp(model: nn.Module, **options) -> tuple[nn.Module, Callable]:
    wrapped = DistributedDataParallel(model, **options)
    return wrapped, wrapped.no_sync


def _fsdp2(model: nn.Module, reshard_after_forward: bool | None = None) -> tuple[nn.Module, Callable]:
    mesh = init_device_mesh("cpu", (world_size(),))
    for layer in model.turingvit.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=reshard_after_forward)

    @contextmanager
    def no_sync():
        model.set_requires_gradient_sync(False)
        yield
        model.set_requires_gradient_sync(True)

    return model, no_sync


WRAPPERS = {
    "ddp": _ddp,
    "ddp_find_unused": lambda model: _ddp(model, find_unused_parameters=True),
    "fsdp2": _fsdp2,
    # frees the outermost module's parameters, which logit_scale and the SuperClass head are, when forward ends
    "fsdp2_resharded": lambda model: _fsdp2(model, reshard_after_forward=True),
}


def run_objectives(split: str, number: int) -> dict:
    """Losses and gradients after each step, for each kind and each way to spread a model over ranks."""
    results = {}
    for wrapper, wrap in WRAPPERS.items():
        for kinds in ("mim", "image+video"):
            model, objective = make_setting(kinds)
            model, no_sync = wrap(model)
            sizes = SIZES[split][number]
            # the later steps find an IDF, and reduction buckets, of earlier ones
            for step, kind in enumerate(kinds.split("+") * 2):
                packs = packs_of(kind, sizes, first_seed=20 * step + 10 * number)
                result = run_step(objective, model, packs, no_sync=no_sync)
                result["losses"] = {name: mean_over_ranks(loss) for name, loss in result["losses"].items()}
                gradients = result["gradients"]
                if wrapper.startswith("fsdp2"):
                    gradients = {name: gradient.full_tensor() for name, gradient in gradients.items()}
                result["gradients"] = gradients
                results[kind, wrapper, step] = result
            results[kinds, wrapper] = objective.state_dict()
    return results


def run_gather(number: int) -> list[dict]:
    """What `gather_with_grad` gives, and the gradient of a rank-dependent sum of squares."""
    results = []
    for rows in ROWS:
        mine = torch.arange(rows[number] * 2.0).reshape(-1, 2).add(10 * number).requires_grad_()
        gathered, first = gather_with_grad(mine)
        ((number + 1) * gathered**2).sum().backward()
        results.append({"gathered": gathered.detach(), "first": first, "mine": mine.detach(), "gradient": mine.grad})
    return results


def run_small() -> dict:
    """What the small functions give."""
    barrier()
    number = torch.tensor(float(rank()))
    return {
        "rank": rank(),
        "world_size": world_size(),
        "sum": sum_over_ranks(number + 1),
        "mean": mean_over_ranks(number),
        "objects": gather_objects({"rank": rank(), "rows": [None] * rank()}),
        "untouched": number,
    }


def main(number: int, num_ranks: int, folder: Path) -> None:
    """Runs all cases and leaves the results in the folder."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=number, world_size=num_ranks)
    results = {split: run_objectives(split, number) for split in SIZES}
    results |= {"gather": run_gather(number), "small": run_small()}
    torch.save(results, folder / f"rank{number}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
