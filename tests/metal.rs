//! The graphs of full-size models, through ggml's Metal encoder for two generations of chips.
#![cfg(not(target_os = "macos"))]

use e2e::gate::{Seen, run};
use null_metal::Violation;
use std::path::Path;

const CHIPS: [&str; 2] = ["m1-max", "m5-max"];

fn gate(chip: &str, case: &str) -> Result<Seen, String> {
    run(Path::new(env!("CARGO_BIN_EXE_metal-gate")), chip, case)
}

/// Every chip passes, with no more than `working` bytes beside the weights.
fn passes(case: &str, working: u64) {
    for chip in CHIPS {
        let seen = gate(chip, case).unwrap();
        assert!(seen.report.dispatches > 100, "{chip}, {case}: {:?}", seen.report);
        let violations = seen.report.violations;
        assert!(violations.is_empty(), "{chip}, {case}: {violations:#?}");
        let megabytes = seen.working / 1_000_000;
        assert!(seen.working <= working, "{chip}, {case}: {megabytes} MB beside the weights");
    }
}

#[test]
fn transformer_at_480p() {
    passes("t2v-a14b:832x480x81:Q4_K", 4_000_000_000);
    passes("t2v-a14b:832x480x121:Q8_0", 5_000_000_000);
}

#[test]
fn transformer_at_720p() {
    passes("t2v-a14b:1280x720x81:Q8_0", 6_000_000_000);
    passes("t2v-a14b:1280x720x121:Q4_K", 8_500_000_000);
}

/// Every other transformer at its size.
#[test]
fn transformers_of_other_models() {
    passes("i2v-a14b:1280x720x81:Q4_K", 6_000_000_000);
    passes("ti2v-5b:1280x704x121:Q8_0", 4_000_000_000);
    passes("t2v-1.3b:832x480x81:Q8_0", 4_000_000_000);
    passes("i2v-14b:832x480x81:Q4_K", 4_000_000_000);
    passes("flf2v-14b:1280x720x81:Q4_K", 7_000_000_000);
}

#[test]
fn vae_at_480p() {
    passes("vae:832x480x81", 3_500_000_000);
}

#[test]
fn vae_at_720p() {
    passes("vae:1280x720x121", 7_000_000_000);
}

#[test]
fn vae_encoder() {
    passes("vae-encoder:832x480x81", 3_000_000_000);
    passes("vae-encoder:1280x720x81", 6_000_000_000);
}

#[test]
fn vae_of_wan22() {
    passes("vae22:1280x704x121", 7_000_000_000);
    passes("vae22-encoder:1280x704x121", 3_000_000_000);
}

#[test]
fn text_encoder() {
    passes("umt5:Q8_0", 1_000_000_000);
}

#[test]
fn image_encoder() {
    passes("clip", 100_000_000);
}

/// `gguf-video doctor` on a Mac ends with a verdict, not with an abort of ggml's encoder.
#[test]
fn self_test() {
    passes("self-test", 1_000_000_000);
}

#[test]
fn an_unsupported_operation_is_caught() {
    for chip in CHIPS {
        let seen = gate(chip, "unsupported-op").unwrap();
        let unsupported = |v: &Violation| matches!(v, Violation::Unsupported { .. });
        assert!(seen.report.violations.iter().any(unsupported), "{seen:?}");
    }
}

#[test]
fn a_bf16_norm_is_caught() {
    for chip in CHIPS {
        let seen = gate(chip, "bf16-norm").unwrap();
        let not_f32 = |v: &Violation| matches!(v, Violation::NotF32 { .. });
        assert!(seen.report.violations.iter().any(not_f32), "{seen:?}");
    }
}

#[test]
fn attention_of_70_000_rows_is_caught() {
    for chip in CHIPS {
        let said = gate(chip, "attention-of-70000-rows").unwrap_err();
        assert!(said.contains("ne01 < 65536"), "{said}");
    }
}
