//! The page: one file without anything from elsewhere, under a policy that lets nothing else run.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The whole page.
pub(super) const PAGE: &str = include_str!("page.html");

/// Its Content-Security-Policy: its own script and style, by their digests, and questions to where it came from.
pub(super) fn policy() -> String {
    let of = |element: &str| STANDARD.encode(digest(&SHA256, within(element).as_bytes()));
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        of("script"),
        of("style"),
    )
}

/// The text of the page's only element of this name.
fn within(element: &str) -> &'static str {
    let (start, end) = (format!("<{element}>"), format!("</{element}>"));
    let after = PAGE.split_once(&*start).map_or("", |(_, after)| after);
    after.split_once(&*end).map_or("", |(within, _)| within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_script_and_one_style_and_nothing_from_elsewhere() {
        for element in ["script", "style"] {
            assert_eq!(PAGE.matches(&format!("<{element}")).count(), 1, "{element}");
            assert!(within(element).len() > 1000, "{element}");
        }
        for forbidden in [
            "http://",
            "https://",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            " style=\"",
            "eval(",
        ] {
            // The name of SVG is an address that nobody asks.
            let page = PAGE.replace("http://www.w3.org/2000/svg", "");
            assert!(!page.contains(forbidden), "{forbidden}");
        }
    }
}
