"""Train the demo checkpoint: a tiny Wan 2.2 A14B-shaped pipeline on procedural scenes.

The result has every part of the real thing (two experts, UMT5 encoder, causal video VAE,
UniPC flow scheduler, tokenizer) in the diffusers folder layout, at a size that a
repository can carry. Needs torch, diffusers, transformers and a CUDA GPU:

    python train.py --tokenizer tokenizer/ --out demo-checkpoint/ --minutes 25

`--init FOLDER` goes on from an earlier checkpoint; with `--keep-vae` its VAE stays as it is
and all the time goes to the text encoder and the two experts; with `--decoder-only` all the time
goes to the VAE's decoder, so the latent space, and with it the experts, stay as they are.
"""

import argparse
import copy
import math
import os
import random
import shutil
import time

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from tokenizers import Tokenizer
from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

from scenes import random_scene, render

BOUNDARY, SHIFT, TEXT_LEN, TEXT_DIM = 0.875, 3.0, 512, 256
# (height, width, frames): share of the training set
BUCKETS = {(128, 128, 33): 0.45, (128, 128, 17): 0.2, (96, 160, 33): 0.2, (128, 128, 5): 0.15}


def say(*words):
    print(f"[{time.time() - START:7.1f}s]", *words, flush=True)


# ---------------------------------------------------------------- VAE


def new_vae():
    return AutoencoderKLWan(
        base_dim=16, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, temperal_downsample=[False, True, True]
    )


def clip_pool(count, frames, device, batch=250):
    """Rendered clips to crop from: (count, 3, frames, 128, 128) in bytes."""
    rng, clips = random.Random(1), []
    for _ in range(0, count, batch):
        video = render([random_scene(rng) for _ in range(batch)], frames, 128, 128, rng, device)
        clips.append(((video + 1) * 127.5).round().byte())
    return torch.cat(clips)


class VaeStep:
    """One optimiser step on a fixed clip shape, replayed as a CUDA graph where there is one."""

    def __init__(self, vae, ema, opt, shape, device):
        self.vae, self.ema, self.opt, self.device = vae, ema, opt, device
        self.video = torch.zeros(shape, device=device)
        self.graph = None
        if device != "cuda":
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.run()
        torch.cuda.current_stream().wait_stream(side)
        opt.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.run()
        self.graph = graph

    def run(self):
        self.opt.zero_grad(set_to_none=True)
        video = self.video
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda", cache_enabled=False):
            posterior = self.vae.encode(video).latent_dist
            recon = self.vae.decode(posterior.sample()).sample
        recon, mean, logvar = recon.float(), posterior.mean.float(), posterior.logvar.float()
        # No shape reaches the first column, so what differs from it is the shape. A small one fills 3 %
        # of the frame: without more weight its hue is all but free.
        shape = ((video - video[..., :1]).abs().amax(1, keepdim=True) > 0.1).float()
        error, weight = recon - video, 1 + 8 * shape
        loss = (weight * (error.abs() + 0.5 * error**2)).mean()
        for dim in (3, 4):  # edges
            loss = loss + 0.5 * F.l1_loss(recon.diff(dim=dim), video.diff(dim=dim))
        self.colour = ((shape * error).sum((3, 4)) / (shape.sum((3, 4)) + 16)).abs().mean()
        self.kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
        (loss + 0.5 * self.colour + 2e-5 * self.kl).backward()
        torch.nn.utils.clip_grad_norm_(self.vae.parameters(), 1.0)
        self.opt.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.vae.parameters()), 0.002)
        self.mse = F.mse_loss(recon.detach().clamp(-1, 1), video)

    def __call__(self, video):
        self.video.copy_(video)
        self.graph.replay() if self.graph else self.run()


