"""Fine-tuning: which layers it takes for decoder and head, and that nothing else learns."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import AttentionUnet, BasicUNet, DynUNet, SegResNet, UNet
from torch import nn
from torch.utils.data import DataLoader

from medmtl.data.classes import Classes
from medmtl.errors import ConfigError, RunError
from medmtl.models.finetune import (
    FineTune,
    decoder_and_head,
    freeze,
    freeze_all_but,
    load_weights,
    transfer_weights,
)
from medmtl.models.outputs import Outputs
from medmtl.models.segmenter import Segmenter
from medmtl.models.task_heads import TaskHeads

PATCH = (16, 16, 16)

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{message}")
    for message in ("treespec, LeafSpec", "trying to `self.log", "many workers", "in eval mode at the start")
]


class EncoderDecoder(nn.Module):
    """Batch normalisation on both sides, without weights in the encoder, and one layer that serves both."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv3d(1, 4, 2, stride=2), nn.BatchNorm3d(4, affine=False))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 4))
        self.both = nn.PReLU()
        self.up = nn.Sequential(nn.ConvTranspose3d(4, 4, 2, stride=2), nn.BatchNorm3d(4))
        self.out = nn.Conv3d(4, 1, 1)
        self.unused = nn.Conv3d(4, 1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        coarse = self.both(self.down(image))
        fine = self.both(self.up(coarse))
        return self.out(fine * self.gate(fine)[:, :, None, None, None])


def test_decoder_and_head_of_monai_s_unet() -> None:
    network = UNet(3, 1, 1, channels=(4, 8, 16), strides=(2, 2), num_res_units=2, norm="instance")
    decoder, head = decoder_and_head(network, PATCH)
    last = ["model.2.0.conv", "model.2.0.adn.A", "model.2.1.conv.unit0.conv"]
    assert head == last
    assert decoder == [
        "model.1.submodule.2.0.conv",
        "model.1.submodule.2.0.adn.A",
        "model.1.submodule.2.1.conv.unit0.conv",
        "model.1.submodule.2.1.conv.unit0.adn.A",
        *last,
    ]


@pytest.mark.parametrize(
    ("network", "count", "within", "without", "head"),
    [
        pytest.param(
            lambda: BasicUNet(3, 1, 1, features=(4, 4, 8, 8, 16, 4)),
            21,
            ("upcat_", "final_conv"),
            (),
            ["final_conv"],
            id="BasicUNet",
        ),
        pytest.param(
            lambda: DynUNet(3, 1, 1, [3, 3, 3], [1, 2, 2], [2, 2], filters=[4, 8, 16]),
            11,
            ("upsamples.", "output_block."),
            (),
            ["output_block.conv.conv"],
            id="DynUNet",
        ),
        pytest.param(
            # What makes channels fewer before the first upsampling still works on the coarsest map.
            lambda: SegResNet(3, 8, 1, 1),
            16,
            ("up_samples.", "up_layers.", "conv_final."),
            ("up_samples.0.0.",),
            ["conv_final.2.conv"],
            id="SegResNet",
        ),
        pytest.param(
            lambda: AttentionUnet(3, 1, 1, channels=(4, 8, 16), strides=(2, 2)),
            21,
            (
                *("model.1.submodule.1.upconv", "model.1.submodule.1.attention", "model.1.submodule.1.merge"),
                *("model.1.upconv", "model.1.attention", "model.1.merge", "model.2"),
            ),
            (),
            ["model.2.conv"],
            id="AttentionUnet",
        ),
    ],
)
def test_decoder_and_head_of_other_networks(
    network: Callable[[], nn.Module], count: int, within: tuple[str, ...], without: tuple[str, ...], head: list[str]
) -> None:
    made = network()
    decoder, found = decoder_and_head(made, (32, 32, 32))
    owners = [name for name, module in made.named_modules() if list(module.parameters(recurse=False))]
    expected = {name for name in owners if name.startswith(within) and not name.startswith(without or ("-",))}
    assert set(decoder) == expected
    assert len(decoder) == len(expected) == count
    assert found == head


def test_a_layer_that_the_encoder_uses_too_is_not_of_the_decoder_and_gates_do_not_count_as_coarse() -> None:
    decoder, head = decoder_and_head(EncoderDecoder(), PATCH)
    assert decoder == ["up.0", "up.1", "gate.2", "out"]
    assert head == ["out"]


def test_looking_changes_neither_state_nor_modes_nor_the_random_numbers_that_follow() -> None:
    network = EncoderDecoder()
    network.up.eval()
    modes = {name: module.training for name, module in network.named_modules()}
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    decoder_and_head(network, PATCH)
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("layers", ["decoder", "head"])
@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 1, 3, padding=1)),
        nn.Sequential(nn.Conv3d(1, 4, 3, stride=2, padding=1), nn.Conv3d(4, 1, 1), nn.Upsample(scale_factor=2)),
    ],
    ids=["never coarser", "nothing to learn after the coarsest"],
)
def test_a_network_without_a_decoder_is_refused(network: nn.Module, layers: Any) -> None:
    with pytest.raises(ConfigError, match=f"Sequential has no {layers}"):
        freeze(network, layers, PATCH)
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_what_is_frozen_has_no_gradients_and_is_in_evaluation_mode() -> None:
    network = EncoderDecoder()
    freeze_all_but(network, ["up.1", "out"])
    trains = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trains == {"up.1.weight", "up.1.bias", "out.weight", "out.bias"}
    assert not network.down[1].training
    assert network.up[1].training
    assert network.training


