//! `pointsman explain`: asks a running picker why a request went where it went, and prints it as a person reads it.

mod table;

use crate::director::decisions::Explanation;
use clap::Args;
use reqwest::StatusCode;
use std::path::PathBuf;
use std::time::Duration;

/// Longest wait for the answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a request went where it went.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// Its id: `x-request-id` as the engine got it, or as `/debug/decisions` lists it.
    pub request_id: String,
    /// Where the picker's debug pages are.
    #[arg(long, value_name = "URL", default_value = "http://localhost:9090")]
    pub admin: String,
    /// File with the token that the debug pages ask for.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Print the JSON as it came.
    #[arg(long)]
    pub json: bool,
}

/// Why there is no explanation.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The token cannot be read.
    #[error("--token-file {}: {cause}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// The picker cannot be asked.
    #[error("{url}: {cause}; is this where the picker's metrics port (or --admin-address) is?")]
    Ask {
        /// What was asked for.
        url: String,
        /// Why. Not a `source`: the message says it already.
        cause: String,
    },
    /// The picker says no.
    #[error("{url}: {status}: {text}")]
    Refused {
        /// What was asked for.
        url: String,
        /// Status of the answer.
        status: StatusCode,
        /// What it said.
        text: String,
    },
    /// Not what a picker says.
    #[error("{url}: not the answer of a picker of this release: {cause}")]
    Answer {
        /// What was asked for.
        url: String,
        /// Why.
        cause: serde_json::Error,
    },
}

/// Asks, and returns what is to be printed.
///
/// # Errors
/// When the picker cannot be asked, or does not know the request any more.
pub async fn run(args: ExplainArgs) -> Result<String, ExplainError> {
    let base = if args.admin.contains("://") { args.admin.clone() } else { format!("http://{}", args.admin) };
    let url = format!("{}/debug/decisions/{}", base.trim_end_matches('/'), escaped(&args.request_id));
    let ask = |cause: reqwest::Error| ExplainError::Ask { url: url.clone(), cause: innermost(&cause) };
    let client = reqwest::Client::builder().timeout(TIMEOUT).build().map_err(ask)?;
    let mut request = client.get(&url);
    if let Some(path) = &args.token_file {
        let token = std::fs::read_to_string(path)
            .map_err(|cause| ExplainError::Token { path: path.clone(), cause })?;
        request = request.bearer_auth(token.trim());
    }
    let answer = request.send().await.map_err(ask)?;
    let status = answer.status();
    let text = answer.text().await.map_err(ask)?;
    if !status.is_success() {
        return Err(ExplainError::Refused { url, status, text: text.trim().to_owned() });
    }
    if args.json {
        return Ok(text);
    }
    let explanation: Explanation =
        serde_json::from_str(&text).map_err(|cause| ExplainError::Answer { url, cause })?;
    Ok(table::table(&explanation))
}

/// The cause at the bottom: what is above it repeats the address.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// A request id as a part of a path.
fn escaped(id: &str) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.~".contains(b);
    id.bytes().map(|b| if plain(&b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_may_hold_anything() {
        assert_eq!(escaped("a-1_b"), "a-1_b");
        assert_eq!(escaped("a/b é"), "a%2Fb%20%C3%A9");
    }

    #[tokio::test]
    async fn where_nobody_listens_the_url_and_the_cause_are_said() {
        let args = ExplainArgs {
            request_id: "x".to_owned(),
            admin: "localhost:1".to_owned(),
            token_file: None,
            json: false,
        };
        let error = run(args).await.unwrap_err().to_string();
        assert!(
            error.starts_with("http://localhost:1/debug/decisions/x: ") && error.contains("refused"),
            "{error}"
        );
    }
}