def train_vae(seconds, batch, device, init, decoder_only):
    begin = time.time()
    vae = AutoencoderKLWan.from_pretrained(init, subfolder="vae", dtype=torch.float32) if init else new_vae()
    vae = vae.to(device).train()
    if decoder_only:
        vae.encoder.requires_grad_(False), vae.quant_conv.requires_grad_(False)
    say(f"vae: {sum(p.numel() for p in vae.parameters()) / 1e6:.2f} M parameters")
    cuda, peak = device == "cuda", 5e-4 if init else 6e-4
    rate = torch.tensor(1e-4, device=device) if cuda else 1e-4
    params = [p for p in vae.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(params, lr=rate, betas=(0.9, 0.99), weight_decay=0.0, fused=cuda, capturable=cuda)
    ema = copy.deepcopy(vae).eval()
    pool = clip_pool(4000 if cuda else 4, 33, device, 200 if cuda else 4)
    say(f"clip pool {tuple(pool.shape)}")
    # Long clips matter: the causal cache drifts past the longest clip that the VAE was trained on.
    shapes = {17: max(1, batch // 4), 33: max(1, batch // 8)}
    steps = {t: VaeStep(vae, ema, opt, (b, 3, t, 128, 128), device) for t, b in shapes.items()}
    say("captured")
    rng, n = random.Random(4), 0
    while (spent := time.time() - begin) < seconds:
        value = peak * min(1, (n + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * spent / seconds)) + 5e-6
        rate.fill_(value) if cuda else opt.param_groups[0].update(lr=value)
        t = rng.choices((17, 33), (0.4, 0.6))[0]
        step = steps[t]
        pick, t0 = torch.randint(len(pool), (len(step.video),), device=device), rng.randint(0, 33 - t)
        step(pool[pick, :, t0 : t0 + t].float() / 127.5 - 1)
        if n % 200 == 0:
            psnr = -10 * math.log10(step.mse.item() / 4)
            say(f"vae step {n} ({t} frames) kl {step.kl.item():.3f} colour {step.colour.item():.4f} psnr {psnr:.1f} dB")
        n += 1
    say(f"vae: {n} steps")
    return ema


# ---------------------------------------------------------------- latents


@torch.no_grad()
def encode_scenes(vae, tokenizer, seconds, device, batch, keep_statistics):
    """A training set per bucket: latents (N, 16, t, h, w) in bf16 and token ids per caption."""
    data, rng, begin = {}, random.Random(2), time.time()
    for bucket, share in BUCKETS.items():
        h, w, frames = bucket
        latents, captions, until = [], [], time.time() + seconds * share
        while time.time() < until or not latents:
            scenes = [random_scene(rng) for _ in range(batch)]
            video = render(scenes, frames, h, w, rng, device)
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                mean = vae.encode(video).latent_dist.mode()
            latents.append(mean.to(torch.bfloat16))
            captions += [s.caption(rng) for s in scenes]
        ids = [tokenizer.encode(c).ids for c in captions]
        longest = max(map(len, ids))
        tokens = torch.tensor([i + [0] * (longest - len(i)) for i in ids], device=device)
        data[bucket] = (torch.cat(latents), tokens)
        say(f"encoded {len(captions)} clips of {bucket}")
    if not keep_statistics:
        reference = data[(128, 128, 33)][0].float()
        mean, std = reference.mean((0, 2, 3, 4)), reference.std((0, 2, 3, 4))
        mean, std = ([round(v, 4) for v in values.tolist()] for values in (mean, std))
        vae.register_to_config(latents_mean=mean, latents_std=std)
    mean = torch.tensor(vae.config.latents_mean, device=device).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std, device=device).view(1, -1, 1, 1, 1)
    say(f"latent std {std.min().item():.3f}..{std.max().item():.3f}")
    return {k: (((x.float() - mean) / std).to(torch.bfloat16), t) for k, (x, t) in data.items()}


# ---------------------------------------------------------------- transformer and text encoder


def new_transformer():
    return WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=128, in_channels=16, out_channels=16,
        text_dim=TEXT_DIM, freq_dim=256, ffn_dim=768, num_layers=6, cross_attn_norm=True,
        qk_norm="rms_norm_across_heads", eps=1e-6, rope_max_seq_len=1024,
    )


def new_text_encoder(vocab):
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=vocab, d_model=TEXT_DIM, d_kv=64, d_ff=512, num_layers=3, num_decoder_layers=3, num_heads=4,
            feed_forward_proj="gated-gelu", relative_attention_num_buckets=32, relative_attention_max_distance=128,
            dropout_rate=0.0, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
        )
    )


