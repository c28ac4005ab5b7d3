"""Convolutions with heavy weights over small maps: torch's own, and as matrix products.

A forward and a backward pass of one layer in channels_last, in turn, medians. What is printed is
how many times as long torch's own takes; the rule of ``transferlab.backbones.layout`` takes the
product from 65,536 weights a position on, up to 16 positions.
"""

import argparse
import statistics
import time

import torch
from in_turn import Row, write
from torch import Tensor, nn

from transferlab.backbones import layout
from transferlab.precision import cpu_has_bf16

LAYERS = ((128, 128), (128, 256), (256, 256), (256, 512), (512, 512))
SIDES = (1, 2, 3, 4, 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch-size", type=int, default=32)
    args = parser.parse_args()
    rows: list[Row] = []
    for mixed in (False, True) if cpu_has_bf16() else (False,):
        print("bf16" if mixed else "fp32")
        for width, out in LAYERS:
            line = f"  {width:>4} to {out:<4}"
            for side in SIDES:
                own, product = measured(width, out, side, args.batch_size, mixed, args.rounds)
                rule = out * width * 9 >= layout.WEIGHTS * max(side**2, 4) and side <= 4
                rows.append({
                    "dtype": "bf16" if mixed else "fp32", "width": width, "out": out,
                    "side": side, "images": args.batch_size, "own_ms": round(1000 * own, 3),
                    "product_ms": round(1000 * product, 3), "rule": rule,
                })  # fmt: skip
                line += f"  {side} x {side}: {own / product:5.2f}{'*' if rule else ' '}"
            print(line, flush=True)
    print("* computed as a product")
    write(rows, "small_maps")


def measured(
    width: int, out: int, side: int, images: int, mixed: bool, rounds: int
) -> tuple[float, float]:
    """Return the median seconds of torch's convolution and of the product."""
    torch.manual_seed(0)
    conv = nn.Conv2d(width, out, 3, 1, 1, bias=False).to(memory_format=torch.channels_last)
    dtype = torch.bfloat16 if mixed else torch.float32
    given = torch.randn(images, width, side, side, dtype=dtype)
    given = given.contiguous(memory_format=torch.channels_last).requires_grad_()
    back = torch.randn(images, out, side, side, dtype=dtype)
    back = back.contiguous(memory_format=torch.channels_last)

    def product() -> Tensor:
        return layout._product(conv, given, conv.weight, None, side, side)

    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 2):
        for seconds, layer in zip(taken, (lambda: conv(given), product), strict=True):
            given.grad = conv.weight.grad = None
            began = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                found = layer()
            found.backward(back)
            seconds.append(time.perf_counter() - began)
    own, other = (statistics.median(seconds[2:]) for seconds in taken)
    return own, other


if __name__ == "__main__":
    main()
