# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Bytes that the Triton kernels and the eager form move for one image, their minimum, and the times these allow.

The counts follow from what each kernel loads and stores (README.md has the table); the tests count the addresses that
interpreted kernels touch and compare. A byte is counted once a kernel: what several programs of a kernel read, such as
rotation tables, comes from the L2 cache after the first.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Card(NamedTuple):
    """A GPU's memory bandwidth in bytes and its tensor-core rate in operations a second, 16 bits, dense."""

    name: str
    bandwidth: float
    peak: float


# What `predicted_seconds` assumes. H100 is put below its data sheet (3.35e12, 989e12) to rates that kernels reach; the
# rate of the 8.6 and 12.0 cards is that with float32 accumulation.
CARDS = {
    "cuda:80": Card("A100 80GB", 2.0e12, 312e12),
    "cuda:86": Card("RTX 3080 Ti", 912e9, 68e12),
    "cuda:89": Card("L40S", 864e9, 362e12),
    "cuda:90": Card("H100 SXM", 3.0e12, 800e12),
    "cuda:100": Card("B200", 8.0e12, 2250e12),
    "cuda:120": Card("RTX 5090", 1.79e12, 210e12),
    "hip:gfx90a": Card("MI250X, one die", 1.6e12, 191e12),
    "hip:gfx942": Card("MI300X", 5.3e12, 1307e12),
}
# A kernel takes at least this long, however little it does.
LAUNCH_SECONDS = 2.5e-6


@dataclass(frozen=True)
class Work:
    """What one kernel moves and computes: bytes read, bytes written, floating-point operations in products."""

    kernel: str
    reads: float
    writes: float
    operations: float = 0.0

    @property
    def bytes(self) -> float:
        """Bytes read and written."""
        return self.reads + self.writes


@dataclass(frozen=True)
class Image:
    """One image, normed and gated, as the kernels see it.

    Attributes:
        num_tokens: N.
        num_heads: H.
        head_dim: K.
        itemsize: Bytes of an element of q, k, v, gate and output.
    """

    num_tokens: int
    num_heads: int = 20
    head_dim: int = 64
    itemsize: int = 2

    @property
    def chunk(self) -> int:
        """Tokens of a chunk; `triton_backend.make_work_list` cuts by the same rule."""
        return 256 if self.num_tokens <= 1024 else 512 if self.num_tokens <= 4096 else 1024

    @property
    def rows(self) -> float:
        """Bytes of one tensor shaped like q."""
        return self.num_tokens * self.num_heads * self.head_dim * self.itemsize

    @property
    def tables(self) -> float:
        """Bytes of the rotation tables: two of (N, K/2) float32."""
        return 4 * self.num_tokens * self.head_dim

    @property
    def state(self) -> float:
        """Bytes of the state (H, K, K)."""
        return self.num_heads * self.head_dim**2 * self.itemsize

    @property
    def partial(self) -> float:
        """Bytes of the chunks' float32 states."""
        return 4 * self.num_heads * self.head_dim**2 * -(-self.num_tokens // self.chunk)

    @property
    def per_head(self) -> float:
        """Bytes of one float32 for each token and head."""
        return 4 * self.num_tokens * self.num_heads

    @property
    def weight_rows(self) -> float:
        """Bytes of the parts that the norm weight's gradient is added from: one float32 row for each grid row."""
        return 4 * self.num_heads * self.head_dim * (-(-self.num_tokens // 256) + 1)

    @property
    def product(self) -> float:
        """Operations of one product of all tokens with a state."""
        return 2 * self.num_tokens * self.num_heads * self.head_dim**2


def forward_work(image: Image) -> list[Work]:
    """What each kernel of the forward pass moves, in order."""
    i, per_image = image, 4 * image.num_heads * image.head_dim
    return [
        Work("forward_state", 2 * i.rows + i.tables, i.partial, i.product),
        Work("reduce_state", i.partial, i.state),
        Work("forward_squares", i.rows + i.tables + i.state, i.per_head, i.product),
        Work("forward_output", 2 * i.rows + i.tables + i.state + i.per_head + per_image, i.rows, i.product),
    ]


def backward_work(image: Image) -> list[Work]:
    """What each kernel of the backward pass moves, in order; the last one is torch's sum over partial gradients."""
    i, per_image, per_token = image, 4 * image.num_heads * image.head_dim, 8 * image.num_tokens
    reads = 3 * i.rows + i.tables + i.state + per_token + per_image
    return [
        Work("backward_rows", 2 * i.rows + i.per_head, per_token),
        Work("backward_query", reads, 2 * i.rows + i.partial + i.weight_rows, 3 * i.product),
        Work("reduce_state", i.partial, i.state),
        Work("backward_key_value", 2 * i.rows + i.tables + i.state, 2 * i.rows, 2 * i.product),
        Work("sum", i.weight_rows, per_image),
    ]


def minimum_bytes(image: Image) -> tuple[float, float]:
    """The least that this split into kernels can move, forward and backward: README.md derives both sums."""
    i, weight = image, 8 * image.num_heads * image.head_dim * (image.num_tokens / image.chunk)
    forward = 6 * i.rows + 3 * i.tables + 2 * i.per_head + 2 * i.partial + 3 * i.state
    backward = 11 * i.rows + 2 * i.tables + i.per_head + 8 * i.num_tokens + 2 * i.partial + 3 * i.state + weight
    return forward, backward


# Tensors like q that each operation of plain torch reads and writes, 16 bits throughout: an RMSNorm and a rotation
# are one operation each, which flatters them.
EAGER_FORWARD = [
    *[("silu", 1, 1)] * 3,
    *[("rotate", 1, 1)] * 2,
    *(("K^T V", 2, 0), ("Q S", 1, 1), ("rms_norm", 1, 1), ("sigmoid", 1, 1), ("times gate", 2, 1)),
]
EAGER_BACKWARD = [
    *(("times gate, dY", 2, 1), ("times gate, gate", 2, 1), ("sigmoid", 2, 1), ("rms_norm", 2, 1), ("dw", 2, 0)),
    *(("dQ", 1, 1), ("dS", 2, 0), ("dK", 1, 1), ("dV", 1, 1)),
    *[("rotate", 1, 1)] * 2,
    *[("silu", 2, 1)] * 3,
]


def eager_work(image: Image) -> tuple[list[Work], list[Work]]:
    """What each operation of the eager form moves, forward and backward."""

    def work(steps: list[tuple[str, int, int]]) -> list[Work]:
        products = ("K^T V", "Q S", "dQ", "dS", "dK", "dV")
        return [
            Work(name, reads * image.rows, writes * image.rows, image.product if name in products else 0.0)
            for name, reads, writes in steps
        ]

    return work(EAGER_FORWARD), work(EAGER_BACKWARD)


def predicted_seconds(works: list[Work], card: Card) -> float:
    """The sum over kernels of max(bytes / bandwidth, operations / peak, `LAUNCH_SECONDS`): a bound, not a measurement.

    Kernels of this kind reach 55 to 70 % of such bounds where they were timed.
    """
    return sum(max(w.bytes / card.bandwidth, w.operations / card.peak, LAUNCH_SECONDS) for w in works)
