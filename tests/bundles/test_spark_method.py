"""SparK against slow implementations in float64, its own figures, and invariances."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from helpers import bundle_scripts, in_processes
from timm.optim import Lamb
from torch import nn
from torchvision.models import resnet18, resnet50
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from lessismore_transforms.training.parameter_groups import parameter_groups
from lessismore_transforms.weights.backbones import build_backbone

spark = bundle_scripts("ct_spark_pretraining")
sparse = spark.sparse

CPU = torch.device("cpu")


def small_resnet(block: type = BasicBlock, **settings: int) -> ResNet:
    torch.manual_seed(0)
    network = ResNet(block, [1, 2, 1, 1], **settings)
    network.fc = nn.Identity()
    return network


def small_spark(**settings: float) -> nn.Module:
    backbone = small_resnet()
    return spark.SparK(backbone, decoder_width=32, **settings)


def spread(kept: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The mask at the resolution of a map."""
    return F.interpolate(kept.double(), x.shape[2:]).bool()


def stage_outputs(backbone: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """What the four stages return, deepest first, while a network runs its own forward."""
    outputs: list[torch.Tensor] = []
    stages = (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4)
    hooks = [stage.register_forward_hook(lambda _m, _i, y: outputs.insert(0, y.clone())) for stage in stages]
    backbone(images)
    for hook in hooks:
        hook.remove()
    return outputs


class MaskedLayer(nn.Module):
    """A dense layer, then the mask at its output."""

    def __init__(self, layer: nn.Module, kept: torch.Tensor) -> None:
        super().__init__()
        self.layer, self.kept = layer, kept

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        return y * spread(self.kept, y)


class GatheredNorm(nn.Module):
    """BatchNorm1d over the kept positions, one row each."""

    def __init__(self, norm: nn.BatchNorm2d, kept: torch.Tensor) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(norm.num_features).double()
        self.norm.load_state_dict(norm.state_dict())
        self.kept = kept

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        here = spread(self.kept, x)[:, 0]
        y = torch.zeros_like(x).permute(0, 2, 3, 1)
        y[here] = self.norm(x.permute(0, 2, 3, 1)[here])
        return y.permute(0, 3, 1, 2)


def slow_sparse(backbone: ResNet, kept: torch.Tensor) -> ResNet:
    """A copy whose layers are masked one by one, and which runs torchvision's own forward."""
    slow = copy.deepcopy(backbone)
    for name, layer in list(slow.named_modules()):
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            slow.set_submodule(name, MaskedLayer(layer, kept))
        elif isinstance(layer, nn.BatchNorm2d):
            slow.set_submodule(name, GatheredNorm(layer, kept))
    return slow


def without_wrappers(name: str) -> str:
    return name.replace(".layer.", ".").replace(".norm.", ".")


# The network as the paper and its code have it


def test_resnet50_has_the_sizes_of_the_released_code_and_is_exported_with_torchvisions_names():
    backbone = build_backbone("resnet50", weights="random")
    network = spark.SparK(backbone).eval()
    parts = (network.backbone, network.decoder, network.densify.projections, network.densify.norms)
    parts += (network.densify.mask_tokens, network)
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    assert counts == [23_508_032, 23_183_115, 6_219_168, 7_680, 3_840, 52_921_835]

    kept = spark.draw_mask((1, 1, 7, 7), 0.6)
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        features = sparse.sparse_features(backbone.train(), images, sparse.Mask(kept, CPU))
    assert [tuple(x.shape[1:]) for x in features] == [(2048, 7, 7), (1024, 14, 14), (512, 28, 28), (256, 56, 56)]
    for x in features:
        here = spread(kept, x).expand_as(x)
        assert x[~here].abs().max() == 0
        assert (x[here] == 0).double().mean() < 0.9

    exported = network.backbone.state_dict()
    dense = resnet50()
    dense.fc = nn.Identity()
    assert len(exported) == 318
    assert list(exported) == list(dense.state_dict())
    dense.load_state_dict(exported)
    with torch.no_grad():
        features = sparse.sparse_features(backbone.eval(), images, sparse.Mask(torch.ones_like(kept), CPU))
        pooled = dense.eval()(images)
    torch.testing.assert_close(features[0].mean((2, 3)), pooled, rtol=1e-5, atol=1e-6)


def test_initial_weights_are_those_of_the_released_code():
    network = small_spark()
    decoder = network.decoder
    big = spark.SparK(resnet18(), decoder_width=256)
    assert big.decoder.blocks[0].conv1.weight.std().item() == pytest.approx(0.02, rel=0.01)
    fan_out = 256 * 4 * 4
    assert big.decoder.blocks[0].up.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.01)
    for name, p in decoder.named_parameters():
        if name.endswith(".bias"):
            assert not p.any()
        elif ".norm" in name:
            assert (p == 1).all()
    tokens = torch.cat([token.flatten() for token in big.densify.mask_tokens])
    assert tokens.abs().max() <= 0.02
    assert tokens.std().item() == pytest.approx(0.02 * 0.54, rel=0.05)  # a normal distribution cut at one sigma
    assert isinstance(spark.SparK(resnet18(), decoder_width=512).densify.projections[0], nn.Identity)
    assert [p.kernel_size for p in big.densify.projections] == [(1, 1), (3, 3), (3, 3), (3, 3)]


