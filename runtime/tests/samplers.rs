//! Schedules and samplers against diffusers (made by tests/reference/samplers.py).

use gguf_video::pipeline::sampler::{Sampler, SamplerKind, State, StateError};
use gguf_video::pipeline::schedule::{Schedule, ScheduleError};

#[derive(serde::Deserialize)]
struct Case {
    steps: usize,
    flow_shift: f64,
    sigmas: Vec<f32>,
    timesteps: Vec<i64>,
    start: Vec<f32>,
    /// Latents after each step.
    unipc: Vec<Vec<f32>>,
    euler: Vec<Vec<f32>>,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("golden/samplers.json")).expect("the golden's form")
}

fn velocity(latents: &[f32], timestep: i64) -> Vec<f32> {
    latents.iter().map(|&x| (3.0 * f64::from(x) + 0.01 * timestep as f64).sin() as f32).collect()
}

fn schedule(case: &Case) -> Schedule {
    Schedule::flow(case.steps, case.flow_shift).expect("a schedule")
}

#[test]
fn schedules_equal_the_reference() {
    for case in cases() {
        let schedule = schedule(&case);
        assert_eq!(schedule.sigmas, case.sigmas, "{} steps", case.steps);
        assert_eq!(schedule.timesteps, case.timesteps, "{} steps", case.steps);
        assert_eq!(schedule.steps(), case.steps);
    }
}

#[test]
fn every_step_equals_the_reference() {
    // The reference has its coefficients in float32; the velocity amplifies what that loses.
    const TOLERANCE: f32 = 2e-5;
    for case in cases() {
        for (kind, golden) in [(SamplerKind::UniPc, &case.unipc), (SamplerKind::Euler, &case.euler)]
        {
            let schedule = schedule(&case);
            let mut sampler = kind.start(&schedule);
            let mut latents = case.start.clone();
            for (i, expected) in golden.iter().enumerate() {
                latents = sampler.step(&latents, &velocity(&latents, schedule.timesteps[i]));
                for (value, expected) in latents.iter().zip(expected) {
                    assert!(
                        (value - expected).abs() <= TOLERANCE,
                        "{kind}, {} steps, step {i}: {value} instead of {expected}",
                        case.steps
                    );
                }
            }
        }
    }
}

#[test]
fn a_restored_sampler_continues_bit_for_bit() {
    let schedule = Schedule::flow(7, 3.0).expect("a schedule");
    let start = vec![1.5, -0.75, 0.1];
    for kind in SamplerKind::ALL {
        let run = |sampler: &mut dyn Sampler, mut latents: Vec<f32>, steps: &[i64]| {
            for &timestep in steps {
                latents = sampler.step(&latents, &velocity(&latents, timestep));
            }
            latents
        };
        let whole = run(&mut *kind.start(&schedule), start.clone(), &schedule.timesteps);
        for stop in 0..=schedule.steps() {
            let (before, after) = schedule.timesteps.split_at(stop);
            let mut first = kind.start(&schedule);
            let latents = run(&mut *first, start.clone(), before);
            let mut second = kind.start(&schedule);
            second.restore(first.state()).expect("its own state");
            assert_eq!(second.state(), first.state());
            assert_eq!(run(&mut *second, latents, after), whole, "{kind} stopped after {stop}");
        }
    }
}

#[test]
fn states_of_other_runs_are_refused() {
    let schedule = Schedule::flow(4, 3.0).expect("a schedule");
    let mut sampler = SamplerKind::UniPc.start(&schedule);
    let buffers = |lengths: &[usize]| {
        let names = ["sample", "x0.1", "x0.2"];
        names.iter().zip(lengths).map(|(name, &n)| (name.to_string(), vec![0.0; n])).collect()
    };
    let too_far = State { step: 5, buffers: buffers(&[2, 2, 2]) };
    assert_eq!(sampler.restore(too_far), Err(StateError::Step { step: 5, steps: 4 }));
    let uneven = State { step: 2, buffers: buffers(&[2, 2, 3]) };
    assert_eq!(sampler.restore(uneven), Err(StateError::Lengths(2, 3)));
    let of_euler = State { step: 2, buffers: vec![] };
    assert_eq!(
        sampler.restore(of_euler).expect_err("no buffers").to_string(),
        "the saved sampler state has buffers []; at step 2 they must be [sample, x0.1, x0.2]"
    );
    assert_eq!(sampler.state(), State::default());
}

#[test]
fn impossible_schedules_are_refused() {
    assert_eq!(Schedule::flow(0, 3.0), Err(ScheduleError::NoSteps));
    for shift in [0.0, -1.0, f64::INFINITY, f64::NAN] {
        assert!(matches!(Schedule::flow(4, shift), Err(ScheduleError::FlowShift(_))), "{shift}");
    }
}

#[test]
fn sampler_names_round_trip() {
    for kind in SamplerKind::ALL {
        assert_eq!(kind.to_string().parse(), Ok(kind));
    }
    assert_eq!(
        "ddim".parse::<SamplerKind>().expect_err("no such sampler").to_string(),
        "no sampler is called \"ddim\"; there are unipc and euler"
    );
}
