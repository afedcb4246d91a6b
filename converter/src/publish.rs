//! What a published model has beside its files: a model card, and hashes.

mod hunyuan_video15;

use anyhow::{Context, Result};
use catalog::{Images, Variant};
use gguf::File;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use crate::arch::Part;
use crate::report::{Report, percent};
use crate::{Job, Layout, digest};

/// The model card's name.
pub(crate) const CARD: &str = "README.md";
/// The name of the list of hashes, in the format of `sha256sum`.
pub(crate) const HASHES: &str = "SHA256SUMS";

/// What the commands of the card ask for.
const PROMPT: &str = "a red fox runs over fresh snow";

/// Writes the model card and the hashes of all files to the output folder.
pub(crate) fn publish(job: &Job, report: &Report) -> Result<()> {
    let mut paths: Vec<&Path> = report.files.iter().map(|file| file.path.as_path()).collect();
    paths.extend(report.continued.iter().map(|(_, path)| path.as_path()));
    paths.sort();
    let mut hashes = String::new();
    for path in paths {
        writeln!(hashes, "{}  {}", digest::sha256(path)?, relative(job, path))?;
    }
    whole(&job.output.join(HASHES), &hashes)?;
    whole(&job.output.join(CARD), &card(job, report)?)
}

/// Writes a file that appears under its name only when it is whole.
pub(crate) fn whole(path: &Path, text: &str) -> Result<()> {
    let context = || format!("cannot write {}", path.display());
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let part = folder
        .join(format!("{}.part", path.file_name().unwrap_or(path.as_os_str()).to_string_lossy()));
    let written = fs::File::create(&part).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, path)
    });
    if written.is_err() {
        // There is nobody to tell: what led here is the error that counts.
        let _ = fs::remove_file(&part);
    }
    written.with_context(context)
}

fn relative(job: &Job, path: &Path) -> String {
    path.strip_prefix(&job.output).unwrap_or(path).to_string_lossy().into_owned()
}

/// The files of a part, the smallest first.
fn of_part(report: &Report, part: Part) -> Vec<&Path> {
    let new = report.files.iter().map(|file| (file.part, &file.path));
    let all = new.chain(report.continued.iter().map(|(part, path)| (*part, path)));
    let mut paths: Vec<&Path> =
        all.filter(|(of, _)| *of == part).map(|(_, path)| path.as_path()).collect();
    paths.sort_by_key(|path| fs::metadata(path).map_or(0, |file| file.len()));
    paths
}

/// A file of a part, to show what commands look like: the middle of what there is.
fn example(job: &Job, report: &Report, part: Part) -> Option<String> {
    let paths = of_part(report, part);
    paths.get(paths.len() / 2).map(|path| relative(job, path))
}

/// The file of a part that isn't GGUF.
fn safetensors(job: &Job, report: &Report, part: Part) -> Option<String> {
    let paths = of_part(report, part);
    let mut plain =
        paths.iter().filter(|path| path.extension().is_some_and(|e| e == "safetensors"));
    plain.next().map(|path| relative(job, path))
}

fn card(job: &Job, report: &Report) -> Result<String> {
    let parts = [Part::Single, Part::HighNoise, Part::LowNoise];
    let metadata = match parts.iter().find_map(|&part| of_part(report, part).first().copied()) {
        Some(path) => File::open(path)?.metadata().clone(),
        None => gguf::Metadata::new(),
    };
    let variant = metadata.string("wan.variant").ok().and_then(Variant::named);
    let source = metadata.string("general.source.name").unwrap_or(&job.name);

    let hunyuan = hunyuan_video15::is(&metadata);
    let (base, task, tag) = match variant {
        _ if hunyuan => {
            let task = hunyuan_video15::task(&metadata);
            (Some(hunyuan_video15::BASE), task, "hunyuanvideo")
        }
        Some(variant) => (variant.repository, variant.task(), "wan"),
        None => (None, "text-to-video", "wan"),
    };

    let mut card = String::from("---\n");
    for (key, value) in [
        ("license", &job.license),
        ("license_name", &job.license_name),
        ("license_link", &job.license_link),
    ] {
        if let Some(value) = value {
            writeln!(card, "{key}: {}", yaml(value))?;
        }
    }
    if let Some(base) = base {
        writeln!(card, "base_model: {base}\nbase_model_relation: quantized")?;
    }
    writeln!(card, "pipeline_tag: {task}\nlibrary_name: gguf\ntags:\n- gguf\n- {tag}\n---\n")?;
    writeln!(card, "# {} GGUF\n", job.name)?;
    let version = env!("CARGO_PKG_VERSION");
    writeln!(card, "Quantized from {source} with to-gguf {version}.\n")?;
    if report.files.iter().any(|file| file.requantized) {
        writeln!(
            card,
            "The source was quantized before; its losses are in these files, too, and the errors \
             below are measured from it.\n"
        )?;
    }
    files(&mut card, job, report)?;
    merged(&mut card, &metadata)?;
    if hunyuan {
        hunyuan_video15::use_it(&mut card, job, report, &metadata)?;
    } else {
        use_it(&mut card, job, report, variant)?;
    }
    Ok(card)
}