# The mask


def test_masks_keep_as_many_cells_of_every_picture_and_all_cells_alike():
    assert spark.draw_mask((3, 1, 16, 16), 0.6).flatten(1).sum(1).tolist() == [102] * 3
    torch.manual_seed(1)
    mask = spark.draw_mask((2000, 1, 7, 7), 0.6)
    assert mask.dtype == torch.bool
    assert mask.flatten(1).sum(1).unique().tolist() == [20]
    share = mask.double().mean((0, 1))  # binomial: 20 / 49 = 0.408 with a deviation of 0.011
    assert (share - 20 / 49).abs().max() < 5 * 0.011
    torch.manual_seed(1)
    assert torch.equal(mask, spark.draw_mask((2000, 1, 7, 7), 0.6))


def test_forward_draws_its_mask_from_the_global_generator():
    network = small_spark().eval()
    view = torch.randn(4, 1, 96, 96)
    torch.manual_seed(5)
    drawn = network([view])
    torch.manual_seed(5)
    given = network([view], mask=spark.draw_mask((4, 1, 3, 3), 0.6))
    assert torch.equal(drawn["mask"], given["mask"])
    assert torch.equal(drawn["reconstruction"], given["reconstruction"])


# The sparse encoder


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        {"block": BasicBlock},
        {"block": Bottleneck},
        pytest.param({"block": Bottleneck, "groups": 4, "width_per_group": 8}, marks=pytest.mark.slow),
    ],
    ids=["resnet18", "resnet50", "resnext50"],
)
def test_sparse_features_equal_layers_that_are_masked_one_by_one(settings, training):
    backbone = small_resnet(**settings).double().train(training)
    images = torch.randn(2, 3, 64, 96, dtype=torch.double)
    kept = torch.tensor([[[1, 0, 0], [0, 1, 1]], [[0, 1, 0], [1, 0, 1]]], dtype=torch.bool)[:, None]
    slow = slow_sparse(backbone, kept).train(training)
    expected = stage_outputs(slow, images * spread(kept, images))
    found = sparse.sparse_features(backbone, images, sparse.Mask(kept, CPU))
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)
        assert x[~spread(kept, x).expand_as(x)].abs().max() == 0

    buffers = {without_wrappers(name): value for name, value in slow.named_buffers()}
    for name, value in backbone.named_buffers():
        torch.testing.assert_close(value, buffers[name], rtol=1e-10, atol=1e-10)
        assert not name.endswith("num_batches_tracked") or value == int(training)

    weights = [torch.randn_like(x) for x in found]
    sum((x * w).sum() for x, w in zip(found, weights, strict=True)).backward()
    sum((x * w).sum() for x, w in zip(expected, weights, strict=True)).backward()
    gradients = {without_wrappers(name): p.grad for name, p in slow.named_parameters()}
    for name, p in backbone.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("training", [True, False])
def test_with_all_cells_kept_the_encoder_is_torchvisions(training):
    backbone = small_resnet(Bottleneck).double().train(training)
    dense = copy.deepcopy(backbone)
    images = torch.randn(2, 3, 64, 64, dtype=torch.double)
    mask = sparse.Mask(torch.ones(2, 1, 2, 2, dtype=torch.bool), CPU)
    found = sparse.sparse_features(backbone, images, mask)
    for x, y in zip(found, stage_outputs(dense, images), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)
    for name, value in dense.named_buffers():
        torch.testing.assert_close(backbone.get_buffer(name), value, rtol=1e-12, atol=1e-12)


