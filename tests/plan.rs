//! The plan of a run against the run itself, and what full-size models take on the CPU.

use e2e::synthetic;
use e2e::{converted, repository};
use gguf::DType;
use gguf_video::ggml::{Device, Precision, Usage};
use gguf_video::pipeline::{
    Checkpoint, Conditions, Experts, Machine, Plan, Proposal, Request, Silent, decode, encode,
    proposals,
};

fn request(width: usize, height: usize, frames: usize) -> Request {
    Request {
        prompt: "a big red ball moving right on a black background".into(),
        negative_prompt: String::new(),
        width,
        height,
        frames,
        steps: 4,
        guidance_scale: 4.0,
        guidance_scale_low: 4.0,
        flow_shift: 3.0,
        seed: 0,
        ..Request::default()
    }
}

/// The most that `part` held on the CPU, with its executor.
fn measured<T>(part: impl FnOnce() -> T) -> (Usage, T) {
    Device::cpu().forget_peak();
    let result = part();
    (Device::cpu().peak_usage(), result)
}

#[test]
fn a_run_takes_what_its_plan_says() {
    let output = tempfile::tempdir().unwrap();
    let folder = converted(&repository("demo/checkpoint"), output.path(), "Q8_0");
    let (machine, request) = (Machine::on(Device::cpu(), Precision::Native, 1), request(96, 64, 9));
    let plan = Plan::new(&machine, &folder, &request, None).unwrap();
    assert_eq!(Device::cpu().usage(), Usage::default(), "a plan takes nothing");

    let (text, prompts) = measured(|| {
        encode(&mut machine.executor(machine.text).unwrap(), &folder, &request, &mut Silent)
            .unwrap()
    });
    assert_eq!(text.weights, plan.text.usage.weights);
    assert!(text.working() <= plan.text.usage.working(), "planned for the longest prompt");

    let denoise = |prompts: &Conditions| {
        let experts =
            Experts::new(folder.transformer.clone(), folder.transformer_2.clone()).unwrap();
        let mut exec = machine.executor(machine.transformer).unwrap();
        let start = Checkpoint::start(&request, folder.latent_grid().unwrap());
        experts
            .denoise(&mut exec, &request, prompts, start, &mut Silent, &mut |_, _| Ok(()))
            .unwrap()
    };
    let (experts, latents) = measured(|| denoise(&prompts));
    for part in &plan.experts {
        assert_eq!(experts, part.usage, "{}", part.name);
    }

    let (vae, ()) = measured(|| {
        let mut exec = machine.executor(machine.vae).unwrap();
        let frames = request.frames;
        decode(&mut exec, &folder, latents, frames, &mut Silent, &mut |_| Ok(())).unwrap();
    });
    assert_eq!(vae, plan.vae.usage);
}

/// F32 throughout, as the CPU computes: twice the caches of a GPU.
#[test]
fn full_size_on_the_cpu() {
    let folder = tempfile::tempdir().unwrap();
    let model = synthetic::a14b(folder.path(), DType::Q4_K, DType::Q8_0);
    for precision in [Precision::Native, Precision::Strict] {
        let machine = Machine::on(Device::cpu(), precision, 2);
        for (width, height, experts, vae) in
            [(832, 480, 4_600_000_000, 5_200_000_000), (1280, 720, 7_200_000_000, 11_700_000_000)]
        {
            let plan = Plan::new(&machine, &model, &request(width, height, 81), None).unwrap();
            for (part, most) in plan.experts.iter().map(|e| (e, experts)).chain([(&plan.vae, vae)])
            {
                let working = part.usage.working();
                assert!(
                    working <= most,
                    "{precision:?}, {width}x{height}: {} {working}",
                    part.name
                );
            }
            // Blocks are cut to the CPU's limit of ten seconds; a stage of the VAE is one graph.
            assert!(plan.experts.iter().all(|part| part.longest <= 10.0), "{plan:?}");
            assert!(plan.parts().all(|part| part.longest <= 12.0), "{plan:?}");
        }
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let model = synthetic::a14b(folder.path(), DType::Q4_K, DType::Q8_0);
    let mut machine = Machine::on(Device::cpu(), Precision::Native, 1);
    // Few graphs, for a clip whose residual stream, keys and values alone are too much.
    (machine.dispatch, machine.submission) = (Some(1e9), Some(1e9));
    let tokens = Device::cpu().capacity().total / (3 * 5120 * 4) + 3600;
    let frames = 4 * (tokens / 3600) + 1;
    let plan = Plan::new(&machine, &model, &request(1280, 720, frames as usize), None).unwrap();
    assert_eq!(plan.too_large().unwrap().name, "high-noise expert");
    assert!(!plan.keep_both);
    let large = request(1280, 720, frames as usize);
    let proposed = proposals(&machine, &model, &large, &plan).unwrap();
    let [Proposal::Frames(fewer), Proposal::Size { width, height }] = proposed[..] else {
        panic!("{proposed:?}: the CPU reads weights from the file, of any type");
    };
    assert!(fewer < large.frames && fewer > large.frames / 2, "{proposed:?}");
    assert!((width, height) < (1280, 720) && height > 360, "{proposed:?}");
    for fitting in
        [Request { frames: fewer, ..large.clone() }, Request { width, height, ..large.clone() }]
    {
        fitting.check(model.latent_grid().unwrap()).unwrap();
        let plan = Plan::new(&machine, &model, &fitting, None).unwrap();
        assert!(plan.too_large().is_none(), "{fitting:?}");
    }
    let fits = Plan::new(&machine, &model, &request(64, 64, 5), None).unwrap();
    assert!(fits.too_large().is_none() && fits.most() < plan.most());
}
