# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Objectives: from a model and the packs of an optimizer step to named losses and their gradients.

A pack's losses are means over its images or patches. A step's losses are means over the images or patches of all its
packs on all ranks, so that two packs, two ranks and one pack twice as large give the same gradients.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from turingvit_hf.training.arguments import ObjectiveRecipe
from turingvit_hf.training.distributed import gather_with_grad, sum_over_ranks, world_size
from turingvit_hf.training.gradient_cache import RandomState
from turingvit_hf.training.losses import chunked_siglip_loss, masked_cosine_loss, superclass_loss
from turingvit_hf.training.objective import Losses, Objective, check_any, outputs_of, with_contexts
from turingvit_hf.training.packs import Pack, arrived, device_of
from turingvit_hf.training.superclass import OnlineIDF, count_classes, num_labeled, unique_classes
from turingvit_hf.training.teachers import Teacher


class MaskedDistillationObjective(Objective):
    """Stage 1: the features that a teacher gives masked patches, from what surrounds them. One loss, `"cosine"`.

    Args:
        teacher: gives the features, unless the pack brings them along as `teacher_features`; None: it always does.
    """

    def __init__(self, teacher: Teacher | None = None):
        self.teacher = teacher

    def __call__(self, model: nn.Module, pack: Pack) -> Losses:
        """The mean of 1 - cos over the masked patches of the pack, `{"cosine": scalar}`.

        Raises:
            ValueError: the pack has no mask, no features and no teacher for it, or features of neither all nor the
                masked patches.
        """
        targets = self._targets(pack)
        outputs = outputs_of(model, pack)
        return {"cosine": masked_cosine_loss(outputs.predictions, targets)}

    def step(
        self,
        model: nn.Module,
        packs: Sequence[Pack],
        *,
        backward: Callable[[Tensor], None],
        no_sync: Callable[[], AbstractContextManager],
    ) -> Losses:
        """As `Objective.step`; the mean is over all masked patches of the step."""
        check_any(packs)
        counts = [_mask_of(pack).sum().double() for pack in packs]
        num_masked = sum_over_ranks(torch.stack(counts).sum()).clamp(min=1)
        sums: Losses = {}
        for (pack, context), count in zip(with_contexts(packs, no_sync), counts, strict=True):
            with context:
                loss = self(model, pack)["cosine"]
                # gradients are averaged over ranks, but the ranks' losses are parts of one sum
                loss = loss * (count / num_masked * world_size()).to(loss.dtype)
                backward(self.total({"cosine": loss}))
            sums["cosine"] = sums.get("cosine", 0.0) + loss.detach()
        return sums

    def _targets(self, pack: Pack) -> Tensor:
        """The teacher's features of the masked patches, (K, Dt)."""
        mask_T = _mask_of(pack)
        if "teacher_features" in pack:
            features = pack["teacher_features"]
        elif self.teacher is not None:
            with torch.no_grad():
                features = self.teacher.features(pack, mask_T.device)
        else:
            raise ValueError("the pack has no teacher_features and there is no teacher to make them")
        if len(features) == len(mask_T):
            return features[mask_T]
        num_masked = int(mask_T.sum())
        if len(features) != num_masked:
            raise ValueError(
                f"{len(features)} teacher features for {len(mask_T)} patches of which {num_masked} are masked"
            )
        return features