def test_kept_positions_know_nothing_of_masked_pixels():
    network = small_spark().train()
    kept = spark.draw_mask((3, 1, 3, 3), 0.6)
    view = torch.randn(3, 1, 96, 96)
    other = torch.where(spread(kept, view), view, torch.nan)
    first, second = (copy.deepcopy(network)([x], mask=kept) for x in (view, other))
    assert torch.equal(first["reconstruction"], second["reconstruction"])
    assert torch.equal(first["embedding"], second["embedding"])


def test_the_embedding_is_the_mean_of_kept_positions():
    network = small_spark(drop_path=0.0).eval()
    view = torch.randn(2, 1, 64, 96)
    kept = torch.tensor([[[1, 0, 0], [0, 1, 1]], [[0, 0, 0], [1, 0, 0]]], dtype=torch.bool)[:, None]
    deepest = sparse.sparse_features(network.backbone, view.expand(-1, 3, -1, -1), sparse.Mask(kept, CPU))[0]
    embedding = network([view], mask=kept)["embedding"]
    assert not embedding.requires_grad
    torch.testing.assert_close(embedding[0], (deepest[0, :, 0, 0] + deepest[0, :, 1, 1] + deepest[0, :, 1, 2]) / 3)
    torch.testing.assert_close(embedding[1], deepest[1, :, 1, 0])


def test_residual_branches_are_dropped_for_whole_pictures_ever_more_often(monkeypatch):
    calls = []

    def drop_all(y: torch.Tensor, rate: float, mode: str, training: bool) -> torch.Tensor:
        calls.append((rate, mode, training))
        return y * 0

    monkeypatch.setattr(sparse, "stochastic_depth", drop_all)
    backbone = small_resnet()
    images, mask = torch.randn(2, 3, 64, 64), sparse.Mask(torch.ones(2, 1, 2, 2, dtype=torch.bool), CPU)
    sparse.sparse_features(backbone.train(), images, mask, drop_path=0.05)
    assert [rate for rate, _, _ in calls] == pytest.approx([0, 0.0125, 0.025, 0.0375, 0.05])
    assert {(mode, training) for _, mode, training in calls} == {("row", True)}

    found = sparse.sparse_features(backbone.eval(), images, mask, drop_path=0.05)[0]
    x = backbone.maxpool(backbone.relu(backbone.bn1(backbone.conv1(images))))
    for stage in (backbone.layer2, backbone.layer3, backbone.layer4):  # what remains are the shortcuts
        x = stage[0].downsample(x).relu()
    torch.testing.assert_close(found, x)
    assert {training for _, _, training in calls[5:]} == {False}


def test_in_evaluation_no_branch_is_dropped():
    network = small_spark(drop_path=0.9).eval()
    view = torch.randn(2, 1, 64, 64)
    kept = spark.draw_mask((2, 1, 2, 2), 0.6)
    first, second = (network([view], mask=kept)["reconstruction"] for _ in range(2))
    assert torch.equal(first, second)
    network.train()
    first, second = (network([view], mask=kept)["reconstruction"] for _ in range(2))
    assert not torch.equal(first, second)


def test_gradients_of_the_sparse_batch_norm():
    norm = nn.BatchNorm2d(2).double()
    mask = sparse.Mask(torch.tensor([[1, 0], [1, 1]], dtype=torch.bool).view(1, 1, 2, 2), CPU)
    x = torch.randn(1, 2, 4, 4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: sparse.sparse_batch_norm(x, norm, mask), x)


# The decoder


def slow_decoder(network: nn.Module, features: Sequence[torch.Tensor], kept: torch.Tensor) -> torch.Tensor:
    """Densify and decoder from their weights, by name."""
    w = network.state_dict()

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.batch_norm(x, None, None, w[f"{name}.weight"], w[f"{name}.bias"], training=True)

    x = torch.zeros(())
    for level in range(5):
        if level < 4:
            here = spread(kept, features[level])[:, 0]
            rows = norm(features[level].permute(0, 2, 3, 1)[here], f"densify.norms.{level}")
            dense = w[f"densify.mask_tokens.{level}"].permute(0, 2, 3, 1).repeat(*here.shape, 1)
            dense[here] = rows
            name = f"densify.projections.{level}"
            x = x + F.conv2d(dense.permute(0, 3, 1, 2), w[f"{name}.weight"], w[f"{name}.bias"], padding=int(level > 0))
        name = f"decoder.blocks.{level}"
        x = F.conv_transpose2d(x, w[f"{name}.up.weight"], w[f"{name}.up.bias"], stride=2, padding=1)
        x = norm(F.conv2d(x, w[f"{name}.conv1.weight"], padding=1), f"{name}.norm1").clamp(0, 6)
        x = norm(F.conv2d(x, w[f"{name}.conv2.weight"], padding=1), f"{name}.norm2")
    return F.conv2d(x, w["decoder.head.weight"], w["decoder.head.bias"])


