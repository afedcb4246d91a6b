"""Values of torch's CPU generator.

    python tests/reference/noise.py runtime/tests/golden

Writes noise.f32 (little-endian float32: for n = 1…40 all n values of seed 42, for n = 41…1000 the
first and the last 16) and noise.json (sums, draws in a row, other seeds, and the latents of a
480×832 video of 81 frames). Made with torch 2.15.0 on an x86-64 CPU with AVX2.
"""

import json
import sys

import numpy as np
import torch


def draw(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float32).numpy()


def seeded(seed):
    return torch.Generator("cpu").manual_seed(seed)


kept, sums = [], []
for n in range(1, 1001):
    x = draw(seeded(42), n)
    kept.append(x if n <= 40 else np.concatenate([x[:1], x[-16:]]))
    sums.append(float(x.astype(np.float64).sum()))
np.concatenate(kept).astype("<f4").tofile(f"{sys.argv[1]}/noise.f32")

# One generator, several draws: the scalar path keeps half of its last pair for later.
generator, counts = seeded(7), [5, 20, 3, 16, 1, 1, 33, 15, 2]
in_a_row = [[n, draw(generator, n).tolist()] for n in counts]

seeds = [0, 1, 2**31, 2**32 - 1, 2**32 + 5, 2**63 - 1]
by_seed = [[str(seed), draw(seeded(seed), 4).tolist(), draw(seeded(seed), 19).tolist()] for seed in seeds]

shape = (1, 16, 21, 60, 104)
x = draw(seeded(42), *shape)
flat = x.reshape(-1)
positions = sorted({int(p) for p in np.linspace(0, flat.size - 1, 500)} | set(range(flat.size - 16, flat.size)))
wide = x.astype(np.float64)
latents = dict(
    shape=shape,
    channel_sums=wide.sum((0, 2, 3, 4)).tolist(),
    channel_square_sums=(wide**2).sum((0, 2, 3, 4)).tolist(),
    samples=[[p, float(flat[p])] for p in positions],
)

with open(f"{sys.argv[1]}/noise.json", "w") as f:
    json.dump(dict(sums=sums, in_a_row=in_a_row, by_seed=by_seed, latents=latents), f, separators=(",", ":"))
    f.write("\n")