@pytest.mark.parametrize(("layers", "trained"), [("all", 207), ("decoder", 20 + 140 + 5), ("head", 5)])
def test_how_much_trains_is_said(layers: Any, trained: int, caplog: pytest.LogCaptureFixture) -> None:
    network = EncoderDecoder()
    sizes = {name: sum(p.numel() for p in module.parameters()) for name, module in network.named_children()}
    # 4 x 8 + 4; 4 x 4 + 4; 1; 4 x 4 x 8 + 4 and 4 + 4; 4 + 1 twice
    assert sizes == {"down": 36, "gate": 20, "both": 1, "up": 140, "out": 5, "unused": 5}
    with caplog.at_level(logging.INFO):
        freeze(network, layers, PATCH)
    assert caplog.messages == [f"fine-tuning {layers}: {trained} of 207 parameters train"]


def saved(path: Path, network: nn.Module) -> Path:
    torch.save({"state_dict": {f"network.{name}": value for name, value in network.state_dict().items()}}, path)
    return path


def test_the_weights_are_those_of_the_checkpoint(tmp_path: Path, small_unet: Callable[[], UNet]) -> None:
    source, network = small_unet(), small_unet()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    load_weights(network, saved(tmp_path / "source.ckpt", source))
    expected = source.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (nn.Sequential(nn.Conv3d(1, 8, 3)), r"0\.weight is \(8, 1, 3, 3, 3\) there and \(4, 1, 3, 3, 3\) here"),
        (nn.Sequential(nn.Conv3d(1, 4, 3, bias=False)), r"0\.bias is absent there and \(4,\) here"),
        (nn.Sequential(nn.Conv3d(1, 4, 3), nn.PReLU()), r"1\.weight is \(1,\) there and absent here"),
    ],
)
def test_another_network_is_refused_by_the_first_weight_that_differs(
    tmp_path: Path, other: nn.Module, message: str
) -> None:
    network = nn.Sequential(nn.Conv3d(1, 4, 3))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(RunError, match=rf"other\.ckpt holds another network: {message}"):
        load_weights(network, saved(tmp_path / "other.ckpt", other))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


FIRST = {"Liver": Classes({"liver": frozenset({1}), "tumour": frozenset({2})})}
SECOND = {"Kidney": Classes({"tumour": frozenset({1}), "cyst": frozenset({2})}), **FIRST}


def per_task(features: int, seed: int, tasks: dict[str, Classes]) -> tuple[UNet, TaskHeads]:
    torch.manual_seed(seed)
    network = UNet(3, 1, features, channels=(4, 8, 16), strides=(2, 2), num_res_units=2, norm="instance")
    return network, TaskHeads(features, Outputs.per_task(tasks))