def test_holes_are_filled_and_a_picture_is_decoded():
    network = small_spark(drop_path=0.0).double()
    for p in [*network.densify.parameters(), *network.decoder.parameters()]:
        nn.init.normal_(p, std=0.3)  # biases of 0 and weights of 1 would hide mistakes
    view = torch.randn(2, 3, 64, 96, dtype=torch.double)
    kept = spark.draw_mask((2, 1, 2, 3), 0.6)
    features = sparse.sparse_features(copy.deepcopy(network.backbone), view, sparse.Mask(kept, CPU))
    expected = slow_decoder(network, features, kept)
    found = network([view], mask=kept)["reconstruction"]
    assert expected.shape == (2, 3, 64, 96)
    torch.testing.assert_close(spark.unpatchify(found, (2, 3)), expected, rtol=1e-9, atol=1e-9)


def test_one_channel_is_three_equal_ones():
    network = small_spark(drop_path=0.0).train()
    view = torch.randn(2, 1, 64, 96)
    kept = spark.draw_mask((2, 1, 2, 3), 0.6)
    one = network([view], mask=kept)
    three = network([view.repeat(1, 3, 1, 1)], mask=kept)
    assert one["reconstruction"].shape == (2, 6, 3072)
    torch.testing.assert_close(one["reconstruction"], three["reconstruction"])
    assert torch.equal(one["image"], three["image"])


# The loss


def test_patches_are_cut_row_by_row_and_put_back():
    images = torch.randn(2, 3, 64, 96)
    patches = spark.patchify(images)
    assert patches.shape == (2, 6, 3072)
    for i, j in itertools.product(range(2), range(3)):
        cell = images[:, :, 32 * i : 32 * i + 32, 32 * j : 32 * j + 32]
        assert torch.equal(patches[:, 3 * i + j], cell.flatten(1))
    assert torch.equal(spark.unpatchify(patches, (2, 3)), images)


def slow_loss(reconstruction: torch.Tensor, image: torch.Tensor, kept: torch.Tensor) -> float:
    errors = []
    for b, i, j in itertools.product(*map(range, (kept.shape[0], *kept.shape[2:]))):
        if not kept[b, 0, i, j]:
            x = image[b, :, 32 * i : 32 * i + 32, 32 * j : 32 * j + 32].flatten().tolist()
            mean = math.fsum(x) / len(x)
            variance = math.fsum((v - mean) ** 2 for v in x) / (len(x) - 1)
            painted = reconstruction[b, i * kept.shape[3] + j].tolist()
            pairs = zip(painted, x, strict=True)
            errors.append(math.fsum((p - (v - mean) / math.sqrt(variance + 1e-6)) ** 2 for p, v in pairs) / len(x))
    return math.fsum(errors) / len(errors)


def test_the_loss_is_that_of_a_loop_over_patches():
    image = torch.randn(2, 3, 64, 96, dtype=torch.double) * 0.3 + 1
    image[0, :, :32] = 0.7  # flat: only its deviation from 0 counts
    kept = torch.tensor([[[1, 0, 0], [0, 1, 1]], [[0, 0, 0], [1, 0, 1]]], dtype=torch.bool)[:, None]
    prediction = {"reconstruction": torch.randn(2, 6, 3072, dtype=torch.double), "image": image, "mask": kept}
    expected = slow_loss(prediction["reconstruction"], image, kept)
    loss = spark.SparKLoss()
    assert loss(prediction).item() == pytest.approx(expected, rel=1e-8)  # the released 1e-8 in the denominator
    low = {"reconstruction": prediction["reconstruction"].bfloat16(), "image": image.float(), "mask": kept}
    assert loss(low).dtype == torch.float32
    assert loss(low).item() == pytest.approx(expected, rel=1e-3)

    masked = prediction["reconstruction"].requires_grad_()
    loss(prediction).backward()
    assert (masked.grad[kept.flatten(1)] == 0).all()
    assert (masked.grad[~kept.flatten(1)] != 0).all()