/// A text as a YAML value.
fn yaml(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if text.chars().all(plain) { text.to_owned() } else { format!("{text:?}") }
}

fn files(card: &mut String, job: &Job, report: &Report) -> Result<()> {
    writeln!(card, "| file | size | bits per weight | error | largest error of a tensor |")?;
    writeln!(card, "| --- | ---: | ---: | ---: | --- |")?;
    for file in &report.files {
        let worst = file
            .tensors
            .iter()
            .max_by(|a, b| a.error.relative_rmse.total_cmp(&b.error.relative_rmse));
        let worst = match worst {
            Some(tensor) if tensor.error.relative_rmse > 0.0 => {
                format!("{} (`{}`)", percent(tensor.error.relative_rmse), tensor.name)
            }
            _ => "-".into(),
        };
        let (size, bits) = (file.file_bytes as f64 / 1e9, file.bits_per_weight());
        let (path, error) = (relative(job, &file.path), percent(file.relative_rmse));
        writeln!(card, "| `{path}` | {size:.2} GB | {bits:.2} | {error} | {worst} |")?;
    }
    for (_, path) in &report.continued {
        let size = fs::metadata(path).map_or(0, |file| file.len()) as f64 / 1e9;
        writeln!(card, "| `{}` | {size:.2} GB | | | |", relative(job, path))?;
    }
    writeln!(
        card,
        "\nThe error is the root of the mean squared error of the weights, relative to that of the \
         weights. `sha256sum -c {HASHES}` checks a download.\n"
    )?;
    Ok(())
}

fn merged(card: &mut String, metadata: &gguf::Metadata) -> Result<()> {
    for n in 0.. {
        let key = |part: &str| format!("wan.lora.{n}.{part}");
        let Ok(name) = metadata.string(&key("name")) else { break };
        let strength = metadata.f32(&key("strength")).unwrap_or(1.0);
        writeln!(card, "Merged before quantizing: `{name}` with a strength of {strength}.\n")?;
    }
    if let Ok(file) = metadata.string("quantize.imatrix.file") {
        writeln!(card, "Errors were weighted by the importance matrix `{file}`.\n")?;
    }
    Ok(())
}