def saved_with_heads(path: Path, network: nn.Module, heads: TaskHeads) -> Path:
    saved(path, network)
    state = torch.load(path, weights_only=True)["state_dict"]
    torch.save({"state_dict": state | {f"heads.{name}": own for name, own in heads.state_dict().items()}}, path)
    return path


@pytest.mark.parametrize("there", [1, 3])
def test_from_one_output_to_outputs_per_task_all_but_the_end_is_taken_over(
    tmp_path: Path, there: int, caplog: pytest.LogCaptureFixture
) -> None:
    source, other = per_task(there, 0, FIRST)
    checkpoint = saved(tmp_path / "a", source) if there == 1 else saved_with_heads(tmp_path / "a", source, other)
    network, heads = per_task(4, 1, FIRST)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    channels = heads.last.weight.detach().clone()
    with caplog.at_level(logging.INFO):
        transfer_weights(network, heads, checkpoint, PATCH)
    taken, kept = source.state_dict(), network.state_dict()
    new = {name for name, value in kept.items() if value.shape != taken[name].shape}
    assert new == {f"model.2.{part}" for part in ("0.conv.weight", "0.conv.bias")} | {
        f"model.2.1.conv.unit0.conv.{part}" for part in ("weight", "bias")
    }
    assert all(torch.equal(value, before[name] if name in new else taken[name]) for name, value in kept.items())
    assert torch.equal(heads.last.weight, channels)
    (message,) = caplog.messages
    assert all(name in message for name in (*new, "background Liver", "class liver", "class tumour"))