def embed(text_encoder, tokens):
    """UMT5 states with padding zeroed, to TEXT_LEN rows, as WanPipeline feeds them."""
    mask = tokens.ne(0)
    states = text_encoder(tokens, mask.long()).last_hidden_state * mask[..., None]
    return F.pad(states, (0, 0, 0, TEXT_LEN - states.shape[1]))


def sample_sigma(n, expert, device):
    middle, even = torch.sigmoid(torch.randn(n, device=device)), torch.rand(n, device=device)
    u = torch.where(torch.rand(n, device=device) < 0.5, middle, even)
    sigma = SHIFT * u / (1 + (SHIFT - 1) * u)
    if expert == "high":
        sigma = 0.82 + 0.18 * torch.rand(n, device=device)
    return sigma.clamp(0.004, 1.0)


def train_expert(name, model, text_encoder, data, seconds, batch, device, tune_text):
    params = list(model.parameters()) + (list(text_encoder.parameters()) if tune_text else [])
    opt = torch.optim.AdamW(params, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)
    model.train(), text_encoder.train(tune_text)
    if device == "cuda":
        torch._dynamo.config.suppress_errors = True
        for block in model.blocks:
            block.compile(dynamic=False)
    ema = [p.detach().clone() for p in params]
    rng, begin, step, window = random.Random(3), time.time(), 0, []
    buckets, weights = list(BUCKETS), list(BUCKETS.values())
    eos = torch.tensor([[1]], device=device)
    while (spent := time.time() - begin) < seconds:
        progress = spent / seconds
        peak = 1.5e-3 if tune_text else 7e-4
        for group in opt.param_groups:
            group["lr"] = peak * min(1, step / 300) * (0.5 + 0.5 * math.cos(math.pi * progress)) + 1e-6
        latents, tokens = data[rng.choices(buckets, weights)[0]]
        pick = torch.randint(len(latents), (batch,), device=device)
        x0, ids = latents[pick].float(), tokens[pick]
        drop = torch.rand(batch, device=device) < 0.1
        ids = torch.where(drop[:, None], F.pad(eos, (0, ids.shape[1] - 1)), ids)
        sigma = sample_sigma(batch, name, device)
        noise = torch.randn_like(x0)
        s = sigma.view(-1, 1, 1, 1, 1)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            with torch.set_grad_enabled(tune_text):
                context = embed(text_encoder, ids)
            out = model((1 - s) * x0 + s * noise, sigma * 1000, context, return_dict=False)[0]
        loss = F.mse_loss(out.float(), noise - x0)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        opt.step(), opt.zero_grad(set_to_none=True)
        decay = min(0.9995, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(ema, [p.detach() for p in params], 1 - decay)
        window.append(loss.detach())
        if step % 500 == 0:
            say(f"{name} step {step} loss {torch.stack(window).mean().item():.4f}")
            window = []
        step += 1
    with torch.no_grad():
        for p, e in zip(params, ema):
            p.copy_(e)
    say(f"{name}: {step} steps")
    model.eval(), text_encoder.eval()


# ---------------------------------------------------------------- export


def half(model, keep=()):
    """Weights in bf16, but for the parts that diffusers keeps in float32."""
    for name, p in model.named_parameters():
        if not any(part in name for part in keep):
            p.data = p.data.to(torch.bfloat16)
    return model


def fresh(model, device):
    """The same weights in a module that was never compiled."""
    copy_ = new_transformer().to(device)
    copy_.load_state_dict(model.state_dict())
    return copy_


def export(out, vae, text_encoder, tokenizer_dir, high, low):
    keep = WanTransformer3DModel._keep_in_fp32_modules
    pipe = WanPipeline(
        tokenizer=AutoTokenizer.from_pretrained(tokenizer_dir),
        text_encoder=half(text_encoder), vae=half(vae),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=SHIFT
        ),
        transformer=half(high, keep), transformer_2=half(low, keep), boundary_ratio=BOUNDARY,
    )
    pipe.save_pretrained(out, max_shard_size="4MB")
    size = sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(out) for f in fs)
    say(f"exported {size / 1e6:.1f} MB")
    return pipe


