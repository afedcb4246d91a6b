//! Schedules and samplers against diffusers (made by tests/reference/samplers.py).

use gguf_video::pipeline::sampler::{Sampler, SamplerKind, State, StateError};
use gguf_video::pipeline::schedule::{Schedule, ScheduleError, Spacing};

use std::collections::BTreeMap;

#[derive(serde::Deserialize)]
struct Case {
    steps: usize,
    flow_shift: f64,
    spacing: Spacing,
    sigmas: Vec<f32>,
    timesteps: Vec<f32>,
    start: Vec<f32>,
    /// Latents after each step.
    #[serde(flatten)]
    latents: BTreeMap<SamplerKind, Vec<Vec<f32>>>,
}

/// Of the initial noise that samplers draw after.
const SEED: u64 = 7;

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("golden/samplers.json")).expect("the golden's form")
}

fn velocity(latents: &[f32], timestep: f32) -> Vec<f32> {
    latents
        .iter()
        .map(|&x| (3.0 * f64::from(x) + 0.01 * f64::from(timestep)).sin() as f32)
        .collect()
}

fn schedule(case: &Case) -> Schedule {
    Schedule::new(case.steps, case.flow_shift, case.spacing).expect("a schedule")
}

fn flow(steps: usize) -> Schedule {
    Schedule::new(steps, 3.0, Spacing::Flow).expect("a schedule")
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
        assert!(case.latents.len() >= 2, "{} steps", case.steps);
        for (kind, golden) in &case.latents {
            let schedule = schedule(&case);
            let mut sampler = kind.start(&schedule, SEED);
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
    let schedule = flow(7);
    let start = vec![1.5, -0.75, 0.1];
    for kind in SamplerKind::ALL {
        let run = |sampler: &mut dyn Sampler, mut latents: Vec<f32>, steps: &[f32]| {
            for &timestep in steps {
                latents = sampler.step(&latents, &velocity(&latents, timestep));
            }
            latents
        };
        let whole = run(&mut *kind.start(&schedule, SEED), start.clone(), &schedule.timesteps);
        for stop in 0..=schedule.steps() {
            let (before, after) = schedule.timesteps.split_at(stop);
            let mut first = kind.start(&schedule, SEED);
            let latents = run(&mut *first, start.clone(), before);
            let mut second = kind.start(&schedule, SEED);
            second.restore(first.state()).expect("its own state");
            assert_eq!(second.state(), first.state());
            assert_eq!(run(&mut *second, latents, after), whole, "{kind} stopped after {stop}");
        }
    }
}

#[test]
fn states_of_other_runs_are_refused() {
    let schedule = flow(4);
    let mut sampler = SamplerKind::UniPc.start(&schedule, SEED);
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
    assert_eq!(Schedule::new(0, 3.0, Spacing::Flow), Err(ScheduleError::NoSteps));
    for shift in [0.0, -1.0, f64::INFINITY, f64::NAN] {
        let refused = Schedule::new(4, shift, Spacing::Flow);
        assert!(matches!(refused, Err(ScheduleError::FlowShift(_))), "{shift}");
    }
    for shift in [1e-45, 3e38] {
        let refused = Schedule::new(4, shift, Spacing::Flow);
        assert!(
            matches!(refused, Err(ScheduleError::Flat { steps: 4, .. })),
            "{shift}: {refused:?}"
        );
    }
}

#[test]
fn sampler_names_round_trip() {
    for kind in SamplerKind::ALL {
        assert_eq!(kind.to_string().parse(), Ok(kind));
    }
    assert_eq!(
        "ddim".parse::<SamplerKind>().expect_err("no such sampler").to_string(),
        "no sampler is called \"ddim\"; there are unipc, euler, dpm++2m and lcm"
    );
}