def test_an_untrained_network_pays_about_one_less_what_is_flat():
    torch.manual_seed(0)
    network = small_spark()
    loss = spark.SparKLoss()
    assert loss(network([torch.randn(4, 1, 96, 96)])).item() == pytest.approx(1, abs=0.05)
    half = torch.randn(4, 1, 64, 64)
    half[:, :, :32] = -2.1
    kept = torch.tensor([[1, 0], [1, 0]], dtype=torch.bool).expand(4, 1, 2, 2)
    assert loss(network([half], mask=kept)).item() == pytest.approx(0.5, abs=0.05)


def test_a_reconstruction_shows_kept_patches_as_they_are_and_others_as_painted():
    image = torch.randn(2, 3, 64, 64) * 0.2 + 0.5
    kept = spark.draw_mask((2, 1, 2, 2), 0.6)
    patches = spark.patchify(image)
    standard = (patches - patches.mean(2, keepdim=True)) / patches.std(2, keepdim=True)
    perfect = {"reconstruction": standard, "image": image, "mask": kept}
    torch.testing.assert_close(spark.reconstruct(perfect), image, rtol=0, atol=1e-4)
    grey = spark.reconstruct({"reconstruction": torch.zeros_like(standard), "image": image, "mask": kept})
    here = spread(kept, image).expand_as(image)
    assert torch.equal(grey[here], image[here])
    means = patches.mean(2, keepdim=True).expand_as(patches)
    torch.testing.assert_close(grey[~here], spark.unpatchify(means, (2, 2))[~here])


# Precision and processes


def test_bfloat16_gives_nearly_the_same_loss_and_float32_statistics():
    network = small_spark(drop_path=0.0).train()
    other = copy.deepcopy(network)
    view, kept = torch.randn(4, 1, 64, 64), spark.draw_mask((4, 1, 2, 2), 0.6)
    loss = spark.SparKLoss()
    exact = loss(network([view], mask=kept))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = other([view], mask=kept)
        rough = loss(prediction)
    assert prediction["reconstruction"].dtype == torch.bfloat16
    assert rough.dtype == prediction["embedding"].dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=5e-3)
    rough.backward()
    norm, rough_norm = network.backbone.layer4[0].bn1, other.backbone.layer4[0].bn1
    assert rough_norm.running_var.dtype == torch.float32
    torch.testing.assert_close(rough_norm.running_var, norm.running_var, rtol=2e-2, atol=1e-4)


