"""What a bundle runs in MONAI: an inferer that segments whole images and gives verdicts, and a transform for these."""

import json
from collections.abc import Hashable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor, decollate_batch
from monai.data.utils import collate_meta_tensor
from monai.inferers import Inferer
from monai.transforms import MapTransform
from torch import nn

from medmtl.errors import DataError
from medmtl.export.record import read_record
from medmtl.export.restore import restore
from medmtl.models.inference import Inference

VERDICT = "verdict"  # in the metadata of a mask


class SegmentWithVerdict(Inferer):
    """Segments images on their own grid, as stored, and gives the verdicts of the run that was exported.

    The task of an image is the nearest one where none is given, and its mask is that of `medmtl predict`.

    Args:
        bundle_root: folder of the bundle.
        task: whose organ to segment; None: the nearest task.
        modality: CT, MR, PET or other, of all images; None: unknown.
        alpha: share of in-distribution images that may be rejected; None: that of the run.
        fast: check masks by their volume alone, without an additional pass over the mirrored image.
    """

    def __init__(
        self,
        bundle_root: str,
        task: str | None = None,
        modality: str | None = None,
        alpha: float | None = None,
        fast: bool = False,
    ) -> None:
        super().__init__()
        self.folder = Path(bundle_root)
        self.record = read_record(self.folder)
        self.task = task
        self.modality = modality
        self.alpha = alpha
        self.fast = fast
        self._made: tuple[nn.Module, Inference] | None = None

    def __call__(self, inputs: torch.Tensor, network: nn.Module, *_: Any, **__: Any) -> torch.Tensor:
        """Segment images.

        Args:
            inputs: MetaTensor `(B, C, H, W, D)` with the affine of each image.
            network: with the weights of the bundle.

        Returns:
            The masks in label values, MetaTensor `(B, 1, H, W, D)` float32; `meta["verdict"]` of each image is its
            verdict as JSON text, which `Verdictd` reads.

        Raises:
            DataError: the images have no affine, or lack a channel.
            ConfigError: `alpha` is no share, or tasks stack different channels and none is named.
        """
        if not isinstance(inputs, MetaTensor):
            raise DataError("the image has no affine", fix="load it with LoadImaged, as a MetaTensor")
        inference = self._inference(network)
        images = decollate_batch(inputs) if inputs.is_batch else [inputs[number] for number in range(len(inputs))]
        masks = [self._segment(inference, image) for image in images]
        if inputs.is_batch:
            return collate_meta_tensor(masks)
        (mask,) = masks
        return mask[None]

    def _inference(self, network: nn.Module) -> Inference:
        if self._made is None or self._made[0] is not network:
            parts = restore(self.folder, self.record, network)
            chosen = parts if self.alpha is None else parts.with_alpha(self.alpha)
            self._made = network, Inference(chosen, self.record.name, fast=self.fast)
        return self._made[1]

    def _segment(self, inference: Inference, image: MetaTensor) -> MetaTensor:
        meta, affine = deepcopy(image.meta), image.affine.cpu()
        channels = list(inference.channels(self.task)) or [0]  # the first where it takes one, as `medmtl predict` does
        if max(channels) >= len(image):
            raise DataError(f"the image has {len(image)} channels, and the network takes channel {max(channels)}")
        native = MetaTensor(image.as_tensor().cpu()[channels], affine=affine)
        name = Path(str(meta.get("filename_or_obj", "image"))).name
        found = inference.infer(native, name, self.task, self.modality)
        said = inference.said(found, native.affine.numpy())
        meta |= {VERDICT: json.dumps(said), "affine": affine}
        return MetaTensor(torch.from_numpy(found.mask.astype("float32"))[None], meta=meta)


class Verdictd(MapTransform):
    """Turns the verdict of `SegmentWithVerdict` into an entry of the mask's metadata, and writes it beside the mask.

    Args:
        keys: of the masks.
        output_dir: folder for `NAME_verdict.json`; None: it is not written.
    """

    def __init__(self, keys: str | Sequence[str], output_dir: str | None = None) -> None:
        super().__init__(keys)
        self.output_dir = None if output_dir is None else Path(output_dir)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with `data[key].meta["verdict"]` as a dict."""
        found = dict(data)
        for key in self.key_iterator(found):
            mask = found[key]
            text = mask.meta[VERDICT]
            verdict = json.loads(text) if isinstance(text, str) else text
            mask.meta[VERDICT] = verdict
            if self.output_dir is not None:
                self.output_dir.mkdir(parents=True, exist_ok=True)
                name = Path(str(mask.meta.get("filename_or_obj", "image"))).name
                path = self.output_dir / f"{name.removesuffix('.gz').removesuffix('.nii')}_verdict.json"
                path.write_bytes(json.dumps(verdict, indent=1).encode() + b"\n")
        return found
