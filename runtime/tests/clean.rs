//! Prompt cleaning against the reference's results (made by tests/reference/clean.py).

use gguf_video::text::clean;

#[test]
fn prompts_become_what_the_reference_makes_of_them() {
    let cases: Vec<(String, String)> =
        serde_json::from_str(include_str!("golden/clean.json")).expect("a list of pairs");
    assert!(cases.len() > 80);
    for (prompt, expected) in &cases {
        assert_eq!(clean(prompt), *expected, "from {prompt:?}");
    }
}

#[test]
fn cleaning_twice_changes_nothing_more_in_plain_text() {
    let once = clean("  A\u{a0}\u{201c}fine\u{201d} \u{fb01}sh &amp; chips\r\n");
    assert_eq!(once, "A \"fine\" fish & chips");
    assert_eq!(clean(&once), once);
}