class ContrastiveObjective(Objective):
    """Stages 2 to 4: the sigmoid loss of SigLIP between images or clips and captions, and SuperClass on images.

    A pack of images gives `"siglip"`, and `"superclass"` if the model has a head for it; a pack of kind `"video"`
    gives `"video_siglip"`. Every image of a step meets every text of it, on whichever rank and in whichever pack they
    are. Several packs on a rank are embedded twice (GradCache, arXiv 2101.06983): first all of them without a graph,
    for the loss and its gradients at the embeddings, then one after another with a graph that these gradients enter.

    Args:
        recipe: weights of the losses and the chunk size.
    """

    def __init__(self, recipe: ObjectiveRecipe | None = None):
        self.recipe = recipe or ObjectiveRecipe()
        self.weights = {
            "siglip": self.recipe.siglip,
            "superclass": self.recipe.superclass,
            "video_siglip": self.recipe.video_siglip,
        }
        self.idf: OnlineIDF | None = None

    def __call__(self, model: nn.Module, pack: Pack) -> Losses:
        """The losses of one pack, with the IDF weights as they are.

        Raises:
            ValueError: the model has a SuperClass head and the pack no superclass_ids, or the other way round.
        """
        outputs = _embed(model, pack)
        loss = chunked_siglip_loss(
            outputs.image_embeds,
            outputs.text_embeds,
            outputs.logit_scale,
            outputs.logit_bias,
            chunk_size=self.recipe.chunk_size,
        )
        losses = {_siglip_name(pack): loss}
        if self._classifies(pack, outputs):
            losses["superclass"] = self._superclass(outputs, unique_classes(pack["superclass_ids"]))
        return losses

    def step(
        self,
        model: nn.Module,
        packs: Sequence[Pack],
        *,
        backward: Callable[[Tensor], None],
        no_sync: Callable[[], AbstractContextManager],
    ) -> Losses:
        """As `Objective.step`; the IDF is updated once, before its weights are used.

        Raises:
            ValueError: there is no pack, packs are of different kinds, or SuperClass ids and head do not go together.
        """
        if len({_siglip_name(pack) for pack in packs}) > 1:
            raise ValueError("the packs of a step must be of one kind, these are images and clips")
        if len(packs) > 1:
            return self._cached_step(model, packs, backward=backward, no_sync=no_sync)
        ((pack, context),) = with_contexts(packs, no_sync)
        with context:
            outputs = _embed(model, pack)
            class_ids, num_images = self._observe(packs, outputs)
            embeds = (outputs.image_embeds, outputs.text_embeds)
            losses = {_siglip_name(pack): self._siglip(embeds, outputs.logit_scale, outputs.logit_bias)}
            if class_ids:
                losses["superclass"] = self._share_of_superclass(outputs, class_ids[0], num_images)
            backward(self.total(losses) + (0.0 if class_ids else _nothing(outputs)))
        return {name: loss.detach() for name, loss in losses.items()}

    def state_dict(self) -> dict[str, Any]:
        """The IDF state once there is one."""
        return {} if self.idf is None else {"idf": self.idf.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over a `state_dict`.

        Raises:
            ValueError: it has other entries than this objective's.
        """
        if unknown := sorted(state.keys() - {"idf"}):
            raise ValueError(f"unknown entries {unknown} in the state of a contrastive objective")
        self.idf = None
        if "idf" in state:
            self.idf = OnlineIDF(len(state["idf"]["frequency"]))
            self.idf.load_state_dict(state["idf"])

    def _cached_step(
        self,
        model: nn.Module,
        packs: Sequence[Pack],
        *,
        backward: Callable[[Tensor], None],
        no_sync: Callable[[], AbstractContextManager],
    ) -> Losses:
        """The step over several packs, each embedded twice."""
        states, embedded = [], []
        for pack in packs:
            states.append(RandomState(device_of(pack)))
            with torch.no_grad():
                outputs = _embed(model, arrived(pack))
            embedded.append((outputs.image_embeds, outputs.text_embeds))
        # inside of a caller's autocast, older releases reuse the casts of weights of passes without a graph:
        # https://github.com/pytorch/pytorch/pull/165068
        torch.clear_autocast_cache()
        class_ids, num_images = self._observe(packs, outputs)
        losses, gradients, (d_scale, d_bias) = self._siglip_gradients(_siglip_name(packs[0]), embedded, outputs)
        for number, (pack, context) in enumerate(with_contexts(packs, no_sync)):
            with context:
                with states[number].restored():
                    outputs = _embed(model, pack)
                d_images_NE, d_texts_ME = gradients[number]
                # its value means nothing; its gradients are those of the loss
                surrogate = (outputs.image_embeds * d_images_NE).sum() + (outputs.text_embeds * d_texts_ME).sum()
                if class_ids:
                    share = {"superclass": self._share_of_superclass(outputs, class_ids[number], num_images)}
                    losses["superclass"] = losses.get("superclass", 0.0) + share["superclass"].detach()
                    surrogate = surrogate + self.total(share)
                if number == len(packs) - 1:
                    surrogate = surrogate + (outputs.logit_scale * d_scale + outputs.logit_bias * d_bias).sum()
                    surrogate = surrogate + (0.0 if class_ids else _nothing(outputs))
                backward(surrogate)
        return losses

    def _siglip_gradients(
        self, name: str, embedded: Sequence[tuple[Tensor, Tensor]], outputs: Any
    ) -> tuple[Losses, list[tuple[Tensor, Tensor]], tuple[Tensor, Tensor]]:
        """The sigmoid loss between all packs, its gradients at each pack's embeddings, and at scale and bias."""
        images, texts = zip(*embedded, strict=True)
        leaves = (torch.cat(images), torch.cat(texts), outputs.logit_scale, outputs.logit_bias)
        leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
        loss = self._siglip((leaves[0], leaves[1]), leaves[2], leaves[3])
        d_images, d_texts, d_scale, d_bias = torch.autograd.grad(self.total({name: loss}), leaves)
        d_images, d_texts = d_images.split([len(x) for x in images]), d_texts.split([len(x) for x in texts])
        return {name: loss.detach()}, list(zip(d_images, d_texts, strict=True)), (d_scale, d_bias)

    def _siglip(self, embeds: tuple[Tensor, Tensor], logit_scale: Tensor, logit_bias: Tensor) -> Tensor:
        """This rank's images against the texts of all ranks; averaged over ranks the loss of the whole step."""
        images, texts = embeds
        # the gradients of all ranks are summed in the dtype that texts have there
        texts, first = gather_with_grad(texts.to(torch.promote_types(texts.dtype, torch.float32)))
        num_images = sum_over_ranks(torch.tensor(len(images), dtype=torch.float64, device=images.device))
        chunk_size = self.recipe.chunk_size
        loss = chunked_siglip_loss(images, texts, logit_scale, logit_bias, first=first, chunk_size=chunk_size)
        return loss * (len(images) / num_images * world_size()).to(loss.dtype)

    def _classifies(self, pack: Pack, outputs: Any) -> bool:
        """Whether the pack has a SuperClass loss."""
        if pack.get("kind", "image") == "video" or self.recipe.superclass == 0:
            return False
        has_head, has_ids = outputs.get("superclass_weight") is not None, "superclass_ids" in pack
        if has_head != has_ids:
            missing = "the pack has no superclass_ids" if has_head else "the model has no head (num_superclasses=0)"
            raise ValueError(f"SuperClass needs a head and superclass_ids: {missing}")
        return has_head

    def _observe(self, packs: Sequence[Pack], outputs: Any) -> tuple[list[Tensor], Tensor]:
        """Updates the IDF by all packs of the step; each pack's class ids, and how many images of all have a class.

        An empty list and 0 where the packs have no SuperClass loss.
        """
        classifies = [self._classifies(pack, outputs) for pack in packs]
        if not all(classifies):
            return [], torch.zeros((), dtype=torch.float64)
        class_ids = [unique_classes(pack["superclass_ids"]) for pack in packs]
        num_classes = len(outputs.superclass_weight)
        if self.idf is None:
            self.idf = OnlineIDF(num_classes)
        counts_C = torch.stack([count_classes(ids, num_classes) for ids in class_ids]).sum(0)
        num_images = torch.stack([num_labeled(ids) for ids in class_ids]).sum()
        # one message for both; sums of whole numbers are exact in any order
        summed = sum_over_ranks(torch.cat([counts_C, num_images[None]]))
        self.idf.update(summed[:-1], summed[-1])
        return class_ids, summed[-1]

    def _superclass(self, outputs: Any, class_ids: Tensor) -> Tensor:
        """The SuperClass loss of one pack, a mean over its images that have a class."""
        idf = self.idf or OnlineIDF(len(outputs.superclass_weight))
        return superclass_loss(
            outputs.pooled_image_features,
            outputs.superclass_weight,
            outputs.superclass_bias,
            class_ids=class_ids,
            class_weights=idf.targets(class_ids),
            chunk_size=self.recipe.chunk_size,
        )

    def _share_of_superclass(self, outputs: Any, class_ids: Tensor, num_images: Tensor) -> Tensor:
        """What a pack adds to the loss of the step, times the number of ranks, since their gradients are averaged."""
        loss = self._superclass(outputs, class_ids)
        return loss * (num_labeled(class_ids) / num_images.clamp(min=1) * world_size()).to(loss.dtype)


def _mask_of(pack: Pack) -> Tensor:
    """Which patches are masked, (T,) bool.

    Raises:
        ValueError: the pack does not say.
    """
    if "bool_masked_pos" not in pack:
        raise ValueError(f"a pack for masked distillation needs bool_masked_pos; it has {sorted(pack)}")
    return pack["bool_masked_pos"]


def _embed(model: nn.Module, pack: Pack) -> Any:
    """The outputs of the dual encoder, without the logits of all pairs: the losses form them in tiles."""
    return outputs_of(model, pack, return_logits=False)


def _siglip_name(pack: Pack) -> str:
    """The name of the sigmoid loss of a pack of this kind."""
    return "video_siglip" if pack.get("kind", "image") == "video" else "siglip"


def _nothing(outputs: Any) -> Tensor | float:
    """Zero, as a function of the SuperClass head.

    A step of clips does not use the head, and DDP wants every parameter in every step.
    """
    if outputs.get("superclass_weight") is None:
        return 0.0
    return 0.0 * (outputs.superclass_weight.sum() + outputs.superclass_bias.sum())


__all__ = ["ContrastiveObjective", "MaskedDistillationObjective", "Objective"]
