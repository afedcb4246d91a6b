"""Schedules, and latents of every step of UniPC and Euler under a made-up velocity.

    python tests/reference/samplers.py runtime/tests/golden

Made with diffusers 0.42.1, torch 2.15.0 (CPU) and numpy.
"""

import json
import sys

import diffusers
import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

assert diffusers.__version__ == "0.42.1", diffusers.__version__

# The scheduler_config.json of the Wan checkpoints; only the flow shift differs between them.
WAN = dict(
    solver_order=2, solver_type="bh2", predict_x0=True, prediction_type="flow_prediction",
    use_flow_sigmas=True, lower_order_final=True, final_sigmas_type="zero",
    num_train_timesteps=1000, disable_corrector=[],
)
START = [1.5, -0.75, 0.1, -2.25, 0.6, 0.0]


def velocity(latents, timestep):
    """Any smooth function of both will do; the test computes the same one."""
    x = latents.double().numpy()
    return torch.from_numpy(np.sin(3 * x + 0.01 * timestep).astype(np.float32))


def run(scheduler, timesteps, reported):
    latents, trace = torch.tensor([START]), []
    for timestep, report in zip(timesteps, reported):
        latents = scheduler.step(velocity(latents, timestep), report, latents).prev_sample
        trace.append([float(x) for x in latents[0]])
    return trace


cases = []
for steps, shift in [(1, 3.0), (2, 3.0), (3, 1.0), (4, 3.0), (20, 5.0), (40, 12.0), (40, 3.0)]:
    unipc = UniPCMultistepScheduler(flow_shift=shift, **WAN)
    unipc.set_timesteps(steps)
    timesteps = unipc.timesteps.tolist()
    # The same noise levels, not shifted again.
    euler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    euler.set_timesteps(sigmas=unipc.sigmas[:-1].tolist())
    assert torch.equal(euler.sigmas, unipc.sigmas)
    cases.append(
        dict(
            steps=steps,
            flow_shift=shift,
            sigmas=unipc.sigmas.tolist(),
            timesteps=timesteps,
            start=START,
            unipc=run(unipc, timesteps, unipc.timesteps),
            euler=run(euler, timesteps, euler.timesteps),
        )
    )

with open(f"{sys.argv[1]}/samplers.json", "w") as f:
    json.dump(cases, f, separators=(",", ":"))
    f.write("\n")
