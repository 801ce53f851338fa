//! Texts that are said to be addresses.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shared::domain::Email;

fuzz_target!(|text: &str| {
    let Ok(email) = Email::parse(text) else { return };
    let normal = email.as_str();

    assert_eq!(Email::parse(normal).as_ref(), Ok(&email), "normalised twice, it is another: {text:?}");
    assert_eq!(Email::parse(&format!(" {text}\t")).as_ref(), Ok(&email), "{text:?}");
    assert_eq!(Email::parse(&text.to_ascii_uppercase()).as_ref(), Ok(&email), "{text:?}");
    assert!(normal.len() <= Email::MAX_BYTES, "{normal:?}");
    let (local, domain) = normal.split_once('@').expect("one at");
    assert_eq!(local, email.local_part());
    assert!(!local.is_empty() && !domain.is_empty() && !domain.contains('@'), "{normal:?}");
    assert!(!normal.contains(|c: char| c.is_whitespace() || c.is_control()), "{normal:?}");
    assert!(!normal.contains(['<', '>', ',', ';', '"']), "{normal:?}");
    let is_of_a_domain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    assert!(domain.bytes().all(is_of_a_domain), "{normal:?}");
    assert!(domain.split('.').all(|label| (1..=63).contains(&label.len())), "{normal:?}");
    // The table has it as JSON has it.
    let json = serde_json::to_string(&email).expect("a text");
    assert_eq!(serde_json::from_str::<Email>(&json).ok().as_ref(), Some(&email));
});
