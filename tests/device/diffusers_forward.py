"""Times of diffusers on this machine's GPU, at the sizes of the benchmarks: a forward pass of a Wan 2.2 A14B
expert in bf16 with random weights, and a decoding of the VAE.

    python3 diffusers_forward.py 832x480x81 1280x720x81

Prints CSV lines: part, clip, type, seconds, peak GB.
"""

import sys
import time

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel

PASSES = 2


def timed(work, passes=PASSES):
    """Mean seconds of `work`, after one run that isn't counted, and the most GB that were allocated."""
    work()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    begin = time.time()
    for _ in range(passes):
        work()
    torch.cuda.synchronize()
    return (time.time() - begin) / passes, torch.cuda.max_memory_allocated() / 1e9


def transformer():
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=40,
            attention_head_dim=128,
            in_channels=16,
            out_channels=16,
            text_dim=4096,
            freq_dim=256,
            ffn_dim=13824,
            num_layers=40,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
        )
    torch.set_default_dtype(torch.float32)
    return model.eval()


def latents(clip, dtype):
    width, height, frames = (int(side) for side in clip.split("x"))
    shape = (1, 16, (frames - 1) // 4 + 1, height // 8, width // 8)
    return torch.randn(shape, device="cuda", dtype=dtype)


def main(clips):
    print(f"# {torch.cuda.get_device_name()}, PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}")
    print("part,clip,type,seconds,memory_gb", flush=True)
    with torch.no_grad():
        model = transformer()
        text = torch.randn(1, 512, 4096, device="cuda", dtype=torch.bfloat16)
        step = torch.tensor([900], device="cuda")
        for backend in ("native", "_native_cudnn"):
            model.set_attention_backend(backend)
            for clip in clips:
                x = latents(clip, torch.bfloat16)
                seconds, peak = timed(lambda: model(x, step, text, return_dict=False))
                name = "cuDNN" if "cudnn" in backend else "default"
                print(f"forward with {name} attention,{clip},bf16,{seconds:.3f},{peak:.2f}", flush=True)
        del model, text
        torch.cuda.empty_cache()
        for dtype in (torch.bfloat16, torch.float32):
            vae = AutoencoderKLWan().to("cuda", dtype).eval()
            for clip in clips[:1]:
                z = latents(clip, dtype)
                seconds, peak = timed(lambda: vae.decode(z, return_dict=False), 1)
                name = str(dtype).removeprefix("torch.")
                print(f"decode,{clip},{name},{seconds:.3f},{peak:.2f}", flush=True)


main(sys.argv[1:])
