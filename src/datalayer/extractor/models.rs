//! `models-data-extractor`: the models that an engine lists at `/v1/models`.
//!
//! ```yaml
//! - type: models-data-extractor
//! ```
//!
//! No parameters; what is given is ignored, as older configurations expect.

use crate::plugin::{BuildContext, BuildError, ExtractorSpec, PluginType, Roles, Stability};
use serde::Deserialize;
use std::sync::Arc;

/// Most models taken from one page; an engine lists its base model and its adapters.
const MAX_MODELS: usize = 16_384;

#[derive(Deserialize)]
struct Page {
    data: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    id: Arc<str>,
}

/// Reads the page; the names come in its order.
pub(crate) fn read(page: &[u8]) -> Result<Vec<Arc<str>>, serde_json::Error> {
    let page: Page = serde_json::from_slice(page)?;
    Ok(page.data.into_iter().take(MAX_MODELS).map(|entry| entry.id).collect())
}

fn build(_context: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    Ok(Roles { extractor: Some(ExtractorSpec::Models), ..Roles::default() })
}

/// The plugin types of this file.
pub const TABLE: &[PluginType] =
    &[PluginType { name: "models-data-extractor", stability: Stability::Beta, build }];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_page_is_read() {
        let page = include_bytes!("../../../tests/fixtures/vllm/models.json");
        assert_eq!(read(page).unwrap(), [Arc::from("tiny")]);
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        for page in ["", "{}", "<html>", r#"{"data":[{}]}"#, r#"{"data":{"id":"a"}}"#] {
            assert!(read(page.as_bytes()).is_err(), "{page} was taken");
        }
        assert!(read(br#"{"data":[]}"#).unwrap().is_empty());
    }
}
