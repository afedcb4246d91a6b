"""Check a checkpoint's clips against their prompts by looking at the frames.

    python judge.py --checkpoint demo-checkpoint/ --frames 33 --out judge.json --sheet samples.png
    python judge.py --self-test

A clip passes when the foreground's colour, the background and the motion are right in every
one of nine evenly spaced frames. No learned judge: the background is the nearest of the four
along the clip's edge, the colour is the nearest of the eight by hue, and the motion is the
nearest of the eight tracks that `scenes.py` draws.
"""

import argparse
import colorsys
import json
import math
import random

import torch

from scenes import BACKGROUNDS, COLOURS, MOTIONS, random_scene, render

SAMPLES = 9
EDGE = 4  # pixels; no shape ever reaches this far
MASK_LEVEL = 0.12  # a pixel belongs to the shape if a channel is this far from its row's edge
MIN_PIXELS = 25
WHITE_SATURATION = 0.35
MOTION_TOLERANCE = 0.2  # in units of half the frame, in each sampled frame
HUES = {n: 360 * colorsys.rgb_to_hsv(*c)[0] for n, c in COLOURS.items() if n != "white"}


def background_of(frame):
    """The background whose vertical ramp is nearest to the frame's left and right edge."""
    height = frame.shape[0]
    edge = torch.cat([frame[:, :EDGE], frame[:, -EDGE:]], 1).median(1).values
    ramp = ((torch.arange(height) + 0.5) / height)[:, None]
    errors = {}
    for name, (top, low) in BACKGROUNDS.items():
        top, low = torch.tensor(top), torch.tensor(low)
        errors[name] = (edge - (top + (low - top) * ramp)).abs().mean().item()
    return min(errors, key=errors.get), edge


def colour_of(pixels):
    """The nearest colour by saturation-weighted mean hue, and the distance to it in degrees."""
    high, low = pixels.max(1).values, pixels.min(1).values
    mean = pixels.mean(0)
    if ((mean.max() - mean.min()) / mean.max().clamp(min=1e-6)).item() < WHITE_SATURATION:
        return "white", 0.0
    spread = (high - low).clamp(min=1e-6)
    r, g, b = pixels.unbind(1)
    not_red = torch.where(high == g, (b - r) / spread + 2, (r - g) / spread + 4)
    hue = torch.where(high == r, ((g - b) / spread) % 6, not_red)
    angle, weight = hue * math.pi / 3, high - low
    mean_hue = math.degrees(math.atan2((weight * angle.sin()).sum().item(), (weight * angle.cos()).sum().item()))
    distance = {n: abs((mean_hue - h + 180) % 360 - 180) for n, h in HUES.items()}
    best = min(distance, key=distance.get)
    return best, distance[best]


def motion_tracks(t):
    """Per motion: x, y and log radius over time; `None` where the scene draws a free constant."""
    span, zero = 0.62 * (2 * t - 1), torch.zeros_like(t)
    still = {"x": (zero, True), "y": (zero, True), "r": (zero, True)}
    changed = {
        "moving left": {"x": (-span, False)},
        "moving right": {"x": (span, False)},
        "moving up": {"y": (-span, False)},
        "moving down": {"y": (span, False)},
        "growing": {"r": ((0.55 + 0.9 * t).log(), True)},
        "shrinking": {"r": ((1.45 - 0.9 * t).log(), True)},
        "bouncing": {"y": (0.55 - 1.1 * torch.sin(2 * math.pi * t).abs(), False)},
        "standing still": {},
    }
    return {m: still | changed[m] for m in MOTIONS}


def motion_of(x, y, radius, t):
    """The nearest motion and the largest distance to its track."""
    measured = {"x": x, "y": y, "r": radius.log()}
    mean, worst = {}, {}
    for motion, tracks in motion_tracks(t).items():
        total = torch.zeros_like(t)
        for axis, (track, free) in tracks.items():
            error = measured[axis] - track
            error = error - error.median() if free else error
            total += (error * (0.5 if axis == "r" else 1.0)) ** 2
        mean[motion], worst[motion] = total.sqrt().mean().item(), total.sqrt().max().item()
    best = min(mean, key=mean.get)
    return best, worst[best]


