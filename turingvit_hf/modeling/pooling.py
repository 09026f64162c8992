# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Pooling: one learned query attends to the tokens of a frame, and a clip is the mean over its frames."""

import torch
import torch.nn.functional as F
from torch import nn

from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.modeling.layers import TuringViTMLP, TuringViTRMSNorm
from turingvit_hf.modeling.packing import image_index_from_grid


class TuringViTPoolingHead(nn.Module):
    """Attention pooling with one learned query and its own MLP, in the manner of SigLIP's MAP head."""

    def __init__(self, config: TuringViTConfig):
        super().__init__()
        width = config.hidden_size
        self.num_heads, self.head_dim = config.num_attention_heads, config.head_dim
        self.query = nn.Parameter(torch.empty(width))
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.mlp_norm = TuringViTRMSNorm(width, eps=config.rms_norm_eps)
        self.mlp = TuringViTMLP(config)

    def forward(self, hidden_states, cu_seqlens: torch.Tensor | None, image_grid_thw: torch.Tensor | None):
        """One vector for each image or clip: (N, D).

        Args:
            hidden_states: (B, N, D) of a batch, or (T, D) or (1, T, D) of a pack, after the final norm.
            cu_seqlens: (F + 1,) int32 for a pack, None for a batch.
            image_grid_thw: (N, 3) for a pack, None for a batch.
        """
        if cu_seqlens is None:
            return self._with_mlp(self._attend_batch(hidden_states))
        frames = self._with_mlp(self._attend_pack(hidden_states.flatten(0, -2), cu_seqlens))
        assert image_grid_thw is not None, "a pack comes with its grid"
        return mean_over_frames(frames, image_grid_thw)

    def _with_mlp(self, attended: torch.Tensor) -> torch.Tensor:
        pooled = self.o_proj(attended)
        return pooled + self.mlp(self.mlp_norm(pooled))

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.num_heads, self.head_dim))

    def _attend_batch(self, x_BND: torch.Tensor) -> torch.Tensor:
        query = self._heads(self.query)[None, :, None].expand(x_BND.shape[0], -1, -1, -1)
        k, v = (self._heads(project(x_BND)).transpose(1, 2) for project in (self.k_proj, self.v_proj))
        return F.scaled_dot_product_attention(query, k, v)[:, :, 0].flatten(1)

    def _attend_pack(self, x_TD: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
        """Softmax over the tokens of each frame by scattered sums: no padding and no loop, in float32."""
        num_frames = cu_seqlens.shape[0] - 1
        frame = torch.arange(num_frames, device=x_TD.device).repeat_interleave(
            cu_seqlens.diff(), output_size=x_TD.shape[0]
        )
        k_THK, v_THK = self._heads(self.k_proj(x_TD)), self._heads(self.v_proj(x_TD))
        wide = torch.promote_types(x_TD.dtype, torch.float32)
        scores_TH = (k_THK * self._heads(self.query)).sum(-1, dtype=wide) * self.head_dim**-0.5
        # The maximum only guards exp against overflow; it cancels, so no gradient goes through it.
        index = frame[:, None].expand_as(scores_TH)
        largest_FH = scores_TH.new_full((num_frames, self.num_heads), -torch.inf)
        largest_FH = largest_FH.scatter_reduce(0, index, scores_TH.detach(), "amax")
        weights_TH = torch.exp(scores_TH - largest_FH[frame])
        total_FH = weights_TH.new_zeros(num_frames, self.num_heads).index_add(0, frame, weights_TH)
        weights_TH = weights_TH / total_FH[frame]
        weighted_THK = weights_TH[..., None] * v_THK
        pooled_FHK = weighted_THK.new_zeros(num_frames, self.num_heads, self.head_dim).index_add(
            0, frame, weighted_THK
        )
        return pooled_FHK.flatten(1).to(x_TD.dtype)


def mean_over_frames(frames_FD: torch.Tensor, image_grid_thw: torch.Tensor) -> torch.Tensor:
    """The mean of each clip's frames, (F, D) -> (N, D).

    Frames are pooled before they are averaged: a blank frame weighs as one frame, not as its patches.
    """
    num_frames = image_grid_thw[:, 0]
    num_clips = image_grid_thw.shape[0]  # not len(), which an exporter would freeze to the number it sees
    clips = torch.arange(num_clips, device=frames_FD.device)
    clip = clips.repeat_interleave(num_frames, output_size=frames_FD.shape[0])
    shares = frames_FD / num_frames[clip, None].to(frames_FD.dtype)
    return frames_FD.new_zeros(num_clips, frames_FD.shape[1]).index_add(0, clip, shares)


def mean_over_tokens(hidden_states, image_grid_thw: torch.Tensor | None) -> torch.Tensor:
    """The mean of each image's tokens, for towers without a head: (N, D).

    Args:
        hidden_states: (B, N, D) of a batch, or (T, D) or (1, T, D) of a pack.
        image_grid_thw: (N, 3) for a pack, None for a batch.
    """
    if image_grid_thw is None:
        return hidden_states.mean(1)
    x_TD = hidden_states.flatten(0, -2)
    image = image_index_from_grid(image_grid_thw, x_TD.shape[0])
    shares = x_TD / image_grid_thw.prod(-1)[image, None].to(x_TD.dtype)
    return x_TD.new_zeros(image_grid_thw.shape[0], x_TD.shape[1]).index_add(0, image, shares)
