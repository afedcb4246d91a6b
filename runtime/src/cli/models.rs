//! `gguf-video models`: which models there are, and what each is made with unless one says otherwise.

use super::{Failure, print};
use catalog::{Images, VARIANTS, Variant};
use serde_json::json;

const EXAMPLES: &str = "\
Examples:
  gguf-video models
  gguf-video models --json";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Those that `run` knows: VACE is converted, but not run.
fn known() -> impl Iterator<Item = &'static Variant> {
    VARIANTS.iter().filter(|variant| variant.images != Images::Control)
}

fn from(variant: &Variant) -> &'static str {
    match variant.images {
        Images::None => "a prompt",
        Images::MaybeFirst => "a prompt, an image",
        Images::First => "an image",
        Images::FirstAndLast => "two images",
        Images::Control => "a video",
    }
}

fn guidance(variant: &Variant) -> String {
    match variant.boundary_ratio {
        Some(_) => format!("{}, {}", variant.guidance_scale, variant.guidance_scale_2),
        None => variant.guidance_scale.to_string(),
    }
}

/// A Markdown table, as the README has it.
fn table() -> String {
    let mut lines = vec![
        "| model | from | size, frames, fps | steps | guidance | flow shift (Hub's) |".to_owned(),
        "| --- | --- | --- | --- | --- | --- |".to_owned(),
    ];
    lines.extend(known().map(|variant| {
        let Variant { title, size: (w, h), frames, fps, steps, flow_shift, .. } = variant;
        let (from, guidance, hub) = (from(variant), guidance(variant), variant.hub_flow_shift);
        format!(
            "| {title} | {from} | {w}x{h}, {frames}, {fps} | {steps} | {guidance} | {flow_shift} ({hub}) |"
        )
    }));
    lines.join("\n")
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if !args.json {
        return print(&table());
    }
    let models = known().map(|variant| {
        json!({
            "name": variant.name,
            "title": variant.title,
            "repository": variant.repository,
            "from": from(variant),
            "image_encoder": variant.image_encoder,
            "boundary_ratio": variant.boundary_ratio,
            "size": [variant.size.0, variant.size.1],
            "frames": variant.frames,
            "fps": variant.fps,
            "steps": variant.steps,
            "guidance_scale": variant.guidance_scale,
            "guidance_scale_2": variant.guidance_scale_2,
            "flow_shift": variant.flow_shift,
            "hub_flow_shift": variant.hub_flow_shift,
        })
    });
    print(&format!("{:#}", models.collect::<serde_json::Value>()))
}