def judge(video, scene):
    """The verdict on one clip, (T, H, W, 3) in [0, 1]."""
    frames = len(video)
    at = torch.linspace(0, frames - 1, SAMPLES).round().long()
    height, width = video.shape[1:3]
    ys = ((torch.arange(height) + 0.5) * 2 - height) / min(height, width)
    xs = ((torch.arange(width) + 0.5) * 2 - width) / min(height, width)
    backgrounds, colours, hue_errors, track = [], [], [], []
    for frame in video[at]:
        background, edge = background_of(frame)
        backgrounds.append(background)
        mask = (frame - edge[:, None]).abs().amax(2) > MASK_LEVEL
        area = mask.sum().item()
        if area < MIN_PIXELS:
            colours.append("nothing"), hue_errors.append(180.0), track.append((9.0, 9.0, 1.0))
            continue
        colour, hue_error = colour_of(frame[mask])
        colours.append(colour), hue_errors.append(hue_error)
        x, y = (mask.sum(0) * xs).sum() / area, (mask.sum(1) * ys).sum() / area
        track.append((x.item(), y.item(), math.sqrt(area)))
    x, y, radius = torch.tensor(track).unbind(1)
    motion, distance = motion_of(x, y, radius, at / (frames - 1))
    verdict = {
        "colour": all(c == scene.colour for c in colours),
        "background": all(b == scene.background for b in backgrounds),
        "motion": motion == scene.motion and distance < MOTION_TOLERANCE,
    }
    seen = {
        "colours": colours, "backgrounds": backgrounds, "motion": motion,
        "hue_error": round(max(hue_errors), 1), "motion_error": round(distance, 3),
    }
    return {"pass": all(verdict.values()), **verdict, "seen": seen}


def captions(count, seed=7):
    rng = random.Random(seed)
    scenes = [random_scene(rng) for _ in range(count)]
    return scenes, [s.caption(rng) for s in scenes]


def summary(results):
    return {k: sum(r[k] for r in results) for k in ("pass", "colour", "background", "motion")} | {"of": len(results)}


def self_test(count=256):
    """True renders must pass; the same renders under a wrong caption must not."""
    scenes, _ = captions(count)
    for frames in (33, 17):
        right, wrong = [], []
        for i, scene in enumerate(scenes):
            video = render([scene], frames, 128, 128, random.Random(i))[0].permute(1, 2, 3, 0) / 2 + 0.5
            right.append(judge(video, scene))
            other = scenes[(i + 1) % count]
            wrong.append(judge(video, other))
            if not right[-1]["pass"]:
                print(scene, right[-1])
        print(f"{frames} frames: true captions {summary(right)}, shuffled captions {summary(wrong)}")


def generate(pipe, prompts, seeds, frames, batch, device):
    for i in range(0, len(prompts), batch):
        generators = [torch.Generator("cpu").manual_seed(s) for s in seeds[i : i + batch]]
        videos = pipe(
            prompts[i : i + batch], negative_prompt=[""] * len(generators), height=128, width=128, num_frames=frames,
            num_inference_steps=20, guidance_scale=4.0, output_type="pt", generator=generators,
        ).frames
        yield from videos.float().cpu().permute(0, 1, 3, 4, 2)


def reconstruct(pipe, scenes, frames, device):
    """True renders through the VAE and back: the judge's ceiling for this checkpoint."""
    for i, scene in enumerate(scenes):
        video = render([scene], frames, 128, 128, random.Random(i)).to(device)
        with torch.no_grad():
            out = pipe.vae.decode(pipe.vae.encode(video).latent_dist.mode()).sample
        yield (out[0].float().cpu().permute(1, 2, 3, 0) / 2 + 0.5).clamp(0, 1)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--self-test", action="store_true")
    args.add_argument("--checkpoint")
    args.add_argument("--frames", type=int, default=33)
    args.add_argument("--count", type=int, default=32)
    args.add_argument("--first-seed", type=int, default=0, help="clip i takes this seed plus i")
    args.add_argument("--vae-only", action="store_true", help="judge reconstructions of true renders")
    args.add_argument("--batch", type=int, default=32)
    args.add_argument("--out", help="every verdict as JSON")
    args.add_argument("--sheet", help="six frames of each of the first sixteen clips as PNG")
    args = args.parse_args()
    if args.self_test:
        return self_test()
    from diffusers import WanPipeline

    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipe = WanPipeline.from_pretrained(args.checkpoint, dtype=torch.float32).to(device)
    pipe.set_progress_bar_config(disable=True)
    scenes, prompts = captions(args.count)
    seeds = [args.first_seed + i for i in range(args.count)]
    if args.vae_only:
        videos = reconstruct(pipe, scenes, args.frames, device)
    else:
        videos = generate(pipe, prompts, seeds, args.frames, args.batch, device)
    results, rows = [], []
    for video, scene, prompt, seed in zip(videos, scenes, prompts, seeds):
        results.append({"prompt": prompt, "seed": seed} | judge(video, scene))
        if len(rows) < 16:
            rows.append(torch.cat(list(video[torch.linspace(0, args.frames - 1, 6).round().long()]), dim=1))
        if not results[-1]["pass"]:
            print("FAIL", json.dumps(results[-1]))
    print(f"{args.frames} frames:", json.dumps(summary(results)), flush=True)
    if args.out:
        with open(args.out, "w") as f:
            json.dump({"frames": args.frames, "summary": summary(results), "clips": results}, f, indent=1)
    if args.sheet:
        from PIL import Image

        half = len(rows) // 2  # two columns
        sheet = torch.cat([torch.cat(rows[:half]), torch.cat(rows[half : 2 * half])], dim=1)
        Image.fromarray((sheet.clamp(0, 1) * 255).round().byte().numpy()).save(args.sheet)


if __name__ == "__main__":
    main()
