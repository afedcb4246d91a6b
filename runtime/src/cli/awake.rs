//! Keeps the computer awake while a video is computed.

use super::{say, warn};
use crate::os::Awake;

/// What the system tells a user who asks what keeps the computer awake.
const REASON: &str = "a video is being computed";

/// Held until the value is dropped, unless sleep is allowed; says what it does.
#[must_use = "the computer may sleep once this is dropped"]
pub(super) fn keep_awake(allow_sleep: bool) -> Option<Awake> {
    if allow_sleep {
        return None;
    }
    match Awake::hold(REASON) {
        Ok(awake) => {
            say("the computer stays awake while this runs; --allow-sleep lets it sleep");
            Some(awake)
        }
        Err(error) => {
            warn(&format!("the computer may fall asleep while this runs: {error}"));
            None
        }
    }
}