def share_of_a_step(
    network: nn.Module, view: torch.Tensor, kept: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Loss, gradients as DDP averages them, and buffers, of this process's share of the pictures."""
    world = spark.sparse.process_count()
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    own = slice(rank * len(view) // world, (rank + 1) * len(view) // world)
    loss = spark.SparKLoss()(network([view[own]], mask=kept[own]))
    loss.backward()
    gradients = {name: p.grad / world for name, p in network.named_parameters()}
    return loss.detach() / world, gradients, dict(network.named_buffers())


def test_two_processes_take_the_step_of_one():
    network = small_spark(drop_path=0.0).double().train()
    view = torch.randn(4, 1, 64, 64, dtype=torch.double) * torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None, None, None]
    kept = spark.draw_mask((4, 1, 2, 2), 0.6)
    halves = in_processes(share_of_a_step, 2, network, view, kept)
    loss, gradients, buffers = share_of_a_step(network, view, kept)
    torch.testing.assert_close(sum(half[0] for half in halves), loss)
    for name, gradient in gradients.items():
        torch.testing.assert_close(sum(half[1][name] for half in halves), gradient, rtol=1e-7, atol=1e-9)
    for name, value in buffers.items():
        for half in halves:
            torch.testing.assert_close(half[2][name], value)


def share_of_statistics(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    norm = nn.BatchNorm2d(2)
    own = x[:, :, :3] if torch.distributed.get_rank() == 0 else x[:, :, 3:]
    return sparse.batch_norm(own, norm).detach(), norm.running_var


def test_processes_with_unequal_counts_share_their_statistics():
    x = torch.randn(1, 2, 10, 1) * 0.01 + 100  # mean of squares less square of mean would be lost in rounding
    norm = nn.BatchNorm2d(2).double()
    expected = norm(x.double()).float()
    (first, variance), (second, _) = in_processes(share_of_statistics, 2, x)
    assert first.shape[2] == 3
    torch.testing.assert_close(torch.cat([first, second], dim=2), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(variance, norm.running_var.float())


# The optimiser


def test_weights_decay_and_biases_norms_and_tokens_do_not():
    network = small_spark()
    decayed, others = parameter_groups(network, 0.04, without_decay=["mask_token"])
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.04, 0.0)
    names = {id(p): name for name, p in network.named_parameters()}
    kinds = {names[id(p)].rsplit(".", 1)[-1] for p in decayed["params"]}
    assert kinds == {"weight"}
    assert all(p.ndim == 4 for p in decayed["params"])
    assert {names[id(p)] for p in others["params"]} > {f"densify.mask_tokens.{i}" for i in range(4)}
    assert len(decayed["params"]) + len(others["params"]) == len(names)


def test_timms_lamb_is_the_optimiser_of_the_released_code():
    torch.manual_seed(0)
    weight, bias = torch.randn(3, 2, dtype=torch.double), torch.randn(3, dtype=torch.double)
    steps = [[torch.randn_like(weight) * size, torch.randn_like(bias) * size] for size in (10, 0.1, 1)]
    parameters = [nn.Parameter(weight.clone()), nn.Parameter(bias.clone())]
    groups = [{"params": [p], "weight_decay": decay} for p, decay in zip(parameters, (0.04, 0.0), strict=True)]
    optimizer = Lamb(groups, lr=0.1, betas=(0.9, 0.95), eps=1e-6, max_grad_norm=5.0)
    expected = [weight, bias]
    m, v = [0.0, 0.0], [0.0, 0.0]
    for t, gradients in enumerate(steps, 1):
        for p, g in zip(parameters, gradients, strict=True):
            p.grad = g.clone()
        optimizer.step()
        norm = math.sqrt(sum(g.square().sum().item() for g in gradients))
        for i, decay in enumerate((0.04, 0.0)):
            g = gradients[i] / max(1, norm / 5)
            m[i] = 0.9 * m[i] + (1 - 0.9) * g  # averaged, not added
            v[i] = 0.95 * v[i] + (1 - 0.95) * g * g
            update = m[i] / (1 - 0.9**t) / ((v[i] / (1 - 0.95**t)).sqrt() + 1e-6) + decay * expected[i]
            trust = expected[i].norm() / update.norm() if decay else 1
            expected[i] = expected[i] - 0.1 * trust * update
        for p, e in zip(parameters, expected, strict=True):
            torch.testing.assert_close(p.data, e, rtol=1e-12, atol=1e-12)


# Mistakes


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"mask_ratio": 1.0}, "expected a mask_ratio between 0 and 1, found 1.0"),
        ({"decoder_width": 100}, "expected a decoder_width that 32 divides, found 100"),
        ({"drop_path": 1.0}, "expected a drop_path from 0 to below 1, found 1.0"),
    ],
)
def test_settings_outside_their_range_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        spark.SparK(small_resnet(), **{"decoder_width": 32, **settings})


def test_networks_without_a_sparse_form_are_refused():
    with pytest.raises(ValueError, match=r"ResNet, ResNeXt or Wide ResNet of torchvision .*found DenseNet;"):
        spark.SparK(build_backbone("densenet121", weights="random"))


@pytest.mark.parametrize(
    ("views", "mask", "sentence"),
    [
        ([(2, 1, 64, 80)], None, "sides 32 divides, found 64 x 80"),
        ([(2, 1, 32, 32)], None, "found 0 of 1 x 1 kept"),
        ([(2, 1, 64, 64)] * 2, None, "expected one view of each picture for SparK, found 2"),
        ([(2, 1, 64, 64)], torch.ones(2, 1, 2, 3, dtype=torch.bool), r"of \(2, 1, 2, 2\)"),
        ([(2, 1, 64, 64)], torch.ones(2, 1, 2, 2), "found torch.float32"),
    ],
)
def test_pictures_and_masks_that_do_not_fit_are_refused(views, mask, sentence):
    with pytest.raises(ValueError, match=sentence):
        small_spark()([torch.zeros(shape) for shape in views], mask=mask)