def export_decoder(out, init, vae):
    """The checkpoint at `init` with another VAE."""
    shutil.copytree(init, out)
    shutil.rmtree(os.path.join(out, "vae"))
    half(vae).save_pretrained(os.path.join(out, "vae"), max_shard_size="4MB")


def contact_sheet(pipe, path, device, frames=33):
    """One row per prompt: six frames of each clip."""
    from PIL import Image

    pipe.to(device)
    prompts = [
        "a big red ball moving right on a black background",
        "a small green square moving left on a gray background",
        "a big yellow triangle moving up on a navy background",
        "a small cyan ring growing on a brown background",
        "a big purple ball bouncing on a gray background",
        "a big white square standing still on a navy background",
        "a small orange triangle moving down on a black background",
        "a big blue ring shrinking on a brown background",
    ]
    rows = []
    for i, prompt in enumerate(prompts):
        video = pipe(
            prompt, negative_prompt="", height=128, width=128, num_frames=frames, num_inference_steps=20,
            guidance_scale=4.0, output_type="pt", generator=torch.Generator("cpu").manual_seed(i),
        ).frames[0].float().cpu()
        keep = video[torch.linspace(0, frames - 1, 6).long()]
        rows.append(torch.cat(list(keep), dim=2))
    sheet = (torch.cat(rows, dim=1).permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
    Image.fromarray(sheet).save(path)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--tokenizer", required=True)
    args.add_argument("--out", required=True)
    args.add_argument("--minutes", type=float, default=25)
    args.add_argument("--init", help="an earlier checkpoint to go on from")
    args.add_argument("--keep-vae", action="store_true", help="with --init: leave its VAE as it is")
    args.add_argument("--decoder-only", action="store_true", help="with --init: train only its VAE's decoder")
    args.add_argument("--batch", type=int, default=256)
    args.add_argument("--vae-batch", type=int, default=32)
    args = args.parse_args()
    if (args.keep_vae or args.decoder_only) and not args.init:
        raise SystemExit("--keep-vae and --decoder-only need the checkpoint to go on from: --init FOLDER")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    os.makedirs(args.out, exist_ok=True)
    budget = args.minutes * 60

    folder = os.path.join(args.out, "checkpoint")
    if args.decoder_only:
        export_decoder(folder, args.init, train_vae(budget, args.vae_batch, device, args.init, True))
        return say("done")
    tokenizer = Tokenizer.from_file(os.path.join(args.tokenizer, "tokenizer.json"))
    if args.keep_vae:
        vae = AutoencoderKLWan.from_pretrained(args.init, subfolder="vae", dtype=torch.float32).to(device).eval()
        shares = {"encode": 0.06, "low": 0.66, "high": 0.28}
    else:
        shares = {"vae": 0.45, "encode": 0.05, "low": 0.36, "high": 0.14}
        vae = train_vae(shares["vae"] * budget, args.vae_batch, device, args.init, False)
        torch.save(vae.state_dict(), os.path.join(args.out, "vae.pt"))
    data = encode_scenes(vae, tokenizer, shares["encode"] * budget, device, 2 * args.vae_batch, args.keep_vae)

    text_encoder, low = new_text_encoder(tokenizer.get_vocab_size()).to(device), new_transformer().to(device)
    if args.init:
        before = WanTransformer3DModel.from_pretrained(args.init, subfolder="transformer_2", dtype=torch.float32)
        low.load_state_dict(before.state_dict())
        before = UMT5EncoderModel.from_pretrained(args.init, subfolder="text_encoder", dtype=torch.float32)
        text_encoder.load_state_dict(before.state_dict())
    train_expert("low", low, text_encoder, data, shares["low"] * budget, args.batch, device, tune_text=True)
    high = fresh(low, device)
    train_expert("high", high, text_encoder, data, shares["high"] * budget, args.batch, device, tune_text=False)

    export(folder, vae, text_encoder, args.tokenizer, fresh(high, device), fresh(low, device))
    pipe = WanPipeline.from_pretrained(folder, dtype=torch.float32)
    contact_sheet(pipe, os.path.join(args.out, "samples.png"), device)
    say("done")


START = time.time()
if __name__ == "__main__":
    main()