def test_channels_of_the_same_name_are_taken_over_and_others_start_untrained(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, of_source = per_task(4, 0, FIRST)
    network, heads = per_task(4, 1, SECOND)
    weight, bias = (getattr(heads.last, name).detach().clone() for name in ("weight", "bias"))
    with caplog.at_level(logging.INFO):
        transfer_weights(network, heads, saved_with_heads(tmp_path / "a", source, of_source), PATCH)
    for number, name in enumerate(heads.outputs.names):
        known = name in of_source.outputs.names
        place = of_source.outputs.names.index(name) if known else number
        assert torch.equal(heads.last.weight[number], (of_source.last.weight if known else weight)[place]), name
        assert torch.equal(heads.last.bias[number], (of_source.last.bias if known else bias)[place]), name
    assert caplog.messages == [
        f"fine-tuning from {tmp_path / 'a'}; untrained at the start: background Kidney, class cyst"
    ]


def test_from_outputs_per_task_to_one_output_the_end_starts_untrained(tmp_path: Path) -> None:
    source, heads = per_task(4, 0, FIRST)
    network, _ = per_task(1, 1, FIRST)
    end = network.model[2][1].conv.unit0.conv.bias.detach().clone()
    transfer_weights(network, None, saved_with_heads(tmp_path / "a", source, heads), PATCH)
    assert torch.equal(network.model[0].conv.unit0.conv.weight, source.model[0].conv.unit0.conv.weight)
    assert torch.equal(network.model[2][1].conv.unit0.conv.bias, end)


@pytest.mark.parametrize("tasks", [None, FIRST])
def test_a_network_that_differs_before_its_end_is_refused_with_outputs_per_task_too(
    tmp_path: Path, tasks: dict[str, Classes] | None
) -> None:
    source = UNet(3, 1, 1, channels=(4, 8, 12), strides=(2, 2), num_res_units=2, norm="instance")
    network, heads = per_task(4, 1, FIRST)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(RunError, match=r"holds another network: model\.[01]"):
        transfer_weights(network, None if tasks is None else heads, saved(tmp_path / "a", source), PATCH)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_how_much_trains_counts_the_outputs_per_task(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        freeze(EncoderDecoder(), "head", PATCH, TaskHeads(1, Outputs.per_task(SECOND)))
    # Backgrounds of two tasks, liver, tumour and cyst, a weight and a bias each.
    assert caplog.messages == ["fine-tuning head: 15 of 217 parameters train"]


def segmenter(network: nn.Module, **options: Any) -> Segmenter:
    optimizer = partial(torch.optim.AdamW, lr=1e-2)
    return Segmenter(network, PATCH, DiceCELoss(sigmoid=True), optimizer, **options)


def fit(model: Segmenter, steps: int, **options: Any) -> pl.Trainer:
    """Train, with a validation after every second step."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(accelerator="cpu", max_steps=steps, enable_model_summary=False, **quiet)
    image = torch.randn(2, 1, *PATCH, generator=torch.Generator().manual_seed(0)) + 3
    batch = {"image": image, "label": (image > 3.5).to(torch.uint8)}
    loaders = [DataLoader([item] * 2, batch_size=None, collate_fn=lambda item: item) for item in (batch, batch)]
    trainer.fit(model, *loaders, weights_only=True, **options)
    return trainer


@pytest.fixture(autouse=True)
def _validation_is_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole volumes are beside the point here: validation passes the batch through the network."""
    monkeypatch.setattr(Segmenter, "validation_step", lambda self, batch, index: self.network(batch["image"]))
    monkeypatch.setattr(Segmenter, "on_validation_epoch_end", lambda self: None)


@pytest.mark.parametrize("layers", ["decoder", "head"])
def test_only_the_named_layers_learn_and_frozen_normalisation_gathers_nothing(tmp_path: Path, layers: Any) -> None:
    source = EncoderDecoder()
    checkpoint = saved(tmp_path / "source.ckpt", source)
    before = {name: value.clone() for name, value in source.state_dict().items()}
    model = segmenter(EncoderDecoder(), finetune=FineTune(checkpoint, layers))
    trainer = fit(model, steps=4)
    after = model.network.state_dict()
    learnt = {name for name, value in after.items() if not torch.equal(value, before[name])}
    decoder = {f"up.{part}" for part in ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean")}
    decoder |= {"up.1.running_var", "up.1.num_batches_tracked", "gate.2.weight", "gate.2.bias"}
    assert learnt <= {"out.weight", "out.bias"} | (decoder if layers == "decoder" else set())
    assert {
        "out.weight",
        *(["up.0.weight", "up.1.running_mean", "gate.2.weight"] if layers == "decoder" else []),
    } <= learnt
    (group,) = trainer.optimizers[0].param_groups
    trains = [parameter for parameter in model.network.parameters() if parameter.requires_grad]
    assert [id(parameter) for parameter in group["params"]] == [id(parameter) for parameter in trains]


def test_all_layers_start_from_the_checkpoint_and_learn(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "source.ckpt", EncoderDecoder())
    model = segmenter(EncoderDecoder(), finetune=FineTune(str(checkpoint)))
    seen: list[torch.Tensor] = []
    model.network.register_forward_pre_hook(lambda *_: seen.append(model.network.down[0].weight.detach().clone()))
    fit(model, steps=2)
    source = torch.load(checkpoint, weights_only=True)["state_dict"]["network.down.0.weight"]
    assert torch.equal(seen[0], source)
    assert not torch.equal(model.network.down[0].weight, source)


def test_a_resumed_training_has_its_own_weights_and_stays_frozen_without_the_source(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "source.ckpt", EncoderDecoder())
    options = FineTune(checkpoint, "decoder")
    first = segmenter(EncoderDecoder(), finetune=options)
    fit(first, steps=2).save_checkpoint(tmp_path / "last.ckpt")
    own = {name: value.clone() for name, value in first.network.state_dict().items()}
    checkpoint.unlink()
    resumed = segmenter(EncoderDecoder(), finetune=options)
    fit(resumed, steps=4, ckpt_path=tmp_path / "last.ckpt")
    after = resumed.network.state_dict()
    assert torch.equal(after["down.0.weight"], own["down.0.weight"])
    assert torch.equal(after["down.1.running_mean"], own["down.1.running_mean"])
    assert not torch.equal(after["out.weight"], own["out.weight"])
    with pytest.raises(RunError, match="does not exist"):
        fit(segmenter(EncoderDecoder(), finetune=options), steps=2)
