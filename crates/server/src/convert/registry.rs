//! Who asks a registry, and for which platform, as the API says it.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use capsa_api::types::AuthConfig;
use capsa_engine::options::Credentials;
use capsa_oci::Platform;

use crate::error::{ApiError, Result};
use crate::request::Call;

const HEADER: &str = "x-registry-auth";
/// Clients differ in whether they fill up.
const ENCODING: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The credentials of a request; none when there are none, or when they can't be read:
/// clients send all kinds of things to say that they have none.
pub(crate) fn credentials(call: &Call) -> Option<Credentials> {
    decode(call.headers.get(HEADER)?.as_bytes())
}

fn decode(value: &[u8]) -> Option<Credentials> {
    // Some write the standard alphabet.
    let value: Vec<u8> = value
        .iter()
        .map(|byte| match byte {
            b'+' => b'-',
            b'/' => b'_',
            other => *other,
        })
        .collect();
    let text = ENCODING.decode(value).ok()?;
    given(serde_json::from_slice(&text).ok()?)
}

/// What of it says who somebody is.
pub(crate) fn given(auth: AuthConfig) -> Option<Credentials> {
    if !auth.identity_token.is_empty() {
        return Some(Credentials::Identity(auth.identity_token));
    }
    if !auth.registry_token.is_empty() {
        return Some(Credentials::Bearer(auth.registry_token));
    }
    let (username, password) = (auth.username, auth.password);
    (!username.is_empty()).then_some(Credentials::Password { username, password })
}

/// `linux/arm64/v8`, or JSON as newer clients send it; none when it is empty.
pub(crate) fn platform(text: &str) -> Result<Option<Platform>> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || ApiError::bad_request(format!("invalid platform: {text:?}"));
    if text.starts_with('{') {
        return serde_json::from_str(text).map(Some).map_err(|_| wrong());
    }
    let mut parts = text.split('/').map(str::to_ascii_lowercase);
    let (Some(os), Some(architecture)) = (parts.next(), parts.next()) else { return Err(wrong()) };
    let variant = parts.next();
    let empty = |part: &String| part.is_empty();
    if parts.next().is_some() || empty(&os) || empty(&architecture) {
        return Err(wrong());
    }
    let architecture = match architecture.as_str() {
        "x86_64" | "x86-64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        _ => architecture,
    };
    Ok(Some(Platform { architecture, os, variant, os_version: None }))
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;

    #[test]
    fn credentials_come_in_either_alphabet_filled_or_not() {
        let json = r#"{"username":"me??>","password":"p~~~>"}"#;
        let wanted = Credentials::Password { username: "me??>".into(), password: "p~~~>".into() };
        for text in [STANDARD.encode(json), URL_SAFE_NO_PAD.encode(json)] {
            assert_eq!(decode(text.as_bytes()), Some(wanted.clone()));
        }
        let token = URL_SAFE_NO_PAD.encode(r#"{"identitytoken":"t"}"#);
        assert_eq!(decode(token.as_bytes()), Some(Credentials::Identity("t".into())));
        for none in [URL_SAFE_NO_PAD.encode("{}"), "***".to_owned(), String::new()] {
            assert_eq!(decode(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn platforms_are_words_or_json() {
        let shown = |text: &str| {
            platform(text).map(|found| found.map(|p| (p.os, p.architecture, p.variant)))
        };
        assert_eq!(shown("").unwrap(), None);
        let arm = Some(("linux".into(), "arm64".into(), Some("v8".to_owned())));
        assert_eq!(shown("linux/aarch64/v8").unwrap(), arm);
        assert_eq!(shown(r#"{"os":"linux","architecture":"arm64","variant":"v8"}"#).unwrap(), arm);
        for bad in ["linux", "/amd64", "linux/", "a/b/c/d", "{"] {
            assert!(shown(bad).is_err(), "{bad}");
        }
    }
}
