//! `gguf-video devices`: what `--device` can name.

use super::{Failure, print, warn};
use crate::ggml::{Device, Limits, refused_backends};
use serde_json::json;

const EXAMPLES: &str = "\
Examples:
  gguf-video devices
  gguf-video devices --json";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let devices = Device::all();
    if args.json {
        let of = |device: &Device| {
            let (capacity, limits) = (device.capacity(), Limits::of(*device, threads));
            json!({
                "name": device.name(),
                "description": device.description(),
                "backend": format!("{:?}", device.family()).to_lowercase(),
                "memory_bytes": { "free": capacity.free, "total": capacity.total },
                "maps_files": device.maps_files(),
                "guessed_rates": {
                    "matmul_flops": limits.rates.matmul,
                    "attention_flops": limits.rates.attention,
                    "bytes": limits.rates.bandwidth,
                },
                "limits": {
                    "dispatch_seconds": limits.dispatch,
                    "submission_seconds": limits.submission,
                },
            })
        };
        let devices: Vec<_> = devices.iter().map(of).collect();
        let shown = json!({ "devices": devices, "refused_backends": refused_backends() });
        return print(&format!("{shown:#}"));
    }
    for why in refused_backends() {
        warn(&format!("not usable: {why}"));
    }
    for device in devices {
        let memory = device.capacity().total as f64 / 1e9;
        print(&format!("{:<10}{memory:>7.1} GB  {}", device.name(), device.description()))?;
    }
    Ok(())
}
