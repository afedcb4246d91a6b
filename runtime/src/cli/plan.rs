//! `gguf-video plan`: what a run would take, without doing any of it.

use super::args::{Asked, DeviceArgs, ModelArgs, VideoArgs, open};
use super::make::check_fit;
use super::{Failure, print};
use crate::pipeline::{Basis, Calibration, Home, MACS, Mac, Part, Plan, free_space};
use serde_json::json;

const EXAMPLES: &str = "\
Examples:
  gguf-video plan --model models/demo
  gguf-video plan --model models/demo --size 64x64 --frames 5 --json
  gguf-video plan --macs

Exit codes: 0 it fits; 2 it doesn't, or the request can't be fulfilled";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print what fits which Mac, and nothing else
    #[arg(long, exclusive = true)]
    macs: bool,
    #[command(flatten)]
    model: Option<ModelArgs>,
    #[command(flatten)]
    video: VideoArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if args.macs {
        let rows: Vec<String> = MACS.iter().map(Mac::to_string).collect();
        return print(&format!(
            "| memory | model | `--quant` | size, frames | of what macOS gives a GPU |\n| --- | --- | --- | --- | --- |\n{}",
            rows.join("\n")
        ));
    }
    let model = args.model.as_ref().expect("clap asks for it");
    let Asked { folder, request, .. } = open(model, &args.video, None)?;
    let machine = args.device.machine().map_err(Failure::request)?;
    let home = Home::find();
    let mut calibration = Calibration::load(&home);
    let plan = Plan::new(&machine, &folder, &request, Some(&mut calibration));
    let plan = plan.map_err(Failure::request)?;
    if args.json {
        let part = |part: &Part| {
            let capacity = part.device.capacity();
            json!({
                "name": part.name,
                "device": part.device.name(),
                "device_bytes": { "free": capacity.free, "total": capacity.total },
                "weights_bytes": part.usage.weights,
                "working_bytes": part.usage.working(),
                "seconds": part.seconds,
                "basis": match part.basis {
                    Basis::Runs => "runs",
                    Basis::Measured => "measurement",
                    Basis::Guessed => "guess",
                },
            })
        };
        let shown = json!({
            "parts": plan.parts().map(part).collect::<Vec<_>>(),
            "keep_both_experts": plan.keep_both,
            "most_bytes": plan.most(),
            "seconds": plan.seconds(),
            "disk_bytes": { "needed": plan.kept, "free": free_space(&home.runs()) },
            "fits": plan.too_large().is_none(),
        });
        print(&format!("{shown:#}"))?;
    } else if plan.too_large().is_none() {
        print(&plan.to_string())?;
    }
    check_fit(&plan, &machine, &folder, &request).map_err(Failure::request)
}
