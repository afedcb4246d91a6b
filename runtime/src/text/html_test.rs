//! Every character reference there is, against Python (made by tests/reference/clean.py).

use std::collections::BTreeMap;

use super::unescape;

#[derive(serde::Deserialize)]
struct Golden {
    /// name: [`&name;` decoded, `&name x` decoded]
    named: BTreeMap<String, [String; 2]>,
    /// first, last, and what each of these numbers becomes
    numbers: Vec<(u32, u32, String)>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../tests/golden/html.json")).expect("the golden's form")
}

#[test]
fn every_name_decodes_as_in_python() {
    let golden = golden();
    assert_eq!(golden.named.len(), 2125);
    for (name, [closed, open]) in &golden.named {
        assert_eq!(unescape(&format!("&{name};")), *closed, "&{name};");
        assert_eq!(unescape(&format!("&{name} x")), *open, "&{name} x");
    }
}

#[test]
fn every_number_decodes_as_in_python() {
    let golden = golden();
    for number in 0..0x11_0010 {
        let special =
            golden.numbers.iter().find(|(first, last, _)| (*first..=*last).contains(&number));
        let expected = match special {
            Some((_, _, text)) => text.clone(),
            None => char::from_u32(number).expect("a character").to_string(),
        };
        assert_eq!(unescape(&format!("&#{number};")), expected, "{number}");
        if number % 97 == 0 {
            assert_eq!(unescape(&format!("&#x{number:x}z")), format!("{expected}z"), "{number:x}");
        }
    }
}
