"""Schedules, and latents of every step of each sampler under a made-up velocity.

    python tests/reference/samplers.py runtime/tests/golden

Made with diffusers 0.42.1, torch 2.15.0 (CPU) and numpy.
"""

import json
import sys

import diffusers
import numpy as np
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchLCMScheduler,
    UniPCMultistepScheduler,
)

assert diffusers.__version__ == "0.42.1", diffusers.__version__

# The scheduler_config.json of the Wan checkpoints; only the flow shift differs between them.
WAN = dict(
    solver_order=2, solver_type="bh2", predict_x0=True, prediction_type="flow_prediction",
    use_flow_sigmas=True, lower_order_final=True, final_sigmas_type="zero",
    num_train_timesteps=1000, disable_corrector=[],
)
SEED = 7
START = [1.5, -0.75, 0.1, -2.25, 0.6, 0.0]


def velocity(latents, timestep):
    """Any smooth function of both will do; the test computes the same one."""
    x = latents.double().numpy()
    return torch.from_numpy(np.sin(3 * x + 0.01 * timestep).astype(np.float32))


def run(scheduler, timesteps, reported, **options):
    latents, trace = torch.tensor([START]), []
    for timestep, report in zip(timesteps, reported):
        latents = scheduler.step(velocity(latents, timestep), report, latents, **options).prev_sample
        trace.append([float(x) for x in latents[0]])
    return trace


def unshifted(kind, sigmas):
    """A flow matching scheduler on noise levels that were shifted before."""
    scheduler = kind(shift=1.0)
    scheduler.set_timesteps(sigmas=sigmas[:-1].tolist())
    assert torch.equal(scheduler.sigmas, sigmas)
    return scheduler


def after_noise():
    """The generator of a run that has drawn its initial noise."""
    generator = torch.Generator("cpu").manual_seed(SEED)
    torch.randn((1, len(START)), generator=generator)
    return generator


def traces(sigmas, timesteps):
    euler = unshifted(FlowMatchEulerDiscreteScheduler, sigmas)
    lcm = unshifted(FlowMatchLCMScheduler, sigmas)
    return {
        "euler": run(euler, timesteps, euler.timesteps),
        "lcm": run(lcm, timesteps, lcm.timesteps, generator=after_noise()),
    }


cases = []
for steps, shift in [(1, 3.0), (2, 3.0), (3, 1.0), (4, 3.0), (20, 5.0), (40, 12.0), (40, 3.0)]:
    unipc = UniPCMultistepScheduler(flow_shift=shift, **WAN)
    unipc.set_timesteps(steps)
    timesteps = unipc.timesteps.tolist()
    # The same noise levels: left to itself, it begins at exactly 1, where its formulas have no value.
    dpm = DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint", prediction_type="flow_prediction",
        use_flow_sigmas=True, final_sigmas_type="zero", flow_shift=shift,
    )
    dpm.set_timesteps(steps)
    dpm.sigmas, dpm.timesteps = unipc.sigmas, unipc.timesteps
    cases.append(
        dict(
            steps=steps,
            flow_shift=shift,
            spacing="flow",
            sigmas=unipc.sigmas.tolist(),
            timesteps=timesteps,
            start=START,
            unipc=run(unipc, timesteps, unipc.timesteps),
            **{"dpm++2m": run(dpm, timesteps, dpm.timesteps)},
            **traces(unipc.sigmas, timesteps),
        )
    )

# Step-distilled models: noise levels at 1000, 750, 500, 250 of 1000 before the shift.
for steps, shift in [(4, 5.0), (8, 3.0)]:
    levels = np.linspace(1.0, 0.0, steps + 1)
    levels = shift * levels / (1 + (shift - 1) * levels)
    timesteps = (levels[:-1] * 1000).astype(np.float32).tolist()
    levels[0] -= 1e-6
    sigmas = torch.from_numpy(levels.astype(np.float32))
    cases.append(
        dict(
            steps=steps,
            flow_shift=shift,
            spacing="distilled",
            sigmas=sigmas.tolist(),
            timesteps=timesteps,
            start=START,
            **traces(sigmas, timesteps),
        )
    )

with open(f"{sys.argv[1]}/samplers.json", "w") as f:
    json.dump(cases, f, separators=(",", ":"))
    f.write("\n")
