//! A check of SentencePiece's table of character replacements before it is used.
//!
//! The library that applies the table follows its offsets without looking, and a model file is a
//! download: a damaged one must be an error, not a panic in the middle of a prompt.
//!
//! Layout (SentencePiece, `src/normalizer.cc`): `u32` size of the trie in bytes; the trie, a
//! Darts-clone double array of `u32` units; the replacements, UTF-8 texts that end in a zero byte.

/// Why a table is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Defect {
    #[error("it has {bytes} bytes, fewer than its trie needs")]
    Short { bytes: usize },
    #[error("its replacements aren't UTF-8")]
    Text,
    #[error("unit {unit} of its trie leads out of the table")]
    Unit { unit: usize },
}

/// Whether every step that a search can take stays inside the table.
pub(super) fn check(table: &[u8]) -> Result<(), Defect> {
    let short = Defect::Short { bytes: table.len() };
    let (size, rest) = table.split_first_chunk::<4>().ok_or(short.clone())?;
    // The library leaves bytes after the last whole unit to the replacements.
    let size = u32::from_le_bytes(*size) as usize / 4 * 4;
    let (trie, texts) = rest.split_at_checked(size).ok_or(short.clone())?;
    let texts = str::from_utf8(texts).map_err(|_| Defect::Text)?;
    let units: Vec<usize> = trie
        .chunks_exact(4)
        .map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]) as usize)
        .collect();
    if units.is_empty() {
        return Err(short);
    }
    for (i, &unit) in units.iter().enumerate() {
        // A unit with the top bit holds a value; no byte of text leads through it.
        if unit >> 31 == 1 && i > 0 {
            continue;
        }
        let offset = (unit >> 10) << ((unit & (1 << 9)) >> 6);
        let next = i ^ offset;
        let has_value = unit >> 8 & 1 == 1;
        let inside = (next | 0xff) < units.len()
            && (!has_value || texts.is_char_boundary(units[next] & 0x7fff_ffff));
        if !inside {
            return Err(Defect::Unit { unit: i });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NMT_NFKC: &[u8] = include_bytes!("../../tests/golden/nmt_nfkc.charsmap");

    #[test]
    fn the_standard_table_is_sound() {
        assert_eq!(check(NMT_NFKC), Ok(()));
    }

    #[test]
    fn a_cut_table_is_refused() {
        let trie =
            u32::from_le_bytes([NMT_NFKC[0], NMT_NFKC[1], NMT_NFKC[2], NMT_NFKC[3]]) as usize;
        for length in [0, 3, 4, 1000, trie + 3] {
            assert_eq!(check(&NMT_NFKC[..length]), Err(Defect::Short { bytes: length }));
        }
        assert!(matches!(check(&NMT_NFKC[..trie + 4]), Err(Defect::Unit { .. })));
        assert_eq!(check(&[0; 4]), Err(Defect::Short { bytes: 4 }));
        assert_eq!(check(&[0xff; 64]), Err(Defect::Short { bytes: 64 }));
    }

    #[test]
    fn a_table_that_passes_never_panics() {
        let mut state = 1_u32;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % below
        };
        let (mut passed, mut refused) = (0, 0);
        for _ in 0..100 {
            let mut table = NMT_NFKC.to_vec();
            for _ in 0..3 {
                let at = 4 + random(table.len() - 4);
                table[at] = random(256) as u8;
            }
            if check(&table).is_err() {
                refused += 1;
                continue;
            }
            passed += 1;
            let map = tokenizers::normalizers::Precompiled::from(&table).expect("a sound table");
            for c in ('\0'..'\u{30000}').step_by(5) {
                map.transform(c.encode_utf8(&mut [0; 4]));
            }
        }
        assert!(passed > 0 && refused > 0, "{passed} passed, {refused} refused");
    }
}
