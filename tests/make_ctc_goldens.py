"""Make goldens_ctc.npz: torch's CTC losses and gradients, so that the tests need no torch. Run as ``python make_ctc_goldens.py`` (torch 2.13)."""

import pathlib

import numpy as np
import torch

SHAPES = [(1, 1, 2, 1), (6, 2, 3, 2), (12, 4, 5, 4), (16, 2, 12, 6), (9, 1, 140, 4)]  # T, N, C, S


def case(rng, shape, k):
    T, N, C, S = shape
    blank = int(rng.integers(0, C))
    logits = rng.standard_normal((T, N, C)) * 3
    labels = np.delete(np.arange(C), blank)
    targets = rng.choice(labels[: 3 if k % 2 else None], (N, S))
    frames, lengths = rng.integers(T // 2, T + 1, N), rng.integers(0, S + 1, N)
    x = torch.tensor(logits, requires_grad=True)
    arguments = torch.tensor(targets), torch.tensor(frames), torch.tensor(lengths)
    made = {"logits": logits, "targets": targets, "frames": frames, "lengths": lengths, "blank": blank}
    for reduction in ("none", "mean", "sum"):
        for zero_infinity in (False, True):
            loss = torch.nn.functional.ctc_loss(x.log_softmax(-1), *arguments, blank, reduction, zero_infinity)
            made[f"{reduction}-{zero_infinity}"] = loss.detach().numpy()
            if zero_infinity and reduction != "sum":
                made[f"{reduction}-gradient"] = torch.autograd.grad(loss.sum(), x)[0].numpy()
    return made


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    arrays = {}
    for i, shape in enumerate(SHAPES):
        for k in range(2):
            arrays |= {f"{i}-{k}/{name}": value for name, value in case(rng, shape, k).items()}
    arrays["torch"] = np.array(torch.__version__)
    np.savez_compressed(pathlib.Path(__file__).with_name("goldens_ctc.npz"), **arrays)
