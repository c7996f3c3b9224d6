"""Networks against the numbers of parameters that were published for them."""

from __future__ import annotations

import pytest
import torch
import torchvision.models as models
from torch import nn

from crossfade.errors import UserError
from crossfade.lab.nets import SMALL_NETS, build, net_names


def parameters(net):
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(
    ("name", "millions", "digits"),
    [
        # He et al. 2016a, table 6
        ("resnet20", 0.27, 2), ("resnet32", 0.46, 2), ("resnet44", 0.66, 2), ("resnet56", 0.85, 2),
        ("resnet110", 1.7, 1),
        # Xie et al. 2017, table 7: 8x64d
        ("resnext29_8x64d", 34.4, 1),
    ],
)  # fmt: skip
def test_published_numbers_of_parameters_on_ten_classes(name, millions, digits):
    assert round(parameters(build(name, 10)) / 1e6, digits) == millions


def test_exact_numbers_from_the_architecture():
    """Counted by hand: convolutions, two values a normalised channel, the linear layer."""

    def cifar(blocks: int, classes: int) -> int:
        count, channels = 3 * 16 * 9 + 32, 16
        for width in (16, 32, 64):
            for _ in range(blocks):
                count += 9 * channels * width + 9 * width * width + 4 * width
                channels = width
        return count + 64 * classes + classes

    for depth in (20, 32, 44, 110):
        for classes in (10, 100):
            assert parameters(build(f"resnet{depth}", classes)) == cifar((depth - 2) // 6, classes)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "shufflenetv2"])
def test_small_stems_differ_from_torchvisions_in_the_stem_alone(name):
    theirs = models.get_model({"shufflenetv2": "shufflenet_v2_x1_0"}.get(name, name), num_classes=10)
    stem = theirs.conv1 if name != "shufflenetv2" else theirs.conv1[0]
    other = 3 * stem.out_channels * 9 - stem.weight.numel()
    assert parameters(build(f"{name}_small", 10)) == parameters(theirs) + other


@pytest.mark.parametrize("name", [name for name in SMALL_NETS if name != "resnext29_8x64d"])
def test_small_networks_take_small_images_and_train_every_parameter(name):
    net = build(name, 7)
    logits = net(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_the_cifar_shortcut_is_the_identity_with_zero_channels():
    from crossfade.lab.nets.resnet import BasicBlock

    block = BasicBlock(4, 8, 2).eval()
    nn.init.zeros_(block.conv2.weight)  # only the shortcut is left
    x = torch.rand(1, 4, 6, 6)
    out = block(x)
    assert torch.equal(out[:, 2:6], x[:, :, ::2, ::2])
    assert out[:, :2].abs().sum() == out[:, 6:].abs().sum() == 0


def test_torchvision_networks_by_name_and_dropout_before_the_last_layer():
    net = build("mobilenet_v3_small", 5, dropout=0.5)
    last = [module for module in net.modules() if isinstance(module, nn.Linear | nn.Dropout)][-2:]
    assert isinstance(last[0], nn.Dropout)
    assert last[0].p == 0.5
    assert last[1].out_features == 5
    assert {"resnet50", "resnext101_32x8d", "shufflenet_v2_x1_0", "resnet20"} <= set(net_names())


@pytest.mark.parametrize(
    ("name", "word"), [("resnet200", "did you mean 'resnet20'"), ("fcn_resnet50", "unknown"), ("???", "known:")]
)
def test_unknown_names_get_a_hint(name, word):
    with pytest.raises(UserError, match=word):
        build(name, 10)


def test_the_command_lists_every_network_for_small_images(call):
    assert set(SMALL_NETS) - {"tiny", "tiny_plain"} <= set(call("list")[1].split())


def test_pretrained_weights_that_do_not_exist_are_refused():
    with pytest.raises(UserError, match="no pretrained"):
        build("resnet20", 10, pretrained=True)
