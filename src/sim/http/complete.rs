//! Running generations and telling the client about them, plain or as server-sent events.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures::stream::{BoxStream, SelectAll, StreamExt};
use http::{HeaderValue, Response, StatusCode, header};

use super::app::App;
use super::prepare::{Api, Prepared};
use super::reply::{Dropped, Failure, json_response, typed};
use super::shape::{Chunk, Shape, Usage};
use crate::sim::driver::{Generation, unix_now};
use crate::sim::engine::FinishReason;
use crate::sim::text::Answer;

/// A generation under way and what it says.
struct Choice {
    index: usize,
    generation: Generation,
    answer: Answer,
    total: u32,
    end: FinishReason,
    /// Tokens told so far.
    told: u32,
    /// Tokens of one event, but for the first and the last.
    interval: u32,
    /// Tokens after which the connection is closed, by fault.
    dies_after: Option<u32>,
}

/// Submits all jobs and answers when they are done, or as they go on.
pub async fn answer(
    app: &Arc<App>,
    api: Api,
    id: &str,
    prepared: Prepared,
) -> Result<Response<Body>, Failure> {
    let shape = Shape::new(api, id, &prepared.model, unix_now() as u64, prepared.max_tokens);
    let usage = Usage { prompt: prepared.prompt_tokens(), completion: prepared.output_tokens(), cached: 0 };
    let dies_after = app.faults.borrow().die_after_tokens;
    let interval = app.config.stream_interval.max(1);
    let mut choices = Vec::with_capacity(prepared.jobs.len());
    for (index, job) in prepared.jobs.into_iter().enumerate() {
        let (total, end) = (job.request.output_tokens, job.request.natural_end);
        let generation = app.driver.submit(job.request).await?;
        choices.push(Choice {
            index,
            generation,
            answer: job.answer,
            total,
            end,
            told: 0,
            interval,
            dies_after,
        });
    }
    if prepared.stream {
        return Ok(stream(shape, usage, choices, prepared.include_usage));
    }
    plain(&shape, usage, choices).await
}

async fn plain(shape: &Shape, mut usage: Usage, choices: Vec<Choice>) -> Result<Response<Body>, Failure> {
    let mut texts = Vec::with_capacity(choices.len());
    for mut choice in choices {
        let dies = choice.dies_after.filter(|n| *n < choice.total);
        let progress = match dies {
            Some(tokens) => choice.generation.beyond(tokens.saturating_sub(1)).await?,
            None => choice.generation.finish().await?,
        };
        usage.cached += u64::from(progress.cached_tokens);
        texts.push((choice.answer.text(0, choice.total), choice.end));
        if dies.is_some() {
            let whole = shape.plain(&texts, usage).to_string();
            return Ok(cut_short(whole));
        }
    }
    Ok(json_response(StatusCode::OK, &shape.plain(&texts, usage)))
}

/// The first half of an answer, and then the end of the connection.
fn cut_short(whole: String) -> Response<Body> {
    let half = Bytes::from(whole).split_to(64);
    let end = futures::stream::once(last_gasp()).map(Err::<Bytes, _>);
    let mut response = Response::new(Body::from_stream(futures::stream::iter([Ok(half)]).chain(end)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Waits until what was written before has left, since a closed connection takes its buffer along.
async fn last_gasp() -> Dropped {
    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    Dropped
}

/// The state of an event stream.
struct Streaming {
    shape: Shape,
    usage: Usage,
    include_usage: bool,
    choices: SelectAll<BoxStream<'static, Result<Chunk, Dropped>>>,
    opened: bool,
    ended: bool,
}

fn stream(shape: Shape, usage: Usage, choices: Vec<Choice>, include_usage: bool) -> Response<Body> {
    let choices = futures::stream::select_all(choices.into_iter().map(|c| chunks(c).boxed()));
    let state = Streaming { shape, usage, include_usage, choices, opened: false, ended: false };
    let events = futures::stream::unfold(state, |mut state| async move {
        let next = state.next().await?;
        Some((next, state))
    });
    let mut response = typed(StatusCode::OK, "text/event-stream; charset=utf-8", "");
    *response.body_mut() = Body::from_stream(events);
    response
}

impl Streaming {
    async fn next(&mut self) -> Option<Result<Bytes, Dropped>> {
        if self.ended {
            return None;
        }
        let mut out = String::new();
        match self.choices.next().await {
            Some(Ok(chunk)) => {
                if chunk.first {
                    self.usage.cached += u64::from(chunk.cached);
                }
                if !std::mem::replace(&mut self.opened, true) {
                    self.shape.opening(&mut out);
                }
                self.shape.chunk(&chunk, &mut out);
            }
            Some(Err(dropped)) => {
                self.ended = true;
                return Some(Err(dropped));
            }
            None => {
                self.ended = true;
                self.shape.closing(self.usage, self.include_usage, &mut out);
            }
        }
        Some(Ok(out.into()))
    }
}

/// A choice as its tokens come; those that came together come in one chunk.
fn chunks(choice: Choice) -> impl futures::Stream<Item = Result<Chunk, Dropped>> + Send {
    futures::stream::unfold(Some(choice), |choice| async move {
        let mut choice = choice?;
        let told = choice.told;
        if told == choice.total {
            return None;
        }
        if choice.dies_after.is_some_and(|n| told >= n) {
            return Some((Err(last_gasp().await), None));
        }
        let wanted = if told == 0 { 0 } else { told + choice.interval - 1 };
        let wanted = wanted.min(choice.dies_after.map_or(u32::MAX, |n| n.saturating_sub(1)));
        let Ok(progress) = choice.generation.beyond(wanted).await else { return Some((Err(Dropped), None)) };
        let upto = progress.generated.min(choice.dies_after.unwrap_or(u32::MAX)).min(choice.total);
        choice.told = upto;
        let chunk = Chunk {
            index: choice.index,
            texts: (told..upto)
                .step_by(choice.interval as usize)
                .map(|i| choice.answer.text(i, upto.min(i + choice.interval)))
                .collect(),
            first: told == 0,
            end: (upto == choice.total).then_some(choice.end),
            cached: progress.cached_tokens,
        };
        Some((Ok(chunk), Some(choice)))
    })
}
