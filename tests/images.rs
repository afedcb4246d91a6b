//! Runs that begin with an image: kept, looked at on the way, interrupted, and gone on with.

use e2e::{checkpoint, converted};
use gguf_video::ggml::{Device, Precision};
use gguf_video::output::Frame;
use gguf_video::pipeline::run_folder::{OutputRecord, Record, RunFolder};
use gguf_video::pipeline::{
    Basis, Calibration, GenerateError, Kept, Machine, ModelFolder, Plan, Progress, Request, Silent,
    Stage, Timings, generate,
};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn write_image(path: PathBuf, [width, height]: [u32; 2]) -> PathBuf {
    let file = std::fs::File::create(&path).unwrap();
    let mut encoder = png::Encoder::new(file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let bytes: Vec<u8> = (0..3 * width * height).map(|i| (i * i % 251) as u8).collect();
    encoder.write_header().unwrap().write_image_data(&bytes).unwrap();
    path
}

/// Ends a run in the middle of a step.
struct Impatient {
    steps: usize,
    in_step: bool,
}

impl Progress for Impatient {
    fn begin(&mut self, _: Stage, _: u64, _: u64) {}

    fn advance(&mut self, _: u64) -> ControlFlow<()> {
        if self.in_step { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn step(&mut self, step: usize) {
        self.in_step = step == self.steps;
    }

    fn warn(&mut self, _: &str) {}
}

struct Case {
    machine: Machine,
    model: ModelFolder,
    request: Request,
}

impl Case {
    fn new(folder: &Path, model: &str, last: bool) -> Self {
        let source = checkpoint(model);
        let request = Request {
            prompt: "A cat bakes a cake.".into(),
            width: 96,
            height: 64,
            frames: 9,
            steps: 4,
            guidance_scale: 4.0,
            guidance_scale_low: 3.0,
            flow_shift: 3.0,
            seed: 5,
            image: Some(write_image(folder.join("first.png"), [70, 40])),
            last_image: last.then(|| write_image(folder.join("last.png"), [50, 90])),
            ..Request::default()
        };
        let machine = Machine::on(Device::cpu(), Precision::Native, 1);
        Self { machine, model: converted(source.path(), &folder.join("model"), "Q8_0"), request }
    }

    fn frames(
        &self,
        run: Option<&RunFolder>,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Frame>, GenerateError> {
        let kept = run.map(|run| Kept { run, previews: &[1, 2, 3, 4] });
        let mut frames = Vec::new();
        let push = &mut |frame: &Frame| {
            frames.push(frame.clone());
            Ok(())
        };
        let Self { machine, model, request } = self;
        generate(machine, model, request, true, kept.as_ref(), progress, push)?;
        Ok(frames)
    }
}

fn check(model: &str, last: bool) {
    let folder = tempfile::tempdir().unwrap();
    let case = Case::new(folder.path(), model, last);
    let whole = case.frames(None, &mut Silent).unwrap();
    assert_eq!(whole.len(), 9);
    let path = folder.path().join("run");
    let output = OutputRecord { path: "none.mp4".into(), fps: 16, contact_sheet: None };
    let record = Record::new(case.request.clone(), case.machine.record(), Vec::new(), output);
    let run = RunFolder::create(&path, record).unwrap();
    let ended = case.frames(Some(&run), &mut Impatient { steps: 2, in_step: false });
    assert!(ended.unwrap_err().is_interruption());
    // What the images became is kept: they aren't looked at again.
    for image in case.request.image.iter().chain(&case.request.last_image) {
        std::fs::remove_file(image).unwrap();
    }
    assert!(path.join("preview-002.png").is_file() && !path.join("preview-003.png").is_file());
    assert_eq!(case.frames(Some(&run), &mut Silent).unwrap(), whole, "{model}");
    assert!(path.join("preview-004.png").is_file());
}

#[test]
fn a_frame_that_stays() {
    check("wan2.2-ti2v-5b", false);
}

#[test]
fn a_mask_and_an_image_beside_the_latents() {
    check("wan2.2-i2v-a14b", false);
}

#[test]
fn two_images_and_their_features() {
    check("wan2.1-flf2v-14b", true);
}

/// The VAE and the image encoder may be on two devices.
#[test]
fn each_part_learns_from_its_own_time() {
    let folder = tempfile::tempdir().unwrap();
    let Case { machine, model, request } = Case::new(folder.path(), "wan2.1-flf2v-14b", true);
    let mut known = Calibration::default();
    let plan =
        |known: &mut Calibration| Plan::new(&machine, &model, &request, Some(known)).unwrap();
    let before = plan(&mut known);

    let factors = [1.5, 2.0, 0.5, 3.0, 0.75];
    let took = before.parts().zip(factors).map(|(part, factor)| part.seconds * factor);
    let took: Vec<Duration> = took.map(Duration::from_secs_f64).collect();
    let [encode, images, image_encoder, denoise, decode] = took[..] else { panic!("{took:?}") };
    let timings = Timings { encode, images, image_encoder, denoise, decode, whole: true };
    before.teach(&machine, &timings, &mut known);

    let after = plan(&mut known);
    for ((before, after), factor) in before.parts().zip(after.parts()).zip(factors) {
        assert_eq!((before.basis, after.basis), (Basis::Measured, Basis::Runs), "{}", after.name);
        let ratio = after.seconds / before.seconds;
        assert!((ratio / factor - 1.0).abs() < 1e-3, "{}: {ratio}", after.name);
    }
}
