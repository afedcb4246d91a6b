//! HTML character references, decoded by the rules of Python's `html.unescape`, which the
//! reference pipelines call: those of HTML 5, except that references to invalid code points vanish.
//!
//! Reference: CPython 3, `Lib/html/__init__.py`. The table of names is the `htmlize` crate's.

/// The characters HTML has at the C1 controls' numbers 0x80 to 0x9f: those of Windows-1252, and
/// the control itself where Windows-1252 has none.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
    '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// The character Windows-1252 has in the place of a C1 control; other characters stay.
pub(super) fn windows_1252(c: char) -> char {
    match c {
        '\u{80}'..='\u{9f}' => WINDOWS_1252[c as usize - 0x80],
        _ => c,
    }
}

/// What `&name;` or the older `&name` stands for; `name` has the semicolon if the text has it.
pub(super) fn named(name: &str) -> Option<&'static str> {
    let key = format!("&{name}");
    htmlize::ENTITIES.get(key.as_bytes()).and_then(|bytes| std::str::from_utf8(bytes).ok())
}

/// Decodes every character reference in `text`, once.
pub(super) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match numeric_end(rest).or_else(|| named_end(rest)) {
            Some(end) => {
                decode(&rest[..end], &mut out);
                rest = &rest[end..];
            }
            None => out.push('&'),
        }
    }
    out.push_str(rest);
    out
}

/// The length of a leading `#123;` or `#x1f;`, semicolon optional.
fn numeric_end(text: &str) -> Option<usize> {
    let digits = text.strip_prefix('#')?;
    let (start, hex) = match digits.strip_prefix(['x', 'X']) {
        Some(digits) => (2, digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len())),
        None => (1, digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())),
    };
    let end = start + hex;
    (hex > 0).then(|| end + usize::from(text[end..].starts_with(';')))
}

/// The length of leading characters that may be a name, semicolon included.
fn named_end(text: &str) -> Option<usize> {
    let length: usize = text
        .chars()
        .take(32)
        .take_while(|c| !['\t', '\n', '\u{c}', ' ', '<', '&', '#', ';'].contains(c))
        .map(char::len_utf8)
        .sum();
    (length > 0).then(|| length + usize::from(text[length..].starts_with(';')))
}

/// Appends what `reference`, the text after the `&`, stands for.
fn decode(reference: &str, out: &mut String) {
    if let Some(number) = reference.strip_prefix('#') {
        let number = number.trim_end_matches(';');
        let value = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => number.parse(),
        };
        out.extend(code_point(value.unwrap_or(u32::MAX)));
        return;
    }
    // The whole, else the longest start of two or more characters that is a name.
    let ends = reference.char_indices().map(|(i, _)| i).skip(2).chain([reference.len()]);
    for end in ends.collect::<Vec<_>>().into_iter().rev() {
        if let Some(text) = named(&reference[..end]) {
            out.push_str(text);
            out.push_str(&reference[end..]);
            return;
        }
    }
    out.push('&');
    out.push_str(reference);
}

/// The character of a numeric reference; none for numbers that no text may hold.
fn code_point(number: u32) -> Option<char> {
    match number {
        0 => Some('\u{fffd}'),
        0x80..=0x9f => char::from_u32(number).map(windows_1252),
        0x01..=0x08 | 0x0b | 0x0e..=0x1f | 0x7f | 0xfdd0..=0xfdef => None,
        _ if number <= 0x10_ffff && number & 0xfffe == 0xfffe => None,
        _ => Some(char::from_u32(number).unwrap_or('\u{fffd}')),
    }
}

#[cfg(test)]
#[path = "html_test.rs"]
mod tests;
