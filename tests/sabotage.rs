//! Models that are wrong in ways that leave every number finite: what is caught, and by what.

use e2e::clips::demo::{shuffled, swapped};
use e2e::{converted, repository};
use gguf_video::ggml::{Device, Precision};
use gguf_video::judge::{Judge, Verdict};
use gguf_video::pipeline::{
    Checkpoint, Conditions, Experts, Machine, ModelFolder, Request, Silent, Vitals, decode, encode,
};
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
        ..Request::default()
    };
    let machine = Machine::on(Device::cpu(), Precision::Native, 1);
    let mut exec = machine.executor(machine.text).unwrap();
    let prompts: Conditions = encode(&mut exec, folder, &request, &mut Silent).unwrap();
    let experts = Experts::new(folder.transformer.clone(), folder.transformer_2.clone()).unwrap();
    let mut vitals = Vec::new();
    let mut exec = machine.executor(machine.transformer).unwrap();
    let start = Checkpoint::start(&request, folder.latent_grid().unwrap());
    let latents = experts
        .denoise(&mut exec, &request, &prompts, start, &mut Silent, &mut |step, _| {
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

/// The demo's checkpoint in F32, with the weights of these parts in random order.
fn with_shuffled(parts: &[&str]) -> (TempDir, ModelFolder) {
    let output = tempfile::tempdir().unwrap();
    let mut checkpoint = repository("demo/checkpoint");
    for part in parts {
        let copy = output.path().join(part);
        std::fs::create_dir(&copy).unwrap();
        shuffled(&checkpoint, part, &copy);
        checkpoint = copy;
    }
    let folder = converted(&checkpoint, &output.path().join("gguf"), "F32");
    (output, folder)
}

#[test]
fn a_good_model_passes_in_silence() {
    let made = make(&with_shuffled(&[]).1);
    assert!(made.verdict.passed(), "{:#?}", made.verdict.findings);
    assert!(!made.stopped());
    assert_eq!(made.warned(), Vec::<String>::new());
}

#[test]
fn shuffled_experts_are_caught() {
    let made = make(&with_shuffled(&["transformer", "transformer_2"]).1);
    assert!(!made.verdict.passed(), "{:#?}", made.verdict.findings);
}

/// These make pictures, of something else: `docs/trust.md` says so. Should one of them be caught one
/// day, that page must be told.
#[test]
fn what_makes_smooth_pictures_passes() {
    let (_output, good) = with_shuffled(&[]);
    let text = with_shuffled(&["text_encoder"]);
    let swapped = swapped(&good);
    for (what, folder) in [("text encoder", &text.1), ("experts", &swapped)] {
        let made = make(folder);
        assert!(made.verdict.passed() && !made.stopped(), "{what}: {:#?}", made.verdict.findings);
    }
}
