//! How the card of a HunyuanVideo 1.5 model says to use it.

use anyhow::Result;
use gguf::Metadata;
use std::fmt::Write as _;

use super::{PROMPT, example, safetensors};
use crate::Job;
use crate::arch::{Family, Part};
use crate::report::Report;

/// Comfy-Org's `HunyuanVideo_1.5_repackaged` and `Qwen-Image_ComfyUI` have these.
const TEXT_ENCODER: &str = "qwen_2.5_vl_7b.safetensors";
const GLYPH_ENCODER: &str = "byt5_small_glyphxl_fp16.safetensors";
const IMAGE_ENCODER: &str = "sigclip_vision_patch14_384.safetensors";

/// The publisher's repository.
pub(super) const BASE: &str = "tencent/HunyuanVideo-1.5";

/// Whether a transformer's metadata is of this model.
pub(super) fn is(metadata: &Metadata) -> bool {
    metadata.string("general.architecture") == Ok(Family::HunyuanVideo15.name())
}

/// As model sites sort models.
pub(super) fn task(metadata: &Metadata) -> &'static str {
    if from_image(metadata) { "image-to-video" } else { "text-to-video" }
}

fn from_image(metadata: &Metadata) -> bool {
    metadata.string("hyvid.task") == Ok("i2v")
}

pub(super) fn use_it(
    card: &mut String,
    job: &Job,
    report: &Report,
    metadata: &Metadata,
) -> Result<()> {
    let Some(main) = example(job, report, Part::Single) else { return Ok(()) };
    let vae = safetensors(job, report, Part::Vae);
    let vae = vae.unwrap_or_else(|| "hunyuanvideo15_vae_fp16.safetensors".into());
    let image = from_image(metadata);
    writeln!(
        card,
        "## Use\n\nThe text encoders are those that Comfy-Org shares beside the model; Qwen2.5-VL-7B is \
         shared as GGUF, too.\n"
    )?;

    writeln!(card, "ComfyUI with ComfyUI-GGUF:\n")?;
    writeln!(card, "| file | folder below `ComfyUI/models` | node |\n| --- | --- | --- |")?;
    writeln!(card, "| `{main}` | `unet` | Unet Loader (GGUF) |")?;
    let encoders = "DualCLIPLoader, type `hunyuan_video_15`";
    writeln!(card, "| `{TEXT_ENCODER}`, `{GLYPH_ENCODER}` | `text_encoders` | {encoders} |")?;
    if image {
        writeln!(card, "| `{IMAGE_ENCODER}` | `clip_vision` | Load CLIP Vision |")?;
    }
    writeln!(card, "| `{vae}` | `vae` | Load VAE |\n")?;

    // Its documentation has a command for text to video alone.
    if !image {
        let guidance = metadata.f32("hyvid.guidance_scale").unwrap_or(6.0);
        let shift = metadata.f32("hyvid.flow_shift").unwrap_or(5.0);
        writeln!(
            card,
            "stable-diffusion.cpp:\n\n```sh\nsd-cli -M vid_gen --diffusion-model {main} \\"
        )?;
        writeln!(card, "  --llm {TEXT_ENCODER} --t5xxl {GLYPH_ENCODER} --vae {vae} \\")?;
        writeln!(card, "  --cfg-scale {guidance} --flow-shift {shift} --sampling-method euler \\")?;
        writeln!(card, "  --diffusion-fa --offload-to-cpu -p {PROMPT:?} -o video.avi\n```\n")?;
    }
    writeln!(
        card,
        "diffusers can't load these files: it loads no single file as \
         `HunyuanVideo15Transformer3DModel`. gguf-video doesn't run this model."
    )?;
    Ok(())
}
