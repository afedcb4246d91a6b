//! Prompt cleaning, so that a pasted prompt gives the tokens the reference pipelines give it.
//!
//! Reference: diffusers 0.42.1, `pipelines/wan/pipeline_wan.py`, `prompt_clean`, with ftfy 6.3.1
//! (`ftfy.fix_text` with its defaults).
//!
//! Differs: ftfy also guesses at text that was decoded with the wrong encoding ("sÃ©ance") and
//! repairs it. That is left out: it is a page of heuristics for text that isn't fit to be a prompt.

use unicode_normalization::UnicodeNormalization;

use super::html;

/// Cleans a prompt: HTML references decoded, curly quotes made straight, Latin ligatures and full
/// width forms made plain, control characters and terminal colours removed, composed (NFC), and
/// every run of white space one space, with none at the ends.
pub fn clean(prompt: &str) -> String {
    let text = html::unescape(&html::unescape(&fix_text(prompt)));
    text.split(is_python_space).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Python's `\s`: Unicode's white space and the four information separators.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `ftfy.fix_text`, line by line. A `<` means that the text from its line on is HTML, whose
/// references ftfy leaves alone.
fn fix_text(text: &str) -> String {
    let mut decode_html = true;
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        decode_html &= !line.contains('<');
        let mut fixed = fix_line(line, decode_html);
        loop {
            let again = fix_line(&fixed, decode_html);
            if again == fixed {
                break;
            }
            fixed = again;
        }
        out.push_str(&fixed);
    }
    out
}

/// One round of `ftfy.fix_and_explain`, in its order.
fn fix_line(line: &str, decode_html: bool) -> String {
    let text = if decode_html { unescape_closed(line) } else { line.to_owned() };
    let mut plain = String::with_capacity(text.len());
    for c in text.chars().map(html::windows_1252) {
        if let Some(letters) = ligature(c) {
            plain.push_str(letters);
        } else if c == '\u{3000}' || ('\u{ff01}'..'\u{fff0}').contains(&c) {
            plain.extend([c].into_iter().nfkc());
        } else {
            plain.push(c);
        }
    }
    let text: String = plain.chars().map(straight_quote).collect();
    let text = text.replace("\r\n", "\n").replace(['\r', '\u{2028}', '\u{2029}', '\u{85}'], "\n");
    remove_terminal_escapes(&text).chars().filter(|&c| !is_removed_control(c)).nfc().collect()
}

/// ftfy's own decoding of HTML references: only those with a semicolon, but also names in
/// capitals (`&EACUTE;`), and nothing that decodes to a semicolon.
fn unescape_closed(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let name = rest[1..].strip_prefix('#').unwrap_or(&rest[1..]);
        let length = name.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let closed = (1..=24).contains(&length) && name[length..].starts_with(';');
        if !closed {
            out.push('&');
            rest = &rest[1..];
            continue;
        }
        let (reference, after) = rest.split_at(rest.len() - name.len() + length + 1);
        out.push_str(&decode_closed(reference));
        rest = after;
    }
    out.push_str(rest);
    out
}

fn decode_closed(reference: &str) -> String {
    if reference.starts_with("&#") {
        let text = html::unescape(reference);
        return if text.contains(';') { reference.to_owned() } else { text };
    }
    if let Some(text) = html::named(&reference[1..]) {
        return text.to_owned();
    }
    let small = reference.to_ascii_lowercase();
    match html::named(&small[1..]) {
        Some(text)
            if small.to_ascii_uppercase() == reference
                && html::unescape(reference) == reference =>
        {
            text.to_uppercase()
        }
        _ => reference.to_owned(),
    }
}

fn ligature(c: char) -> Option<&'static str> {
    Some(match c {
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        'ŉ' => "ʼn",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' => "ſt",
        'ﬆ' => "st",
        _ => return None,
    })
}

fn straight_quote(c: char) -> char {
    match c {
        '\u{2bc}' | '\u{2018}'..='\u{201b}' => '\'',
        '\u{201c}'..='\u{201f}' => '"',
        _ => c,
    }
}

/// Removes `ESC [ parameters letter`, as terminals take it for colours and cursor moves.
fn remove_terminal_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\u{1b}[") {
        out.push_str(&rest[..at]);
        let parameters =
            rest[at + 2..].trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        match parameters.strip_prefix(|c: char| c.is_ascii_alphabetic()) {
            Some(after) => rest = after,
            None => {
                out.push_str("\u{1b}[");
                rest = &rest[at + 2..];
            }
        }
    }
    out.push_str(rest);
    out
}

fn is_removed_control(c: char) -> bool {
    matches!(c,
        '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}' | '\u{206a}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffc}')
}
