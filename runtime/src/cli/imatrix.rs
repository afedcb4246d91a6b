//! `gguf-video run --collect-imatrix`: what a model's matrices are multiplied with, over many prompts.

use super::bars::Bars;
use super::{Failure, say, warn};
use crate::pipeline::{Collector, GenerateError, Machine, ModelFolder, Request, encode};
use anyhow::{Context, anyhow, ensure};
use std::fs;
use std::path::Path;

/// A prompt a line; empty lines don't count.
pub(super) fn read_prompts(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let prompts: Vec<String> = lines.map(str::to_owned).collect();
    ensure!(!prompts.is_empty(), "{}: there is no prompt in it", path.display());
    Ok(prompts)
}

/// Refuses, before hours, names of files that aren't importance matrices or whose folder isn't there.
fn check_files(path: &Path, two: bool) -> anyhow::Result<()> {
    for file in Collector::files(path, two) {
        let (file, folder) = (file.as_path(), file.parent().unwrap_or(Path::new("")));
        let named = format!("--collect-imatrix {}", file.display());
        ensure!(folder == Path::new("") || folder.is_dir(), "{named}: the folder isn't there");
        let ours = |file: gguf::File| file.metadata().string("general.type") == Ok("imatrix");
        ensure!(
            !file.exists() || file.is_file() && gguf::File::open(file).is_ok_and(ours),
            "{named}: the file is there and is no importance matrix; choose another name"
        );
    }
    Ok(())
}

/// Denoises a clip of each prompt. What was gathered is written after each: an interruption loses no
/// more than one clip.
pub(super) fn collect(
    machine: &Machine,
    folder: &ModelFolder,
    request: &Request,
    prompts: &[String],
    dataset: &str,
    path: &Path,
) -> Result<(), Failure> {
    let two = folder.transformer_2.is_some();
    check_files(path, two).map_err(Failure::request)?;
    let mut bars = Bars::new(false).map_err(Failure::run)?;
    let mut collector = Collector::default();
    for (i, prompt) in prompts.iter().enumerate() {
        say(&format!("prompt {} of {}: {prompt}", i + 1, prompts.len()));
        let seed = request.seed.wrapping_add(i as u64);
        let request = Request { prompt: prompt.clone(), seed, ..request.clone() };
        request.check_prompts().map_err(Failure::request)?;
        let mut clip = || -> Result<(), GenerateError> {
            let exec = &mut machine.executor(machine.text)?;
            let conditions = encode(exec, folder, &request, &mut bars)?;
            collector.clip(machine, folder, &request, &conditions, &mut bars)
        };
        if let Err(e) = clip() {
            let kept = format!("{i} of {} prompts are in {}", prompts.len(), path.display());
            bars.hide();
            return Err(if e.is_interruption() {
                warn(&format!("gguf-video: interrupted; {kept}"));
                Failure { error: None, code: Failure::INTERRUPTED }
            } else {
                Failure::run(anyhow!(e).context(kept))
            });
        }
        let written = collector.write(path, two, dataset);
        let written = written.map_err(Failure::run)?;
        if i + 1 == prompts.len() {
            bars.hide();
            written.iter().for_each(|path| say(&format!("wrote {}", path.display())));
        }
    }
    Ok(())
}
