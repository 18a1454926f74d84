//! The tags of a repository, page by page (distribution spec, listing tags).

use capsa_oci::Reference;
use serde::Deserialize;

use super::endpoint::endpoints;
use super::session::{Call, Outcome, Session};
use super::wire::header;
use super::{Access, Client, Step};
use crate::Result;

const PAGE: usize = 1000;
const PAGE_BYTES_MAX: u64 = 8 << 20;
const TAGS_MAX: usize = 200_000;

#[derive(Deserialize)]
struct Page {
    tags: Option<Vec<String>>,
}

impl Client {
    /// All tags of the repository of `reference`, in the registry's order.
    ///
    /// # Errors
    /// [`crate::Error::Registry`].
    pub fn tags(&self, reference: &Reference, access: &Access) -> Result<Vec<Reference>> {
        let endpoints = endpoints(self.config(), reference.domain());
        let tags = self.first(&endpoints, reference, access, list)?.1;
        // What is no tag can't be asked for either.
        Ok(tags.iter().filter_map(|tag| reference.with_tag(tag).ok()).collect())
    }
}

fn list(session: &Session) -> Outcome<Vec<String>> {
    let mut tags = Vec::new();
    let mut url = super::url::with_query(&session.url("tags/list"), "n", &PAGE.to_string());
    loop {
        let mut call = Call::get(url.clone(), Step::Tags);
        let link = |answer: &_| header(answer, "link").map(str::to_owned);
        let (link, bytes) = session.fetch(&mut call, PAGE_BYTES_MAX, link)?;
        let page: Page = serde_json::from_slice(&bytes)
            .map_err(|error| session.invalid(&Step::Tags, error.to_string()))?;
        let page = page.tags.unwrap_or_default();
        let empty = page.is_empty();
        tags.extend(page);
        let next = link.as_deref().and_then(next).and_then(|next| super::url::join(&url, next));
        match next {
            // A page without tags would be followed by another for ever.
            Some(next) if !empty && next != url && tags.len() < TAGS_MAX => url = next,
            _ => return Ok(tags),
        }
    }
}

/// The target of `<target>; rel="next"` (RFC 8288).
fn next(link: &str) -> Option<&str> {
    link.split(',').find_map(|part| {
        let (target, params) = part.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = params.split(';').any(|param| {
            let param = param.trim().to_ascii_lowercase();
            matches!(param.strip_prefix("rel="), Some("next" | "\"next\""))
        });
        is_next.then_some(target)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_the_link_that_says_so() {
        assert_eq!(
            next(r#"</v2/a/tags/list?last=x&n=2>; rel="next""#),
            Some("/v2/a/tags/list?last=x&n=2")
        );
        assert_eq!(next(r#"<a>; rel="prev", <b>; REL=next"#), Some("b"));
        for none in ["", "<a>", "a; rel=next", "<a; rel=next"] {
            assert_eq!(next(none), None, "{none}");
        }
    }
}
