//! Noise against torch's CPU generator (made by tests/reference/noise.py).

use gguf_video::pipeline::noise::Generator;

/// For fewer than 16 values, which come from the system's logarithm, sine and cosine in float64.
const TOLERANCE: f32 = 1.2e-7;

#[derive(serde::Deserialize)]
struct Golden {
    /// Of all values of seed 42, for n = 1, 2, …
    sums: Vec<f64>,
    /// Draws of seed 7, one after the other.
    in_a_row: Vec<(usize, Vec<f32>)>,
    /// Seed, four values, nineteen values.
    by_seed: Vec<(String, Vec<f32>, Vec<f32>)>,
    latents: Latents,
}

#[derive(serde::Deserialize)]
struct Latents {
    shape: [usize; 5],
    channel_sums: Vec<f64>,
    channel_square_sums: Vec<f64>,
    samples: Vec<(usize, f32)>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/noise.json")).expect("the golden's form")
}

#[track_caller]
fn assert_close(values: &[f32], expected: &[f32], of: &str) {
    assert_eq!(values.len(), expected.len(), "{of}");
    for (i, (value, expected)) in values.iter().zip(expected).enumerate() {
        assert!((value - expected).abs() <= TOLERANCE, "{of}[{i}]: {value}, torch has {expected}");
    }
}

#[track_caller]
fn assert_drawn(values: &[f32], expected: &[f32], of: &str) {
    if expected.len() < 16 {
        assert_close(values, expected, of);
    } else {
        assert_eq!(values, expected, "{of}");
    }
}

#[test]
fn every_count_to_a_thousand() {
    let sums = golden().sums;
    let mut kept = include_bytes!("golden/noise.f32")
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    for n in 1..=1000 {
        let values = Generator::new(42).normal(n);
        let sum: f64 = values.iter().map(|&x| f64::from(x)).sum();
        assert!((sum - sums[n - 1]).abs() <= 1e-6, "{n}: {sum} {}", sums[n - 1]);
        if n <= 40 {
            let expected: Vec<f32> = kept.by_ref().take(n).collect();
            assert_drawn(&values, &expected, &format!("{n} values"));
        } else {
            let expected: Vec<f32> = kept.by_ref().take(17).collect();
            assert_eq!(values[0], expected[0], "first of {n}");
            assert_eq!(values[n - 16..], expected[1..], "last of {n}");
        }
    }
    assert_eq!(kept.next(), None);
}

#[test]
fn draws_in_a_row_share_one_stream() {
    let mut generator = Generator::new(7);
    for (i, (n, expected)) in golden().in_a_row.iter().enumerate() {
        assert_drawn(&generator.normal(*n), expected, &format!("draw {i}"));
    }
}

#[test]
fn only_the_low_half_of_a_seed_counts() {
    for (seed, four, nineteen) in golden().by_seed {
        let seed: u64 = seed.parse().expect("a seed");
        assert_drawn(&Generator::new(seed).normal(4), &four, &format!("seed {seed}"));
        assert_drawn(&Generator::new(seed).normal(19), &nineteen, &format!("seed {seed}"));
    }
}

#[test]
fn the_latents_of_a_video() {
    let golden = golden().latents;
    let values = Generator::new(42).normal(golden.shape.iter().product());
    for (position, expected) in golden.samples {
        assert_eq!(values[position], expected, "at {position}");
    }
    let channel = values.len() / golden.shape[1];
    for (i, values) in values.chunks_exact(channel).enumerate() {
        let sum: f64 = values.iter().map(|&x| f64::from(x)).sum();
        let squares: f64 = values.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        // The values are equal; numpy adds them up in another order.
        let tolerance = 1e-6;
        assert!((sum - golden.channel_sums[i]).abs() < tolerance, "{i}: {sum}");
        assert!((squares - golden.channel_square_sums[i]).abs() < tolerance, "{i}: {squares}");
    }
}
