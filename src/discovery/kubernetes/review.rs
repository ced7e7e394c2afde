//! Asks the API who a token is and whether that one may read a page (TokenReview, then SubjectAccessReview).
//!
//! Answers are remembered for a short while, so that a scrape costs no request. While the API is away, who was allowed
//! not long ago stays allowed: metrics are needed most then.

use super::standing::Fault;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long an answer counts.
const ALLOWED_FOR: Duration = Duration::from_secs(60);
/// How long a refusal counts.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// How long who was allowed stays allowed while the API cannot be asked.
const ALLOWED_WITHOUT_API: Duration = Duration::from_secs(600);
/// How long the API may take for one review.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Answers that are remembered; beyond that all are forgotten, which only costs requests.
const REMEMBERED: usize = 512;

/// What a review says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The holder may.
    Allowed,
    /// Nobody knows the token.
    Unknown,
    /// The holder may not.
    Forbidden,
}

/// Two differently keyed hashes of a token with a page: the token itself is not kept.
type Key = (u64, u64);

/// Reviews by the API.
pub struct Reviews {
    client: Client,
    keys: (RandomState, RandomState),
    known: Mutex<HashMap<Key, (Access, Instant)>>,
}

impl Reviews {
    /// Reviews through `client`, which needs `create` on tokenreviews and subjectaccessreviews.
    pub fn new(client: Client) -> Self {
        Self { client, keys: (RandomState::new(), RandomState::new()), known: Mutex::default() }
    }

    /// Whether the holder of `token` may `GET` the page `path`; an error says why nobody can tell.
    pub async fn review(&self, token: &str, path: &str) -> Result<Access, String> {
        let key = (self.keys.0.hash_one((token, path)), self.keys.1.hash_one((path, token)));
        let known = self.known.lock().get(&key).copied();
        let age = known.map(|(_, at)| at.elapsed());
        match (known, age) {
            (Some((Access::Allowed, _)), Some(age)) if age < ALLOWED_FOR => return Ok(Access::Allowed),
            (Some((refused, _)), Some(age)) if refused != Access::Allowed && age < REFUSED_FOR => {
                return Ok(refused);
            }
            _ => {}
        }
        let asked = timeout(ANSWER_WITHIN, self.ask(token, path)).await;
        let asked = asked.unwrap_or_else(|_late| Err(Fault::timeout(ANSWER_WITHIN)));
        match (asked, known, age) {
            (Ok(access), ..) => {
                let mut all = self.known.lock();
                if all.len() >= REMEMBERED {
                    all.clear();
                }
                all.insert(key, (access, Instant::now()));
                Ok(access)
            }
            (Err(_), Some((Access::Allowed, _)), Some(age)) if age < ALLOWED_WITHOUT_API => {
                Ok(Access::Allowed)
            }
            (Err(fault), ..) => Err(fault.message),
        }
    }

    async fn ask(&self, token: &str, path: &str) -> Result<Access, Fault> {
        let spec = TokenReviewSpec { token: Some(token.to_owned()), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let tokens: Api<TokenReview> = Api::all(self.client.clone());
        let status = tokens.create(&PostParams::default(), &review).await?.status.unwrap_or_default();
        let (Some(true), Some(user)) = (status.authenticated, status.user) else {
            return Ok(Access::Unknown);
        };
        let UserInfo { username, groups, extra, uid } = user;
        let page = NonResourceAttributes { path: Some(path.to_owned()), verb: Some("get".to_owned()) };
        let spec = SubjectAccessReviewSpec {
            user: username,
            groups,
            uid,
            extra,
            non_resource_attributes: Some(page),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let accesses: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let status = accesses.create(&PostParams::default(), &review).await?.status.unwrap_or_default();
        let allowed = status.allowed && status.denied != Some(true);
        Ok(if allowed { Access::Allowed } else { Access::Forbidden })
    }
}