fn use_it(card: &mut String, job: &Job, report: &Report, variant: Option<&Variant>) -> Result<()> {
    let path = |part| example(job, report, part);
    let high = path(Part::HighNoise);
    let Some(main) = path(Part::Single).or_else(|| path(Part::LowNoise)).or_else(|| high.clone())
    else {
        return Ok(());
    };
    let encoder = path(Part::TextEncoder).unwrap_or_else(|| "umt5-xxl-encoder-Q8_0.gguf".into());
    let plain = |part| safetensors(job, report, part);
    let images = variant.map_or(Images::None, |variant| variant.images);
    let vae = plain(Part::Vae).unwrap_or_else(|| {
        let version = if images == Images::MaybeFirst { "2.2" } else { "2.1" };
        format!("Wan{version}_VAE.safetensors")
    });
    let clip = variant
        .is_some_and(|variant| variant.image_encoder)
        .then(|| plain(Part::ImageEncoder).unwrap_or_else(|| "clip_vision_h.safetensors".into()));

    writeln!(card, "## Use\n\ngguf-video:\n\n```sh")?;
    write!(card, "gguf-video run --model .")?;
    for (part, option) in [
        (Part::Single, "--transformer"),
        (Part::HighNoise, "--high-noise"),
        (Part::LowNoise, "--low-noise"),
        (Part::TextEncoder, "--text-encoder"),
    ] {
        // Of one file it is clear which is meant.
        let several = of_part(report, part).len() > 1;
        if let (true, Some(path)) = (several, path(part)) {
            write!(card, " \\\n  {option} {path}")?;
        }
    }
    match images {
        Images::None | Images::Control => {}
        Images::MaybeFirst | Images::First => write!(card, " \\\n  --image first.png")?,
        Images::FirstAndLast => {
            write!(card, " \\\n  --image first.png --last-image last.png")?;
        }
    }
    writeln!(card, " \\\n  --prompt {PROMPT:?} -o video.mp4\n```\n")?;
    if images == Images::MaybeFirst {
        writeln!(card, "Without `--image` the model makes a video of the text alone.\n")?;
    }

    writeln!(card, "ComfyUI with ComfyUI-GGUF:\n")?;
    writeln!(card, "| file | folder below `ComfyUI/models` | node |\n| --- | --- | --- |")?;
    for path in high.iter().chain([&main]) {
        writeln!(card, "| `{path}` | `unet` | Unet Loader (GGUF) |")?;
    }
    writeln!(card, "| `{encoder}` | `text_encoders` | CLIPLoader (GGUF), type `wan` |")?;
    if let Some(clip) = &clip {
        writeln!(card, "| `{clip}` | `clip_vision` | Load CLIP Vision |")?;
    }
    writeln!(card, "| `{vae}` | `vae` | Load VAE |\n")?;

    writeln!(card, "stable-diffusion.cpp:\n\n```sh\nsd -M vid_gen --diffusion-model {main} \\")?;
    if let Some(high) = &high {
        writeln!(card, "  --high-noise-diffusion-model {high} \\")?;
    }
    if clip.is_some() {
        // It wants the projection, too, which checkpoints in diffusers layout don't have.
        writeln!(card, "  --clip_vision clip_vision_h.safetensors \\")?;
    }
    match images {
        Images::None | Images::Control => {}
        Images::MaybeFirst | Images::First => writeln!(card, "  -i first.png \\")?,
        Images::FirstAndLast => writeln!(card, "  -i first.png --end-img last.png \\")?,
    }
    writeln!(card, "  --t5xxl {encoder} --vae {vae} -p {PROMPT:?} -o video.avi\n```\n")?;

    let refused = match (images, job.layout) {
        (Images::FirstAndLast, _) => Some("has no name for this model's `img_emb.emb_pos`"),
        (_, Layout::Fold4d) => Some("takes the layout `5d` alone"),
        _ => None,
    };
    if let Some(why) = refused {
        return Ok(writeln!(card, "diffusers can't load these files: it {why}.")?);
    }
    let repository = variant.and_then(|variant| variant.repository);
    let config = repository.unwrap_or("the repository of the model in diffusers layout");
    let class = match images {
        Images::Control => "WanVACETransformer3DModel",
        _ => "WanTransformer3DModel",
    };
    writeln!(card, "diffusers:\n\n```python\nimport torch")?;
    writeln!(card, "from diffusers import GGUFQuantizationConfig, {class}\n")?;
    let experts = match &high {
        Some(high) => vec![("transformer", high), ("transformer_2", &main)],
        None => vec![("transformer", &main)],
    };
    for (subfolder, path) in experts {
        writeln!(card, "{subfolder} = {class}.from_single_file(\n    {path:?},")?;
        writeln!(
            card,
            "    quantization_config=GGUFQuantizationConfig(compute_dtype=torch.bfloat16),"
        )?;
        writeln!(
            card,
            "    config={config:?}, subfolder={subfolder:?}, torch_dtype=torch.bfloat16,\n)"
        )?;
    }
    writeln!(card, "```")?;
    Ok(())
}
