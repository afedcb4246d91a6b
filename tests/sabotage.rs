//! Models that are wrong in ways that leave every number finite: what is caught, and by what.

use e2e::{converted, open_model, repository};
use gguf::{File, Metadata, TensorSpec, Writer};
use gguf_video::ggml::{Device, Precision};
use gguf_video::judge::{Judge, Verdict};
use gguf_video::pipeline::noise::Generator;
use gguf_video::pipeline::{
    Experts, Machine, ModelFolder, Prompts, Request, Silent, Vitals, decode, encode,
};
use std::path::Path;
use tempfile::TempDir;

/// What became of a run.
struct Made {
    vitals: Vec<Vitals>,
    verdict: Verdict,
}

impl Made {
    fn warned(&self) -> Vec<String> {
        self.vitals.iter().flat_map(Vitals::warnings).collect()
    }

    fn stopped(&self) -> bool {
        self.vitals.iter().any(|v| v.impossible().is_some())
    }
}

fn make(folder: &ModelFolder) -> Made {
    let request = Request {
        prompt: "a big red ball moving right on a black background".into(),
        negative_prompt: String::new(),
        width: 128,
        height: 128,
        frames: 9,
        steps: 12,
        guidance_scale: 4.0,
        guidance_scale_low: 4.0,
        flow_shift: 3.0,
        seed: 0,
        sampler: Default::default(),
    };
    let machine = Machine::on(Device::cpu(), Precision::Native, 1);
    let mut exec = machine.executor(machine.text).unwrap();
    let prompts: Prompts = encode(&mut exec, folder, &request, &mut Silent).unwrap();
    let experts = Experts::new(folder.transformer.clone(), folder.transformer_2.clone()).unwrap();
    let mut vitals = Vec::new();
    let mut exec = machine.executor(machine.transformer).unwrap();
    let latents = experts
        .denoise(&mut exec, &request, &prompts, None, &mut Silent, &mut |step, _| {
            vitals.push(Vitals::of(step));
            Ok(())
        })
        .unwrap();
    let mut judge = Judge::default();
    let mut exec = machine.executor(machine.vae).unwrap();
    decode(&mut exec, folder, latents, request.frames, &mut Silent, &mut |frame| {
        judge.push(frame);
        Ok(())
    })
    .unwrap();
    Made { vitals, verdict: judge.finish() }
}

/// The demo, with its files changed by `change`.
fn with(change: impl Fn(&Path)) -> (TempDir, ModelFolder) {
    let output = tempfile::tempdir().unwrap();
    drop(converted(&repository("demo/checkpoint"), output.path(), "Q8_0"));
    change(output.path());
    let folder = open_model(output.path());
    (output, folder)
}

fn only_file(folder: &Path) -> std::path::PathBuf {
    std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path()
}

/// Writes `path` anew with other metadata or data.
fn rewrite(
    path: &Path,
    metadata: impl Fn(&mut Metadata),
    data: impl Fn(&str, &[u8], usize) -> Vec<u8>,
) {
    let file = File::open(path).unwrap();
    let mut m = file.metadata().clone();
    metadata(&mut m);
    let specs = file.tensors().iter().map(|t| TensorSpec {
        name: t.name.clone(),
        shape: t.shape.clone(),
        dtype: t.dtype,
    });
    let next = path.with_extension("next");
    let mut writer = Writer::create(&next, &m, specs.collect()).unwrap();
    for tensor in file.tensors() {
        let row = (tensor.bytes / tensor.shape.first().copied().unwrap_or(1)) as usize;
        writer.write(&data(&tensor.name, file.data(tensor), row)).unwrap();
    }
    writer.finish().unwrap();
    drop(file);
    std::fs::rename(next, path).unwrap();
}

fn same(_: &str, data: &[u8], _: usize) -> Vec<u8> {
    data.to_vec()
}

/// Rows in another order, the same for each tensor of so many rows.
fn shuffled(_: &str, data: &[u8], row: usize) -> Vec<u8> {
    let count = data.len() / row;
    let keys = Generator::new(9).normal(count);
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|a, b| keys[*a].total_cmp(&keys[*b]));
    order.iter().flat_map(|&i| data[i * row..(i + 1) * row].iter().copied()).collect()
}

#[test]
fn a_good_model_passes_in_silence() {
    let made = make(&with(|_| {}).1);
    assert!(made.verdict.passed(), "{:#?}", made.verdict.findings);
    assert!(!made.stopped());
    assert_eq!(made.warned(), Vec::<String>::new());
}

#[test]
fn a_shuffled_vae_is_caught_by_the_judge() {
    let (_output, folder) =
        with(|output| rewrite(&only_file(&output.join("VAE")), |_| {}, shuffled));
    let made = make(&folder);
    assert!(!made.verdict.passed(), "{:#?}", made.verdict.findings);
    assert!(!made.stopped(), "the latents are good");
}

#[test]
fn shuffled_experts_are_caught() {
    let (_output, folder) = with(|output| {
        for expert in ["HighNoise", "LowNoise"] {
            rewrite(&only_file(&output.join(expert)), |_| {}, shuffled);
        }
    });
    let made = make(&folder);
    assert!(!made.verdict.passed() || made.stopped(), "{:#?}", made.verdict.findings);
}

/// These make pictures, of something else: `docs/trust.md` says so. Should one of them be caught one
/// day, that page must be told.
#[test]
fn what_makes_clean_pictures_passes() {
    let swap = |output: &Path| {
        for (folder, expert) in [("HighNoise", "low_noise"), ("LowNoise", "high_noise")] {
            let change = |m: &mut Metadata| {
                m.set("wan.expert", expert);
            };
            rewrite(&only_file(&output.join(folder)), change, same);
        }
    };
    let random_text =
        |output: &Path| rewrite(&only_file(&output.join("TextEncoder")), |_| {}, shuffled);
    for (what, made) in
        [("experts swapped", make(&with(swap).1)), ("text encoder", make(&with(random_text).1))]
    {
        assert!(made.verdict.passed() && !made.stopped(), "{what}: {:#?}", made.verdict.findings);
    }
}
