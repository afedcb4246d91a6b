//! Devices that go wrong: what is noticed, and what is said.

use e2e::{converted, repository};
use gguf_video::ggml::{Device, Executor, Fault, HostTensor, Precision};
use gguf_video::pipeline::noise::Generator;
use gguf_video::pipeline::preflight::{Preflight, Report};
use gguf_video::pipeline::{
    Checkpoint, Conditions, Experts, GenerateError, Machine, ModelFolder, Request, Silent, Vitals,
    decode, encode,
};
use tempfile::TempDir;

struct Demo {
    _files: TempDir,
    folder: ModelFolder,
    machine: Machine,
    prompts: Conditions,
}

fn request() -> Request {
    Request {
        prompt: "a big red ball moving right on a black background".into(),
        negative_prompt: String::new(),
        width: 64,
        height: 64,
        frames: 5,
        steps: 4,
        guidance_scale: 4.0,
        guidance_scale_low: 4.0,
        flow_shift: 3.0,
        seed: 0,
        ..Request::default()
    }
}

impl Demo {
    fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        let folder = converted(&repository("demo/checkpoint"), files.path(), "F32");
        let machine = Machine::on(Device::cpu(), Precision::Native, 1);
        let mut exec = machine.executor(machine.text).unwrap();
        let prompts = encode(&mut exec, &folder, &request(), &mut Silent).unwrap();
        Self { _files: files, folder, machine, prompts }
    }

    fn denoise(&self, exec: &mut Executor) -> (Result<HostTensor, GenerateError>, Vec<Vitals>) {
        let (high, low) = (self.folder.transformer.clone(), self.folder.transformer_2.clone());
        let mut vitals = Vec::new();
        let latents = Experts::new(high, low).unwrap().denoise(
            exec,
            &request(),
            &self.prompts,
            Checkpoint::start(&request(), self.folder.latent_grid().unwrap()),
            &mut Silent,
            &mut |step, _| {
                vitals.push(Vitals::of(step));
                Ok(())
            },
        );
        (latents, vitals)
    }

    /// A device that goes wrong in `block` when it comes there for the `times`-th time (from 0) or,
    /// if `forever`, from then on.
    fn broken(&self, fault: Fault, block: usize, times: usize, forever: bool) -> Executor {
        let mut exec = self.machine.executor(self.machine.transformer).unwrap();
        let (name, mut seen) = (format!("blocks.{block}"), 0);
        exec.plant(Box::new(move |written| {
            if !written.contains(&name.as_str()) {
                return None;
            }
            seen += 1;
            (seen == times + 1 || forever && seen > times).then_some(fault)
        }));
        exec
    }
}

#[test]
fn a_nan_in_a_block_is_reported_with_block_and_step() {
    let demo = Demo::new();
    // Two passes a step: the fourth is the second of step 2.
    for (block, times, step) in [(0, 3, 2), (2, 4, 3), (3, 0, 1)] {
        let mut exec = demo.broken(Fault::NotANumber, block, times, true);
        let (result, vitals) = demo.denoise(&mut exec);
        let error = result.unwrap_err();
        let GenerateError::StepNotFinite { step: at, ref tensor, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(at, step, "{error}");
        assert!(tensor.starts_with(&format!("blocks.{block}.")), "{error}");
        assert_eq!(vitals.len(), step - 1, "good steps are seen before");
        let said = error.to_string();
        assert!(said.contains("CPU") && said.contains(".gguf"), "{said}");
    }
}

#[test]
fn a_nan_that_does_not_come_back_is_a_warning() {
    let demo = Demo::new();
    let (good, _) = demo.denoise(&mut demo.machine.executor(Device::cpu()).unwrap());
    let mut exec = demo.broken(Fault::NotANumber, 1, 3, false);
    let (result, vitals) = demo.denoise(&mut exec);
    assert_eq!(result.unwrap().data, good.unwrap().data, "the step is computed again");
    assert_eq!(vitals[1].recovered.as_deref(), Some("blocks.1"));
    assert!(vitals[1].warnings()[0].contains("computed again"), "{:?}", vitals[1].warnings());
    assert!(vitals.iter().all(|v| v.impossible().is_none()));
    assert!(vitals.iter().enumerate().all(|(i, v)| i == 1 || v.recovered.is_none()));
}

#[test]
fn a_device_that_is_lost_ends_the_run_with_its_reason() {
    let demo = Demo::new();
    let (result, vitals) = demo.denoise(&mut demo.broken(Fault::Lost, 2, 2, true));
    let said = result.unwrap_err().to_string();
    assert!(said.contains("removed"), "{said}");
    assert_eq!(vitals.len(), 1);
}

#[test]
fn a_good_run_is_watched_in_silence() {
    let demo = Demo::new();
    let (_, vitals) = demo.denoise(&mut demo.machine.executor(Device::cpu()).unwrap());
    assert_eq!(vitals.len(), 4);
    for vitals in vitals {
        assert_eq!(vitals.impossible(), None, "{vitals:?}");
        assert_eq!(vitals.warnings(), Vec::<String>::new(), "{vitals:?}");
    }
}

/// A preflight of the demo, on a device that `prepare` may have spoiled.
fn preflight(demo: &Demo, prepare: &mut dyn FnMut(&mut Executor)) -> Report {
    let request = Request { width: 240, height: 32, frames: 9, ..request() };
    let check = Preflight {
        machine: &demo.machine,
        folder: &demo.folder,
        request: &request,
        model: Default::default(),
        judge: &mut |_| Vec::new(),
        prepare,
    };
    check.run(&mut Silent).unwrap()
}

#[test]
fn a_good_device_passes_the_preflight() {
    let demo = Demo::new();
    let report = preflight(&demo, &mut |_| {});
    assert!(report.passed, "{report:#?}");
    assert_eq!(report.comparisons.len(), 14);
    assert!(report.activations.iter().all(|a| a.largest > 0.0), "{report:#?}");
    assert_eq!(report.warnings(), Vec::<String>::new());
}

/// It says SUCCESS each time, and is right each time but for one place.
#[test]
fn a_device_that_computes_garbage_is_caught_by_the_preflight() {
    let demo = Demo::new();
    let report = preflight(&demo, &mut |exec| {
        exec.plant(Box::new(|written| written.contains(&"blocks.0").then_some(Fault::Garbage)));
    });
    assert!(!report.passed);
    let wrong: Vec<&str> =
        report.comparisons.iter().filter(|c| !c.passed).map(|c| c.what.as_str()).collect();
    assert_eq!(wrong, ["block of the high-noise expert", "block of the low-noise expert"]);
}

/// What `resume` does after the decoder's memory ran out.
#[test]
fn smaller_bands_decode_to_the_same_frames() {
    let demo = Demo::new();
    let latents = HostTensor::new([16, 2, 16, 16], Generator::new(1).normal(16 * 2 * 256));
    let frames = |scratch: i64| {
        let mut exec = demo.machine.executor(demo.machine.vae).unwrap();
        let mut limits = exec.limits();
        limits.scratch = scratch;
        exec.set_limits(limits);
        let mut frames = Vec::new();
        decode(&mut exec, &demo.folder, latents.clone(), 5, &mut Silent, &mut |frame| {
            frames.push(frame.clone());
            Ok(())
        })
        .unwrap();
        (frames, exec.compute_bytes())
    };
    let (large, much) = frames(8 << 20);
    let (small, little) = frames(1 << 18);
    assert_eq!(large, small);
    assert!(little < much, "{little} of {much}");
}
